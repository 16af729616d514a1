//! Who the agent is to the API: a kubeconfig or the pod's service account, read again now and then, since tokens and
//! certificates are replaced while it runs.
//!
//! Invariant: no secret reaches a log, an error or `Debug`.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use hyper::header::HeaderValue;
use kube::{
    Config,
    client::ConfigExt,
    config::{AuthInfo, KubeConfigOptions, Kubeconfig},
};
use rustls::{ClientConfig, RootCertStore, client::danger::ServerCertVerifier, pki_types::CertificateDer};
use secrecy::ExposeSecret;

use super::{AccessError, chain, verify::Vouched};
use crate::tls::{Anybody, Verifier};

/// Where the credentials are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Credentials {
    /// A kubeconfig file: its current context. It may appear after the start.
    Kubeconfig(PathBuf),
    /// The pod's service account, at its usual place.
    InCluster,
}

/// Credentials that were read.
pub(super) struct Loaded {
    /// Host and port of the server that they name.
    pub(super) authority: String,
    /// TLS, absent for `http`.
    pub(super) tls: Option<Tls>,
    /// `Authorization`, marked as sensitive.
    pub(super) authorization: Option<HeaderValue>,
}

/// How to shake hands.
pub(super) struct Tls {
    /// Authority, client certificate, protocols.
    pub(super) config: Arc<ClientConfig>,
    /// The name to ask for and to verify instead of the address.
    pub(super) server_name: Option<String>,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").field("authority", &self.authority).finish_non_exhaustive()
    }
}

impl fmt::Display for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kubeconfig(path) => write!(f, "kubeconfig {}", path.display()),
            Self::InCluster => f.write_str("service account of the pod"),
        }
    }
}

impl Credentials {
    /// Reads them.
    pub(super) async fn load(&self) -> Result<Loaded, AccessError> {
        let config = match self {
            Self::Kubeconfig(path) => from_file(path).await,
            Self::InCluster => Config::incluster().map_err(|error| chain(&error)),
        };
        config
            .and_then(|config| loaded(&config))
            .map_err(|why| AccessError::Credentials { what: self.to_string(), why })
    }
}

async fn from_file(path: &Path) -> Result<Config, String> {
    let kubeconfig = Kubeconfig::read_from(path).map_err(|error| chain(&error))?;
    let options = KubeConfigOptions::default();
    Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| chain(&error))
}

fn loaded(config: &Config) -> Result<Loaded, String> {
    refuse_unsupported(config)?;
    let url = &config.cluster_url;
    let host = url.host().ok_or("its server is no URL with a host; write https://HOST:PORT")?;
    let (tls, port) = match url.scheme_str() {
        Some("https") => (Some(tls(config)?), 443),
        Some("http") => (None, 80),
        _ => return Err("its server is no URL with https; write https://HOST:PORT".to_owned()),
    };
    let authority = format!("{host}:{}", url.port_u16().unwrap_or(port));
    Ok(Loaded { authority, tls, authorization: authorization(&config.auth_info)? })
}

/// Refuses what would be ignored in silence else.
fn refuse_unsupported(config: &Config) -> Result<(), String> {
    let auth = &config.auth_info;
    let what = if auth.exec.is_some() {
        "runs a program for its credentials (`exec`)"
    } else if auth.auth_provider.is_some() {
        "names an `auth-provider`"
    } else if auth.username.is_some() || auth.password.is_some() {
        "has a user name and password"
    } else if auth.impersonate.is_some() || auth.impersonate_groups.is_some() {
        "acts as somebody else (`as`)"
    } else if config.proxy_url.is_some() {
        "names a proxy"
    } else if config.cluster_url.path() != "/" {
        "names a server with a path"
    } else {
        return Ok(());
    };
    let instead = "write https://HOST:PORT, and a token, a token file or a client certificate";
    Err(format!("it {what}, which is not supported; {instead}"))
}

fn tls(config: &Config) -> Result<Tls, String> {
    let mut config = config.clone();
    let verifier: Arc<dyn ServerCertVerifier> = if config.accept_invalid_certs {
        Arc::new(Verifier::new(Anybody))
    } else {
        let authorities = config.root_cert.as_ref().ok_or(
            "it names no authority; add `certificate-authority` or `certificate-authority-data` with the cluster's CA",
        )?;
        let mut roots = RootCertStore::empty();
        for der in authorities {
            roots.add(CertificateDer::from(der.as_slice())).map_err(|error| format!("its authority: {error}"))?;
        }
        Arc::new(Verifier::new(Vouched::new(roots).map_err(|error| format!("its authority: {error}"))?))
    };
    config.root_cert.get_or_insert_default();
    config.root_cert_file = None; // all is read again from time to time
    let mut client =
        config.rustls_client_config().map_err(|error| format!("its client certificate: {}", chain(&error)))?;
    client.dangerous().set_certificate_verifier(verifier);
    client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Tls { config: Arc::new(client), server_name: config.tls_server_name.clone() })
}

fn authorization(auth: &AuthInfo) -> Result<Option<HeaderValue>, String> {
    let token = match (&auth.token, &auth.token_file) {
        (Some(token), _) => token.expose_secret().to_owned(),
        (None, Some(path)) => {
            std::fs::read_to_string(path).map_err(|error| format!("its token file {path} can't be read: {error}"))?
        }
        (None, None) => return Ok(None),
    };
    let value = HeaderValue::from_str(&format!("Bearer {}", token.trim()));
    let mut value = value.map_err(|_| "its token has characters that no token has".to_owned())?;
    value.set_sensitive(true);
    Ok(Some(value))
}

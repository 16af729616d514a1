//! The TLS part of a probe: a handshake as a client that resumes nothing, so that every probe sees the certificate.

use std::{io, sync::Arc};

use rustls::{
    AlertDescription, CertificateError, ClientConfig, Error, InvalidMessage, RootCertStore,
    client::Resumption,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    model::{ProbeTarget, TlsProbe, Trust},
    tls::{Anybody, Verifier},
};

/// A TLS client for one target.
pub(super) struct Client {
    connector: TlsConnector,
    name: ServerName<'static>,
    shown: String,
}

impl Client {
    /// The client for a target, or why there can be none.
    pub(super) fn new(target: &ProbeTarget, tls: &TlsProbe) -> Result<Self, String> {
        let shown = tls.server_name.clone().unwrap_or_else(|| target.address.to_string());
        let name = match &tls.server_name {
            Some(name) => ServerName::try_from(name.clone()).map_err(|error| error.to_string())?,
            None => ServerName::from(target.address),
        };
        let config = client_config(tls).map_err(|error| error.to_string())?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name, shown })
    }

    /// Shakes hands; why it failed as a few words.
    pub(super) async fn connect(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, String> {
        self.connector.connect(self.name.clone(), stream).await.map_err(|error| self.reason(&error))
    }

    fn reason(&self, error: &io::Error) -> String {
        let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
            return format!("TLS handshake: {error}");
        };
        match tls {
            // A bad signature: an authority of that name is known, but with another key.
            Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
                "the server's certificate is not signed by an authority in `caFile`".to_owned()
            }
            Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => format!("the server's certificate is not for {}; name what it is for in `serverName`", self.shown),
            Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
                "the server's certificate has expired".to_owned()
            }
            Error::InvalidCertificate(cause) => format!("the server's certificate is not accepted: {cause}"),
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => "the server does not speak TLS".to_owned(),
            Error::AlertReceived(AlertDescription::CertificateRequired) => {
                "the server wants credentials: a client certificate; name one in `clientCertFile`".to_owned()
            }
            other => format!("TLS handshake: {other}"),
        }
    }
}

fn client_config(tls: &TlsProbe) -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = match &tls.trust {
        Trust::Anybody => builder.dangerous().with_custom_certificate_verifier(Arc::new(Verifier::new(Anybody))),
        Trust::Authorities(certificates) => builder.with_root_certificates(roots(certificates)?),
    };
    let mut config = match &tls.credentials.identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let key =
                PrivateKeyDer::from_pem_slice(&identity.key).map_err(|error| Error::General(error.to_string()))?;
            let chain = identity.chain.iter().map(|certificate| CertificateDer::from(certificate.clone())).collect();
            builder.with_client_auth_cert(chain, key)?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn roots(certificates: &[Vec<u8>]) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    certificates.iter().try_for_each(|certificate| roots.add(CertificateDer::from(certificate.as_slice())))?;
    Ok(roots)
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;

//! How a client gets in: who it is, and the kubeconfig or the client that says so.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use netns_tests::{
    authority::{Authority, Identity},
    scope::Scope,
};
use rustls::ClientConfig;
use serde_json::{Value, json};

/// The name that clients verify servers as, by whatever address they reach them.
pub const SERVER_NAME: &str = "kubernetes.default.svc";
/// The group that may do everything.
const MASTERS: &str = "system:masters";

/// A client's claim of who it is.
#[derive(Clone, Debug)]
pub enum User {
    /// A certificate and its key, in files.
    Certificate(Identity),
    /// A bearer token.
    Token(String),
    /// Nobody: `system:anonymous`.
    Anonymous,
}

/// The CA of a cluster, its administrator, and the key that signs the tokens of service accounts.
#[derive(Debug)]
pub struct Keys {
    authority: Authority,
    /// Certificate of the CA, PEM.
    pub ca: PathBuf,
    /// Key that signs tokens, PEM.
    pub token_key: PathBuf,
    /// Its public half, PEM.
    pub token_public_key: PathBuf,
    /// May do everything.
    pub admin: User,
    /// The administrator's certificate and key.
    pub admin_identity: Identity,
}

impl Keys {
    /// Makes all of it in files of the scope.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn new(scope: &Scope) -> Result<Self> {
        let authority = Authority::new()?;
        let ca = authority.certificate(scope)?;
        let pair = rcgen::KeyPair::generate().context("making the key of tokens")?;
        let (token_key, token_public_key) = (scope.file("tokens.key"), scope.file("tokens.pub"));
        fs::write(&token_key, pair.serialize_pem()).context("writing the key of tokens")?;
        fs::write(&token_public_key, pair.public_key_pem()).context("writing the public key of tokens")?;
        let admin_identity = authority.issue_client(scope, "admin", "admin", MASTERS)?;
        let admin = User::Certificate(admin_identity.clone());
        Ok(Self { authority, ca, token_key, token_public_key, admin, admin_identity })
    }

    /// TLS settings of a client that trusts this CA only, whose every connection is new.
    ///
    /// # Errors
    /// As [`Authority::client_config`].
    pub fn client_config(&self) -> Result<Arc<ClientConfig>> {
        self.authority.client_config()
    }

    /// A user by certificate, of one group.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn user(&self, scope: &Scope, name: &str, group: &str) -> Result<User> {
        let file = format!("user-{}", name.replace([':', '/'], "-"));
        self.authority.issue_client(scope, &file, name, group).map(User::Certificate)
    }

    /// A server's certificate for [`SERVER_NAME`] and `addresses`, in files named after `name`.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn server(&self, scope: &Scope, name: &str, addresses: &[IpAddr]) -> Result<Identity> {
        self.authority.issue_for(scope, name, &[SERVER_NAME], addresses)
    }
}

/// A server to get in at.
#[derive(Clone, Debug)]
pub struct Access {
    /// Its address and port; a VIP, say.
    pub address: SocketAddr,
    /// The CA that its certificate is verified by, PEM.
    pub ca: PathBuf,
}

impl Access {
    /// Of a server whose certificate the CA of `keys` signed.
    #[must_use]
    pub fn new(address: SocketAddr, keys: &Keys) -> Self {
        Self { address, ca: keys.ca.clone() }
    }

    /// Writes a kubeconfig for `user` into the file `name` of the scope.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn kubeconfig(&self, scope: &Scope, name: &str, user: &User) -> Result<PathBuf> {
        let path = scope.file(name);
        fs::write(&path, self.document(user).to_string()).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// A client for `user`, which does not try again by itself. Its connections begin in the namespace of the thread that
    /// makes them.
    ///
    /// # Errors
    /// If a file of the user or the CA cannot be read.
    pub async fn client(&self, user: &User) -> Result<Client> {
        let document = Kubeconfig::from_yaml(&self.document(user).to_string()).context("reading our own kubeconfig")?;
        let options = KubeConfigOptions::default();
        let mut config =
            Config::from_custom_kubeconfig(document, &options).await.context("using our own kubeconfig")?;
        config.default_retry = false;
        Client::try_from(config).context("making a client")
    }

    /// The kubeconfig; JSON, which is YAML as well.
    fn document(&self, user: &User) -> Value {
        let login = match user {
            User::Certificate(Identity { certificate, key }) => {
                json!({ "client-certificate": shown(certificate), "client-key": shown(key) })
            }
            User::Token(token) => json!({ "token": token }),
            User::Anonymous => json!({}),
        };
        let server = format!("https://{}", self.address);
        let cluster =
            json!({ "server": server, "certificate-authority": shown(&self.ca), "tls-server-name": SERVER_NAME });
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "test", "cluster": cluster }],
            "users": [{ "name": "test", "user": login }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
            "current-context": "test",
        })
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

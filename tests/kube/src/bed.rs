//! One etcd and one API server on an own loopback address: what most tests need.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{Namespace, ServiceAccount},
};
use kube::{
    Api, Client, ResourceExt,
    api::{ObjectMeta, PostParams},
};
use netns_tests::scope::{Scope, sweep};

use crate::{
    access::{Access, Keys, User},
    assets::Assets,
    definitions::install_slices,
    etcd::Etcd,
    place::Place,
    server::{ApiServer, Settings},
};

/// How long a server may take to be ready: some times what it takes on an idle machine of two cores.
pub const START: Duration = Duration::from_secs(90);

/// The servers and their files. Fields go in their order: the scope with the files last.
#[derive(Debug)]
pub struct Bed {
    /// The API server.
    pub server: ApiServer,
    /// Its etcd.
    pub etcd: Etcd,
    /// Keys and certificates.
    pub keys: Keys,
    /// The programs.
    pub assets: Assets,
    /// Names and files.
    pub scope: Scope,
}

impl Bed {
    /// Starts both and waits until the API server is ready, `EndpointSlice` included.
    ///
    /// # Errors
    /// If a program is missing or does not get ready; with the end of its log.
    pub async fn start() -> Result<Self> {
        Self::start_with(&Settings::default()).await
    }

    /// As [`Bed::start`], with settings.
    ///
    /// # Errors
    /// As [`Bed::start`].
    pub async fn start_with(settings: &Settings) -> Result<Self> {
        sweep();
        let assets = Assets::find()?;
        let scope = Scope::new()?;
        let keys = Keys::new(&scope)?;
        let mut etcd = Etcd::single(&scope, &assets, "1", Place::loopback());
        etcd.start(&scope)?;
        etcd.ready(START).await?;
        let place = Place::loopback();
        let mut server = ApiServer::new(&scope, &assets, &keys, ("1", place), &[etcd.url()], settings)?;
        server.start(&scope)?;
        server.ready(START).await?;
        let bed = Self { server, etcd, keys, assets, scope };
        install_slices(&bed.admin().await?, &bed.assets).await?;
        Ok(bed)
    }

    /// The administrator's client.
    ///
    /// # Errors
    /// As [`Access::client`].
    pub async fn admin(&self) -> Result<Client> {
        self.server.admin().await
    }

    /// A client of another user.
    ///
    /// # Errors
    /// As [`Access::client`].
    pub async fn client(&self, user: &User) -> Result<Client> {
        self.access().client(user).await
    }

    /// How to get in.
    #[must_use]
    pub const fn access(&self) -> &Access {
        self.server.access()
    }
}

/// Makes a namespace; one that is there already is fine.
///
/// # Errors
/// If the server refuses.
pub async fn make_namespace(client: &Client, name: &str) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    let made = namespaces.create(&PostParams::default(), &Namespace { metadata, ..Namespace::default() }).await;
    exists(made).with_context(|| format!("making the namespace {name}"))
}

/// A token of a service account, which is made if it is not there; its groups are those of service accounts.
///
/// # Errors
/// If the server refuses.
pub async fn account_token(client: &Client, namespace: &str, name: &str) -> Result<User> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    let account = ServiceAccount { metadata, ..ServiceAccount::default() };
    exists(accounts.create(&PostParams::default(), &account).await)
        .with_context(|| format!("making the service account {namespace}/{name}"))?;
    let spec = TokenRequestSpec { audiences: Vec::new(), bound_object_ref: None, expiration_seconds: Some(3600) };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let answer = accounts.create_token_request(name, &PostParams::default(), &request).await;
    let status = answer.with_context(|| format!("asking for a token of {namespace}/{name}"))?.status;
    Ok(User::Token(status.context("the answer has no token")?.token))
}

/// Takes "it exists already" for success.
fn exists<T>(made: kube::Result<T>) -> kube::Result<()> {
    match made {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        other => other.map(drop),
    }
}

/// Labels of one pair.
#[must_use]
pub fn label(key: &str, value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(key.to_owned(), value.to_owned())])
}

/// `metadata.resourceVersion` of an object.
#[must_use]
pub fn version_of(object: &impl ResourceExt) -> String {
    object.resource_version().unwrap_or_default()
}

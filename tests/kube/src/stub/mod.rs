//! A stand-in for the API server with fault switches: objects in memory, served over HTTPS.
//!
//! It knows the resources that matter here ([`resources`]) and does what a real server does with requests for them, which
//! `tests/same.rs` compares on both. It neither validates objects nor asks for rights. A list is one field to server-side
//! apply, and the pages of a list show each the present.

mod answer;
pub mod faults;
mod handle;
mod patch;
mod query;
pub mod record;
pub mod resources;
mod selector;
mod shared;
pub mod status;
pub mod store;
mod watch;
mod write;

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use netns_tests::scope::Scope;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use serde_json::Value;
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Builder,
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::sleep,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    access::{Access, Keys, User},
    place::Place,
};
use faults::{Fault, FaultId, Only};
use record::Record;
use resources::{RESOURCES, Target};
pub use shared::Settings;
use shared::{Counted, Shared};
use status::Failure;
use store::Store;
use write::{Draft, write};

/// Pause after a connection that could not be accepted.
const PAUSE: Duration = Duration::from_millis(10);
/// The usual port.
const PORT: u16 = 6443;

/// A stand-in; dropping it closes every connection.
#[derive(Debug)]
pub struct Stub {
    access: Access,
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<(Command, oneshot::Sender<Result<()>>)>,
    thread: Option<thread::JoinHandle<()>>,
}

/// What the thread that accepts is told.
#[derive(Clone, Copy, Debug)]
enum Command {
    /// Accept nothing more and close what is open.
    Refuse,
    /// Accept.
    Accept,
    /// Close what is open.
    Disconnect,
}

impl Stub {
    /// Starts one with nothing in it. It serves from a thread of its own, so a test may block.
    ///
    /// # Errors
    /// If a key cannot be read or the port is taken.
    pub fn start(scope: &Scope, keys: &Keys, place: &Place, settings: Settings) -> Result<Self> {
        let port = place.port(PORT);
        let acceptor = TlsAcceptor::from(tls(scope, keys, place, port)?);
        let listener = place.listen(port)?;
        let shared = Arc::new(Shared::new(settings));
        let (commands, orders) = mpsc::unbounded_channel();
        let serving = Serving { place: place.clone(), port, acceptor, shared: Arc::clone(&shared) };
        let runtime = Builder::new_current_thread().enable_all().build().context("starting a runtime")?;
        let thread = thread::spawn(move || runtime.block_on(serving.run(listener, orders)));
        let access = Access::new(SocketAddr::new(place.address(), port), keys);
        let stub = Self { access, shared, commands, thread: Some(thread) };
        stub.know("admin", &keys.admin)?;
        Ok(stub)
    }

    /// How to get in.
    #[must_use]
    pub const fn access(&self) -> &Access {
        &self.access
    }

    /// Gives a user the name that records show. A token that is not known gets 401.
    ///
    /// # Errors
    /// If the certificate cannot be read.
    pub fn know(&self, name: &str, user: &User) -> Result<()> {
        let key = match user {
            User::Certificate(identity) => {
                let certificate = CertificateDer::from_pem_file(&identity.certificate);
                certificate.map_err(|error| anyhow!("reading {}: {error}", identity.certificate.display()))?.to_vec()
            }
            User::Token(token) => token.clone().into_bytes(),
            User::Anonymous => return Ok(()),
        };
        self.shared.users().insert(key, name.to_owned());
        Ok(())
    }

    /// Switches a fault on; of several for a request, the one switched on last counts.
    pub fn fault(&self, only: Only, fault: Fault) -> FaultId {
        self.shared.faults().add(only, fault)
    }

    /// Switches a fault off.
    pub fn heal(&self, fault: FaultId) {
        self.shared.faults().remove(fault);
    }

    /// Switches all faults off.
    pub fn heal_all(&self) {
        self.shared.faults().clear();
    }

    /// Refuses connections, and closes those that are open.
    ///
    /// # Errors
    /// If its thread has ended.
    pub async fn refuse(&self) -> Result<()> {
        self.command(Command::Refuse).await
    }

    /// Accepts connections again.
    ///
    /// # Errors
    /// If the port is taken.
    pub async fn accept(&self) -> Result<()> {
        self.command(Command::Accept).await
    }

    /// Closes the connections that are open.
    ///
    /// # Errors
    /// If its thread has ended.
    pub async fn disconnect(&self) -> Result<()> {
        self.command(Command::Disconnect).await
    }

    async fn command(&self, command: Command) -> Result<()> {
        let (done, answer) = oneshot::channel();
        self.commands.send((command, done)).map_err(|_| anyhow!("the stand-in has ended"))?;
        answer.await.context("the stand-in has ended")?
    }

    /// Makes or replaces an object past every fault and check; its path is that of the object.
    ///
    /// # Errors
    /// If the path is not of an object, or the object does not fit it.
    pub fn put(&self, path: &str, object: Value) -> Result<(), Failure> {
        let target = object_target(path)?;
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        self.shared.change(|store| put(store, &target, object, &now))
    }

    /// Removes an object past every fault.
    ///
    /// # Errors
    /// If the path is not of an object, or there is none.
    pub fn delete(&self, path: &str) -> Result<(), Failure> {
        let target = object_target(path)?;
        let draft = Draft::Delete { uid: None, version: None };
        self.shared.change(|store| write(store, &target, draft, "test", "")).map(drop)
    }

    /// An object as it is kept.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<Value> {
        let target = Target::parse(path)?;
        let key = (target.namespace.unwrap_or_default(), target.name?);
        self.shared.store().get(target.resource, &key).map(|object| object.value.clone())
    }

    /// All objects of a resource, by its name in paths, whatever its group.
    #[must_use]
    pub fn all(&self, plural: &str) -> Vec<Value> {
        let store = self.shared.store();
        let resources = RESOURCES.iter().filter(|resource| resource.plural == plural);
        resources
            .flat_map(|resource| store.list(resource, None, None))
            .map(|(_, object)| object.value.clone())
            .collect()
    }

    /// Version after the last change.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.shared.store().version()
    }

    /// Forgets the changes until now: whoever goes on from the last version or an earlier one gets 410, and watches that
    /// are open an event `ERROR` of it.
    pub fn compact(&self) {
        self.shared.change(Store::compact);
    }

    /// Forgets everything, versions included, as an etcd that is made anew; watches end.
    pub fn wipe(&self) {
        self.shared.change(Store::wipe);
    }

    /// Sends a bookmark to every watch that wants them.
    pub fn bookmark(&self) {
        self.shared.bookmarks.send_modify(|count| *count += 1);
    }

    /// The requests until now.
    #[must_use]
    pub fn requests(&self) -> Vec<Record> {
        self.shared.records().clone()
    }

    /// Forgets the requests until now.
    pub fn forget_requests(&self) {
        self.shared.records().clear();
    }

    /// Connections that are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Connections accepted until now.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        let (commands, _) = mpsc::unbounded_channel();
        drop(std::mem::replace(&mut self.commands, commands));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn object_target(path: &str) -> Result<Target, Failure> {
    Target::parse(path)
        .filter(|target| target.name.is_some())
        .ok_or_else(|| Failure::bad_request(format!("{path} names no object")))
}

/// Makes an object, status included, or makes it what it should be.
fn put(store: &mut Store, target: &Target, mut object: Value, now: &str) -> Result<(), Failure> {
    let key = (target.namespace.clone().unwrap_or_default(), target.name.clone().unwrap_or_default());
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
    }
    if store.get(target.resource, &key).is_none() {
        let target = Target { name: None, ..target.clone() };
        store::metadata(&mut object).insert("name".to_owned(), key.1.into());
        write(store, &target, Draft::Create(object.clone()), "test", now)?;
    } else {
        write(store, target, Draft::Merge(object.clone()), "test", now)?;
    }
    if target.resource.status && !object["status"].is_null() {
        let target = Target { status: true, ..target.clone() };
        write(store, &target, Draft::Merge(object), "test", now)?;
    }
    Ok(())
}

fn tls(scope: &Scope, keys: &Keys, place: &Place, port: u16) -> Result<Arc<ServerConfig>> {
    let addresses = [place.address(), place.own_address()];
    let identity = keys.server(scope, &format!("stub-{}-{port}", place.address()), &addresses)?;
    let certificate = |path| CertificateDer::from_pem_file(path).map_err(|error| anyhow!("a certificate: {error}"));
    let mut roots = RootCertStore::empty();
    roots.add(certificate(&keys.ca)?).context("trusting the CA")?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let verifier = verifier.allow_unauthenticated().build().context("verifying clients")?;
    let key = PrivateKeyDer::from_pem_file(&identity.key).map_err(|error| anyhow!("a key: {error}"))?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("choosing TLS versions")?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate(&identity.certificate)?], key)
        .context("using the certificate")?;
    Ok(Arc::new(config))
}

/// The thread that accepts and answers.
struct Serving {
    place: Place,
    port: u16,
    acceptor: TlsAcceptor,
    shared: Arc<Shared>,
}

impl Serving {
    async fn run(
        self,
        listener: std::net::TcpListener,
        mut orders: mpsc::UnboundedReceiver<(Command, oneshot::Sender<Result<()>>)>,
    ) {
        let mut listener = asynchronous(listener).ok();
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                order = orders.recv() => {
                    let Some((command, done)) = order else { return };
                    let result = self.perform(command, &mut listener, &mut connections).await;
                    let _ = done.send(result); // nobody waits for it any more
                }
                stream = accept(listener.as_ref()) => {
                    connections.spawn(serve(Arc::clone(&self.shared), self.acceptor.clone(), stream));
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }

    async fn perform(
        &self,
        command: Command,
        listener: &mut Option<TcpListener>,
        connections: &mut JoinSet<()>,
    ) -> Result<()> {
        match command {
            Command::Refuse => {
                *listener = None;
                connections.shutdown().await;
            }
            Command::Disconnect => connections.shutdown().await,
            Command::Accept if listener.is_some() => {}
            Command::Accept => *listener = Some(asynchronous(self.place.listen(self.port)?)?),
        }
        Ok(())
    }
}

fn asynchronous(listener: std::net::TcpListener) -> Result<TcpListener> {
    listener.set_nonblocking(true).context("listening without blocking")?;
    TcpListener::from_std(listener).context("listening")
}

/// The next connection; never while nothing is accepted.
async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    match listener {
        Some(listener) => loop {
            match listener.accept().await {
                Ok((stream, _)) => return stream,
                Err(_) => sleep(PAUSE).await, // the client has gone, or files have run out
            }
        },
        None => std::future::pending().await,
    }
}

/// One connection, until it ends.
async fn serve(shared: Arc<Shared>, acceptor: TlsAcceptor, stream: TcpStream) {
    let _counted = Counted::new(&shared);
    let (Ok(address), Ok(_)) = (stream.peer_addr(), stream.set_nodelay(true)) else { return };
    // A second handle on the socket: a reset is asked for when TLS has taken the first.
    let Ok(socket) = SockRef::from(&stream).try_clone() else { return };
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).map(|it| it.to_vec());
    let answer = |request| {
        // On its own: a request is performed even if its client does not wait for the answer.
        let answer = tokio::spawn(handle::handle(Arc::clone(&shared), certificate.clone(), address, request));
        let socket = &socket;
        async move {
            let answer = answer.await.unwrap_or(Err(handle::Reset));
            if answer.is_err() {
                let _ = socket.set_linger(Some(Duration::ZERO)); // closing it is a reset now
            }
            answer.map_err(|handle::Reset| anyhow!("told to reset the connection"))
        }
    };
    // How a connection ends is the client's business.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)).await;
}

use std::{
    convert::Infallible,
    fs,
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use futures::{StreamExt, TryStreamExt};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Bytes, Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api,
    api::{PostParams, WatchParams},
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use serde_json::json;
use tempfile::{TempDir, tempdir};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::kubernetes::fake::{Fake, Fault, NODES, kubeconfig};

const PATIENCE: Duration = Duration::from_secs(20);

fn limits() -> Limits {
    let second = Duration::from_secs(1);
    Limits { connect: second, answer: second, watch_idle: PATIENCE, ping: Duration::from_millis(500) }
}

fn access(kubeconfig: PathBuf, servers: &[SocketAddr]) -> Access {
    let (_, servers) = watch::channel(servers.to_vec());
    Access::new(Credentials::Kubeconfig(kubeconfig), servers, limits())
}

async fn nodes(access: &Access) -> Result<usize, String> {
    let nodes = Api::<Node>::all(access.client());
    nodes.list(&kube::api::ListParams::default()).await.map(|list| list.items.len()).map_err(|error| chain(&error))
}

#[tokio::test]
async fn servers_are_asked_in_order_and_the_address_of_the_kubeconfig_last() {
    let (own, other, vip) = (Fake::complete(), Fake::complete(), Fake::complete());
    let folder = tempdir().unwrap();
    let access = access(vip.kubeconfig(folder.path()), &[own.address, other.address]);
    let asked = |fake: &Fake| fake.store().asked.len();
    assert_eq!(nodes(&access).await, Ok(0));
    assert_eq!([asked(&own), asked(&other), asked(&vip)], [1, 0, 0]);
    let (own_address, own_store) = own.kill();
    assert_eq!(nodes(&access).await, Ok(0));
    assert_eq!([asked(&other), asked(&vip)], [1, 0]);
    other.kill();
    assert_eq!(nodes(&access).await, Ok(0));
    assert_eq!(asked(&vip), 1);
    assert_eq!(access.state(), AccessState { server: Some(vip.address.to_string()), error: None });
    vip.kill();
    let error = nodes(&access).await.unwrap_err();
    assert!(error.contains("no API server answers") && error.contains(&own_address.to_string()), "{error}");
    assert!(access.state().error.is_some());
    let own = Fake::on(own_address, own_store);
    assert_eq!(nodes(&access).await, Ok(0), "its penalty is no ban");
    assert_eq!(asked(&own), 2);
}

#[tokio::test]
async fn a_server_that_fails_or_hangs_is_not_the_next_to_be_asked() {
    for fault in [Fault::Status(500, None), Fault::Status(401, None), Fault::Hang] {
        let (own, other) = (Fake::complete(), Fake::complete());
        own.store().fault = Some(fault);
        let folder = tempdir().unwrap();
        let access = access(other.kubeconfig(folder.path()), &[own.address]);
        let first = nodes(&access).await; // what a server says is told; where it says nothing, another is asked
        assert_eq!(first.is_ok(), fault == Fault::Hang, "{fault:?}: {first:?}");
        assert_eq!(nodes(&access).await, Ok(0), "{fault:?}");
        assert_eq!(own.store().asked.len(), 1, "{fault:?}");
    }
}

#[tokio::test]
async fn what_may_have_had_an_effect_is_not_sent_twice() {
    let (own, other) = (Fake::complete(), Fake::complete());
    own.store().fault = Some(Fault::Hang);
    let folder = tempdir().unwrap();
    let access = access(other.kubeconfig(folder.path()), &[own.address]);
    let api = Api::<Node>::all(access.client());
    assert!(api.create(&PostParams::default(), &Node::default()).await.is_err());
    assert_eq!((own.store().asked.len(), other.store().asked.len()), (1, 0));
    let (_, other_store) = (own.kill(), &other.store);
    let _ = api.create(&PostParams::default(), &Node::default()).await; // never sent to the first
    assert_eq!(other_store.lock().unwrap().asked.last().map(|asked| asked.method.clone()).as_deref(), Some("POST"));
}

#[tokio::test]
async fn a_kubeconfig_may_come_later_and_errors_tell_which() {
    let fake = Fake::complete();
    let folder = tempdir().unwrap();
    let access = access(folder.path().join("kubeconfig"), &[]);
    let error = nodes(&access).await.unwrap_err();
    assert!(error.contains("kubeconfig ") && error.contains(&folder.path().display().to_string()), "{error}");
    fake.kubeconfig(folder.path());
    assert_eq!(nodes(&access).await, Ok(0));
}

#[tokio::test]
async fn credentials_that_would_be_ignored_are_refused() {
    let folder = tempdir().unwrap();
    let cases = [
        (r#"{"exec": {"apiVersion": "v1", "command": "login", "interactiveMode": "Never"}}"#, "`exec`"),
        (r#"{"username": "me", "password": "hunter2"}"#, "user name and password"),
        (r#"{"as": "root"}"#, "somebody else"),
        (r#"{"tokenFile": "/nonexistent/token"}"#, "/nonexistent/token can't be read"),
        (r#"{"token": "hunter2\n2"}"#, "characters that no token has"),
    ];
    for (user, part) in cases {
        let access = access(kubeconfig(folder.path(), "http://127.0.0.1:1", "{}", user), &[]);
        let error = nodes(&access).await.unwrap_err();
        assert!(error.contains(part) && !error.contains("hunter2"), "{user}: {error}");
    }
    for (url, part) in [("https://127.0.0.1:1", "certificate-authority"), ("http://127.0.0.1:1/k8s/c1", "with a path")]
    {
        let access = access(kubeconfig(folder.path(), url, "{}", "{}"), &[]);
        let error = nodes(&access).await.unwrap_err();
        assert!(error.contains(part), "{url}: {error}");
    }
}

#[tokio::test]
async fn a_token_file_is_read_again_when_the_token_is_refused() {
    let fake = Fake::complete();
    fake.store().token = Some("second".to_owned());
    let folder = tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, "first\n").unwrap();
    let user = json!({"tokenFile": token}).to_string();
    let access = access(kubeconfig(folder.path(), &format!("http://{}", fake.address), "{}", &user), &[]);
    assert!(nodes(&access).await.unwrap_err().contains("who are you?"));
    fs::write(&token, "second\n").unwrap();
    assert_eq!(nodes(&access).await, Ok(0));
    let sent: Vec<_> = fake.store().asked.iter().map(|asked| asked.authorization.clone().unwrap()).collect();
    assert_eq!(sent, ["Bearer first", "Bearer second"]);
    let loaded = format!("{:?}", access.shared.loaded().await.unwrap());
    assert!(!loaded.contains("second"), "{loaded}");
}

#[tokio::test]
async fn patience_that_a_server_asks_for_is_known() {
    let fake = Fake::complete();
    (fake.store().fault, fake.store().fault_for) = (Some(Fault::Status(429, Some(7))), NODES.to_owned());
    let folder = tempdir().unwrap();
    let access = access(fake.kubeconfig(folder.path()), &[]);
    assert!(nodes(&access).await.is_err());
    let wait = access.hold_off(Instant::now());
    assert!(wait > Duration::from_secs(5) && wait <= Duration::from_secs(7), "{wait:?}");
}

/// An authority that makes certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), der: certificate.der().clone(), issuer: Issuer::new(params, key) }
    }

    /// Certificate and key, as PEM and as DER.
    fn make(&self, names: &[&str]) -> (String, String, CertificateDer<'static>, PrivatePkcs8KeyDer<'static>) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem(), certificate.der().clone(), key.serialize_der().into())
    }

    fn server(&self, names: &[&str], clients: Option<&Self>) -> ServerConfig {
        let (_, _, certificate, key) = self.make(names);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = match clients {
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.der.clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
                builder.with_client_cert_verifier(verifier)
            }
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(vec![certificate], key.into()).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }
}

/// A server that speaks HTTP/2, in a thread of its own that can be stopped like a process.
struct Http2 {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
}

impl Http2 {
    fn new(config: ServerConfig) -> Self {
        let (sender, address) = std::sync::mpsc::channel();
        let (stopped, connections) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (is_stopped, count) = (Arc::clone(&stopped), Arc::clone(&connections));
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                sender.send(listener.local_addr().unwrap()).unwrap();
                tokio::spawn(accept(listener, config, count));
                while !is_stopped.load(Ordering::Relaxed) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                thread::sleep(PATIENCE * 2); // nothing of this runtime runs
            });
        });
        Self { address: address.recv().unwrap(), stopped, connections }
    }
}

async fn accept(listener: TcpListener, config: ServerConfig, count: Arc<AtomicUsize>) {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        let Ok(stream) = acceptor.accept(tcp).await else { continue };
        count.fetch_add(1, Ordering::Relaxed);
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        tokio::spawn(server.serve_connection(TokioIo::new(stream), service_fn(answer)));
    }
}

/// Empty lists, and watches in which nothing happens.
async fn answer(request: Request<Incoming>) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    if request.uri().query().is_some_and(|query| query.contains("watch=true")) {
        let object = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}});
        let mark = format!("{}\n", json!({"type": "BOOKMARK", "object": object}));
        let first = futures::stream::iter([Ok(Frame::data(Bytes::from(mark)))]);
        return Ok(Response::new(BodyExt::boxed(StreamBody::new(first.chain(futures::stream::pending())))));
    }
    let list = r#"{"kind":"NodeList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[]}"#;
    Ok(Response::new(BodyExt::boxed(Full::new(Bytes::from(list)))))
}

/// An access to a server by its authority.
fn access_tls(folder: &TempDir, server: &Http2, authority: &Authority, user: &str, name: Option<&str>) -> Access {
    let ca = folder.path().join("ca.crt");
    fs::write(&ca, &authority.pem).unwrap();
    let mut cluster = json!({"certificate-authority": ca});
    if let Some(name) = name {
        cluster["tls-server-name"] = name.into();
    }
    let url = format!("https://{}", server.address);
    access(kubeconfig(folder.path(), &url, &cluster.to_string(), user), &[])
}

#[tokio::test]
async fn a_server_is_verified_by_its_address_or_the_name_that_every_one_has() {
    let authority = Authority::new();
    let cases: [(&[&str], Option<&str>, bool); 5] = [
        (&["127.0.0.1"], None, true),
        (&["kubernetes", "kubernetes.default.svc"], None, true),
        (&["10.0.0.1", "example.org"], None, false),
        (&["api.example.org"], Some("api.example.org"), true),
        (&["kubernetes.default.svc"], Some("api.example.org"), false),
    ];
    for (names, name, accepted) in cases {
        let server = Http2::new(authority.server(names, None));
        let folder = tempdir().unwrap();
        let outcome = nodes(&access_tls(&folder, &server, &authority, "{}", name)).await;
        assert_eq!(outcome.is_ok(), accepted, "{names:?} {name:?}: {outcome:?}");
    }
    let server = Http2::new(authority.server(&["kubernetes.default.svc"], None));
    let folder = tempdir().unwrap();
    let outcome = nodes(&access_tls(&folder, &server, &Authority::new(), "{}", None)).await;
    let refused = outcome.as_ref().is_err_and(|error| error.contains("invalid peer certificate"));
    assert!(refused, "another authority: {outcome:?}");
}

#[tokio::test]
async fn a_client_certificate_is_read_from_its_files() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let server = Http2::new(authority.server(&["127.0.0.1"], Some(&clients)));
    let folder = tempdir().unwrap();
    assert!(nodes(&access_tls(&folder, &server, &authority, "{}", None)).await.is_err());
    let (certificate, key, ..) = clients.make(&["me"]);
    let both = folder.path().join("client.pem"); // as the kubelet keeps its own: both in one file
    fs::write(&both, format!("{certificate}{key}")).unwrap();
    let user = json!({"client-certificate": both, "client-key": both}).to_string();
    assert_eq!(nodes(&access_tls(&folder, &server, &authority, &user, None)).await, Ok(0));
}

#[tokio::test]
async fn one_connection_carries_everything_and_a_server_that_stops_is_noticed() {
    let authority = Authority::new();
    let server = Http2::new(authority.server(&["127.0.0.1"], None));
    let folder = tempdir().unwrap();
    let access = access_tls(&folder, &server, &authority, "{}", None);
    nodes(&access).await.unwrap();
    let api = Api::<Node>::all(access.client());
    let mut watches = Vec::new();
    for _ in 0..4 {
        let mut events = api.watch(&WatchParams::default(), "1").await.unwrap().boxed();
        assert!(events.try_next().await.unwrap().is_some(), "the bookmark");
        watches.push(events);
    }
    assert_eq!(server.connections.load(Ordering::Relaxed), 1);
    let begin = Instant::now();
    server.stopped.store(true, Ordering::Relaxed);
    for events in &mut watches {
        let end = timeout(PATIENCE, events.next()).await.expect("the watch goes on for ever");
        assert!(matches!(end, Some(Err(_))), "{end:?}");
    }
    let took = begin.elapsed();
    assert!(took < (PING_INTERVAL + limits().ping) * 2, "noticed after {took:?}");
    assert!(access.state().error.is_some());
}

//! Small servers on loopback for the tests of probes: they say what to say, and tell what they saw.

use std::{net::IpAddr, sync::Arc, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use super::{Answer, ask};
use crate::model::{ClientIdentity, ExpectedStatus, HttpProbe, Probe, ProbeKind, ProbeTarget};

pub(super) const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
/// Far more than any answer here takes.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// For what is not to come.
pub(super) const SHORT: Duration = Duration::from_millis(100);

/// What a server saw of one connection.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Seen {
    /// The request up to its empty line.
    pub(super) head: String,
    /// Name asked for in the TLS handshake.
    pub(super) server_name: Option<String>,
    /// Whether the client ended the connection in order: end of stream, not a reset.
    pub(super) closed: bool,
}

/// Takes one connection, reads a request head, answers `answer` and waits for the client to close.
pub(super) async fn plain(answer: impl Into<Vec<u8>>) -> (u16, JoinHandle<Seen>) {
    let (listener, port) = listen().await;
    let answer = answer.into();
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        converse(stream, &answer).await
    });
    (port, task)
}

/// The same inside TLS. A handshake that the client breaks off yields `None`.
pub(super) async fn tls(config: ServerConfig, answer: impl Into<Vec<u8>>) -> (u16, JoinHandle<Option<Seen>>) {
    let (listener, port) = listen().await;
    let (acceptor, answer) = (TlsAcceptor::from(Arc::new(config)), answer.into());
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let stream = acceptor.accept(stream).await.ok()?;
        let server_name = stream.get_ref().1.server_name().map(str::to_owned);
        Some(Seen { server_name, ..converse(stream, &answer).await })
    });
    (port, task)
}

/// Takes one connection and says nothing until the client ends it.
pub(super) async fn silent() -> (u16, JoinHandle<()>) {
    let (listener, port) = listen().await;
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    (port, task)
}

pub(super) async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, answer: &[u8]) -> Seen {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    // A client that has read enough goes away while it is still told more.
    let _ = stream.write_all(answer).await;
    let _ = stream.flush().await;
    let closed = matches!(stream.read(&mut [0; 1]).await, Ok(0));
    Seen { head: String::from_utf8(head).unwrap(), closed, ..Seen::default() }
}

/// An answer with this status and a short body.
pub(super) fn status(line: &str) -> String {
    format!("HTTP/1.1 {line}\r\ncontent-length: 2\r\n\r\nok")
}

pub(super) fn http() -> HttpProbe {
    HttpProbe { path: "/readyz".to_owned(), host: None, status: ExpectedStatus::default() }
}

/// The port answers, or not, within `timeout`.
pub(super) fn target(kind: ProbeKind, port: u16, timeout: Duration) -> ProbeTarget {
    let probe = Probe { kind, port, interval: Duration::from_secs(60), timeout, rise: 2, fall: 3 };
    ProbeTarget { address: HERE, probe: Arc::new(probe) }
}

/// Asks once as the prober does.
pub(super) async fn ask(target: &ProbeTarget) -> Answer {
    ask::of(target)().await
}

/// A certificate authority.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn new() -> Self {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its certificate in DER.
    pub(super) fn certificate(&self) -> Vec<u8> {
        self.0.der().to_vec()
    }

    /// What a client shows to a server that demands a certificate of this authority.
    pub(super) fn client(&self) -> ClientIdentity {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::default().signed_by(&key, &self.0).unwrap();
        ClientIdentity { chain: vec![certificate.der().to_vec()], key: key.serialize_pem().into_bytes() }
    }

    /// A server for the loopback address that demands such a certificate.
    pub(super) fn demanding_server(&self) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let clients =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::default().signed_by(&key, &self.0).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients.build().unwrap())
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap()
    }

    /// A server with a certificate for `names` and the loopback address, valid until the end of `year`.
    pub(super) fn server(&self, names: &[&str], year: i32) -> ServerConfig {
        let mut parameters =
            CertificateParams::new(names.iter().copied().map(str::to_owned).collect::<Vec<_>>()).unwrap();
        parameters.subject_alt_names.push(SanType::IpAddress(HERE));
        parameters.not_after = rcgen::date_time_ymd(year, 12, 31);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.0).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap()
    }
}

/// A socket whose queue of connections is full: a connect gets no answer. Both have to live on.
pub(super) async fn full() -> (socket2::Socket, TcpStream, u16) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::new(HERE, 0).into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let first = TcpStream::connect(address).await.unwrap(); // a backlog of 0 takes one
    (socket, first, address.port())
}

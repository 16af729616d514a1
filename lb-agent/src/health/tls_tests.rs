use super::{
    super::{Answer, servers::*},
    *,
};
use crate::model::{Credentials, ProbeKind};

const YEAR: i32 = 2999;

fn https(server_name: Option<&str>, trust: Trust) -> ProbeKind {
    ProbeKind::Https(
        http(),
        TlsProbe { server_name: server_name.map(str::to_owned), trust, credentials: Credentials::default() },
    )
}

fn trusting(authority: &Authority) -> Trust {
    Trust::Authorities(vec![authority.certificate()])
}

/// What a probe says of a server, and what that server saw.
async fn asked(kind: ProbeKind, server: rustls::ServerConfig) -> (Answer, Option<Seen>) {
    let (port, server) = tls(server, status("200 OK")).await;
    (ask(&target(kind, port, PATIENCE)).await, server.await.unwrap())
}

#[tokio::test]
async fn a_certificate_of_the_authority_for_the_address_is_accepted() {
    let authority = Authority::new();
    let (answer, seen) = asked(https(None, trusting(&authority)), authority.server(&[], YEAR)).await;
    let seen = seen.unwrap();
    assert_eq!((answer, seen.server_name, seen.closed), (Answer::Yes, None, true));
    assert!(seen.head.starts_with("GET /readyz HTTP/1.1\r\n"), "{}", seen.head);
}

#[tokio::test]
async fn the_server_name_is_asked_for_and_verified() {
    let authority = Authority::new();
    let kind = |name| https(Some(name), trusting(&authority));
    let (answer, seen) = asked(kind("kubernetes"), authority.server(&["kubernetes"], YEAR)).await;
    assert_eq!((answer, seen.unwrap().server_name.as_deref()), (Answer::Yes, Some("kubernetes")));
    let (answer, seen) = asked(kind("kubernetes"), authority.server(&["other"], YEAR)).await;
    let reason = "the server's certificate is not for kubernetes; name what it is for in `serverName`";
    assert_eq!((answer, seen), (Answer::open(reason), None));
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_unless_anybody_is_trusted() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (answer, seen) = asked(https(None, trusting(&other)), authority.server(&[], YEAR)).await;
    let reason = "the server's certificate is not signed by an authority in `caFile`";
    assert_eq!((answer, seen), (Answer::open(reason), None));
    let both = Trust::Authorities(vec![other.certificate(), authority.certificate()]);
    assert_eq!(asked(https(None, both), authority.server(&[], YEAR)).await.0, Answer::Yes);
    let (answer, seen) = asked(https(Some("any.name"), Trust::Anybody), authority.server(&[], 2001)).await;
    assert_eq!((answer, seen.unwrap().server_name.as_deref()), (Answer::Yes, Some("any.name")));
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let authority = Authority::new();
    let (answer, _) = asked(https(None, trusting(&authority)), authority.server(&[], 2001)).await;
    assert_eq!(answer, Answer::open("the server's certificate has expired"));
}

#[tokio::test]
async fn what_speaks_no_tls_is_said_so() {
    let (listener, port) = listen().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut Vec::new()).await;
    });
    let answer = ask(&target(https(None, Trust::Anybody), port, PATIENCE)).await;
    assert_eq!(answer, Answer::open("the server does not speak TLS"));
    server.await.unwrap();
}

#[tokio::test]
async fn each_phase_has_its_timeout_and_its_words() {
    let probe = |port| target(https(None, Trust::Anybody), port, SHORT);
    let (_socket, _first, port) = full().await;
    assert_eq!(ask(&probe(port)).await, Answer::closed("no answer within 100ms"));
    let (port, _server) = silent().await;
    assert_eq!(ask(&probe(port)).await, Answer::open("connected, but no TLS handshake within 100ms"));
    let (port, _server) = tls(Authority::new().server(&[], YEAR), "").await;
    let long = target(https(None, Trust::Anybody), port, SHORT * 20);
    assert_eq!(ask(&long).await, Answer::open("connected, but no HTTP answer within 2s"));
}

#[tokio::test]
async fn a_closed_port_refuses() {
    let bound = tokio::net::TcpSocket::new_v4().unwrap(); // keeps the port from others, and listens to nobody
    bound.bind((HERE, 0).into()).unwrap();
    let port = bound.local_addr().unwrap().port();
    let answer = ask(&target(https(None, Trust::Anybody), port, PATIENCE)).await;
    assert_eq!(answer, Answer::closed("connection refused"));
}

#[tokio::test]
async fn a_token_is_shown_inside_tls() {
    let authority = Authority::new();
    let (port, server) = tls(authority.server(&[], YEAR), status("200 OK")).await;
    let credentials = Credentials { token: Some("s3cr3t".to_owned()), identity: None };
    let kind = ProbeKind::Https(http(), TlsProbe { server_name: None, trust: Trust::Anybody, credentials });
    assert_eq!(ask(&target(kind, port, PATIENCE)).await, Answer::Yes);
    let seen = server.await.unwrap().unwrap();
    assert!(seen.head.contains("\r\nauthorization: Bearer s3cr3t\r\n"), "{}", seen.head);
}

#[tokio::test]
async fn a_client_certificate_is_shown_in_the_handshake() {
    let authority = Authority::new();
    let identity = authority.client();
    let (port, server) = tls(authority.demanding_server(), status("200 OK")).await;
    let probe = |identity| {
        let credentials = Credentials { token: None, identity };
        let kind = ProbeKind::Https(http(), TlsProbe { server_name: None, trust: Trust::Anybody, credentials });
        target(kind, port, PATIENCE)
    };
    assert_eq!(ask(&probe(Some(identity))).await, Answer::Yes);
    assert!(server.await.unwrap().is_some());
}

use std::sync::Arc;

use super::{super::servers::*, *};
use crate::model::ProbeKind;

/// What an HTTP probe says of a server with this answer, and what that server saw.
async fn asked(http: HttpProbe, answer: impl Into<Vec<u8>>) -> (Answer, Seen) {
    let (port, server) = plain(answer).await;
    let answer = ask(&target(ProbeKind::Http(http), port, PATIENCE)).await;
    (answer, server.await.unwrap())
}

#[tokio::test]
async fn the_request_is_as_configured_and_the_close_an_ordinary_one() {
    let (listener, port) = listen().await;
    drop(listener);
    let request = Request::new(&target(ProbeKind::Tcp, port, PATIENCE), &http(), "http");
    assert_eq!(request.host, format!("127.0.0.1:{port}"));
    let (answer, seen) = asked(HttpProbe { host: Some("api.example".to_owned()), ..http() }, status("200 OK")).await;
    assert_eq!(answer, Answer::Yes);
    let mut lines: Vec<&str> = seen.head.trim_end().split("\r\n").collect();
    lines[1..].sort_unstable();
    let agent = format!("user-agent: {USER_AGENT}");
    assert_eq!(lines, ["GET /readyz HTTP/1.1", "accept: */*", "connection: close", "host: api.example", &agent]);
    assert!(seen.closed, "end of stream, not a reset");
}

#[tokio::test]
async fn the_status_decides() {
    let closed = |text: &str| Answer::open(text);
    for (line, expected) in [
        ("200 OK", Answer::Yes),
        ("204 No Content", Answer::Yes),
        ("302 Found", Answer::Yes),
        ("404 Not Found", closed("http GET /readyz answers 404, expected 200-399")),
        ("500 Internal Server Error", closed("http GET /readyz answers 500, expected 200-399")),
    ] {
        // An answer without a length ends with the connection; 204 has no body at all.
        let head = format!("HTTP/1.1 {line}\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(asked(http(), head).await.0, expected, "{line}");
    }
}

#[tokio::test]
async fn a_server_that_wants_credentials_is_a_mistake_of_the_configuration() {
    for (line, code) in [("401 Unauthorized", 401), ("403 Forbidden", 403)] {
        let reason = format!(
            "the server wants credentials: http GET /readyz answers {code}; give the probe some (`tokenFile`, `clientCertFile`), probe a path that needs none, or expect status {code}"
        );
        assert_eq!(asked(http(), status(line)).await.0, Answer::WantsCredentials(reason));
        let expecting = HttpProbe { status: ExpectedStatus::of([code..=code]), ..http() };
        assert_eq!(asked(expecting, status(line)).await.0, Answer::Yes, "unless it is expected");
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let redirect = "HTTP/1.1 301 Moved\r\nlocation: http://192.0.2.1/\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(asked(http(), redirect).await.0, Answer::Yes);
    let strict = HttpProbe { status: ExpectedStatus::of([200..=299]), ..http() };
    assert_eq!(asked(strict, redirect).await.0, Answer::open("http GET /readyz answers 301, expected 200-299"));
}

#[tokio::test]
async fn a_body_without_end_is_not_read() {
    let mut endless = b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n".to_vec();
    endless.resize(endless.len() + 64 * MAX_BODY, b'x');
    assert_eq!(asked(http(), endless).await.0, Answer::Yes);
}

#[tokio::test]
async fn a_body_that_never_comes_does_not_spoil_a_good_head() {
    let (port, server) = plain("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n").await;
    assert_eq!(ask(&target(ProbeKind::Http(http()), port, SHORT)).await, Answer::Yes);
    server.await.unwrap();
}

#[tokio::test]
async fn each_phase_has_its_timeout_and_its_words() {
    let probe = |port| target(ProbeKind::Http(http()), port, SHORT);
    let (_socket, _first, port) = full().await;
    assert_eq!(ask(&probe(port)).await, Answer::closed("no answer within 100ms"));
    let (port, server) = silent().await;
    assert_eq!(ask(&probe(port)).await, Answer::open("connected, but no HTTP answer within 100ms"));
    server.await.unwrap();
}

#[tokio::test]
async fn what_is_no_http_is_said_so() {
    assert_eq!(asked(http(), "SSH-2.0-OpenSSH_9.2\r\n").await.0, Answer::open("the answer is not HTTP/1.1"));
    let (listener, port) = listen().await;
    let closing = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        stream.readable().await.unwrap();
        let mut request = [0; 4096];
        assert!(stream.try_read(&mut request).unwrap() > 0);
    });
    let answer = ask(&target(ProbeKind::Http(http()), port, PATIENCE)).await;
    assert_eq!(answer, Answer::open("the server closed without an HTTP answer"));
    closing.await.unwrap();
}

#[tokio::test]
async fn every_probe_has_a_connection_of_its_own() {
    let (listener, port) = listen().await;
    let server = tokio::spawn(async move {
        let answer: Arc<[u8]> = status("200 OK").into_bytes().into();
        for _ in 0..3 {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.readable().await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, &answer).await.unwrap();
        }
    });
    let ask = super::super::ask::of(&target(ProbeKind::Http(http()), port, PATIENCE));
    for _ in 0..3 {
        assert_eq!(ask().await, Answer::Yes);
    }
    server.await.unwrap();
}

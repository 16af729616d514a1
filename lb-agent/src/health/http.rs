//! The HTTP part of a probe: one GET over a fresh connection, judged by the status.
//!
//! The body is read up to a bound, so that an ordinary close (FIN) is seen at the other side and not a reset, and
//! thrown away. Redirects are not followed.

use std::{pin::pin, time::Duration};

use http_body_util::{BodyExt, Empty};
use hyper::{
    Request as HttpRequest, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{self, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout_at},
};

use super::Answer;
use crate::model::{Credentials, ExpectedStatus, HttpProbe, ProbeTarget};

/// The most that is read of a body, in bytes.
const MAX_BODY: usize = 16 * 1024;
/// Longest head of an answer, in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// What the server's log shows of us.
const USER_AGENT: &str = concat!("levee/", env!("CARGO_PKG_VERSION"), " probe");

/// What a target is asked, and what is expected.
pub(super) struct Request {
    path: String,
    host: String,
    expected: ExpectedStatus,
    scheme: &'static str,
    /// Value of `Authorization`.
    authorization: Option<HeaderValue>,
}

impl Request {
    /// The question to a target; `scheme` names it in reasons.
    pub(super) fn new(target: &ProbeTarget, http: &HttpProbe, scheme: &'static str) -> Self {
        Self {
            path: http.path.clone(),
            host: http.host_of(target.address, target.probe.port),
            expected: http.status.clone(),
            scheme,
            authorization: None,
        }
    }

    /// The same with credentials.
    pub(super) fn showing(mut self, credentials: &Credentials) -> Self {
        let bearer = |token: &String| HeaderValue::try_from(format!("Bearer {token}")).ok();
        self.authorization = credentials.token.as_ref().and_then(bearer);
        if let Some(value) = &mut self.authorization {
            value.set_sensitive(true);
        }
        self
    }

    /// Asks over `stream`, and closes it; gives up at `deadline`, which is `limit` after the probe began.
    pub(super) async fn send<S>(&self, stream: S, limit: Duration, deadline: Instant) -> Answer
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut status = None;
        // A head in time is an answer, even if body and close are not: what was learned stays.
        let ended = timeout_at(deadline, self.exchange(stream, &mut status)).await;
        match (status, ended) {
            (Some(status), _) => self.judge(status),
            (None, Ok(Err(error))) => Answer::open(reason(&error)),
            (None, Ok(Ok(()))) => Answer::open("the server closed without an HTTP answer"),
            (None, Err(_)) => Answer::open(format!("connected, but no HTTP answer within {limit:?}")),
        }
    }

    async fn exchange<S>(&self, stream: S, status: &mut Option<StatusCode>) -> hyper::Result<()>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (mut sender, connection) =
            http1::Builder::new().max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream)).await?;
        let exchange = async move {
            let answer = sender.send_request(self.get()).await?;
            *status = Some(answer.status());
            Ok(drain(answer.into_body()).await)
        };
        let (mut exchange, mut connection) = (pin!(exchange), pin!(connection));
        let is_whole = tokio::select! {
            biased;
            asked = &mut exchange => asked?,
            // What came of it waits in the exchange.
            _ = &mut connection => return exchange.await.map(|_| ()),
        };
        if is_whole {
            // How it ends does not matter, as long as it does.
            let _ = connection.await;
        }
        Ok(())
    }

    fn get(&self) -> HttpRequest<Empty<Bytes>> {
        let mut request = HttpRequest::new(Empty::new());
        // Path and host were checked when the configuration was read.
        *request.uri_mut() = self.path.parse().unwrap_or_default();
        let fields = [
            (header::HOST, self.host.as_str()),
            (header::USER_AGENT, USER_AGENT),
            (header::ACCEPT, "*/*"),
            (header::CONNECTION, "close"),
        ];
        for (name, value) in fields {
            if let Ok(value) = value.parse() {
                request.headers_mut().insert(name, value);
            }
        }
        if let Some(value) = &self.authorization {
            request.headers_mut().insert(header::AUTHORIZATION, value.clone());
        }
        request
    }

    fn judge(&self, status: StatusCode) -> Answer {
        let (path, code) = (&self.path, status.as_u16());
        if self.expected.contains(code) {
            return Answer::Yes;
        }
        let question = format!("{} GET {path}", self.scheme);
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Answer::WantsCredentials(format!(
                "the server wants credentials: {question} answers {code}; give the probe some (`tokenFile`, `clientCertFile`), probe a path that needs none, or expect status {code}"
            )),
            _ => Answer::open(format!("{question} answers {code}, expected {}", self.expected)),
        }
    }
}

/// Reads what is left of an answer, up to the bound; true if that was all.
async fn drain(mut body: Incoming) -> bool {
    let mut left = MAX_BODY;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(length) {
            Some(rest) => left = rest,
            None => return false,
        }
    }
    true
}

fn reason(error: &hyper::Error) -> String {
    if error.is_parse() {
        return "the answer is not HTTP/1.1".to_owned();
    }
    if error.is_incomplete_message() {
        return "the server closed without an HTTP answer".to_owned();
    }
    let cause = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    format!("no HTTP answer: {cause}")
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;

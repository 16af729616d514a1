//! The stream of events: a POST of a selection is answered by a line of JSON per event, until one side leaves.

use std::{convert::Infallible, path::Path, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::stream;
use http_body_util::{BodyExt, Full};
use hyper::{Request, body::Bytes, body::Incoming};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

use super::{ApiError, connect};
use crate::trace::{self, Line, Selection};

/// Path of the stream.
pub const TRACE_PATH: &str = "/v1/trace";

/// How long a listener waits until packets are told of: the kernel checks the tracing program first, which takes a busy
/// machine seconds.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Answers with the events that a listener selects.
pub async fn stream(
    State(requests): State<mpsc::Sender<trace::Request>>,
    Json(selection): Json<Selection>,
) -> Response {
    let (answer, answered) = oneshot::channel();
    let ending = || (StatusCode::SERVICE_UNAVAILABLE, "the agent is about to end".to_owned()).into_response();
    if requests.send(trace::Request { selection, answer }).await.is_err() {
        return ending();
    }
    match answered.await {
        Ok(Ok(lines)) => {
            let body = stream::unfold(lines, async |mut lines: mpsc::Receiver<Line>| {
                let line = lines.recv().await?;
                let mut text = serde_json::to_vec(&line).unwrap_or_default();
                text.push(b'\n');
                Some((Ok::<_, Infallible>(text), lines))
            });
            ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(body)).into_response()
        }
        Ok(Err(reason)) => (StatusCode::INTERNAL_SERVER_ERROR, reason).into_response(),
        Err(_) => ending(),
    }
}

/// Events that come from an agent.
pub struct Listening {
    body: Incoming,
    /// What came of the line that is under way.
    buffer: Vec<u8>,
    connection: JoinHandle<Result<(), hyper::Error>>,
}

/// Asks the agent on `socket` to tell of packets. When this returns, packets are told of.
///
/// # Errors
/// [`ApiError::NotRunning`] if nobody listens, [`ApiError::Refused`] with the agent's reason, or what else is wrong.
pub async fn listen(socket: &Path, selection: &Selection) -> Result<Listening, ApiError> {
    let silent = |_| ApiError::Silent { socket: socket.to_owned(), seconds: START_TIMEOUT.as_secs() };
    timeout(START_TIMEOUT, ask(socket, selection)).await.map_err(silent)?
}

async fn ask(socket: &Path, selection: &Selection) -> Result<Listening, ApiError> {
    let bad = |reason: String| ApiError::BadAnswer { socket: socket.to_owned(), reason };
    let (mut sender, connection) = connect(socket).await?;
    let document = serde_json::to_vec(selection).map_err(|error| bad(error.to_string()))?;
    let request = Request::post(TRACE_PATH)
        .header(header::HOST, "levee")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(document)))
        .map_err(|error| bad(error.to_string()))?;
    let answer = sender.send_request(request).await.map_err(|error| bad(error.to_string()))?;
    match answer.status() {
        StatusCode::OK => Ok(Listening { body: answer.into_body(), buffer: Vec::new(), connection }),
        StatusCode::NOT_FOUND => Err(bad("it knows no trace: it is older than this lbctl".to_owned())),
        status => {
            let body = answer.into_body().collect().await.map(http_body_util::Collected::to_bytes);
            let said = body.map(|body| String::from_utf8_lossy(&body).into_owned()).unwrap_or_default();
            Err(ApiError::Refused { reason: if said.is_empty() { status.to_string() } else { said } })
        }
    }
}

impl Listening {
    /// The next line; `None` when the agent ended the stream.
    ///
    /// # Errors
    /// [`ApiError::BadAnswer`] if it is no line.
    pub async fn next(&mut self) -> Result<Option<Line>, ApiError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<_> = self.buffer.drain(..=end).collect();
                let read = serde_json::from_slice(&line);
                return read.map(Some).map_err(|error| ApiError::BadLine { reason: error.to_string() });
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.buffer.extend(frame.into_data().unwrap_or_default()),
                Some(Err(_)) | None => return Ok(None),
            }
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

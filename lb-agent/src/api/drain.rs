//! Draining over the local socket: `POST` drains, `DELETE` undrains, both with a [`DrainRequest`].

use std::path::Path;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::{
    net::UnixStream,
    sync::{mpsc, oneshot},
};

use super::{ANSWER_TIMEOUT, ApiError, MAX_ANSWER_BYTES, unreachable_socket};
use crate::model::{DrainAnswer, DrainError, DrainRequest};

/// Path of the drains.
pub const DRAINS_PATH: &str = "/v1/drains";

/// Commands that may wait for the agent.
pub const COMMANDS: usize = 16;

/// What to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DrainAction {
    /// Begin to drain.
    Drain,
    /// End it.
    Undrain,
}

/// What an operator asks of the agent.
#[derive(Debug)]
pub struct DrainCommand {
    /// What to do.
    pub action: DrainAction,
    /// With what.
    pub request: DrainRequest,
    /// Takes the answer when it is in force.
    pub answer: oneshot::Sender<Result<DrainAnswer, DrainError>>,
}

/// Takes commands to the agent.
pub(super) type Commands = mpsc::Sender<DrainCommand>;

/// Why a command was refused.
#[derive(Debug, Deserialize, Serialize)]
struct Refusal {
    error: String,
}

pub(super) async fn drain(State(commands): State<Commands>, Json(request): Json<DrainRequest>) -> Response {
    perform(&commands, DrainAction::Drain, request).await
}

pub(super) async fn undrain(State(commands): State<Commands>, Json(request): Json<DrainRequest>) -> Response {
    perform(&commands, DrainAction::Undrain, request).await
}

async fn perform(commands: &Commands, action: DrainAction, request: DrainRequest) -> Response {
    let (answer, answered) = oneshot::channel();
    let refusal = |status, error: String| (status, Json(Refusal { error })).into_response();
    if commands.send(DrainCommand { action, request, answer }).await.is_err() {
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "the agent is about to end".to_owned());
    }
    match answered.await {
        Ok(Ok(done)) => Json(done).into_response(),
        Ok(Err(error)) => {
            let status = match error {
                DrainError::WithNode { .. } => StatusCode::CONFLICT,
                _ => StatusCode::NOT_FOUND,
            };
            refusal(status, error.to_string())
        }
        Err(_) => refusal(StatusCode::SERVICE_UNAVAILABLE, "the agent is about to end".to_owned()),
    }
}

/// Asks the agent on `socket` to drain or to undrain.
///
/// # Errors
/// [`ApiError::Refused`] with the agent's words, or what else is wrong.
pub async fn change_drains(
    socket: &Path,
    action: DrainAction,
    request: &DrainRequest,
) -> Result<DrainAnswer, ApiError> {
    match tokio::time::timeout(ANSWER_TIMEOUT, ask(socket, action, request)).await {
        Ok(answer) => answer,
        Err(_) => Err(ApiError::Silent { socket: socket.to_owned(), seconds: ANSWER_TIMEOUT.as_secs() }),
    }
}

async fn ask(socket: &Path, action: DrainAction, request: &DrainRequest) -> Result<DrainAnswer, ApiError> {
    let bad = |reason: String| ApiError::BadAnswer { socket: socket.to_owned(), reason };
    let stream = UnixStream::connect(socket).await.map_err(|error| unreachable_socket(socket, error))?;
    let handshake = http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| bad(error.to_string()))?;
    let connection = tokio::spawn(connection);
    let body = serde_json::to_vec(request).map_err(|error| bad(error.to_string()))?;
    let request = Request::builder()
        .method(if action == DrainAction::Drain { Method::POST } else { Method::DELETE })
        .uri(DRAINS_PATH)
        .header(header::HOST, "levee")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| bad(error.to_string()))?;
    let answer = sender.send_request(request).await.map_err(|error| bad(error.to_string()))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
    connection.abort();
    let body = body.map_err(|error| bad(error.to_string()))?.to_bytes();
    if status == StatusCode::OK {
        return serde_json::from_slice(&body).map_err(|error| bad(error.to_string()));
    }
    match serde_json::from_slice::<Refusal>(&body) {
        Ok(Refusal { error }) => Err(ApiError::Refused { reason: error }),
        Err(_) => Err(bad(format!("HTTP status {status}; an agent of another version does not know this verb"))),
    }
}

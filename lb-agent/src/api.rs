//! The local socket: the agent's state as JSON for `lbctl`, events while somebody listens, and the client that asks for
//! both.

mod drain;
mod trace;

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::{fs::DirBuilderExt, net::UnixStream as StdUnixStream},
    path::{Path, PathBuf},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Request, StatusCode,
    body::{Body, Bytes},
    client::conn::http1::{self, SendRequest},
    header,
};
use hyper_util::rt::TokioIo;
use nix::sys::stat::{Mode, fchmod};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::mpsc,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

pub use trace::{Listening, listen};

use crate::{http::StatusSource, status::AgentStatus, trace::Request as TraceRequest};

pub use drain::{COMMANDS, DRAINS_PATH, DrainAction, DrainCommand, change_drains};

/// Path of the status document.
pub const STATUS_PATH: &str = "/v1/status";

/// How long a client waits for the whole answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest answer that a client takes, bytes; a hundred thousand backends need about a fifth of it.
const MAX_ANSWER_BYTES: usize = 128 << 20;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 64;

/// What can go wrong with the local socket.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Somebody serves the socket already.
    #[error("{} is in use: an agent listens there; stop it, or set another `socket`", socket.display())]
    InUse {
        /// The socket.
        socket: PathBuf,
    },
    /// What stands where the socket should be is none.
    #[error("{} is there and is no socket; remove it, or set another `socket`", socket.display())]
    NoSocket {
        /// The path.
        socket: PathBuf,
    },
    /// The socket cannot be served.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Nobody listens.
    #[error("no agent listens on {}", socket.display())]
    NotRunning {
        /// The socket.
        socket: PathBuf,
    },
    /// The answer did not come in time.
    #[error("the agent on {} did not answer within {seconds} s; it may hang or be stopped", socket.display())]
    Silent {
        /// The socket.
        socket: PathBuf,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The answer is not what an agent says.
    #[error("the answer on {} is not an agent's: {reason}", socket.display())]
    BadAnswer {
        /// The socket.
        socket: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The agent cannot do what it was asked to.
    #[error("the agent refused: {reason}")]
    Refused {
        /// Its words.
        reason: String,
    },
    /// A line of a stream cannot be read.
    #[error("the agent told something that is not understood; it may be of another version than this lbctl: {reason}")]
    BadLine {
        /// What is wrong with it.
        reason: String,
    },
}

/// Creates the socket, for its owner only, and its folder if need be. A socket file that nobody listens on is removed.
///
/// # Errors
/// [`ApiError::InUse`] or what the kernel says.
pub fn bind(socket: &Path) -> Result<UnixListener, ApiError> {
    let failed = |action| move |source| ApiError::Io { action, path: socket.to_owned(), source };
    if let Some(folder) = socket.parent() {
        let created = fs::DirBuilder::new().recursive(true).mode(0o755).create(folder);
        created.map_err(failed("create the folder of"))?;
    }
    remove_stale(socket)?;
    let listener = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).map_err(failed("open a socket for"))?;
    // Before it has a name: the file gets the mode of the socket, so that at no time others can connect.
    fchmod(&listener, Mode::S_IRUSR | Mode::S_IWUSR).map_err(|error| failed("restrict")(error.into()))?;
    let address = SockAddr::unix(socket).map_err(failed("name the socket"))?;
    listener.bind(&address).map_err(failed("create the socket"))?;
    listener.listen(BACKLOG).map_err(failed("listen on"))?;
    UnixListener::from_std(listener.into()).map_err(failed("listen on"))
}

/// Removes a socket file that an earlier process left behind.
fn remove_stale(socket: &Path) -> Result<(), ApiError> {
    match StdUnixStream::connect(socket) {
        Ok(_) => Err(ApiError::InUse { socket: socket.to_owned() }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(_) if !is_socket(socket) => Err(ApiError::NoSocket { socket: socket.to_owned() }),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(socket)
            .map_err(|source| ApiError::Io { action: "remove the stale socket", path: socket.to_owned(), source }),
        Err(source) => Err(ApiError::Io { action: "examine", path: socket.to_owned(), source }),
    }
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

/// Serves the agent's state until `cancel`, events to whoever listens (`listeners` takes the requests), and takes commands
/// to the agent (`drains`).
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    listener: UnixListener,
    state: StatusSource,
    listeners: mpsc::Sender<TraceRequest>,
    drains: mpsc::Sender<DrainCommand>,
    cancel: CancellationToken,
) -> io::Result<()> {
    let status = async |State(state): State<StatusSource>| Json(state());
    let events = Router::new().route(trace::TRACE_PATH, post(trace::stream)).with_state(listeners);
    let of_drains = Router::new().route(DRAINS_PATH, post(drain::drain).delete(drain::undrain)).with_state(drains);
    let router = Router::new().route(STATUS_PATH, get(status)).with_state(state).merge(events).merge(of_drains);
    axum::serve(listener, router).with_graceful_shutdown(async move { cancel.cancelled().await }).await
}

/// Asks the agent on `socket` for its state.
///
/// # Errors
/// [`ApiError::NotRunning`] if nobody listens, or what else is wrong.
pub async fn status(socket: &Path) -> Result<AgentStatus, ApiError> {
    match tokio::time::timeout(ANSWER_TIMEOUT, ask(socket)).await {
        Ok(answer) => answer,
        Err(_) => Err(ApiError::Silent { socket: socket.to_owned(), seconds: ANSWER_TIMEOUT.as_secs() }),
    }
}

async fn ask(socket: &Path) -> Result<AgentStatus, ApiError> {
    let bad = |reason: String| ApiError::BadAnswer { socket: socket.to_owned(), reason };
    let (mut sender, connection) = connect::<Empty<Bytes>>(socket).await?;
    let request = Request::get(STATUS_PATH)
        .header(header::HOST, "levee")
        .body(Empty::new())
        .map_err(|error| bad(error.to_string()))?;
    let answer = sender.send_request(request).await.map_err(|error| bad(error.to_string()))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
    connection.abort();
    if status != StatusCode::OK {
        return Err(bad(format!("HTTP status {status}")));
    }
    let body = body.map_err(|error| bad(error.to_string()))?.to_bytes();
    serde_json::from_slice(&body).map_err(|error| bad(error.to_string()))
}

/// A connection to the agent, and the task that keeps it going.
async fn connect<B>(socket: &Path) -> Result<(SendRequest<B>, JoinHandle<Result<(), hyper::Error>>), ApiError>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let stream = UnixStream::connect(socket).await.map_err(|error| unreachable_socket(socket, error))?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| ApiError::BadAnswer { socket: socket.to_owned(), reason: error.to_string() })?;
    Ok((sender, tokio::spawn(connection)))
}

fn unreachable_socket(socket: &Path, error: io::Error) -> ApiError {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => ApiError::NotRunning { socket: socket.to_owned() },
        _ => ApiError::Io { action: "connect to", path: socket.to_owned(), source: error },
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, sync::Arc};

    use super::*;
    use crate::{
        examples,
        model::{DrainAnswer, DrainError, DrainRequest},
    };

    fn source() -> StatusSource {
        Arc::new(examples::status)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn the_client_gets_what_the_agent_says() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("run/agent.sock");
        let listener = bind(&socket).unwrap();
        assert_eq!((mode(&socket), mode(socket.parent().unwrap())), (0o600, 0o755));
        let cancel = CancellationToken::new();
        let task = tokio::spawn(serve(listener, source(), mpsc::channel(1).0, mpsc::channel(1).0, cancel.clone()));
        assert_eq!(status(&socket).await.unwrap(), examples::status());
        cancel.cancel();
        task.await.unwrap().unwrap();
    }

    /// Serves an agent that drains this one node.
    async fn serve_drains(socket: &Path) -> CancellationToken {
        let (commands, mut received) = mpsc::channel(1);
        let cancel = CancellationToken::new();
        tokio::spawn(serve(bind(socket).unwrap(), source(), mpsc::channel(1).0, commands, cancel.clone()));
        tokio::spawn(async move {
            let mut drained = false;
            while let Some(DrainCommand { action, request, answer }) = received.recv().await {
                let there = || "node-2".to_owned();
                let known = request.target == "node-2";
                let outcome = match action {
                    _ if !known => Err(DrainError::UnknownNode { target: request.target, there: there() }),
                    DrainAction::Undrain if !drained => {
                        Err(DrainError::NotDrained { target: request.target, there: "none".to_owned() })
                    }
                    _ => Ok(DrainAnswer { node: Some(request.target), ..DrainAnswer::default() }),
                };
                drained = action == DrainAction::Drain && outcome.is_ok();
                answer.send(outcome).unwrap();
            }
        });
        cancel
    }

    #[tokio::test]
    async fn drains_come_to_the_agent_and_its_answers_back() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("agent.sock");
        let _cancel = serve_drains(&socket).await;
        let ask = async |action, target: &str| {
            let request = DrainRequest { target: target.to_owned(), ..DrainRequest::default() };
            let answer = change_drains(&socket, action, &request).await;
            answer.map(|answer| answer.node.unwrap()).map_err(|error| error.to_string())
        };
        let unknown = "the agent refused: node-3 is neither an address nor a node; nodes are node-2";
        let idle = "the agent refused: node-2 is not drained";
        assert_eq!(ask(DrainAction::Drain, "node-3").await.unwrap_err(), unknown);
        assert!(ask(DrainAction::Undrain, "node-2").await.unwrap_err().starts_with(idle));
        assert_eq!(ask(DrainAction::Drain, "node-2").await.unwrap(), "node-2");
        assert_eq!(ask(DrainAction::Undrain, "node-2").await.unwrap(), "node-2");
    }

    #[tokio::test]
    async fn a_socket_in_use_is_refused_and_a_stale_one_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("agent.sock");
        let listener = bind(&socket).unwrap();
        assert!(matches!(bind(&socket), Err(ApiError::InUse { .. })));
        drop(listener);
        assert!(matches!(status(&socket).await, Err(ApiError::NotRunning { .. })));
        bind(&socket).unwrap();
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&path), Err(ApiError::NoSocket { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn without_an_agent_nobody_answers() {
        let folder = tempfile::tempdir().unwrap();
        let error = status(&folder.path().join("agent.sock")).await.unwrap_err();
        assert!(matches!(error, ApiError::NotRunning { .. }), "{error}");
    }

    #[tokio::test]
    async fn another_server_is_not_taken_for_an_agent() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("agent.sock");
        let listener = bind(&socket).unwrap();
        let router = Router::new().route(STATUS_PATH, get(async || "hello"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        assert!(matches!(status(&socket).await, Err(ApiError::BadAnswer { .. })));
    }
}

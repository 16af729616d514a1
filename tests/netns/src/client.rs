//! The HTTPS client: single requests on new connections, or many on one, each failure with its kind.

use std::{
    fmt,
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::server::Greeting;

/// Why a request was not answered as it should be.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Failure {
    /// No answer in time.
    Timeout,
    /// Nobody listens.
    Refused,
    /// The connection was reset.
    Reset,
    /// The server closed before it answered.
    Closed,
    /// An answer, but not to this question.
    WrongAnswer(String),
    /// Anything else.
    Other(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.pad("timeout"),
            Self::Refused => f.pad("refused"),
            Self::Reset => f.pad("reset"),
            Self::Closed => f.pad("closed early"),
            Self::WrongAnswer(answer) => write!(f, "wrong answer: {answer}"),
            Self::Other(error) => f.pad(error),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionRefused => Self::Refused,
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Self::Reset,
            ErrorKind::UnexpectedEof => Self::Closed,
            ErrorKind::TimedOut => Self::Timeout,
            _ => Self::Other(error.to_string()),
        }
    }
}

/// A client of one service.
#[derive(Clone)]
pub struct Client {
    tls: TlsConnector,
    target: SocketAddr,
    limit: Duration,
}

impl Client {
    /// A client of `target` that gives up on a connection or an answer after `limit`.
    #[must_use]
    pub fn new(tls: Arc<ClientConfig>, target: SocketAddr, limit: Duration) -> Self {
        Self { tls: TlsConnector::from(tls), target, limit }
    }

    /// Where it connects to.
    #[must_use]
    pub const fn target(&self) -> SocketAddr {
        self.target
    }

    /// Opens a connection, from `source_port` or (0) one the kernel chooses.
    ///
    /// # Errors
    /// As [`Failure`] says; a certificate that is not the CA's is [`Failure::Other`].
    pub async fn connect(&self, source_port: u16) -> Result<Connection, Failure> {
        timeout(self.limit, self.open(source_port)).await.map_err(|_| Failure::Timeout)?
    }

    async fn open(&self, source_port: u16) -> Result<Connection, Failure> {
        let socket = if self.target.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if source_port != 0 {
            let any = if self.target.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
            socket.set_reuseaddr(true)?;
            socket.bind(SocketAddr::new(any, source_port))?;
        }
        let stream = socket.connect(self.target).await?;
        stream.set_nodelay(true)?;
        let stream = self.tls.connect(ServerName::from(self.target.ip()), stream).await?;
        Ok(Connection { stream, limit: self.limit })
    }

    /// One request on a connection of its own: the answer and the time from the first packet to the answer.
    ///
    /// # Errors
    /// As [`Failure`] says.
    pub async fn request(&self) -> Result<(Greeting, Duration), Failure> {
        let start = Instant::now();
        let mut connection = self.connect(0).await?;
        let greeting = connection.ask(0).await?;
        let took = start.elapsed();
        // The answer is there; how the connection ends does not matter.
        let _ = timeout(self.limit, connection.stream.shutdown()).await;
        Ok((greeting, took))
    }
}

/// An open connection.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    limit: Duration,
}

impl Connection {
    /// Sends the request of this number and returns the answer, which names the server.
    ///
    /// # Errors
    /// As [`Failure`] says. The connection is of no use afterwards.
    pub async fn ask(&mut self, number: u64) -> Result<Greeting, Failure> {
        let limit = self.limit;
        timeout(limit, self.exchange(number)).await.map_err(|_| Failure::Timeout)?
    }

    async fn exchange(&mut self, number: u64) -> Result<Greeting, Failure> {
        let path = format!("/{number}");
        let request = format!("GET {path} HTTP/1.1\r\nhost: levee\r\n\r\n");
        self.stream.write_all(request.as_bytes()).await?;
        self.stream.flush().await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.stream.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.trim().parse().ok());
        let length = length.filter(|&length: &usize| length < 1 << 20 && head.starts_with("http/1.1 200 "));
        let Some(length) = length else {
            return Err(Failure::WrongAnswer(head));
        };
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        match serde_json::from_slice::<Greeting>(&body) {
            Ok(greeting) if greeting.path == path => Ok(greeting),
            _ => Err(Failure::WrongAnswer(String::from_utf8_lossy(&body).into_owned())),
        }
    }
}

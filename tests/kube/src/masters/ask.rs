//! Anonymous requests to API servers, each on a connection of its own: who answered, with what, and every failure.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use netns_tests::{client::Failure, netns::NetnsRuntime};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_rustls::TlsConnector;

use crate::{
    access::{Keys, SERVER_NAME},
    server::ApiServer,
};

/// Ports that requests of [`Asking`] come from, one after the other.
pub const PORTS: Range<u16> = 20_000..30_000;

/// What is asked for unless told otherwise.
const READY: &str = "/readyz";

/// What a server said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    /// Name of the server, by its certificate.
    pub server: String,
    /// HTTP status.
    pub status: u16,
    /// The text behind the head.
    pub body: String,
}

/// A request that was made.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The port it came from, if one was asked for.
    pub port: u16,
    /// When it was begun.
    pub began: Instant,
    /// Time to the answer or the failure.
    pub took: Duration,
    /// Name of the server that answered with 200; another answer is a failure.
    pub outcome: Result<String, Failure>,
}

/// A client that asks one address, a VIP say, and gives up after a while.
#[derive(Clone)]
pub struct Asker {
    tls: TlsConnector,
    target: SocketAddr,
    limit: Duration,
    path: &'static str,
    /// Servers by their certificates.
    names: Arc<BTreeMap<Vec<u8>, String>>,
}

impl Asker {
    /// A client of `target` that tells `servers` apart, by the names that go with them.
    ///
    /// # Errors
    /// If a certificate cannot be read.
    pub fn new<'a>(
        keys: &Keys,
        target: SocketAddr,
        limit: Duration,
        servers: impl Iterator<Item = (&'a str, &'a ApiServer)>,
    ) -> Result<Self> {
        let read =
            |path| CertificateDer::from_pem_file(path).with_context(|| format!("reading a certificate: {path:?}"));
        let named = servers.map(|(name, server)| Ok((read(server.certificate())?.to_vec(), name.to_owned())));
        let names = Arc::new(named.collect::<Result<_>>()?);
        Ok(Self { tls: TlsConnector::from(keys.client_config()?), target, limit, path: READY, names })
    }

    /// Asks for the server's version from now on, not whether it is ready: that it tells whatever its data store does.
    #[must_use]
    pub const fn for_version(mut self) -> Self {
        self.path = "/version";
        self
    }

    /// Asks for a path.
    ///
    /// # Errors
    /// As [`Failure`] says: whatever is no HTTP answer of a server that is known.
    pub async fn get(&self, path: &str) -> Result<Answer, Failure> {
        timeout(self.limit, self.exchange(path, 0)).await.map_err(|_| Failure::Timeout)?
    }

    async fn exchange(&self, path: &str, port: u16) -> Result<Answer, Failure> {
        let socket = TcpSocket::new_v4()?;
        if port != 0 {
            socket.set_reuseaddr(true)?;
            socket.bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
        }
        let stream = socket.connect(self.target).await?;
        let name = ServerName::try_from(SERVER_NAME).map_err(|error| Failure::Other(error.to_string()))?;
        let mut stream = self.tls.connect(name, stream).await?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(|all| all.first());
        let server = certificate.and_then(|certificate| self.names.get(certificate.as_ref())).cloned();
        let server = server.ok_or_else(|| Failure::WrongAnswer("the certificate of no server".to_owned()))?;
        // By version 1.0 the end of the answer is the end of the connection.
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {SERVER_NAME}\r\n\r\n").as_bytes()).await?;
        stream.flush().await?;
        let mut text = Vec::new();
        stream.read_to_end(&mut text).await?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let parts = text.split_once("\r\n\r\n").and_then(|(head, body)| {
            let status = head.split_whitespace().nth(1)?.parse().ok()?;
            Some((status, body.to_owned()))
        });
        let (status, body) = parts.ok_or(Failure::WrongAnswer(text))?;
        Ok(Answer { server, status, body })
    }

    /// Asks whether the server that it reaches is ready, from a port or (0) one that the kernel chooses.
    pub async fn attempt(&self, port: u16) -> Attempt {
        let began = Instant::now();
        let outcome = match timeout(self.limit, self.exchange(self.path, port)).await {
            Ok(Ok(Answer { server, status: 200, .. })) => Ok(server),
            Ok(Ok(other)) => Err(Failure::WrongAnswer(format!("{other:?}"))),
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(Failure::Timeout),
        };
        Attempt { port, began, took: began.elapsed(), outcome }
    }

    /// Asks so many times, some at a time.
    pub async fn many(&self, runtime: &NetnsRuntime, count: usize, parallel: usize) -> Vec<Attempt> {
        let mut attempts = Vec::with_capacity(count);
        let mut running = JoinSet::new();
        for _ in 0..count {
            if running.len() >= parallel {
                attempts.extend(running.join_next().await.and_then(Result::ok).and_then(Result::ok));
            }
            let asker = self.clone();
            running.spawn(runtime.spawn(async move { asker.attempt(0).await }));
        }
        attempts.extend(running.join_all().await.into_iter().filter_map(Result::ok));
        attempts
    }

    /// The `Status` that a request without credentials gets for a path.
    ///
    /// # Errors
    /// As [`Asker::get`], or if it is no JSON.
    pub async fn status(&self, path: &str) -> Result<(u16, Value), Failure> {
        let Answer { status, body, .. } = self.get(path).await?;
        let value = serde_json::from_str(&body).map_err(|error| Failure::WrongAnswer(format!("{error}: {body}")))?;
        Ok((status, value))
    }
}

/// Requests at every tick, whatever became of the ones before, each from a port of its own.
#[derive(Debug)]
pub struct Asking {
    stop: watch::Sender<bool>,
    task: JoinHandle<Vec<Attempt>>,
}

impl Asking {
    /// Begins, from the namespace of `runtime`.
    #[must_use]
    pub fn start(runtime: &NetnsRuntime, asker: &Asker, period: Duration) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let asker = asker.clone();
        let task = runtime.spawn(async move {
            let mut ticks = interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut running = JoinSet::new();
            for port in PORTS.cycle() {
                let asker = asker.clone();
                tokio::select! {
                    _ = ticks.tick() => { running.spawn(async move { asker.attempt(port).await }); }
                    // An error means that the owner is gone.
                    _ = stopped.changed() => break,
                }
            }
            let mut attempts = running.join_all().await;
            attempts.sort_by_key(|attempt| attempt.began);
            attempts
        });
        Self { stop, task }
    }

    /// Ends, waits for the requests under way, and returns all in the order of their beginning.
    pub async fn stop(self) -> Vec<Attempt> {
        let _ = self.stop.send(true);
        self.task.await.unwrap_or_default()
    }
}

/// Answers by server, and failures by kind.
#[must_use]
pub fn tally<'a>(
    attempts: impl IntoIterator<Item = &'a Attempt>,
) -> (BTreeMap<String, usize>, BTreeMap<String, usize>) {
    let (mut answers, mut failures) = (BTreeMap::new(), BTreeMap::new());
    for attempt in attempts {
        match &attempt.outcome {
            Ok(server) => *answers.entry(server.clone()).or_default() += 1,
            Err(failure) => *failures.entry(failure.to_string()).or_default() += 1,
        }
    }
    (answers, failures)
}

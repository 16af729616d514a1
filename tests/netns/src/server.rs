//! The HTTPS server of a node: tells its name, serves many requests on a connection, and says at `/readyz` what it is told
//! to say.
//!
//! Runs in a process of its own (`testpeer tls-server`), so that it can be killed like a real server.

use std::{
    fs,
    net::{SocketAddr, TcpListener as StdListener},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use anyhow::{Context, Result};
use nix::libc;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    authority::Identity,
    netns::Netns,
    process::Process,
    scope::{Scope, binary},
};

/// Longest request head accepted, in bytes.
const HEAD_LIMIT: usize = 8192;

/// The answer to every request.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Greeting {
    /// Name of the server.
    pub server: String,
    /// Address and port the server saw the connection come from.
    pub client: SocketAddr,
    /// Path of the request, so that an answer can be matched to its question.
    pub path: String,
}

/// Starts the server `name` on `port` in `netns`, in a process of its own.
///
/// # Errors
/// If the binary `testpeer` is missing or does not start.
pub fn spawn(scope: &Scope, netns: &Netns, name: &str, identity: &Identity, port: u16) -> Result<Process> {
    let mut command: Command = netns.command(binary("testpeer")?);
    command.args(["tls-server", "--name", name, "--listen", &format!("[::]:{port}")]);
    command.arg("--certificate").arg(&identity.certificate).arg("--key").arg(&identity.key);
    command.arg("--readiness").arg(readiness(scope, name));
    Process::spawn(scope, &format!("server-{name}"), &mut command)
}

/// Makes the server `name` answer `/readyz` with this status from now on; 200 before the first time. Everything else it
/// answers as ever, as an API server that shuts down does.
///
/// # Errors
/// If the file that tells it cannot be written.
pub fn set_readiness(scope: &Scope, name: &str, status: u16) -> Result<()> {
    let file = readiness(scope, name);
    let beside = file.with_extension("new");
    fs::write(&beside, status.to_string()).with_context(|| format!("writing {}", beside.display()))?;
    fs::rename(&beside, &file).with_context(|| format!("replacing {}", file.display()))
}

/// The file that holds the status of a server's `/readyz`.
fn readiness(scope: &Scope, name: &str) -> PathBuf {
    scope.file(&format!("{name}.readyz"))
}

/// Serves until the process ends. The file `readiness` holds the status of `/readyz`; without one it is 200.
///
/// # Errors
/// If the identity cannot be read or the address is in use.
pub async fn serve(name: String, listen: SocketAddr, identity: &Identity, readiness: PathBuf) -> Result<()> {
    let acceptor = TlsAcceptor::from(server_config(identity)?);
    let listener = TcpListener::from_std(listen_on(listen)?).context("handing over the listener")?;
    let (name, readiness): (Arc<str>, Arc<Path>) = (name.into(), readiness.into());
    loop {
        let Ok((stream, client)) = listener.accept().await else {
            continue;
        };
        let (acceptor, name, readiness) = (acceptor.clone(), Arc::clone(&name), Arc::clone(&readiness));
        tokio::spawn(async move {
            // A client that goes away or speaks no TLS (a connect probe) is none of the server's business.
            let _ = converse(&name, client, &acceptor, stream, &readiness).await;
        });
    }
}

/// A listener for both families if `address` is `[::]`, whatever `bindv6only` says.
///
/// # Errors
/// If the address is in use.
pub fn listen_on(address: SocketAddr) -> Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).context("socket")?;
    if address.is_ipv6() {
        socket.set_only_v6(false).context("listening for both families")?;
    }
    socket.set_reuse_address(true).context("reusing the address")?;
    socket.set_nonblocking(true).context("making the listener non-blocking")?;
    socket.bind(&address.into()).with_context(|| format!("binding {address}"))?;
    socket.listen(libc::SOMAXCONN).with_context(|| format!("listening on {address}"))?;
    Ok(socket.into())
}

fn server_config(identity: &Identity) -> Result<Arc<ServerConfig>> {
    let certificate = CertificateDer::from_pem_file(&identity.certificate)
        .with_context(|| format!("reading {}", identity.certificate.display()))?;
    let key =
        PrivateKeyDer::from_pem_file(&identity.key).with_context(|| format!("reading {}", identity.key.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("choosing TLS versions")?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .context("using the certificate")?;
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Answers requests until the client closes.
async fn converse(
    name: &str,
    client: SocketAddr,
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    readiness: &Path,
) -> Result<()> {
    stream.set_nodelay(true)?;
    let client = SocketAddr::new(client.ip().to_canonical(), client.port());
    let mut stream = acceptor.accept(stream).await?;
    while let Some(head) = read_head(&mut stream).await? {
        let path = head.split_whitespace().nth(1).unwrap_or("/").to_owned();
        let close = head.to_ascii_lowercase().contains("\r\nconnection: close");
        let status = if path == "/readyz" { fs::read_to_string(readiness).ok() } else { None };
        let status = status.unwrap_or_else(|| "200".to_owned());
        let body = serde_json::to_string(&Greeting { server: name.to_owned(), client, path })?;
        let connection = if close { "close" } else { "keep-alive" };
        let answer = format!(
            "HTTP/1.1 {status} Told\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: {connection}\r\n\r\n{body}",
            body.len(),
        );
        stream.write_all(answer.as_bytes()).await?;
        stream.flush().await?;
        if close {
            break;
        }
    }
    stream.shutdown().await?;
    Ok(())
}

/// The next request up to its empty line; `None` if the client is done. Requests have no body.
async fn read_head(stream: &mut TlsStream<TcpStream>) -> Result<Option<String>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        anyhow::ensure!(head.len() < HEAD_LIMIT, "request head longer than {HEAD_LIMIT} bytes");
        // One byte at a time out of the decrypted buffer: nothing of a following request is taken.
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) if head.is_empty() => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Some(String::from_utf8_lossy(&head).into_owned()))
}

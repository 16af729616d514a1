//! Nodes that listen on 127.0.0.1, with TLS.

use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc};

use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use reqwest::Url;
use rustls::ServerConfig;
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
    time::sleep,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    Authority, Reply, World, thumbprint,
    world::{Call, Outcome},
};

/// The managers of one cluster.
pub struct Server {
    /// What they share.
    pub world: World,
    /// Who signed their certificates.
    pub authority: Authority,
    nodes: Vec<Node>,
}

struct Node {
    address: SocketAddr,
    tls: Arc<ServerConfig>,
    certificate: Vec<u8>,
    /// Listens; `None` while the node is down.
    task: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts so many nodes.
    ///
    /// # Panics
    /// Nothing can listen on 127.0.0.1.
    pub async fn start(nodes: usize) -> Self {
        let authority = Authority::new();
        let mut server = Self { world: World::new(nodes), authority, nodes: Vec::new() };
        for _ in 0..nodes {
            let (tls, certificate) = server.authority.server();
            let address = SocketAddr::from(([127, 0, 0, 1], 0));
            server.nodes.push(Node { address, tls: Arc::new(tls), certificate, task: None });
            server.up(server.nodes.len() - 1).await;
        }
        server
    }

    /// The URLs of all nodes, in order.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| format!("https://{}", node.address)).collect()
    }

    /// SHA-256 of a node's certificate.
    #[must_use]
    pub fn thumbprint(&self, node: usize) -> String {
        thumbprint(&self.nodes[node].certificate)
    }

    /// Takes a node down: connections break, its port is closed, its sessions are gone.
    pub async fn down(&mut self, node: usize) {
        if let Some(task) = self.nodes[node].task.take() {
            task.abort();
            let _ = task.await;
        }
        self.world.drop_sessions(node);
    }

    /// Takes a node up, on its port from before if it had one.
    ///
    /// # Panics
    /// The port is taken.
    pub async fn up(&mut self, node: usize) {
        let this = &mut self.nodes[node];
        let listener = TcpListener::bind(this.address).await.expect("a port on 127.0.0.1");
        this.address = listener.local_addr().expect("its address");
        this.task = Some(tokio::spawn(listen(listener, Arc::clone(&this.tls), self.world.clone(), node)));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for task in self.nodes.iter().filter_map(|node| node.task.as_ref()) {
            task.abort();
        }
    }
}

/// Takes connections; they end with it.
async fn listen(listener: TcpListener, tls: Arc<ServerConfig>, world: World, node: usize) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(converse(stream, TlsAcceptor::from(Arc::clone(&tls)), world.clone(), node));
    }
}

async fn converse(stream: TcpStream, acceptor: TlsAcceptor, world: World, node: usize) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let certificates = stream.get_ref().1.peer_certificates().map(<[_]>::to_vec).unwrap_or_default();
    let name = certificates.first().and_then(|certificate| common_name(certificate));
    let service = service_fn(move |request| answer(request, world.clone(), node, name.clone()));
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// The first common name in a certificate: object identifier 2.5.4.3, followed by a short UTF-8 string.
fn common_name(der: &[u8]) -> Option<String> {
    // The issuer's name stands first, so the last one is the subject's.
    let at = der.windows(6).rposition(|bytes| bytes == [0x06, 0x03, 0x55, 0x04, 0x03, 0x0c])?;
    let length = usize::from(*der.get(at + 6)?);
    String::from_utf8(der.get(at + 7..at + 7 + length)?.to_vec()).ok()
}

async fn answer(
    request: Request<Incoming>,
    world: World,
    node: usize,
    certificate: Option<String>,
) -> io::Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let url = Url::parse("https://node").and_then(|base| base.join(&head.uri.to_string())).map_err(io::Error::other)?;
    let headers: BTreeMap<_, _> = head
        .headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
        .collect();
    let call = Call {
        method: head.method.to_string(),
        path: decoded(url.path()),
        query: url.query_pairs().map(|(key, value)| (key.into_owned(), Value::String(value.into_owned()))).collect(),
        headers,
        body: String::from_utf8_lossy(&body).into_owned(),
        certificate,
    };
    match world.serve(node, &call) {
        Outcome::Reply(reply) => response(reply),
        Outcome::Late(reply, delay) => {
            sleep(delay).await;
            response(reply)
        }
        Outcome::Reset => Err(io::Error::other("reset")),
    }
}

fn decoded(path: &str) -> String {
    let pair = format!("https://node/?x={}", path.replace('+', "%2B"));
    let value = Url::parse(&pair).ok().and_then(|url| url.query_pairs().next().map(|(_, value)| value.into_owned()));
    value.unwrap_or_else(|| path.to_owned())
}

fn response(reply: Reply) -> io::Result<Response<Full<Bytes>>> {
    let mut builder = Response::builder().status(reply.status).header("content-type", reply.content_type);
    for (name, value) in reply.headers {
        builder = builder.header(name, value);
    }
    builder.body(Full::new(Bytes::from(reply.body))).map_err(io::Error::other)
}

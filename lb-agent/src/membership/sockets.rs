//! One UDP socket per address of this node, so that datagrams leave with the address that peers know.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use tokio::{net::UdpSocket, sync::mpsc, task::JoinHandle};

use crate::proto::peers::wire::MAX_LENGTH;

/// How long to wait before an address is tried again that could not be bound.
const RETRY: Duration = Duration::from_secs(1);
/// Datagrams that wait to be read, besides those in the kernel.
const WAITING: usize = 256;

/// The sockets.
#[derive(Debug)]
pub(super) struct Sockets {
    port: u16,
    by_address: BTreeMap<IpAddr, Result<Bound, String>>,
    received: mpsc::Receiver<(IpAddr, Vec<u8>)>,
    sender: mpsc::Sender<(IpAddr, Vec<u8>)>,
    mended: Option<Instant>,
}

#[derive(Debug)]
struct Bound {
    socket: std::sync::Arc<UdpSocket>,
    reader: JoinHandle<()>,
}

impl Drop for Bound {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Default for Sockets {
    /// None.
    fn default() -> Self {
        let (sender, received) = mpsc::channel(WAITING);
        Self { port: 0, by_address: BTreeMap::new(), received, sender, mended: None }
    }
}

impl Sockets {
    /// Makes these the addresses and this the port of the sockets; what is bound already stays.
    pub(super) fn bind(&mut self, addresses: &[IpAddr], port: u16) {
        if self.port != port {
            self.by_address.clear();
            self.port = port;
        }
        self.by_address.retain(|address, _| addresses.contains(address));
        for address in addresses {
            if !matches!(self.by_address.get(address), Some(Ok(_))) {
                let bound = self.open(*address);
                if let Err(trouble) = &bound {
                    tracing::warn!(trouble, "peers cannot be heard there; trying again");
                }
                self.by_address.insert(*address, bound);
            }
        }
    }

    /// Tries again from time to time what could not be bound: an address may come later than the agent.
    pub(super) fn mend(&mut self) {
        if self.mended.is_some_and(|at| at.elapsed() < RETRY) {
            return;
        }
        self.mended = Some(Instant::now());
        let broken: Vec<IpAddr> =
            self.by_address.iter().filter(|(_, bound)| bound.is_err()).map(|(address, _)| *address).collect();
        for address in broken {
            let bound = self.open(address);
            if bound.is_ok() {
                tracing::info!(%address, port = self.port, "peers are heard there now");
            }
            self.by_address.insert(address, bound);
        }
    }

    /// What could not be bound, in words.
    pub(super) fn troubles(&self) -> Vec<String> {
        self.by_address.values().filter_map(|bound| bound.as_ref().err().cloned()).collect()
    }

    /// The next datagram and where it is from; for ever if there is none. Nothing is lost if it is given up.
    pub(super) async fn receive(&mut self) -> (IpAddr, Vec<u8>) {
        match self.received.recv().await {
            Some(received) => received,
            None => std::future::pending().await,
        }
    }

    /// Sends from the first address of the same family.
    pub(super) fn send(&self, to: IpAddr, bytes: &[u8]) {
        let bound = self.by_address.iter().filter(|(own, _)| own.is_ipv4() == to.is_ipv4());
        let Some(bound) = bound.filter_map(|(_, bound)| bound.as_ref().ok()).next() else { return };
        if let Err(error) = bound.socket.try_send_to(bytes, SocketAddr::new(to, self.port)) {
            tracing::trace!(%to, %error, "a datagram did not get out");
        }
    }

    fn open(&self, address: IpAddr) -> Result<Bound, String> {
        let port = self.port;
        let refused = |error: std::io::Error| {
            format!(
                "UDP {} cannot be bound: {error}; free the port, or set `membership.port` on every node",
                SocketAddr::new(address, port)
            )
        };
        let socket = std::net::UdpSocket::bind((address, port)).map_err(refused)?;
        socket.set_nonblocking(true).map_err(refused)?;
        let socket = std::sync::Arc::new(UdpSocket::from_std(socket).map_err(refused)?);
        let (heard, sender) = (std::sync::Arc::clone(&socket), self.sender.clone());
        let reader = tokio::spawn(async move {
            let mut buffer = [0; MAX_LENGTH + 1];
            loop {
                // What is wrong with one datagram says nothing of the next.
                let Ok((length, from)) = heard.recv_from(&mut buffer).await else {
                    tokio::time::sleep(RETRY).await;
                    continue;
                };
                // A port of somebody else's is no agent's.
                if length <= MAX_LENGTH
                    && from.port() == port
                    && sender.send((from.ip(), buffer[..length].to_vec())).await.is_err()
                {
                    return;
                }
            }
        });
        Ok(Bound { socket, reader })
    }
}

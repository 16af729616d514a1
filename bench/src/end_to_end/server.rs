//! The servers behind every balancer: blocking threads in a namespace.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    thread,
};

use anyhow::{Context, Result};
use netns_tests::netns::Netns;
use nix::sys::socket::{Backlog, Shutdown, listen, shutdown};

use super::protocol::Request;

/// Threads of a server: more than the client has connections under way, or connections would wait for each other.
const THREADS: usize = 24;

/// A server on every address of a namespace; dropping it ends its threads.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Server {
    /// Starts a server on `port` in `netns`.
    ///
    /// # Errors
    /// If the namespace cannot be entered or the port is in use.
    pub fn start(netns: &Netns, port: u16) -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let open = || -> Result<TcpListener> {
            let listener = TcpListener::bind(address).with_context(|| format!("binding {address}"))?;
            // Listening again only changes the backlog, which is 128 from the standard library.
            listen(&listener, Backlog::MAXCONN).context("enlarging the backlog")?;
            Ok(listener)
        };
        let listener = netns.enter(open)??;
        let mut server = Self { listener, threads: Vec::new() };
        for _ in 0..THREADS {
            let listener = server.listener.try_clone().context("sharing the listener")?;
            server.threads.push(thread::spawn(move || serve(&listener)));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Wakes every thread that waits for a connection: `accept` fails from now on.
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve(listener: &TcpListener) {
    loop {
        match listener.accept() {
            Ok((stream, _)) => answer(stream),
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
            Err(_) => return,
        }
    }
}

/// A connection that breaks is the client's to report.
fn answer(mut stream: TcpStream) {
    let _ = Request::serve(&mut stream);
}

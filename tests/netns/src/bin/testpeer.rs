//! Servers of the testbed, each a process of its own so that it can be killed like a real one.

use std::{io::Write, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use netns_tests::{authority::Identity, echo, server};

/// Servers of the testbed
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// HTTPS server that answers with its name
    TlsServer {
        /// Name it answers with
        #[arg(long)]
        name: String,
        /// Address and port; `[::]` listens for both families
        #[arg(long)]
        listen: SocketAddr,
        /// Certificate, PEM
        #[arg(long)]
        certificate: PathBuf,
        /// Private key, PEM
        #[arg(long)]
        key: PathBuf,
        /// File with the status of /readyz; without it 200
        #[arg(long)]
        readiness: PathBuf,
    },
    /// TCP server that answers each message with its name
    TcpEcho {
        /// Name it answers with
        #[arg(long)]
        name: String,
        /// Address and port; `[::]` listens for both families
        #[arg(long)]
        listen: SocketAddr,
    },
    /// UDP server that answers each datagram with its name
    UdpEcho {
        /// Name it answers with
        #[arg(long)]
        name: String,
        /// Addresses and ports; each need not be here yet
        #[arg(long, required = true)]
        listen: Vec<SocketAddr>,
    },
    /// Ask an echo server once, and print its name and the socket's peer
    Ask {
        /// Address and port
        #[arg(long)]
        to: SocketAddr,
        /// Over UDP, not TCP
        #[arg(long)]
        udp: bool,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().verb {
        Verb::TlsServer { name, listen, certificate, key, readiness } => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
            runtime.block_on(server::serve(name, listen, &Identity { certificate, key }, readiness))
        }
        Verb::TcpEcho { name, listen } => echo::serve_tcp(&name, listen),
        Verb::UdpEcho { name, listen } => echo::serve_udp(&name, &listen),
        Verb::Ask { to, udp } => {
            let kind = if udp { echo::Kind::Udp } else { echo::Kind::Tcp };
            let (server, peer) = echo::ask_peer(kind, to, Duration::from_secs(2))?;
            Ok(writeln!(std::io::stdout(), "{server} {peer}")?)
        }
    }
}

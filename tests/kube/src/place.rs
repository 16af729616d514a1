//! Where a server runs: in a network namespace, or on an own loopback address of this machine.

use std::{
    ffi::OsStr,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    process::{self, Command},
    sync::atomic::{AtomicU16, Ordering},
};

use anyhow::{Context, Result};
use netns_tests::netns::NetnsRef;

/// 127.64.0.0/10: its host bits are as many as a process id has (`PID_MAX_LIMIT` is 2^22).
const LOOPBACK_BLOCK: u32 = 0x7f40_0000;
/// First port on a loopback address of our own.
const FIRST_PORT: u16 = 20_000;

/// A place for servers, with the address by which they are reached.
#[derive(Clone, Debug)]
pub struct Place {
    netns: Option<NetnsRef>,
    address: IpAddr,
}

impl Place {
    /// The loopback address that belongs to this process alone, made of its id: no server of another one is in the way.
    #[must_use]
    pub fn loopback() -> Self {
        let address = Ipv4Addr::from_bits(LOOPBACK_BLOCK | (process::id() & 0x003f_ffff));
        Self { netns: None, address: address.into() }
    }

    /// In a namespace, which has this address.
    #[must_use]
    pub fn inside(netns: &NetnsRef, address: IpAddr) -> Self {
        Self { netns: Some(netns.clone()), address }
    }

    /// The address by which a server here is reached.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// The address that a server here listens on: every one in a namespace, where VIPs come and go.
    #[must_use]
    pub fn bind_address(&self) -> IpAddr {
        if self.netns.is_some() { Ipv4Addr::UNSPECIFIED.into() } else { self.address }
    }

    /// The address by which something here reaches a server here.
    #[must_use]
    pub fn own_address(&self) -> IpAddr {
        if self.netns.is_some() { Ipv4Addr::LOCALHOST.into() } else { self.address }
    }

    /// Whether this is a namespace.
    #[must_use]
    pub const fn is_netns(&self) -> bool {
        self.netns.is_some()
    }

    /// A port: the usual one in a namespace, the next free one on the loopback address.
    #[must_use]
    pub fn port(&self, usual: u16) -> u16 {
        static NEXT: AtomicU16 = AtomicU16::new(FIRST_PORT);
        if self.netns.is_some() { usual } else { NEXT.fetch_add(1, Ordering::Relaxed) }
    }

    /// A command that runs here.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        match &self.netns {
            Some(netns) => netns.command(program),
            None => Command::new(program),
        }
    }

    /// Listens here. The socket stays in its namespace, whoever accepts from it.
    ///
    /// # Errors
    /// If the port is taken.
    pub fn listen(&self, port: u16) -> Result<TcpListener> {
        let address = SocketAddr::new(self.bind_address(), port);
        let listen = || TcpListener::bind(address).with_context(|| format!("listening on {address}"));
        match &self.netns {
            Some(netns) => netns.enter(listen)?,
            None => listen(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_address_is_of_its_block_and_no_port_comes_twice() {
        let place = Place::loopback();
        let IpAddr::V4(address) = place.address() else { panic!("{place:?}") };
        assert_eq!(address.to_bits() >> 22, LOOPBACK_BLOCK >> 22);
        assert_ne!(place.port(6443), place.port(6443));
        let port = place.port(6443);
        let listener = place.listen(port).unwrap();
        assert_eq!(listener.local_addr().unwrap(), SocketAddr::new(place.address(), port));
    }
}

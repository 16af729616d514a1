//! Sockets in the network namespace of a bed, for what the program asks the kernel about connections here.

use std::net::{IpAddr, SocketAddr, TcpListener};

use socket2::{Domain, Socket, Type};

use crate::link::ip;

/// Brings `lo` up and gives it the addresses, to be bound at once: an IPv6 address with duplicate address detection
/// is tentative until the kernel's worker has looked at it, also on `lo`.
pub fn own(addresses: &[IpAddr]) {
    ip(&["link", "set", "lo", "up"]);
    for address in addresses {
        let text = address.to_string();
        match address {
            IpAddr::V4(_) => ip(&["address", "add", &text, "dev", "lo"]),
            IpAddr::V6(_) => ip(&["-6", "address", "add", &text, "dev", "lo", "nodad"]),
        }
    }
}

/// A listener on `server` and a client's socket on `client`, not connected yet.
pub fn pair(client: SocketAddr, server: SocketAddr) -> (TcpListener, Socket) {
    let listener = TcpListener::bind(server).unwrap_or_else(|error| panic!("listen on {server}: {error}"));
    let socket = Socket::new(Domain::for_address(client), Type::STREAM, None);
    let socket = socket.unwrap_or_else(|error| panic!("a socket for {client}: {error}"));
    socket.bind(&client.into()).unwrap_or_else(|error| panic!("bind {client}: {error}"));
    (listener, socket)
}

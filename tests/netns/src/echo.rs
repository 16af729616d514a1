//! UDP and TCP servers that answer each message with their name and the message, and the client's side of both.
//!
//! A message is an 8-byte sequence number and a payload; over TCP its length (4 bytes) goes before it. The answer
//! carries the number, the length of the server's name (1 byte), the name and the payload. Integers are big-endian.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    process::Command,
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    netns::Netns,
    process::Process,
    scope::{Scope, binary},
    server::listen_on,
};

/// Longest message, in bytes.
pub const LIMIT: usize = 65_000;
/// Bytes of the sequence number.
pub const NUMBER: usize = 8;

/// Which echo server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Answers datagrams from the address they were sent to.
    Udp,
    /// Answers messages in a stream.
    Tcp,
}

/// Starts an echo server `name` in `netns`, in a process of its own.
///
/// It need not have the addresses yet: a UDP server names each VIP here, so that it answers from the VIP.
///
/// # Errors
/// If the binary `testpeer` is missing or does not start.
pub fn spawn(scope: &Scope, netns: &Netns, kind: Kind, name: &str, listen: &[SocketAddr]) -> Result<Process> {
    let verb = if kind == Kind::Udp { "udp-echo" } else { "tcp-echo" };
    let mut command: Command = netns.command(binary("testpeer")?);
    command.args([verb, "--name", name]);
    for address in listen {
        command.args(["--listen", &address.to_string()]);
    }
    Process::spawn(scope, &format!("{verb}-{name}"), &mut command)
}

/// A message of `size` payload bytes.
#[must_use]
pub fn message(number: u64, size: usize) -> Vec<u8> {
    let mut message = number.to_be_bytes().to_vec();
    // Every byte depends on the number, so that an answer to another question is noticed.
    message.extend((0..size).map(|at| (number.wrapping_add(at as u64) & 0xff) as u8));
    message
}

/// The answer of `name` to `message`; `None` if that is no message.
#[must_use]
pub fn answer(name: &str, message: &[u8]) -> Option<Vec<u8>> {
    let (number, payload) = message.split_at_checked(NUMBER)?;
    Some([number, &[u8::try_from(name.len()).ok()?], name.as_bytes(), payload].concat())
}

/// Takes an answer apart: number, server, payload.
#[must_use]
pub fn parse_answer(answer: &[u8]) -> Option<(u64, &str, &[u8])> {
    let (number, rest) = answer.split_first_chunk::<NUMBER>()?;
    let (&length, rest) = rest.split_first()?;
    let (name, payload) = rest.split_at_checked(usize::from(length))?;
    Some((u64::from_be_bytes(*number), str::from_utf8(name).ok()?, payload))
}

/// Binds a UDP socket, even to an address that is not here yet.
///
/// # Errors
/// If the port is in use.
pub fn bind_udp(address: SocketAddr) -> Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP)).context("socket")?;
    if address.is_ipv4() {
        socket.set_freebind_v4(true).context("allowing a foreign address")?;
    } else {
        socket.set_freebind_v6(true).context("allowing a foreign address")?;
    }
    socket.bind(&address.into()).with_context(|| format!("binding {address}"))?;
    Ok(socket.into())
}

/// Serves datagrams until the process ends.
///
/// # Errors
/// If an address cannot be bound.
pub fn serve_udp(name: &str, listen: &[SocketAddr]) -> Result<()> {
    let sockets = listen.iter().copied().map(bind_udp).collect::<Result<Vec<_>>>()?;
    thread::scope(|scope| {
        for socket in &sockets {
            scope.spawn(move || {
                let mut buffer = vec![0; LIMIT];
                loop {
                    // Errors are ICMP's news about earlier answers.
                    let Ok((length, client)) = socket.recv_from(&mut buffer) else {
                        continue;
                    };
                    if let Some(answer) = answer(name, &buffer[..length]) {
                        let _ = socket.send_to(&answer, client);
                    }
                }
            });
        }
    });
    Ok(())
}

/// Serves streams until the process ends.
///
/// # Errors
/// If the address is in use.
pub fn serve_tcp(name: &str, listen: SocketAddr) -> Result<()> {
    let listener = listen_on(listen)?;
    listener.set_nonblocking(false).context("making the listener blocking")?;
    let name: Arc<str> = name.into();
    for stream in listener.incoming().flatten() {
        let name = Arc::clone(&name);
        // A connection that breaks is the client's to notice.
        thread::spawn(move || answer_stream(&name, stream));
    }
    Ok(())
}

fn answer_stream(name: &str, mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let message = read_frame(&mut stream)?;
        let answer = answer(name, &message).ok_or(io::ErrorKind::InvalidData)?;
        write_frame(&mut stream, &answer)?;
    }
}

/// Asks a TCP echo server once, with a payload of `size` bytes, and returns its name.
///
/// Blocks; call it inside a namespace with [`enter`](crate::netns::NetnsRef::enter).
///
/// # Errors
/// If there is no answer within `limit`, or it is not what was sent.
pub fn ask_tcp(target: SocketAddr, size: usize, limit: Duration) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&target, limit).with_context(|| format!("connecting to {target}"))?;
    stream.set_read_timeout(Some(limit)).context("setting a limit")?;
    let message = message(7, size);
    write_frame(&mut stream, &message).with_context(|| format!("asking {target}"))?;
    let answer = read_frame(&mut stream).with_context(|| format!("hearing from {target}"))?;
    server_of(&answer, &message)
}

/// Asks an echo server once from a connected socket; returns its name, and who the socket says its peer is.
///
/// # Errors
/// As [`ask_tcp`].
pub fn ask_peer(kind: Kind, target: SocketAddr, limit: Duration) -> Result<(String, SocketAddr)> {
    let message = message(7, 100);
    if kind == Kind::Udp {
        let any: SocketAddr = if target.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
        let socket = UdpSocket::bind(any).context("binding")?;
        socket.connect(target).with_context(|| format!("connecting to {target}"))?;
        socket.set_read_timeout(Some(limit)).context("setting a limit")?;
        socket.send(&message).with_context(|| format!("asking {target}"))?;
        let mut buffer = vec![0; LIMIT];
        let length = socket.recv(&mut buffer).with_context(|| format!("hearing from {target}"))?;
        return Ok((server_of(&buffer[..length], &message)?, socket.peer_addr()?));
    }
    let mut stream = TcpStream::connect_timeout(&target, limit).with_context(|| format!("connecting to {target}"))?;
    stream.set_read_timeout(Some(limit)).context("setting a limit")?;
    write_frame(&mut stream, &message).with_context(|| format!("asking {target}"))?;
    let answer = read_frame(&mut stream).with_context(|| format!("hearing from {target}"))?;
    Ok((server_of(&answer, &message)?, stream.peer_addr()?))
}

/// Sends `count` messages of `size` payload bytes through one connection to a TCP echo server, each after the answer to
/// the one before, and returns the server's name.
///
/// Blocks; call it inside a namespace with [`enter`](crate::netns::NetnsRef::enter).
///
/// # Errors
/// If no byte moves for `limit`, or an answer is not what was sent.
pub fn exchange_tcp(target: SocketAddr, size: usize, count: u64, limit: Duration) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&target, limit).with_context(|| format!("connecting to {target}"))?;
    stream.set_read_timeout(Some(limit)).context("setting a limit")?;
    stream.set_write_timeout(Some(limit)).context("setting a limit")?;
    let mut server = String::new();
    for number in 0..count {
        let message = message(number, size);
        write_frame(&mut stream, &message).with_context(|| format!("sending message {number} to {target}"))?;
        let answer = read_frame(&mut stream).with_context(|| format!("hearing answer {number} from {target}"))?;
        server = server_of(&answer, &message)?;
    }
    Ok(server)
}

/// Asks a UDP echo server once, with a payload of `size` bytes, and returns its name.
///
/// Blocks; call it inside a namespace with [`enter`](crate::netns::NetnsRef::enter).
///
/// # Errors
/// If there is no answer within `limit`, or it is not what was sent.
pub fn ask_udp(target: SocketAddr, size: usize, limit: Duration) -> Result<String> {
    let any: SocketAddr = if target.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).context("binding")?;
    // A connected socket takes answers from the address it asked only.
    socket.connect(target).with_context(|| format!("connecting to {target}"))?;
    socket.set_read_timeout(Some(limit)).context("setting a limit")?;
    let message = message(7, size);
    socket.send(&message).with_context(|| format!("asking {target}"))?;
    let mut buffer = vec![0; LIMIT];
    let length = socket.recv(&mut buffer).with_context(|| format!("hearing from {target}"))?;
    server_of(&buffer[..length], &message)
}

/// The server's name, if `answer` belongs to `message`.
fn server_of(answer: &[u8], message: &[u8]) -> Result<String> {
    let (number, server, payload) = parse_answer(answer).context("the answer cannot be read")?;
    let intact = number.to_be_bytes() == message[..NUMBER] && payload == &message[NUMBER..];
    ensure!(intact, "{server} answered number {number} with {} bytes, not what was sent", payload.len());
    Ok(server.to_owned())
}

fn read_frame(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > LIMIT {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame)?;
    Ok(frame)
}

fn write_frame(stream: &mut TcpStream, frame: &[u8]) -> io::Result<()> {
    let length = u32::try_from(frame.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    stream.write_all(&[&length.to_be_bytes(), frame].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_tells_number_server_and_payload() {
        let message = message(300, 3);
        let answer = answer("node-1", &message).unwrap();
        assert_eq!(parse_answer(&answer), Some((300, "node-1", [44, 45, 46].as_slice())));
        assert_eq!(server_of(&answer, &message).unwrap(), "node-1");
    }

    #[test]
    fn what_is_cut_or_foreign_is_refused() {
        assert_eq!(answer("node-1", &[0; 7]), None);
        assert_eq!(parse_answer(&[0, 0, 0, 0, 0, 0, 0, 1, 5, b'a']), None);
        let foreign = answer("node-1", &message(2, 3)).unwrap();
        assert!(server_of(&foreign, &message(1, 3)).is_err());
    }
}

//! Connections that servers on this node have open, as the kernel lists them.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Tables of TCP sockets in the agent's network namespace.
const TABLES: [&str; 2] = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
/// State of a connection that is established, or about to be: the server has answered the client's SYN.
const OPEN: [&str; 2] = ["01", "03"];

/// Local ends of open TCP connections.
pub fn open() -> io::Result<Vec<(IpAddr, u16)>> {
    let mut all = Vec::new();
    for table in TABLES {
        match fs::read_to_string(table) {
            Ok(text) => all.extend(parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {} // no IPv6
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

fn parse(table: &str) -> impl Iterator<Item = (IpAddr, u16)> {
    table.lines().skip(1).filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let local = words.nth(1)?;
        let state = words.nth(1)?;
        if OPEN.contains(&state) { end(local) } else { None }
    })
}

/// `0A01010A:192B`: the address as words of 32 bits in the order of this host, and the port.
fn end(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| Some(u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes());
    let address = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (at, part) in bytes.chunks_mut(4).enumerate() {
                part.copy_from_slice(&word(at)?);
            }
            Ipv6Addr::from(bytes).to_canonical()
        }
        _ => return None,
    };
    Some((address, port))
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;

    const V4: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0277 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0A0200C0:192B 050010AC:9C40 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0 20 4 30 10 -1
   2: 0A0200C0:192B 050010AC:9C41 06 00000000:00000000 00:00000000 00000000     0        0 0 3 0 20 4 30 10 -1
";
    const V6: &str = "\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr
   0: 0000000000000000FFFF00000A0200C0:192B 0000000000000000FFFF0000050010AC:9C42 03 00000000:00000000 00:00000000
   1: B80D0120000000000000000010000000:192B B80D0120000000000000000001000000:9C43 01 00000000:00000000 00:00000000
";

    #[test]
    fn connections_are_counted_by_their_local_end_and_listeners_are_not() {
        assert_eq!(parse(V4).collect::<Vec<_>>(), [("192.0.2.10".parse().unwrap(), 6443)]);
        let ends =
            ["192.0.2.10".parse().unwrap(), "2001:db8::10".parse().unwrap()].map(|address: IpAddr| (address, 6443));
        assert_eq!(parse(V6).collect::<Vec<_>>(), ends);
    }
}

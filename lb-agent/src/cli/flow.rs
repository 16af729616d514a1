//! A flow as people write it, and a frame of it.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use lb_common::{
    addr::{IpAddr16, WireWord},
    wire::{eth, ipv4, ipv6},
};
use serde::Serialize;

use crate::model::Protocol;

/// Shown with every mistake.
const EXAMPLES: &str = "write it as `tcp 10.0.0.1:40000 192.0.2.10:6443` or `udp [2001:db8::1]:5 [2001:db8::10]:53`";

/// Bytes of IP header and everything after it: enough for the dry entry's report, and not too big for any way.
const IP_LENGTH: u16 = 128;

/// Protocol and both ends of a flow, as in its packets towards the VIP.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Flow {
    pub protocol: Protocol,
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

/// What is wrong with a flow.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum FlowError {
    #[error("a flow has a protocol, a source and a destination, and not {words} words; {EXAMPLES}")]
    Words { words: usize },
    #[error("`{0}` is no protocol of a flow, which are tcp, udp and sctp; {EXAMPLES}")]
    Protocol(String),
    #[error("`{0}` is no address with a port; {EXAMPLES}")]
    End(String),
    #[error("port 0 of `{0}` is in no packet; {EXAMPLES}")]
    PortZero(String),
    #[error("{source_end} and {destination} are of two families; {EXAMPLES}")]
    Families { source_end: SocketAddr, destination: SocketAddr },
}

impl Flow {
    /// Reads a flow from one argument or several, with or without an arrow.
    pub fn parse(arguments: &[String]) -> Result<Self, FlowError> {
        let words: Vec<_> =
            arguments.iter().flat_map(|argument| argument.split_whitespace()).filter(|word| *word != "->").collect();
        let [protocol, source, destination] = words[..] else {
            return Err(FlowError::Words { words: words.len() });
        };
        let protocol = match protocol.to_ascii_lowercase().as_str() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => return Err(FlowError::Protocol(protocol.to_owned())),
        };
        let (source, destination) = (end(source)?, end(destination)?);
        if source.is_ipv4() != destination.is_ipv4() {
            return Err(FlowError::Families { source_end: source, destination });
        }
        Ok(Self { protocol, source, destination })
    }

    /// An Ethernet frame of the flow's first packet, between link-layer addresses that nobody has.
    pub fn frame(&self) -> Vec<u8> {
        let ethertype = if self.destination.is_ipv4() { eth::IPV4 } else { eth::IPV6 };
        let mut frame = vec![0; 12];
        frame.extend(ethertype.to_be_bytes());
        let header = self.ip_header();
        let payload_length = IP_LENGTH - u16::try_from(header.len()).unwrap_or(0);
        frame.extend(header);
        frame.extend(self.source.port().to_be_bytes());
        frame.extend(self.destination.port().to_be_bytes());
        match self.protocol {
            // Sequence numbers, five words of header, SYN.
            Protocol::Tcp => frame.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff]),
            Protocol::Udp => frame.extend(payload_length.to_be_bytes()),
            // Verification tag and checksum; zeroes follow.
            Protocol::Sctp => {}
        }
        frame.resize(eth::LEN + usize::from(IP_LENGTH), 0);
        frame
    }

    fn ip_header(&self) -> Vec<u8> {
        let number = self.protocol.number();
        let [source, destination] = [self.source, self.destination].map(|end| IpAddr16::from(end.ip()));
        let bytes = |words: &[WireWord]| words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        match self.destination.ip() {
            IpAddr::V4(_) => bytes(&ipv4::outer(source.last(), destination.last(), number, 0, IP_LENGTH)),
            IpAddr::V6(_) => {
                let length = IP_LENGTH - u16::try_from(ipv6::LEN).unwrap_or(0);
                bytes(&ipv6::outer(source.words(), destination.words(), number, 0, 0, length))
            }
        }
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}", self.protocol, self.source, self.destination)
    }
}

fn end(text: &str) -> Result<SocketAddr, FlowError> {
    let end: SocketAddr = text.parse().map_err(|_| FlowError::End(text.to_owned()))?;
    if end.port() == 0 {
        return Err(FlowError::PortZero(text.to_owned()));
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use lb_common::parse;

    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Flow, FlowError> {
        let arguments: Vec<_> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Flow::parse(&arguments)
    }

    #[test]
    fn flows_are_read_however_they_are_quoted() {
        let cases: [(&[&str], &str); 5] = [
            (&["tcp", "10.0.0.1:40000", "192.0.2.10:6443"], "tcp 10.0.0.1:40000 -> 192.0.2.10:6443"),
            (&["tcp 10.0.0.1:40000 192.0.2.10:6443"], "tcp 10.0.0.1:40000 -> 192.0.2.10:6443"),
            (&["UDP", "[2001:db8::1]:5", "->", "[2001:db8::10]:53"], "udp [2001:db8::1]:5 -> [2001:db8::10]:53"),
            (&["udp [2001:db8::1]:5 -> [2001:db8::10]:53"], "udp [2001:db8::1]:5 -> [2001:db8::10]:53"),
            (&["  tcp   10.0.0.1:1", "192.0.2.10:2 "], "tcp 10.0.0.1:1 -> 192.0.2.10:2"),
        ];
        for (arguments, shown) in cases {
            assert_eq!(parsed(arguments).unwrap().to_string(), shown, "{arguments:?}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            ("tcp 10.0.0.1:1", FlowError::Words { words: 2 }),
            ("tcp 10.0.0.1:1 192.0.2.10:2 3", FlowError::Words { words: 4 }),
            ("", FlowError::Words { words: 0 }),
            ("icmp 10.0.0.1:1 192.0.2.10:2", FlowError::Protocol("icmp".to_owned())),
            ("tcp 10.0.0.1 192.0.2.10:2", FlowError::End("10.0.0.1".to_owned())),
            ("tcp 2001:db8::1:5 [2001:db8::10]:53", FlowError::End("2001:db8::1:5".to_owned())),
            ("tcp 10.0.0.1:70000 192.0.2.10:2", FlowError::End("10.0.0.1:70000".to_owned())),
            ("tcp 10.0.0.1:0 192.0.2.10:2", FlowError::PortZero("10.0.0.1:0".to_owned())),
            (
                "tcp 10.0.0.1:1 [2001:db8::10]:2",
                FlowError::Families {
                    source_end: "10.0.0.1:1".parse().unwrap(),
                    destination: "[2001:db8::10]:2".parse().unwrap(),
                },
            ),
        ];
        for (text, error) in cases {
            assert_eq!(parsed(&[text]), Err(error), "{text}");
        }
    }

    #[test]
    fn the_packet_path_reads_the_flow_back_from_its_frame() {
        for text in [
            "tcp 10.0.0.1:40000 192.0.2.10:6443",
            "udp 10.0.0.1:40000 192.0.2.10:53",
            "sctp 10.0.0.1:40000 192.0.2.10:2905",
            "tcp [2001:db8::1]:5 [2001:db8::10]:443",
            "udp [2001:db8::1]:5 [2001:db8::10]:53",
        ] {
            let flow = parsed(&[text]).unwrap();
            let frame = flow.frame();
            assert_eq!(frame.len(), 142);
            let frame = frame.as_slice();
            let link = parse::link(frame).unwrap();
            let network = parse::network(frame, link.l3, link.ethertype == eth::IPV4).unwrap();
            assert_eq!(IpAddr::from(network.source), flow.source.ip());
            assert_eq!(IpAddr::from(network.destination), flow.destination.ip());
            assert_eq!((network.ttl, network.length), (64, 128));
            let transport = parse::transport(frame, &network).unwrap();
            assert_eq!(transport.protocol, flow.protocol.number());
            let ports = parse::ports(frame, &transport).unwrap();
            assert_eq!(ports.source.get(), flow.source.port());
            assert_eq!(ports.destination.get(), flow.destination.port());
        }
    }
}

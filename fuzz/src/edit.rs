//! Edits of inputs: blind ones, and ones that know where frames and configurations keep what matters.

use packets_tests::{Random, addresses::*};

use crate::{Target, world};

/// Longest input, bytes.
const LONGEST: usize = 4096;

/// Makes inputs of inputs.
pub struct Editor {
    random: Random,
    target: Target,
    words: Vec<Vec<u8>>,
}

impl Editor {
    /// The editor for a target whose choices follow from `seed`.
    pub fn new(target: Target, seed: u64) -> Self {
        let words = if target == Target::Config { tokens() } else { field_values() };
        Self { random: Random::new(seed), target, words }
    }

    /// An input made of one of the corpus by one to eight edits.
    pub fn edited(&mut self, corpus: &[&[u8]]) -> Vec<u8> {
        let mut bytes = corpus[self.below(corpus.len())].to_vec();
        for _ in 0..=self.below(8) {
            match self.below(3) {
                0 => self.blind(&mut bytes, corpus),
                _ if self.target == Target::Config => self.text(&mut bytes),
                _ => self.frame(&mut bytes),
            }
        }
        bytes.truncate(LONGEST);
        bytes
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.random.below(limit.max(1) as u64)).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        self.random.bytes::<1>()[0]
    }

    fn word(&mut self) -> Vec<u8> {
        let index = self.below(self.words.len());
        self.words[index].clone()
    }

    /// A place and a length of at most `longest` within `bytes`.
    fn range(&mut self, bytes: &[u8], longest: usize) -> std::ops::Range<usize> {
        let start = self.below(bytes.len() + 1);
        let length = self.below(longest.min(bytes.len() - start) + 1);
        start..start + length
    }

    fn blind(&mut self, bytes: &mut Vec<u8>, corpus: &[&[u8]]) {
        let at = self.below(bytes.len());
        match self.below(7) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
            1 if !bytes.is_empty() => bytes[at] = self.byte(),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(self.range(bytes, 16))),
            4 => {
                let copied = bytes[self.range(bytes, 32)].to_vec();
                bytes.splice(at..at, copied);
            }
            5 => {
                let other = corpus[self.below(corpus.len())];
                let taken = other[self.range(other, other.len())].to_vec();
                let range = self.range(bytes, taken.len());
                bytes.splice(range, taken);
            }
            _ => {
                let word = self.word();
                bytes.splice(at..at, word);
            }
        }
    }

    /// Puts a value that matters over bytes of a frame: at a place where frames keep such, or anywhere.
    fn frame(&mut self, frame: &mut [u8]) {
        // Where a packet may begin: behind tags, and behind headers of tunnels and errors.
        const PACKETS: [usize; 9] = [14, 14, 14, 18, 22, 14 + 20, 14 + 28, 14 + 40, 14 + 32];
        let l3 = PACKETS[self.below(PACKETS.len())];
        let is_ipv4 = frame.get(l3).is_some_and(|byte| byte >> 4 == 4);
        match self.below(6) {
            0 => {
                // Lengths, fragments, TTL, protocol; first bytes of the transport; for both families.
                let fields =
                    if is_ipv4 { [0, 2, 3, 6, 7, 8, 9, 20, 22, 33] } else { [0, 4, 5, 6, 7, 40, 41, 42, 43, 53] };
                let at = l3 + fields[self.below(fields.len())];
                let values = [0, 1, 4, 6, 17, 41, 44, 58, 60, 132, 0x20, 0x45, 0x46, 0x60, 0xff];
                let value = values[self.below(values.len())];
                overwrite(frame, at, &[value]);
            }
            1 => lengthen(frame, l3, is_ipv4, self.below(3)),
            2 => {
                let (addresses, width) = if is_ipv4 { ([12, 16], 4) } else { ([8, 24], 16) };
                let at = l3 + addresses[self.below(2)];
                let fitting: Vec<_> = self.words.iter().filter(|word| word.len() == width).cloned().collect();
                let address = &fitting[self.below(fitting.len())];
                overwrite(frame, at, address);
            }
            3 => {
                let at = l3 + if is_ipv4 { 20 } else { 40 } + 2 * self.below(2);
                let ports: [u16; 6] = [80, 53, 443, 6080, 38_412, 0];
                let port = ports[self.below(ports.len())].to_be_bytes();
                overwrite(frame, at, &port);
            }
            4 => {
                // Another client: another slot of the ring.
                let (at, port) = (l3 + if is_ipv4 { 20 } else { 40 }, self.random.bytes::<2>());
                overwrite(frame, at, &port);
            }
            _ => {
                let (at, word) = (self.below(frame.len()), self.word());
                overwrite(frame, at, &word);
            }
        }
    }

    /// Edits whole lines, numbers and tokens of a configuration.
    fn text(&mut self, bytes: &mut Vec<u8>) {
        let text = String::from_utf8_lossy(bytes).into_owned();
        text.as_bytes().clone_into(bytes);
        let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
        let (at, other) = (self.below(lines.len()), self.below(lines.len()));
        let line;
        match self.below(5) {
            0 if !lines.is_empty() => drop(lines.remove(at)),
            1 if !lines.is_empty() => lines.insert(other, lines[at]),
            2 if !lines.is_empty() => lines.swap(at, other),
            3 if !lines.is_empty() => {
                line = format!("{}{}", " ".repeat(self.below(5)), lines[at].trim_start());
                lines[at] = &line;
            }
            _ => {
                // A token in place of another one.
                let ends: Vec<usize> = text.match_indices([' ', ':', ',', '[', ']', '\n']).map(|(at, _)| at).collect();
                let from = ends.get(self.below(ends.len())).map_or(0, |end| end + 1);
                let to = ends.iter().copied().find(|end| *end >= from).unwrap_or(text.len());
                let word = self.word();
                bytes.splice(from..to.max(from), word);
                return;
            }
        }
        *bytes = lines.concat().into_bytes();
    }
}

fn overwrite(frame: &mut [u8], at: usize, value: &[u8]) {
    let end = frame.len().min(at + value.len());
    if at < end {
        frame[at..end].copy_from_slice(&value[..end - at]);
    }
}

/// Makes the length of the packet at `l3` what is there, one more or one less.
fn lengthen(frame: &mut [u8], l3: usize, is_ipv4: bool, by: usize) {
    let header = if is_ipv4 { 0 } else { 40 };
    let length = (frame.len() + by).saturating_sub(l3 + header + 1);
    let length = u16::try_from(length).unwrap_or(u16::MAX);
    overwrite(frame, l3 + if is_ipv4 { 2 } else { 4 }, &length.to_be_bytes());
}

/// Addresses, numbers and headers that the packet path looks for.
fn field_values() -> Vec<Vec<u8>> {
    let addresses = [
        VIP4,
        VIP6,
        world::OPEN4,
        world::RANGED4,
        world::RANGED6,
        CLIENT4,
        CLIENT6,
        NODE4,
        NODE6,
        PEER4,
        PEER6,
        STRANGER4,
        STRANGER6,
    ];
    let mapped = std::net::Ipv4Addr::new(198, 51, 100, 10).to_ipv6_mapped().octets().to_vec();
    let octets = |address: std::net::IpAddr| match address {
        std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
        std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let mut values: Vec<Vec<u8>> = addresses.into_iter().map(octets).collect();
    let others: [&[u8]; 16] = [
        &[0x08, 0x00],
        &[0x86, 0xdd],
        &[0x08, 0x06],
        &[0x81, 0x00],
        &[0x88, 0xa8],
        &[0; 4],
        &[0xff; 4],
        &[0; 16],
        &[0xff; 16],
        &[0, 4, 0, 0],
        &[0, 41, 0, 0],
        &[0x20, 0],
        b"LV2c",
        b"\x01\x04\0\0LV2c",
        &PEER_MAC,
        &[44, 0, 0, 1, 0, 0, 0, 9],
    ];
    values.extend(others.map(<[u8]>::to_vec));
    values.push(mapped);
    values
}

/// Keys, words and signs of configurations.
fn tokens() -> Vec<Vec<u8>> {
    let keys = lb_agent::config::SAMPLE.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| word.len() > 2);
    let signs = [
        "0",
        "1",
        "-1",
        "64",
        "65536",
        "4294967296",
        "99999999999999999999",
        "1e9",
        "0x10",
        "1s",
        "0ms",
        "25h",
        "true",
        "null",
        "~",
        "[]",
        "{}",
        "[",
        "]",
        "{",
        "}",
        "- ",
        ": ",
        "&a",
        "*a",
        "!!str",
        "|",
        ">",
        "'",
        "\"",
        "#",
        "\t",
        "\r",
        "\u{85}",
        "\u{2028}",
        "---\n",
        "...\n",
        "%",
        "<<: ",
        "? ",
        "::",
        "10.0.0.0/33",
        "2001:db8::/0",
        "0.0.0.0",
        "255.255.255.255",
        "\"::ffff:1.2.3.4\"",
        "fe80::1%1",
        "services:\n",
        "\u{1f980}",
        "\\u0000",
        "\0",
    ];
    let mut tokens: Vec<Vec<u8>> = keys.chain(signs).map(|token| token.as_bytes().to_vec()).collect();
    tokens.sort();
    tokens.dedup();
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_the_same_inputs_and_another_one_others() {
        let corpus: [&[u8]; 2] = [&[7; 60], b"services:\n  - name: s\n"];
        for target in Target::ALL {
            let made = |seed| {
                let mut editor = Editor::new(target, seed);
                (0..50).map(|_| editor.edited(&corpus)).collect::<Vec<_>>()
            };
            assert_eq!(made(1), made(1));
            assert_ne!(made(1), made(2));
        }
    }

    #[test]
    fn the_shortest_inputs_are_edited_too() {
        for target in Target::ALL {
            let mut editor = Editor::new(target, 1);
            let lengths: Vec<_> = (0..500).map(|_| editor.edited(&[&[]]).len()).collect();
            assert!(lengths.iter().any(|length| *length > 0));
        }
    }
}

//! The datagram. Integers are in network order.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `LVMB` |
//! | 1 | version, 1 |
//! | 1 | flags: 1 the sender knows the receiver as a director, 2 hears it, 4 stops for a while |
//! | 4 | fingerprint of the sender's secret |
//! | 8, 8 | the sender's incarnation (random, never 0), and the number of this datagram in it |
//! | 8, 8 | the same of a datagram of the receiver's that the sender has; 0, 0 for none |
//! | 1+n, 1+n | names of sender and receiver, each after its length, 1..=63 |
//! | 1+8n | ids of peers that are silent to the sender, after their number, 0..=32 |
//! | 32 | HMAC-SHA256 (RFC 2104) of everything before, with a key made of the secret |
//!
//! The names keep a datagram from being turned back or aside; incarnations and numbers, from being sent again.

use std::{fmt, hash::Hasher};

use ring::hmac;
use siphasher::sip::SipHasher24;
use thiserror::Error;

/// Longest datagram, bytes.
pub const MAX_LENGTH: usize = 4 + 1 + 1 + 4 + 4 * 8 + 2 * 64 + 1 + MAX_SILENT * 8 + TAG;
/// The most silent peers that a datagram names.
pub const MAX_SILENT: usize = 32;

const MAGIC: [u8; 4] = *b"LVMB";
const VERSION: u8 = 1;
const TAG: usize = 32;
const MAX_NAME: usize = 63;
const KNOWS: u8 = 1;
const HEARS: u8 = 2;
const LEAVES: u8 = 4;

/// A datagram of a process: the process's random number, and the datagram's in it, from 1 on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mark {
    /// Incarnation, not 0.
    pub boot: u64,
    /// Number.
    pub number: u64,
}

/// What a datagram says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Message {
    /// Name of the sender.
    pub from: String,
    /// Name of the receiver.
    pub to: String,
    /// This datagram.
    pub mark: Mark,
    /// A datagram of the receiver's that the sender has.
    pub echo: Option<Mark>,
    /// The sender accepts the receiver as a director.
    pub knows: bool,
    /// The sender hears the receiver's present incarnation.
    pub hears: bool,
    /// The sender stops for a while; what it forwards goes on.
    pub leaves: bool,
    /// Ids of peers that are silent to the sender, at most [`MAX_SILENT`].
    pub silent: Vec<u64>,
}

/// The key of the datagrams, and the fingerprint of the secret that it was made of.
#[derive(Clone)]
pub struct Key {
    hmac: hmac::Key,
    fingerprint: u32,
}

impl Key {
    /// The key made of the cluster's secret.
    #[must_use]
    pub fn new(secret: &[u8; 16], fingerprint: u32) -> Self {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
        // Another use of the secret than the flow hash: another key.
        let derived = hmac::sign(&secret, b"levee membership 1");
        Self { hmac: hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()), fingerprint }
    }

    /// The fingerprint of the secret.
    #[must_use]
    pub const fn fingerprint(&self) -> u32 {
        self.fingerprint
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key(fingerprint {:08x})", self.fingerprint)
    }
}

/// Why a datagram is not believed.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum WireError {
    /// It is another protocol's.
    #[error("no datagram of Levee's agents")]
    Other,
    /// It is another version's.
    #[error("a datagram of version {0}, which this agent does not know")]
    Version(u8),
    /// It is too short, too long or contradicts itself.
    #[error("a malformed datagram")]
    Malformed,
    /// It says that it was made with another secret, which cannot be verified.
    #[error("made with another secret, fingerprint {fingerprint:08x}")]
    Stranger {
        /// Fingerprint of that secret.
        fingerprint: u32,
        /// What it says, unverified.
        message: Box<Message>,
    },
    /// It claims this secret and was not made with it.
    #[error("forged or damaged")]
    Forged,
}

/// Number by which datagrams name a peer.
#[must_use]
pub fn id_of(name: &str) -> u64 {
    let mut hasher = SipHasher24::new();
    hasher.write(name.as_bytes());
    hasher.finish()
}

/// The datagram of a message. Names are cut at 63 bytes, silent peers at [`MAX_SILENT`].
#[must_use]
pub fn encode(message: &Message, key: &Key) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MAX_LENGTH);
    bytes.extend(MAGIC);
    let flag = |is_set, flag| if is_set { flag } else { 0 };
    let flags = flag(message.knows, KNOWS) | flag(message.hears, HEARS) | flag(message.leaves, LEAVES);
    bytes.extend([VERSION, flags]);
    bytes.extend(key.fingerprint.to_be_bytes());
    let echo = message.echo.unwrap_or(Mark { boot: 0, number: 0 });
    for number in [message.mark.boot, message.mark.number, echo.boot, echo.number] {
        bytes.extend(number.to_be_bytes());
    }
    for name in [&message.from, &message.to] {
        let name = &name.as_bytes()[..name.len().min(MAX_NAME)];
        bytes.push(u8::try_from(name.len()).unwrap_or(0));
        bytes.extend(name);
    }
    let silent = &message.silent[..message.silent.len().min(MAX_SILENT)];
    bytes.push(u8::try_from(silent.len()).unwrap_or(0));
    bytes.extend(silent.iter().flat_map(|id| id.to_be_bytes()));
    let tag = hmac::sign(&key.hmac, &bytes);
    bytes.extend(tag.as_ref());
    bytes
}

/// Reads a datagram.
///
/// # Errors
/// If it is not to be believed.
pub fn decode(bytes: &[u8], key: &Key) -> Result<Message, WireError> {
    if bytes.get(..4) != Some(&MAGIC) {
        return Err(WireError::Other);
    }
    match bytes.get(4) {
        Some(&VERSION) => {}
        Some(version) => return Err(WireError::Version(*version)),
        None => return Err(WireError::Malformed),
    }
    let body = bytes.len().checked_sub(TAG).ok_or(WireError::Malformed)?;
    let (body, tag) = bytes.split_at(body);
    let (fingerprint, message) = Reader(body).message().ok_or(WireError::Malformed)?;
    if fingerprint != key.fingerprint {
        return Err(WireError::Stranger { fingerprint, message: Box::new(message) });
    }
    hmac::verify(&key.hmac, body, tag).map_err(|_| WireError::Forged)?;
    Ok(message)
}

struct Reader<'b>(&'b [u8]);

impl Reader<'_> {
    fn message(mut self) -> Option<(u32, Message)> {
        let [.., flags] = self.take::<6>()?;
        let fingerprint = u32::from_be_bytes(self.take()?);
        let mark = self.mark()?.filter(|mark| mark.number > 0)?;
        let echo = self.mark()?;
        let (from, to) = (self.name()?, self.name()?);
        let [count] = self.take()?;
        let ids = (0..count).map(|_| self.take().map(u64::from_be_bytes));
        let silent = ids.collect::<Option<Vec<_>>>().filter(|silent| silent.len() <= MAX_SILENT)?;
        let (knows, hears, leaves) = (flags & KNOWS != 0, flags & HEARS != 0, flags & LEAVES != 0);
        let message = Message { from, to, mark, echo, knows, hears, leaves, silent };
        self.0.is_empty().then_some((fingerprint, message))
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    /// A mark; `None` within if it stands for none.
    fn mark(&mut self) -> Option<Option<Mark>> {
        let mark = Mark { boot: u64::from_be_bytes(self.take()?), number: u64::from_be_bytes(self.take()?) };
        Some((mark.boot != 0).then_some(mark))
    }

    fn name(&mut self) -> Option<String> {
        let [length] = self.take()?;
        let (name, rest) = self.0.split_at_checked(length.into())?;
        self.0 = rest;
        let name = std::str::from_utf8(name).ok()?;
        (1..=MAX_NAME).contains(&name.len()).then(|| name.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> Key {
        Key::new(&[7; 16], 0x0a1b_2c3d)
    }

    fn message() -> Message {
        Message {
            from: "node-1".to_owned(),
            to: "node-2".to_owned(),
            mark: Mark { boot: 0x0102_0304_0506_0708, number: 9 },
            echo: Some(Mark { boot: 0x1112_1314_1516_1718, number: 0x0a0b }),
            knows: true,
            hears: false,
            leaves: true,
            silent: vec![id_of("node-3")],
        }
    }

    #[test]
    fn the_form_is_as_documented() {
        let bytes = encode(&message(), &key());
        let mut expected = b"LVMB\x01\x05\x0a\x1b\x2c\x3d".to_vec();
        expected.extend([1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 9]);
        expected.extend([0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0, 0, 0, 0, 0, 0, 0x0a, 0x0b]);
        expected.extend(b"\x06node-1\x06node-2\x01");
        expected.extend(id_of("node-3").to_be_bytes());
        assert_eq!(bytes[..bytes.len() - TAG], expected);
        assert_eq!(decode(&bytes, &key()), Ok(message()));
        assert!(bytes.len() <= MAX_LENGTH);
    }

    #[test]
    fn one_changed_bit_is_noticed() {
        let bytes = encode(&message(), &key());
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&changed, &key()).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn another_secret_shows_by_its_fingerprint_and_a_false_one_is_a_forgery() {
        let theirs = encode(&message(), &Key::new(&[8; 16], 0xffff_ffff));
        let stranger = WireError::Stranger { fingerprint: 0xffff_ffff, message: Box::new(message()) };
        assert_eq!(decode(&theirs, &key()), Err(stranger));
        let forged = encode(&message(), &Key::new(&[8; 16], key().fingerprint()));
        assert_eq!(decode(&forged, &key()), Err(WireError::Forged));
        assert!(!format!("{:?}", key()).contains('7'), "{:?}", key());
    }

    #[test]
    fn what_is_not_whole_is_refused() {
        let bytes = encode(&message(), &key());
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length], &key()).is_err(), "{length} bytes");
        }
        assert_eq!(decode(b"GET / HTTP/1.1", &key()), Err(WireError::Other));
        assert_eq!(decode(b"LVMB\x02", &key()), Err(WireError::Version(2)));
        let nameless = encode(&Message { to: String::new(), ..message() }, &key());
        assert_eq!(decode(&nameless, &key()), Err(WireError::Malformed));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = decode(&bytes, &key());
            let _ = decode(&[b"LVMB\x01".as_slice(), &bytes].concat(), &key());
        }
    }
}

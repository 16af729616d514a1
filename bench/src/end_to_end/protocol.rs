//! What client and server say: the client sends a request of fixed length, the server answers and closes.
//!
//! The server closes first, so that neither the client nor a proxy in between runs out of ports in TIME_WAIT.

use std::io::{self, ErrorKind, Read, Write};

/// Bytes of a request: kind, length of the transfer (big-endian), padding.
pub const REQUEST: usize = 128;
/// Bytes of a short answer.
pub const ANSWER: usize = 512;
/// Bytes that go to the kernel at once in a transfer.
pub const CHUNK: usize = 64 * 1024;

/// What a connection is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Request {
    /// A short answer.
    Short,
    /// This many bytes from the server.
    Download(u64),
    /// This many bytes from the client, then a short answer.
    Upload(u64),
}

impl Request {
    /// As it is sent.
    #[must_use]
    pub fn encode(self) -> [u8; REQUEST] {
        let (kind, bytes) = match self {
            Self::Short => (b'S', 0),
            Self::Download(bytes) => (b'D', bytes),
            Self::Upload(bytes) => (b'U', bytes),
        };
        let mut request = [b' '; REQUEST];
        request[0] = kind;
        request[1..9].copy_from_slice(&bytes.to_be_bytes());
        request
    }

    /// Reads what was sent; `None` if it is something else.
    #[must_use]
    pub fn decode(request: &[u8; REQUEST]) -> Option<Self> {
        let (kind, rest) = request.split_first()?;
        let bytes = u64::from_be_bytes(*rest.first_chunk()?);
        match kind {
            b'S' => Some(Self::Short),
            b'D' => Some(Self::Download(bytes)),
            b'U' => Some(Self::Upload(bytes)),
            _ => None,
        }
    }

    /// The client's side, on a connection that was just made: to the end of the answer and of the connection.
    ///
    /// # Errors
    /// If the connection breaks, or ends with another number of bytes than was asked for.
    pub fn ask(self, stream: &mut (impl Read + Write)) -> io::Result<()> {
        stream.write_all(&self.encode())?;
        let expected = match self {
            Self::Short => ANSWER as u64,
            Self::Download(bytes) => bytes,
            Self::Upload(bytes) => {
                send(stream, bytes)?;
                ANSWER as u64
            }
        };
        let received = drain(stream, u64::MAX)?;
        if received == expected { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
    }

    /// The server's side; the caller closes.
    ///
    /// # Errors
    /// If the connection breaks or the request is something else.
    pub fn serve(stream: &mut (impl Read + Write)) -> io::Result<()> {
        let mut request = [0; REQUEST];
        stream.read_exact(&mut request)?;
        match Self::decode(&request).ok_or(ErrorKind::InvalidData)? {
            Self::Short => stream.write_all(&[b'.'; ANSWER]),
            Self::Download(bytes) => send(stream, bytes),
            Self::Upload(bytes) => {
                drain(stream, bytes)?;
                stream.write_all(&[b'.'; ANSWER])
            }
        }
    }
}

fn send(stream: &mut impl Write, bytes: u64) -> io::Result<()> {
    let chunk = vec![b'.'; CHUNK];
    let mut left = bytes;
    while left > 0 {
        let now = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        stream.write_all(&chunk[..now])?;
        left -= now as u64;
    }
    Ok(())
}

/// Reads to the end of the stream, or until `limit` bytes came. Returns how many.
fn drain(stream: &mut impl Read, limit: u64) -> io::Result<u64> {
    let mut received = 0;
    // A short answer is over before a large buffer would have been cleared.
    let mut buffer = [0; 4096];
    let mut large = Vec::new();
    while received < limit {
        if received > buffer.len() as u64 && large.is_empty() {
            large.resize(CHUNK, 0);
        }
        let into = if large.is_empty() { &mut buffer[..] } else { &mut large[..] };
        match stream.read(into) {
            Ok(0) => break,
            Ok(count) => received += count as u64,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(received)
}

#[cfg(test)]
mod tests {
    use std::{io::Cursor, net::Shutdown, os::unix::net::UnixStream, thread};

    use super::*;

    #[test]
    fn a_request_is_read_as_it_was_sent() {
        for request in [Request::Short, Request::Download(1 << 40), Request::Upload(0)] {
            assert_eq!(Request::decode(&request.encode()), Some(request));
        }
        assert_eq!(Request::decode(&[b' '; REQUEST]), None);
    }

    #[test]
    fn both_sides_agree_on_every_kind() {
        for request in [Request::Short, Request::Download(1_000_003), Request::Upload(1_000_003)] {
            let (mut client, mut server) = UnixStream::pair().unwrap();
            let serving = thread::spawn(move || {
                Request::serve(&mut server)?;
                server.shutdown(Shutdown::Both)
            });
            request.ask(&mut client).unwrap();
            serving.join().unwrap().unwrap();
        }
    }

    #[test]
    fn an_answer_that_is_cut_is_an_error() {
        let mut stream = Cursor::new(vec![0; REQUEST + ANSWER - 1]);
        assert_eq!(Request::Short.ask(&mut stream).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
}

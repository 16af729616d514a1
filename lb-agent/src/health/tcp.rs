//! The TCP probe: connects and closes again, and says in a few words why it could not. The others begin like it.
//!
//! The probe's source is whatever the kernel chooses, as for any program of this node. The close is an ordinary one
//! (FIN), so that the server's log shows a client that left and not a reset.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use nix::errno::Errno;
use tokio::{
    net::TcpStream,
    time::{Instant, error::Elapsed, timeout_at},
};

use super::Answer;
use crate::model::ProbeTarget;

/// Connects once, and closes.
pub(super) async fn probe(target: &ProbeTarget) -> Answer {
    match connect(target, Instant::now() + target.probe.timeout).await {
        Ok(_) => Answer::Yes,
        Err(answer) => answer,
    }
}

/// Connects, by `deadline`, which is the probe's timeout after its begin.
pub(super) async fn connect(target: &ProbeTarget, deadline: Instant) -> Result<TcpStream, Answer> {
    let address = SocketAddr::new(target.address, target.probe.port);
    judge(target.address, target.probe.timeout, timeout_at(deadline, TcpStream::connect(address)).await)
}

fn judge(
    address: IpAddr,
    limit: Duration,
    result: Result<io::Result<TcpStream>, Elapsed>,
) -> Result<TcpStream, Answer> {
    match result {
        Err(_) => Err(Answer::closed(format!("no answer within {limit:?}"))),
        Ok(Err(error)) => Err(classify(address, &error)),
        // A connect to a closed local port of the ephemeral range can meet itself (simultaneous open, RFC 9293 section 3.5).
        Ok(Ok(stream)) if stream.local_addr().ok() == stream.peer_addr().ok() => {
            Err(Answer::closed("connection refused"))
        }
        Ok(Ok(stream)) => Ok(stream),
    }
}

fn classify(address: IpAddr, error: &io::Error) -> Answer {
    let reason = match error.raw_os_error().map(Errno::from_raw) {
        Some(
            lack @ (Errno::EMFILE
            | Errno::ENFILE
            | Errno::ENOMEM
            | Errno::ENOBUFS
            | Errno::EADDRNOTAVAIL
            | Errno::EAGAIN),
        ) => {
            return Answer::Unknown(format!("this node could not probe: {}", lack.desc().to_lowercase()));
        }
        Some(Errno::EPERM | Errno::EACCES) => "not permitted by this node's firewall".to_owned(),
        Some(Errno::EHOSTUNREACH) => format!("no route to host {address}"),
        Some(Errno::ENETUNREACH) => format!("network of {address} is unreachable"),
        Some(Errno::ETIMEDOUT) => "no answer".to_owned(),
        Some(errno) => errno.desc().to_lowercase(),
        None if error.kind() == ErrorKind::TimedOut => "no answer".to_owned(),
        None => error.to_string(),
    };
    Answer::closed(reason)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::{
        io::AsyncReadExt,
        net::{TcpListener, TcpSocket},
    };

    use super::*;
    use crate::model::{Probe, ProbeKind};

    fn target(port: u16, timeout: Duration) -> ProbeTarget {
        let interval = Duration::from_secs(60);
        let probe = Probe { kind: ProbeKind::Tcp, port, interval, timeout, rise: 2, fall: 3 };
        ProbeTarget { address: IpAddr::from([127, 0, 0, 1]), probe: Arc::new(probe) }
    }

    fn port(listener: &TcpListener) -> u16 {
        listener.local_addr().unwrap().port()
    }

    #[tokio::test]
    async fn a_listener_answers_and_sees_an_ordinary_close() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        assert_eq!(probe(&target(port(&listener), Duration::from_secs(60))).await, Answer::Yes);
        let (mut stream, _) = listener.accept().await.unwrap();
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0, "end of stream, not a reset");
    }

    #[tokio::test]
    async fn a_closed_port_refuses() {
        let bound = TcpSocket::new_v4().unwrap(); // keeps the port from others, and listens to nobody
        bound.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = bound.local_addr().unwrap().port();
        let answer = probe(&target(port, Duration::from_secs(60))).await;
        assert_eq!(answer, Answer::closed("connection refused"));
    }

    #[tokio::test]
    async fn a_full_backlog_is_silence() {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let _first = TcpStream::connect(address).await.unwrap(); // a backlog of 0 takes one
        let answer = probe(&target(address.port(), Duration::from_millis(50))).await;
        assert_eq!(answer, Answer::closed("no answer within 50ms"));
    }

    #[test]
    fn errors_become_short_reasons() {
        let address = IpAddr::from([192, 0, 2, 1]);
        let no = |text: &str| Answer::closed(text);
        let unknown = |text: &str| Answer::Unknown(format!("this node could not probe: {text}"));
        for (errno, expected) in [
            (Errno::ECONNREFUSED, no("connection refused")),
            (Errno::ECONNRESET, no("connection reset by peer")),
            (Errno::EHOSTUNREACH, no("no route to host 192.0.2.1")),
            (Errno::ENETUNREACH, no("network of 192.0.2.1 is unreachable")),
            (Errno::ETIMEDOUT, no("no answer")),
            (Errno::EPERM, no("not permitted by this node's firewall")),
            (Errno::EMFILE, unknown("too many open files")),
            (Errno::EADDRNOTAVAIL, unknown("cannot assign requested address")),
        ] {
            assert_eq!(classify(address, &io::Error::from_raw_os_error(errno as i32)), expected, "{errno}");
        }
    }
}

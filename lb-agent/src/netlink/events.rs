//! Events: what the kernel tells without being asked.

use std::io;

use netlink_packet_core::{NetlinkBuffer, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use nix::{
    errno::Errno,
    sys::socket::{setsockopt, sockopt},
};
use rtnetlink::MulticastGroup;

use super::NetlinkError;

/// Receive buffer in bytes. An event takes about 1 KiB of it, so this holds the burst of some thousand neighbours or
/// routes that change at once while the agent is busy.
const BUFFER_BYTES: usize = 8 << 20;

/// The largest datagram that is read whole. The kernel's events fit one page; a longer one is cut, not lost.
const DATAGRAM_BYTES: usize = 32 << 10;

/// Something happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// Something changed, and what.
    Message(RouteNetlinkMessage),
    /// Something changed, in a message of a type or form that is not understood.
    Unknown,
    /// Events were lost: anything may have changed.
    Overrun,
}

/// A socket that hears events.
pub(crate) struct EventSocket {
    socket: TokioSocket,
    buffer: Vec<u8>,
}

impl EventSocket {
    /// Listens to `groups` in the network namespace of the calling thread.
    pub fn open(groups: &[MulticastGroup]) -> Result<Self, NetlinkError> {
        Self::try_open(groups).map_err(|source| NetlinkError::Open { source })
    }

    fn try_open(groups: &[MulticastGroup]) -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        // Past the limit of `net.core.rmem_max` with CAP_NET_ADMIN, else up to it. A small buffer overruns earlier,
        // which is noticed.
        if setsockopt(socket.socket_ref(), sockopt::RcvBufForce, &BUFFER_BYTES).is_err() {
            setsockopt(socket.socket_ref(), sockopt::RcvBuf, &BUFFER_BYTES)?;
        }
        socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
        for group in groups {
            socket.socket_ref().add_membership(*group as u32)?;
        }
        Ok(Self { socket, buffer: Vec::with_capacity(DATAGRAM_BYTES) })
    }

    /// Waits for the next datagram and appends its events to `events`. Dropping the future loses nothing.
    pub async fn receive(&mut self, events: &mut Vec<Event>) -> Result<(), NetlinkError> {
        self.buffer.clear();
        match self.socket.recv(&mut self.buffer).await {
            Ok(()) => decode(&self.buffer, events),
            Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => events.push(Event::Overrun),
            Err(source) => return Err(NetlinkError::Receive { source }),
        }
        Ok(())
    }
}

/// Appends the events of a datagram to `events`.
fn decode(mut datagram: &[u8], events: &mut Vec<Event>) {
    while !datagram.is_empty() {
        let Ok(message) = NetlinkBuffer::new_checked(datagram) else {
            events.push(Event::Unknown);
            return;
        };
        let length = message.length() as usize;
        events.push(match NetlinkMessage::deserialize(&datagram[..length]) {
            Ok(NetlinkMessage { payload: NetlinkPayload::InnerMessage(message), .. }) => Event::Message(message),
            _ => Event::Unknown,
        });
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::LinkMessage;

    use super::*;

    fn frame(message: RouteNetlinkMessage) -> Vec<u8> {
        let mut message = NetlinkMessage::from(message);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    fn decoded(datagram: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        decode(datagram, &mut events);
        events
    }

    #[test]
    fn a_datagram_with_two_messages_is_two_events() {
        let message = frame(RouteNetlinkMessage::NewLink(LinkMessage::default()));
        let events = decoded(&[message.clone(), message].concat());
        assert!(matches!(events[..], [Event::Message(_), Event::Message(_)]), "{events:?}");
    }

    #[test]
    fn bytes_that_make_no_message_are_an_unknown_event_at_every_cut() {
        let message = frame(RouteNetlinkMessage::NewLink(LinkMessage::default()));
        for cut in 1..message.len() {
            let events = decoded(&message[..cut]);
            assert!(matches!(events[..], [Event::Unknown]), "cut at {cut}: {events:?}");
        }
    }
}

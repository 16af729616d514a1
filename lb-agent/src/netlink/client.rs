//! Requests to the kernel and their answers.

use std::{io, time::Duration};

use futures::StreamExt;
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use rtnetlink::Handle;

/// How long the kernel may take for one answer. It answers within the request's system call, so a longer silence means
/// that the answer was lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How often an interrupted dump is asked for again. The last one is taken as it is: the change that interrupted it
/// has sent an event, which leads to another dump.
const DUMP_TRIES: usize = 8;

/// Why the kernel could not be asked, or what it answered.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No socket.
    #[error("cannot open a netlink socket; check that AF_NETLINK is allowed (RestrictAddressFamilies= of systemd)")]
    Open {
        /// What the kernel said.
        source: io::Error,
    },
    /// Events cannot be read.
    #[error("cannot receive network events")]
    Receive {
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused a request.
    #[error("the kernel refused to {action}{}", hint(source))]
    Refused {
        /// What was asked.
        action: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The offloads of an interface cannot be read.
    #[error("cannot read the offloads of {interface} (ethtool over netlink, Linux 5.6): {reason}")]
    Offloads {
        /// Name of the interface.
        interface: String,
        /// What the kernel said.
        reason: String,
    },
    /// An answer did not come.
    #[error("no answer from the kernel within {seconds} s to: {action}; it will be asked again")]
    Silent {
        /// What was asked.
        action: String,
        /// How long the answer was waited for.
        seconds: u64,
    },
    /// The socket is closed.
    #[error("the netlink socket is closed, could not {action}")]
    Closed {
        /// What was asked.
        action: String,
    },
}

impl NetlinkError {
    /// The kernel's error number, if the kernel answered.
    pub(crate) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { source, .. } | Self::Receive { source } | Self::Open { source } => {
                source.raw_os_error().map(Errno::from_raw)
            }
            Self::Silent { .. } | Self::Closed { .. } | Self::Offloads { .. } => None,
        }
    }
}

/// What to do about the errors that have a cure.
fn hint(source: &io::Error) -> &'static str {
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM | Errno::EACCES) => "; run with CAP_NET_ADMIN",
        _ => "",
    }
}

/// A socket for requests, with the kernel checking them strictly (`NETLINK_GET_STRICT_CHK`, kernel 4.20), so that it
/// filters dumps instead of sending everything.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    handle: Handle,
}

impl Client {
    /// Opens the socket in the network namespace of the calling thread. It closes with the last clone.
    pub fn open() -> Result<Self, NetlinkError> {
        let (connection, handle, _) =
            rtnetlink::new_connection_with_strict_check().map_err(|source| NetlinkError::Open { source })?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Asks for everything that `request` describes.
    pub async fn dump(
        &self,
        action: &str,
        request: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        for attempt in 1..=DUMP_TRIES {
            match self.exchange(action, request.clone(), NLM_F_REQUEST | NLM_F_DUMP).await {
                Ok((_, true)) if attempt < DUMP_TRIES => tracing::debug!(action, attempt, "dump interrupted"),
                Ok((messages, _)) => return Ok(messages),
                Err(error) if error.errno() == Some(Errno::EINTR) && attempt < DUMP_TRIES => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Vec::new()) // the last round has returned
    }

    /// Asks for one thing.
    pub async fn get(
        &self,
        action: &str,
        request: RouteNetlinkMessage,
    ) -> Result<Option<RouteNetlinkMessage>, NetlinkError> {
        let (messages, _) = self.exchange(action, request, NLM_F_REQUEST).await?;
        Ok(messages.into_iter().next())
    }

    /// Changes something. `flags` besides request and acknowledgement, `NLM_F_CREATE` for example.
    pub async fn change(&self, action: &str, request: RouteNetlinkMessage, flags: u16) -> Result<(), NetlinkError> {
        self.exchange(action, request, NLM_F_REQUEST | NLM_F_ACK | flags).await.map(drop)
    }

    /// Sends `request`; returns the answers, and whether they are inconsistent with each other.
    async fn exchange(
        &self,
        action: &str,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(Vec<RouteNetlinkMessage>, bool), NetlinkError> {
        let mut message = NetlinkMessage::from(request);
        message.header.flags = flags;
        let closed = || NetlinkError::Closed { action: action.to_owned() };
        let mut handle = self.handle.clone();
        let mut answers = handle.request(message).map_err(|_| closed())?;
        let mut messages = Vec::new();
        let mut interrupted = false;
        loop {
            let answer = tokio::time::timeout(ANSWER_TIMEOUT, answers.next())
                .await
                .map_err(|_| NetlinkError::Silent { action: action.to_owned(), seconds: ANSWER_TIMEOUT.as_secs() })?;
            let Some(answer) = answer else {
                return Ok((messages, interrupted));
            };
            interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
            match answer.payload {
                NetlinkPayload::InnerMessage(message) => messages.push(message),
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    return Err(NetlinkError::Refused { action: action.to_owned(), source: error.to_io() });
                }
                _ => {}
            }
        }
    }
}

//! What the agent says of drains, of slots that are not settled, and of its scans.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Slots of one VIP, protocol and port of a service that are not settled.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangeStatus {
    /// Name of the service.
    pub service: String,
    /// The VIP.
    pub vip: IpAddr,
    /// Port, 0 for every port.
    pub port: u16,
    /// `tcp` or `udp`, or the IANA number of another protocol.
    pub protocol: String,
    /// Slots whose owner changed less than one window ago.
    pub unsettled: u64,
    /// Slots whose window is over and that may have flows of former owners.
    pub settling: u64,
    /// The same, by present and former owner.
    pub pairs: Vec<PairStatus>,
}

/// Slots that went from one backend to another.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PairStatus {
    /// Bits of the id of the backend that takes new flows; 0 for none.
    pub current: u32,
    /// Bits of the id of the backend that had the slots before.
    pub old: u32,
    /// Whether their windows are over.
    pub settling: bool,
    /// How many.
    pub slots: u64,
    /// Seconds of Unix time: unsettled, when the first of their windows ends; settling, since when the first is.
    pub first: u64,
    /// The same of the last.
    pub last: u64,
}

/// Scans of the tables of flows since the agent started.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ScanStatus {
    /// How many.
    pub count: u64,
    /// Time that they took in all, seconds.
    pub seconds: f64,
    /// The latest one's time, seconds.
    pub last_seconds: f64,
    /// Flows that had expired and were removed.
    pub expired: u64,
}

/// A drain, and the flows that the backend may still have.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DrainStatus {
    /// Since when, seconds of Unix time.
    pub since: u64,
    /// Whether it is drained since its whole node is.
    pub with_node: bool,
    /// When the flows that are left are cut, seconds of Unix time; `null` for never.
    pub deadline: Option<u64>,
    /// Whether that is over.
    pub over: bool,
    /// Flows that this node's tables name it for. A flow that sent nothing since the drain began is not among them.
    pub recorded: u64,
    /// Slots of this node's rings on which such silent flows may be.
    pub slots: u64,
    /// When the last of these slots' windows ends, seconds of Unix time; `null` if all have.
    pub windows_end: Option<u64>,
    /// Established TCP connections of the service's VIPs and ports on this node, whichever director sent them; `null`
    /// unless the backend is this node and the service is TCP.
    pub sockets: Option<u64>,
}

impl DrainStatus {
    /// Whether no flow is left, as far as this node can tell: a server that is here knows its connections; of another
    /// one, records and slots have to tell.
    #[must_use]
    pub fn is_done(&self) -> bool {
        match self.sockets {
            _ if self.over => true,
            Some(sockets) => sockets == 0,
            None => self.recorded == 0 && self.slots == 0,
        }
    }

    /// What is left, for people.
    #[must_use]
    pub fn left(&self) -> String {
        if self.over {
            return "0 flows left: they were cut".to_owned();
        }
        let counted = |count: u64, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
        let silent = match self.slots {
            0 => String::new(),
            slots => format!(", silent ones possible on {}", counted(slots, "slot")),
        };
        let sockets = self.sockets.map(|sockets| format!("{} open here, ", counted(sockets, "connection")));
        format!("{}{} recorded{silent}", sockets.unwrap_or_default(), counted(self.recorded, "flow"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_here_tells_and_another_ones_flows_may_be_silent() {
        let away = DrainStatus { recorded: 1, slots: 1_365, ..DrainStatus::default() };
        assert_eq!(away.left(), "1 flow recorded, silent ones possible on 1365 slots");
        assert!(!away.is_done() && !DrainStatus { recorded: 0, ..away }.is_done());
        let here = DrainStatus { sockets: Some(2), ..away };
        assert_eq!(here.left(), "2 connections open here, 1 flow recorded, silent ones possible on 1365 slots");
        assert!(!here.is_done() && DrainStatus { sockets: Some(0), ..here }.is_done());
        let settled = DrainStatus { recorded: 0, slots: 0, ..away };
        assert_eq!((settled.left().as_str(), settled.is_done()), ("0 flows recorded", true));
        assert!(DrainStatus { over: true, ..away }.is_done());
    }
}

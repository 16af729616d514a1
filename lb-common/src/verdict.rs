//! How a packet's way through the program can end. Each end has a name and, but for [`Verdict::NotOurs`], a counter.
//!
//! Metrics, `lbctl counters` and the reference pages take their labels from here.

/// What the driver is to do with the frame: the values of `enum xdp_action` (include/uapi/linux/bpf.h).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum Action {
    /// `XDP_DROP`.
    Drop = 1,
    /// `XDP_PASS`: up the stack.
    Pass = 2,
    /// `XDP_TX`: out of the interface it came in by.
    Transmit = 3,
    /// `XDP_REDIRECT`: out of another interface.
    Redirect = 4,
}

macro_rules! ends {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $value:literal, $label:literal, $text:literal;)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        #[repr(u32)]
        pub enum $name {
            $($(#[$doc])* #[doc = $text] $variant = $value,)+
        }

        impl $name {
            /// Every one, in the order of their values.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The value of the label in metrics.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label),+ }
            }

            /// One sentence for people.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// The one with this value.
            #[must_use]
            pub const fn from_index(index: u32) -> Option<Self> {
                match index { $($value => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

ends! {
    /// Ends that are not drops. The value is the slot in `VERDICTS`: add at the end only.
    Verdict {
        NotOurs = 0, "not_ours", "Not for a VIP: passed byte for byte, not counted.";
        Local = 1, "local", "Chosen backend is this node: passed up the stack.";
        Directed = 2, "directed", "Sent here by another director on the link, where this node would have sent it on: passed up the stack.";
        Terminated = 3, "terminated", "Sent here by another director through a tunnel: stripped and passed up the stack.";
        L2 = 4, "l2", "Sent on to its backend by rewriting the MAC addresses.";
        Ipip = 5, "ipip", "Sent on to its backend in an IP-in-IP tunnel.";
        Gue = 6, "gue", "Sent on to its backend in a GUE tunnel.";
        Icmp = 7, "icmp", "ICMP for a VIP: passed up the stack.";
        Unmatched = 8, "unmatched", "For a VIP but for none of its services, and the service allows it: passed up the stack.";
        TooBigTold = 9, "too_big_told", "Longer than the MTU of the way to the backend: its sender was told which length fits.";
        TimeExceededTold = 10, "time_exceeded_told", "TTL or hop limit used up: its sender was told, as traceroute wants it.";
        SecondChance = 11, "second_chance", "For this node on a slot whose owner changed, but without a socket here: sent on to another owner of the slot.";
    }
}

ends! {
    /// Why a packet for a VIP was dropped. The value is the slot in `DROPS`: add at the end only.
    DropReason {
        Truncated = 0, "truncated", "The packet ends inside a header that has to be read, or before the length it claims.";
        BadIpv4Header = 1, "bad_ipv4_header", "IPv4 header length below 20 bytes, or a total length that cannot be.";
        BadIpv6Header = 2, "bad_ipv6_header", "IPv6 payload length that cannot be.";
        ExtensionHeaders = 3, "extension_headers", "More IPv6 extension headers than are followed, or one that hides the ports.";
        Fragment = 4, "fragment", "A first fragment too short to hold the transport header.";
        NoService = 5, "no_service", "For a VIP address, but for none of its services.";
        NoBackend = 6, "no_backend", "The service has no backend that takes flows.";
        StaleBackend = 7, "stale_backend", "The ring names a backend that is gone.";
        NextHopUnknown = 8, "next_hop_unknown", "The way to the chosen backend is not known (no route, or no answer from the neighbour).";
        NotHeld = 9, "not_held", "Another director sent it here, but this node does not hold the VIP.";
        UnknownPeer = 10, "unknown_peer", "A tunnel packet for a VIP from an address that is no known director.";
        BadTunnel = 11, "bad_tunnel", "A tunnel packet for a VIP whose tunnel header is not understood.";
        TtlExpired = 12, "ttl_expired", "TTL or hop limit used up, and its sender cannot be told.";
        TooBig = 13, "too_big", "Longer than the MTU of the way to the backend, tunnel header included, and its sender cannot be told.";
        NoHeadroom = 14, "no_headroom", "The driver left no room for the tunnel header.";
        NoDevice = 15, "no_device", "The interface to the backend is not in the device map.";
        NotLinear = 16, "not_linear", "Headers lie outside of the part of the frame that can be rewritten.";
        Arp = 17, "arp", "An ARP request for a VIP that this node does not own.";
        FlowTableFull = 18, "flow_table_full", "A flow begins on a slot whose owner changed, and the table of new flows has no room for it.";
        UnknownFragment = 19, "unknown_fragment", "A later fragment whose first one did not come by here in the last 30 s.";
        SourceDenied = 20, "source_denied", "From an address outside of the service's source ranges.";
        EchoNotHeld = 21, "echo_not_held", "An echo request for a VIP, or an error about its answer, and this node does not hold the VIP.";
        IcmpUnwanted = 22, "icmp_unwanted", "ICMP for a VIP that is neither an echo request nor an error about one of its flows.";
        BadQuote = 23, "bad_quote", "An ICMP error for a VIP that quotes no packet of a flow: cut off, faulty, or from another address.";
        AnswerLimit = 24, "answer_limit", "Too long, or TTL used up, and its sender was not told: too many senders were told just now.";
    }
}

impl DropReason {
    /// What the driver is told.
    #[must_use]
    pub const fn action(self) -> Action {
        Action::Drop
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_slots_without_gaps_and_labels_are_unique() {
        for (slot, verdict) in Verdict::ALL.iter().enumerate() {
            assert_eq!(*verdict as usize, slot);
            assert_eq!(Verdict::from_index(*verdict as u32), Some(*verdict));
        }
        for (slot, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, slot);
            assert_eq!(DropReason::from_index(*reason as u32), Some(*reason));
        }
        let mut labels: Vec<_> = DropReason::ALL.iter().map(|reason| reason.label()).collect();
        labels.extend(Verdict::ALL.iter().map(|verdict| verdict.label()));
        let count = labels.len();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), count);
    }
}

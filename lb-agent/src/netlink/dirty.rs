//! What has to be read again after events.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use netlink_packet_route::{RouteNetlinkMessage, address::AddressMessage};

use super::{Event, KernelAddress, neighbours, routes, state::State};

/// Above this many changed prefixes, every address is looked up: it costs less than comparing.
const MAX_PREFIXES: usize = 64;

/// What has to be read again before a snapshot is right.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Dirty {
    /// All links.
    pub links: bool,
    /// All addresses.
    pub addresses: bool,
    /// All neighbours.
    pub neighbours: bool,
    /// The routes of some addresses.
    pub routes: Routes,
    /// Nothing has to be read, but the snapshot is another one.
    pub snapshot: bool,
}

/// Whose routes have to be looked up again. Addresses that were never looked up are, in any case.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Routes {
    /// Of the addresses within these prefixes.
    Within(Vec<IpNet>),
    /// Of all addresses.
    All,
}

impl Default for Routes {
    fn default() -> Self {
        Self::Within(Vec::new())
    }
}

impl Routes {
    /// Those of `wanted` that have to be looked up.
    pub fn of(&self, wanted: &BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
        let stale = |address: &&IpAddr| match self {
            Self::All => true,
            Self::Within(prefixes) => prefixes.iter().any(|prefix| prefix.contains(*address)),
        };
        wanted.iter().filter(stale).copied().collect()
    }

    fn add(&mut self, prefix: Option<IpNet>) {
        match (&mut *self, prefix) {
            (Self::Within(prefixes), Some(prefix)) if prefixes.contains(&prefix) => {}
            (Self::Within(prefixes), Some(prefix)) if prefixes.len() < MAX_PREFIXES => prefixes.push(prefix),
            _ => *self = Self::All,
        }
    }
}

impl Dirty {
    /// Everything: at the start, after lost events, and from time to time in case the kernel kept something to itself.
    pub const fn all() -> Self {
        Self { links: true, addresses: true, neighbours: true, routes: Routes::All, snapshot: true }
    }

    /// Whether the snapshot is right as it is.
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }

    /// Takes an event in. Neighbours go into `state` at once, since their events carry all there is to know.
    pub fn take(&mut self, event: &Event, state: &mut State) {
        match event {
            Event::Overrun => *self = Self::all(),
            // Rules and next-hop objects among them.
            Event::Unknown => self.routes = Routes::All,
            Event::Message(message) => self.take_message(message, state),
        }
    }

    fn take_message(&mut self, message: &RouteNetlinkMessage, state: &mut State) {
        match message {
            // A link that goes down takes its IPv4 routes with it, without events of their own.
            RouteNetlinkMessage::NewLink(_) | RouteNetlinkMessage::DelLink(_) => {
                self.links = true;
                self.routes = Routes::All;
            }
            RouteNetlinkMessage::NewAddress(message) => self.addresses |= !is_announcement(message),
            // So does an address, with the routes that name it as their source.
            RouteNetlinkMessage::DelAddress(message) if !is_announcement(message) => {
                self.addresses = true;
                self.routes = Routes::All;
            }
            RouteNetlinkMessage::NewRoute(message) | RouteNetlinkMessage::DelRoute(message) => {
                self.routes.add(routes::prefix(message));
            }
            RouteNetlinkMessage::NewNeighbour(message) => {
                if let Some((key, neighbour)) = neighbours::parse(message) {
                    self.snapshot |= state.set_neighbour(key, neighbour);
                }
            }
            RouteNetlinkMessage::DelNeighbour(message) => {
                if let Some((key, _)) = neighbours::parse(message) {
                    state.remove_neighbour(&key);
                }
            }
            RouteNetlinkMessage::NewRule(_) | RouteNetlinkMessage::DelRule(_) => self.routes = Routes::All,
            _ => {}
        }
    }
}

/// Announcements come, are renewed and go without a change for a plan.
fn is_announcement(message: &AddressMessage) -> bool {
    KernelAddress::parse(message).is_some_and(|address| address.is_announcement())
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::{
        AddressFamily,
        address::AddressAttribute,
        link::LinkMessage,
        route::{RouteAttribute, RouteMessage},
        rule::RuleMessage,
    };

    use super::*;

    fn after(messages: Vec<RouteNetlinkMessage>) -> Dirty {
        let mut dirty = Dirty::default();
        for message in messages {
            dirty.take(&Event::Message(message), &mut State::default());
        }
        dirty
    }

    fn route(destination: [u8; 4], length: u8) -> RouteNetlinkMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = length;
        message.attributes = vec![RouteAttribute::Destination(IpAddr::from(destination).into())];
        RouteNetlinkMessage::NewRoute(message)
    }

    fn address(announced: bool) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.index = 1;
        message.header.prefix_len = 32;
        message.attributes = vec![AddressAttribute::Local([192, 0, 2, 10].into())];
        if announced {
            message.attributes.push(AddressAttribute::Protocol(super::super::IFA_PROTOCOL.into()));
        }
        message
    }

    #[test]
    fn an_event_makes_only_that_dirty_which_it_can_have_changed() {
        let routes = Routes::All;
        let cases = [
            ("nothing", vec![], Dirty::default()),
            (
                "a link",
                vec![RouteNetlinkMessage::NewLink(LinkMessage::default())],
                Dirty { links: true, routes: routes.clone(), ..Dirty::default() },
            ),
            (
                "a new address",
                vec![RouteNetlinkMessage::NewAddress(address(false))],
                Dirty { addresses: true, ..Dirty::default() },
            ),
            (
                "an address gone",
                vec![RouteNetlinkMessage::DelAddress(address(false))],
                Dirty { addresses: true, routes: routes.clone(), ..Dirty::default() },
            ),
            (
                "a renewed or withdrawn announcement",
                vec![RouteNetlinkMessage::NewAddress(address(true)), RouteNetlinkMessage::DelAddress(address(true))],
                Dirty::default(),
            ),
            (
                "a route, twice",
                vec![route([10, 0, 0, 0], 8), route([10, 0, 0, 0], 8)],
                Dirty { routes: Routes::Within(vec!["10.0.0.0/8".parse().unwrap()]), ..Dirty::default() },
            ),
            (
                "a rule",
                vec![RouteNetlinkMessage::NewRule(RuleMessage::default())],
                Dirty { routes, ..Dirty::default() },
            ),
        ];
        for (name, messages, expected) in cases {
            assert_eq!(after(messages), expected, "{name}");
        }
    }

    #[test]
    fn lost_events_make_everything_dirty() {
        let mut dirty = Dirty::default();
        dirty.take(&Event::Overrun, &mut State::default());
        assert_eq!(dirty, Dirty::all());
    }

    #[test]
    fn many_changed_prefixes_are_all() {
        let changed = |count: u8| after((0..count).map(|third| route([10, 0, third, 0], 24)).collect()).routes;
        assert!(matches!(changed(64), Routes::Within(prefixes) if prefixes.len() == 64));
        assert_eq!(changed(65), Routes::All);
    }

    #[test]
    fn an_address_is_looked_up_when_a_prefix_around_it_changed() {
        let wanted: BTreeSet<IpAddr> = [[10, 1, 0, 1].into(), [10, 2, 0, 1].into()].into();
        let within = |prefix: &str| Routes::Within(vec![prefix.parse().unwrap()]).of(&wanted);
        assert_eq!(within("10.1.0.0/16"), [[10, 1, 0, 1].into()].into());
        assert_eq!(within("0.0.0.0/0"), wanted);
        assert_eq!(within("::/0"), [].into());
        assert_eq!(Routes::All.of(&wanted), wanted);
    }
}

//! What is told of packets while somebody listens: what listeners ask for, and how events reach them. `dataplane` loads the
//! program that tells, `api` carries it to `lbctl trace`.

mod hub;
mod line;

use ipnet::IpNet;
use lb_common::{
    addr::{Be16, IpAddr16, wire_word},
    maps::trace::{Event, Filter},
    report::End,
    verdict::{DropReason, Verdict},
};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

pub use hub::{Hub, SharedHub};
pub use line::{Choice, Line, PacketEvent};

/// Events per second and CPU unless asked for otherwise.
pub const DEFAULT_RATE: u32 = 1_000;

/// Lines that may wait for a listener; what comes on top of them is lost to it, and counted.
const WAITING: usize = 4_096;

/// Somebody wants to listen.
pub struct Request {
    /// To what.
    pub selection: Selection,
    /// Where the lines come from, or why there are none.
    pub answer: oneshot::Sender<Result<mpsc::Receiver<Line>, String>>,
}

/// Which packets to tell of. Parts that are not given refuse nothing.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Selection {
    /// Indexes of services in the maps.
    pub services: Vec<u32>,
    /// Bits of the ids of backends.
    pub backends: Vec<u32>,
    /// Where the client is.
    pub client: Option<IpNet>,
    /// Source or destination port.
    pub port: Option<u16>,
    /// IANA protocol number.
    pub protocol: Option<u8>,
    /// How packets have to end.
    pub ends: Ends,
    /// Events per second and CPU, 0 for no limit.
    pub rate: u32,
}

/// How packets have to end.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Ends {
    /// In any way.
    #[default]
    All,
    /// By a drop.
    Drops,
    /// With this verdict, by its value.
    Verdict(u32),
    /// For this drop reason, by its value.
    Drop(u32),
}

impl Ends {
    /// The end with this label; `None` if no verdict or drop reason has it.
    #[must_use]
    pub fn labelled(label: &str) -> Option<Self> {
        let verdict = Verdict::ALL.iter().skip(1).find(|verdict| verdict.label() == label);
        let reason = DropReason::ALL.iter().find(|reason| reason.label() == label);
        let verdict = verdict.map(|verdict| Self::Verdict(*verdict as u32));
        verdict.or_else(|| reason.map(|reason| Self::Drop(*reason as u32)))
    }
}

impl Selection {
    /// Whether a packet is wanted.
    #[must_use]
    pub fn wants(&self, event: &Event) -> bool {
        let report = event.report();
        let service = report.service.checked_sub(1);
        (self.services.is_empty() || service.is_some_and(|index| self.services.contains(&index)))
            && (self.backends.is_empty() || self.backends.contains(&report.backend))
            && self.filter().wants(event)
    }

    /// As much of it as the program can check by itself.
    #[must_use]
    pub fn filter(&self) -> Filter {
        let (source, mask) = self.client.map_or_else(Default::default, network);
        let (ends, end) = match self.ends {
            Ends::All => (Filter::ALL_ENDS, 0),
            Ends::Drops => (Filter::DROPS, 0),
            Ends::Verdict(value) => (Filter::VERDICT, value),
            Ends::Drop(value) => (Filter::DROP, value),
        };
        Filter {
            source,
            mask,
            service: only(&self.services).map_or(0, |index| index + 1),
            backend: only(&self.backends).unwrap_or(0),
            ends,
            end,
            rate: self.rate,
            port: Be16::new(self.port.unwrap_or(0)),
            protocol: self.protocol.unwrap_or(0),
            pad: 0,
        }
    }
}

/// What the program has to tell so that everybody hears what they want: just that for one listener, everything for more.
fn filter_for<'a>(selections: impl IntoIterator<Item = &'a Selection>) -> Filter {
    let selections: Vec<_> = selections.into_iter().collect();
    if let [selection] = selections[..] {
        return selection.filter();
    }
    let is_unlimited = selections.iter().any(|selection| selection.rate == 0);
    let rate = selections.iter().map(|selection| selection.rate).max().unwrap_or(0);
    Filter { rate: if is_unlimited { 0 } else { rate }, ..Filter::default() }
}

fn only(values: &[u32]) -> Option<u32> {
    if let [value] = values { Some(*value) } else { None }
}

/// Address and mask of a network, as addresses are stored.
fn network(net: IpNet) -> (IpAddr16, [u32; 4]) {
    let prefix = match net {
        IpNet::V4(net) => 96 + u32::from(net.prefix_len()),
        IpNet::V6(net) => u32::from(net.prefix_len()),
    };
    let bits = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
    let bytes = bits.to_be_bytes();
    let word = |at: usize| wire_word(std::array::from_fn(|i| bytes[at * 4 + i]));
    (net.network().into(), std::array::from_fn(word))
}

/// Label of an end, and whether it is a drop.
#[must_use]
pub fn label(end: End) -> (&'static str, bool) {
    match end {
        End::Verdict(value) => (Verdict::from_index(value).map_or("unknown", Verdict::label), false),
        End::Drop(value) => (DropReason::from_index(value).map_or("unknown", DropReason::label), true),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use lb_common::report::Report;

    use super::*;

    fn event(source: &str) -> Event {
        Event {
            source: source.parse::<IpAddr>().unwrap().into(),
            source_port: Be16::new(40_000),
            destination_port: Be16::new(443),
            protocol: 6,
            report: report().to_words(),
            ..Event::default()
        }
    }

    fn report() -> Report {
        Report { end: End::Verdict(Verdict::L2 as u32), service: 3, backend: 9, ..Report::START }
    }

    fn client(net: &str) -> Selection {
        Selection { client: Some(net.parse().unwrap()), ..Selection::default() }
    }

    #[test]
    fn networks_of_both_families_select_clients() {
        let cases = [
            ("10.1.2.3/32", "10.1.2.3", true),
            ("10.1.2.0/23", "10.1.3.255", true),
            ("10.1.2.0/23", "10.1.4.0", false),
            ("0.0.0.0/0", "10.1.4.0", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("2001:db8::/33", "2001:db8:7fff::1", true),
            ("2001:db8::/33", "2001:db8:8000::1", false),
            ("::/0", "10.1.4.0", true),
        ];
        for (net, source, wanted) in cases {
            assert_eq!(client(net).wants(&event(source)), wanted, "{source} in {net}");
        }
    }

    #[test]
    fn one_of_several_services_or_backends_is_enough() {
        let services = |services: &[u32]| Selection { services: services.to_vec(), ..Selection::default() };
        let backends = |backends: &[u32]| Selection { backends: backends.to_vec(), ..Selection::default() };
        for (selection, wanted) in [
            (services(&[]), true),
            (services(&[2]), true),
            (services(&[1, 2]), true),
            (services(&[1, 3]), false),
            (backends(&[9]), true),
            (backends(&[8, 9]), true),
            (backends(&[8, 10]), false),
        ] {
            assert_eq!(selection.wants(&event("10.0.0.1")), wanted, "{selection:?}");
        }
        let nobody = Event { report: Report::START.to_words(), ..event("10.0.0.1") };
        assert!(!services(&[0]).wants(&nobody), "no service matched");
    }

    #[test]
    fn the_program_checks_alone_for_one_listener_and_tells_all_to_several() {
        let drops = Selection { ends: Ends::Drops, rate: 10, services: vec![4], ..Selection::default() };
        let filter = filter_for([&drops]);
        assert_eq!((filter.ends, filter.rate, filter.service), (Filter::DROPS, 10, 5));
        let two = Selection { rate: 20, services: vec![1, 2], ..client("10.0.0.0/8") };
        assert_eq!(two.filter().service, 0, "the program knows one service at most");
        assert_eq!(filter_for([&drops, &two]), Filter { rate: 20, ..Filter::default() });
        assert_eq!(filter_for([&drops, &Selection::default()]).rate, 0);
    }

    #[test]
    fn ends_are_found_by_their_labels() {
        assert_eq!(Ends::labelled("gue"), Some(Ends::Verdict(Verdict::Gue as u32)));
        assert_eq!(Ends::labelled("too_big"), Some(Ends::Drop(DropReason::TooBig as u32)));
        assert_eq!(Ends::labelled("not_ours"), None, "it is never told");
        assert_eq!(Ends::labelled("lost"), None);
    }

    #[test]
    fn a_selection_survives_its_document() {
        let selection = Selection { ends: Ends::Drop(3), port: Some(443), services: vec![1], ..client("10.0.0.0/8") };
        let text = serde_json::to_string(&selection).unwrap();
        assert_eq!(serde_json::from_str::<Selection>(&text).unwrap(), selection);
        assert_eq!(serde_json::from_str::<Selection>("{}").unwrap(), Selection::default());
        assert!(serde_json::from_str::<Selection>("{\"colour\": 1}").is_err());
    }
}

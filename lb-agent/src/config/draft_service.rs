//! One entry of `services` as it was written: values within their ranges, with places.

use std::{net::IpAddr, time::Duration};

use super::{
    draft::{each, nameless, some_of},
    error::{Place, Problems},
    read::{Fields, Located, address, boolean, choice, duration, integer, name, show},
    yaml::{Node, Value},
};
use crate::model::{Delivery, Probe, Protocol, RingSize};

const KEYS: &[&str] = &[
    "name",
    "vips",
    "ports",
    "protocol",
    "delivery",
    "ringSize",
    "dropUnmatched",
    "backends",
    "probe",
    "sourceRanges",
];
const DELIVERIES: &[(&str, Delivery)] = &[
    ("auto", Delivery::Auto),
    ("local", Delivery::Local),
    ("l2", Delivery::L2),
    ("ipip", Delivery::Ipip),
    ("gue", Delivery::Gue),
];
const PROBE_KEYS: &[&str] = &["tcp", "interval", "timeout", "rise", "fall"];

/// One entry of `services`.
#[derive(Clone)]
pub(super) struct DraftService {
    pub(super) place: Place,
    pub(super) name: Located<String>,
    pub(super) vips: Vec<Located<IpAddr>>,
    pub(super) ports: Vec<Located<u16>>,
    pub(super) protocol: Protocol,
    pub(super) delivery: Located<Delivery>,
    pub(super) ring_size: Located<RingSize>,
    pub(super) drop_unmatched: Located<bool>,
    pub(super) backends: Vec<DraftBackend>,
    pub(super) probe: Option<Probe>,
}

impl DraftService {
    /// Number of (VIP, protocol, port) entries.
    pub(super) fn entries(&self) -> u64 {
        self.vips.len() as u64 * self.ports.len() as u64
    }

    /// Moves every place to where `now` lines are before the service, and not `then`.
    pub(super) fn shift(&mut self, then: u64, now: u64) {
        if then == now {
            return;
        }
        let Self { place, name, vips, ports, protocol: _, delivery, ring_size, drop_unmatched, backends, probe: _ } =
            self;
        let places = [place, &mut name.place, &mut delivery.place, &mut ring_size.place, &mut drop_unmatched.place];
        let listed = vips.iter_mut().map(|vip| &mut vip.place).chain(ports.iter_mut().map(|port| &mut port.place));
        let backends = backends.iter_mut().map(|backend| &mut backend.address.place);
        places.into_iter().chain(listed).chain(backends).for_each(|place| place.shift(then, now));
    }

    /// The one port that is not 0, if there is just one.
    pub(super) fn single_port(&self) -> Option<u16> {
        single(&self.ports)
    }
}

/// One entry of `backends`.
#[derive(Clone, Copy)]
pub(super) struct DraftBackend {
    pub(super) address: Located<IpAddr>,
    pub(super) weight: u16,
}

/// Reads one entry of `services`.
pub(super) fn service(value: &Node, problems: &mut Problems) -> Option<DraftService> {
    let fields = Fields::of(value, "service", KEYS, problems)?;
    let protocols = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];
    let name = fields.required("name", problems).and_then(|value| name(value, "name", problems));
    let vips = some_of(&fields, "vips", problems, |item, problems| address(item, "VIP", problems));
    let ports = some_of(&fields, "ports", problems, |item, problems| integer(item, "ports", &(0..=u16::MAX), problems));
    let protocol = fields.optional("protocol").and_then(|value| choice(value, "protocol", &protocols, problems));
    let protocol = protocol.map_or(Protocol::Tcp, |protocol| protocol.value);
    let delivery = fields.optional("delivery").and_then(|value| choice(value, "delivery", DELIVERIES, problems));
    let drop_unmatched = fields.optional("dropUnmatched").and_then(|value| boolean(value, "dropUnmatched", problems));
    let backends = each(fields.optional("backends"), "backends", problems, backend);
    refuse_source_ranges(&fields, problems);
    Some(DraftService {
        place: fields.place,
        probe: probe(&fields, protocol, &ports, problems),
        ring_size: ring_size(&fields, problems),
        name: name.unwrap_or_else(|| nameless(fields.place)),
        vips,
        ports,
        protocol,
        delivery: delivery.unwrap_or(Located::new(fields.place, Delivery::Auto)),
        drop_unmatched: drop_unmatched.unwrap_or(Located::new(fields.place, true)),
        backends,
    })
}

fn single(ports: &[Located<u16>]) -> Option<u16> {
    match ports {
        [port] if port.value != 0 => Some(port.value),
        _ => None,
    }
}

fn backend(value: &Node, problems: &mut Problems) -> Option<DraftBackend> {
    let fields = Fields::of(value, "backend", &["address", "weight"], problems)?;
    let weight = fields.optional("weight").and_then(|value| integer(value, "weight", &(0..=1000), problems));
    let address = fields.required("address", problems).and_then(|value| address(value, "backend address", problems))?;
    Some(DraftBackend { address, weight: weight.map_or(1, |weight| weight.value) })
}

fn ring_size(fields: &Fields<'_>, problems: &mut Problems) -> Located<RingSize> {
    let default = Located::new(fields.place, RingSize::DEFAULT);
    let Some(value) = fields.optional("ringSize") else {
        return default;
    };
    let Some(Located { place, value: slots }) = integer(value, "ringSize", &(64..=1 << 20), problems) else {
        return default;
    };
    if let Some(size) = RingSize::new(slots) {
        return Located::new(place, size);
    }
    let (below, above) = (1 << slots.ilog2(), slots.next_power_of_two());
    problems.refuse(place, format!("`ringSize` is {slots}, which is no power of two; write {below} or {above}"));
    default
}

fn refuse_source_ranges(fields: &Fields<'_>, problems: &mut Problems) {
    if let Some(value) = fields.optional("sourceRanges")
        && !matches!(&value.value, Value::List(items) if items.is_empty())
    {
        let reason =
            "`sourceRanges` is not supported yet, so everybody would be let in; leave it out and filter upstream";
        problems.refuse(value.place, reason);
    }
}

/// The probe of a service: as written, `none`, or a TCP probe of its port where that is plain.
fn probe(fields: &Fields<'_>, protocol: Protocol, ports: &[Located<u16>], problems: &mut Problems) -> Option<Probe> {
    let own_port = single(ports).filter(|_| protocol == Protocol::Tcp);
    let Some(value) = fields.optional("probe") else {
        return own_port.map(default_probe);
    };
    if matches!(&value.value, Value::Scalar(text) if text == "none") {
        return None;
    }
    if !matches!(value.value, Value::Map(_)) {
        let reason = format!(
            "`probe` is {}; write `none`, or a mapping with the keys {}",
            value.value.kind(),
            PROBE_KEYS.join(", ")
        );
        problems.refuse(value.place, reason);
        return None;
    }
    let fields = Fields::of(value, "probe", PROBE_KEYS, problems)?;
    let tcp = fields.optional("tcp").and_then(|value| Fields::of(value, "tcp", &["port"], problems));
    let port =
        tcp.and_then(|tcp| tcp.optional("port")).and_then(|value| integer(value, "port", &(1..=u16::MAX), problems));
    let port = port.map(|port| port.value).or(own_port);
    let mut probe = default_probe(port.unwrap_or(1));
    timing(&fields, &mut probe, problems);
    if port.is_none() && !ports.is_empty() {
        let reason = "the probe has no port, and the service has not just one TCP port to take; add `tcp: {port: ...}`";
        problems.refuse(fields.place, reason);
    }
    port.map(|_| probe)
}

const fn default_probe(port: u16) -> Probe {
    Probe { port, interval: Duration::from_secs(2), timeout: Duration::from_secs(1), rise: 2, fall: 3 }
}

fn timing(fields: &Fields<'_>, probe: &mut Probe, problems: &mut Problems) {
    let intervals = Duration::from_millis(100)..=Duration::from_secs(3600);
    let timeouts = Duration::from_millis(10)..=Duration::from_secs(3600);
    if let Some(interval) =
        fields.optional("interval").and_then(|value| duration(value, "interval", &intervals, problems))
    {
        probe.interval = interval.value;
        probe.timeout = probe.timeout.min(interval.value);
    }
    if let Some(timeout) = fields.optional("timeout").and_then(|value| duration(value, "timeout", &timeouts, problems))
    {
        probe.timeout = timeout.value;
        if timeout.value > probe.interval {
            let (timeout_text, interval) = (show(timeout.value), show(probe.interval));
            let reason = format!(
                "`timeout` {timeout_text} is longer than `interval` {interval}; probes would overlap: shorten it"
            );
            problems.refuse(timeout.place, reason);
        }
    }
    let mut count = |key| fields.optional(key).and_then(|value| integer(value, key, &(1..=100), problems));
    let (rise, fall) = (count("rise"), count("fall"));
    probe.rise = rise.map_or(probe.rise, |rise| rise.value);
    probe.fall = fall.map_or(probe.fall, |fall| fall.value);
}

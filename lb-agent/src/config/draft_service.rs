//! One entry of `services` as it was written: values within their ranges, with places.

use std::{net::IpAddr, ops::RangeInclusive, time::Duration};

use ipnet::IpNet;

use super::{
    authorities::CaFiles,
    draft::{each, nameless, some_of},
    draft_probe::{PROBE, probe},
    draft_tracking::{affinity, flow_timeout},
    error::{Place, Problems},
    read::{Fields, Located, address, boolean, choice, duration, flag, integer, name},
    source_range::range,
    target_port,
    yaml::{Node, Value},
};
use crate::model::{Affinity, Delivery, MssClamp, Probe, Protocol, RingSize};

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
    "flowTimeout",
    "sessionAffinity",
    "affinityTimeout",
    "slowStart",
    "mssClamp",
    "targetPort",
    "connectTranslation",
    "secondChance",
    "localFirst",
];
const DELIVERIES: &[(&str, Delivery)] = &[
    ("auto", Delivery::Auto),
    ("local", Delivery::Local),
    ("l2", Delivery::L2),
    ("ipip", Delivery::Ipip),
    ("gue", Delivery::Gue),
];

/// `slowStart`, 0 apart.
const SLOW_STARTS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

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
    pub(super) flow_timeout: Duration,
    pub(super) affinity: Option<Affinity>,
    pub(super) slow_start: Duration,
    pub(super) source_ranges: Vec<Located<IpNet>>,
    pub(super) mss_clamp: MssClamp,
    pub(super) target_port: Option<Located<u16>>,
    pub(super) connect_translation: Located<bool>,
    pub(super) second_chance: bool,
    pub(super) local_first: bool,
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
        // Every field is named, so that none that has a place is forgotten.
        let Self {
            place,
            name,
            vips,
            ports,
            protocol: _,
            delivery,
            ring_size,
            drop_unmatched,
            backends,
            probe: _,
            flow_timeout: _,
            affinity: _,
            slow_start: _,
            source_ranges,
            mss_clamp: _,
            target_port,
            connect_translation,
            second_chance: _,
            local_first: _,
        } = self;
        let places = [place, &mut name.place, &mut delivery.place, &mut ring_size.place, &mut drop_unmatched.place];
        let redirects = target_port.iter_mut().map(|port| &mut port.place).chain([&mut connect_translation.place]);
        let listed = vips.iter_mut().map(|vip| &mut vip.place).chain(ports.iter_mut().map(|port| &mut port.place));
        let backends = backends.iter_mut().map(|backend| &mut backend.address.place);
        let ranges = source_ranges.iter_mut().map(|range| &mut range.place);
        let places = places.into_iter().chain(listed).chain(backends).chain(ranges).chain(redirects);
        places.for_each(|place| place.shift(then, now));
    }

    /// The one port that is not 0, if there is just one.
    pub(super) fn single_port(&self) -> Option<u16> {
        single(&self.ports)
    }

    /// The port that its servers listen on; 0 if it has every port or several.
    pub(super) fn server_port(&self) -> u16 {
        let single = self.single_port();
        single.map_or(0, |port| self.target_port.map_or(port, |target| target.value))
    }

    /// The port that its servers listen on, if it is another than the service's.
    pub(super) fn other_port(&self) -> Option<Located<u16>> {
        self.target_port.filter(|target| self.single_port().is_some_and(|port| port != target.value))
    }
}

/// One entry of `backends`.
#[derive(Clone, Copy)]
pub(super) struct DraftBackend {
    pub(super) address: Located<IpAddr>,
    pub(super) weight: u16,
}

/// Reads one entry of `services`.
pub(super) fn service(value: &Node, ca_files: &mut CaFiles, problems: &mut Problems) -> Option<DraftService> {
    let fields = Fields::of(value, "service", KEYS, problems)?;
    let protocols = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp), ("sctp", Protocol::Sctp)];
    let name = fields.required("name", problems).and_then(|value| name(value, "name", problems));
    let vips = some_of(&fields, "vips", problems, |item, problems| address(item, "VIP", problems));
    let ports = some_of(&fields, "ports", problems, |item, problems| integer(item, "ports", &(0..=u16::MAX), problems));
    let protocol = fields.optional("protocol").and_then(|value| choice(value, "protocol", &protocols, problems));
    let protocol = protocol.map_or(Protocol::Tcp, |protocol| protocol.value);
    let delivery = fields.optional("delivery").and_then(|value| choice(value, "delivery", DELIVERIES, problems));
    let drop_unmatched = fields.optional("dropUnmatched").and_then(|value| boolean(value, "dropUnmatched", problems));
    let second_chance = fields.optional("secondChance").and_then(|value| boolean(value, "secondChance", problems));
    let backends = each(fields.optional("backends"), "backends", problems, backend);
    let target_port = target_port::read(&fields, problems);
    let probed = single(&ports).filter(|_| protocol == Protocol::Tcp);
    let probed = probed.map(|port| target_port.map_or(port, |target| target.value));
    Some(DraftService {
        place: fields.place,
        probe: probe(&fields, probed, &PROBE, ca_files, problems),
        target_port,
        connect_translation: target_port::translation(&fields, problems),
        second_chance: second_chance.is_none_or(|chance| chance.value),
        local_first: flag(&fields, "localFirst", problems),
        slow_start: slow_start(&fields, problems),
        mss_clamp: mss_clamp(&fields, problems),
        ring_size: ring_size(&fields, problems),
        flow_timeout: flow_timeout(&fields, protocol, problems),
        affinity: affinity(&fields, problems),
        name: name.unwrap_or_else(|| nameless(fields.place)),
        vips,
        ports,
        protocol,
        delivery: delivery.unwrap_or(Located::new(fields.place, Delivery::Auto)),
        drop_unmatched: drop_unmatched.unwrap_or(Located::new(fields.place, true)),
        backends,
        source_ranges: each(fields.optional("sourceRanges"), "sourceRanges", problems, range),
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

/// 0 is outside the range, and written without a unit, too.
fn slow_start(fields: &Fields<'_>, problems: &mut Problems) -> Duration {
    let Some(value) = fields.optional("slowStart") else {
        return Duration::ZERO;
    };
    if matches!(&value.value, Value::Scalar(text) if text == "0" || text == "0s") {
        return Duration::ZERO;
    }
    duration(value, "slowStart", &SLOW_STARTS, problems).map_or(Duration::ZERO, |read| read.value)
}

/// A word or a number of bytes.
fn mss_clamp(fields: &Fields<'_>, problems: &mut Problems) -> MssClamp {
    let Some(value) = fields.optional("mssClamp") else {
        return MssClamp::Auto;
    };
    match &value.value {
        Value::Scalar(text) if text == "auto" => MssClamp::Auto,
        Value::Scalar(text) if text == "off" => MssClamp::Off,
        _ => {
            let bytes = integer(value, "mssClamp", &(MssClamp::LEAST..=u16::MAX), problems);
            bytes.map_or(MssClamp::Auto, |bytes| MssClamp::To(bytes.value))
        }
    }
}

//! Recorded flows, and how many there are.

use std::{collections::BTreeMap, net::IpAddr};

use aya::maps::{HashMap, MapData, MapError};
use ipnet::IpNet;
use lb_common::{
    addr::BackendId,
    hash::Tuple,
    maglev,
    maps::{
        flows::{FlowEntry, Stage},
        tracking::{LIFETIME, LIMIT, NEW, NEW_REFUSED, OLD, OLD_REFUSED},
    },
};
use serde::Serialize;

use super::{
    read::{Inspector, protocol_name, read},
    view::ServiceView,
};
use crate::dataplane::{DataplaneError, monotonic};

/// How flows of a service entry are recorded.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrackingView {
    /// How long a recorded flow may be silent, and a slot unsettled, milliseconds.
    pub window_ms: u64,
    /// The most flows of either kind.
    pub limit: u64,
    /// Recorded flows that began on a slot whose owner had changed.
    pub new: u64,
    /// Recorded flows that began before the owner of their slot changed.
    pub old: u64,
    /// SYNs that were dropped since they could not be recorded.
    pub new_refused: u64,
    /// Packets of old flows that were sent on without being recorded.
    pub old_refused: u64,
}

/// A recorded flow.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowView {
    /// Name of the service; empty if it is gone.
    pub service: String,
    /// `tcp` or `udp`, or the IANA number of another protocol.
    pub protocol: String,
    /// The client.
    pub client: IpAddr,
    /// Its port; `null` if the entry stands for all flows of the client (affinity).
    pub client_port: Option<u16>,
    /// The VIP.
    pub vip: IpAddr,
    /// Port of the service, 0 for every port.
    pub port: u16,
    /// Address of its backend; `null` if that is gone.
    pub backend: Option<IpAddr>,
    /// Port of its backend, 0 for every port.
    pub backend_port: Option<u16>,
    /// `new` if it began on a slot whose owner had changed, else `old`.
    pub table: &'static str,
    /// A label of [`Stage`].
    pub stage: &'static str,
    /// Milliseconds until it is forgotten, if it stays silent.
    pub expires_in_ms: u64,
    /// Its slot in the ring; `null` while the service has none.
    pub slot: Option<u32>,
}

/// Which flows are wanted.
#[derive(Clone, Debug, Default)]
pub struct FlowFilter {
    /// Of the service with this name.
    pub service: Option<String>,
    /// Of the backend with this address and, if given, port.
    pub backend: Option<(IpAddr, Option<u16>)>,
    /// Of clients in this network.
    pub client: Option<IpNet>,
    /// At most so many; all are counted.
    pub limit: usize,
}

impl FlowFilter {
    fn takes(&self, flow: &FlowView) -> bool {
        let of_backend = |(address, port): &(IpAddr, Option<u16>)| {
            flow.backend == Some(*address) && (port.is_none() || flow.backend_port == *port)
        };
        self.service.as_ref().is_none_or(|name| *name == flow.service)
            && self.backend.as_ref().is_none_or(of_backend)
            && self.client.is_none_or(|net| net.contains(&flow.client))
    }
}

/// Flows that were asked for.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Flows {
    /// How many there are.
    pub matching: u64,
    /// The first of them, in no order.
    pub flows: Vec<FlowView>,
}

impl Inspector {
    /// Reads the tables of flows; `services` gives their names.
    ///
    /// # Errors
    /// [`DataplaneError`] if one cannot be read.
    pub fn flows(&self, services: &[ServiceView], filter: &FlowFilter) -> Result<Flows, DataplaneError> {
        let of_index: BTreeMap<u32, &ServiceView> = services.iter().map(|service| (service.index, service)).collect();
        let mut found = Flows::default();
        for (name, table, kind) in
            [("NEW_FLOWS", &self.tables.new_flows, "new"), ("OLD_FLOWS", &self.tables.old_flows, "old")]
        {
            let now = monotonic();
            for entry in live(name, table, now) {
                let (tuple, entry) = entry?;
                let flow = view(&tuple, &entry, of_index.get(&entry.service).copied(), kind, now);
                if filter.takes(&flow) {
                    found.matching += 1;
                    if found.flows.len() < filter.limit {
                        found.flows.push(flow);
                    }
                }
            }
        }
        Ok(found)
    }

    pub(super) fn tracking(&self, service: u32) -> Result<TrackingView, DataplaneError> {
        let words = read("TRACKING", &self.tables.tracking, service)?.0;
        Ok(TrackingView {
            window_ms: words[LIFETIME] / 1_000_000,
            limit: words[LIMIT],
            new: words[NEW],
            old: words[OLD],
            new_refused: words[NEW_REFUSED],
            old_refused: words[OLD_REFUSED],
        })
    }
}

/// Entries that have not expired. One that goes meanwhile is left out.
fn live<'a>(
    name: &'static str,
    table: &'a HashMap<MapData, Tuple, FlowEntry>,
    now: u64,
) -> impl Iterator<Item = Result<(Tuple, FlowEntry), DataplaneError>> + 'a {
    table.iter().filter_map(move |entry| match entry {
        Ok((_, entry)) if entry.deadline <= now => None,
        Ok(entry) => Some(Ok(entry)),
        Err(MapError::KeyNotFound | MapError::ElementNotFound) => None,
        Err(error) => Some(Err(DataplaneError::map(name, "reading", &error))),
    })
}

fn view(tuple: &Tuple, entry: &FlowEntry, service: Option<&ServiceView>, table: &'static str, now: u64) -> FlowView {
    let is_its = |id: BackendId| {
        move |backend: &&super::BackendView| (backend.index, backend.generation) == (id.index(), id.generation())
    };
    let backend = service.and_then(|service| service.backends.iter().find(is_its(entry.backend())));
    let port = tuple.source_port.get();
    let slots = service.map_or(0, |service| service.ring_slots);
    FlowView {
        service: service.map(|service| service.name.clone()).unwrap_or_default(),
        protocol: protocol_name(&tuple.to),
        client: tuple.source.into(),
        client_port: (port != 0).then_some(port),
        vip: tuple.to.address.into(),
        port: tuple.to.port.get(),
        backend: backend.map(|backend| backend.address),
        backend_port: backend.map(|backend| backend.port),
        table,
        stage: Stage::from_value(entry.stage).label(),
        expires_in_ms: entry.deadline.saturating_sub(now) / 1_000_000,
        slot: (slots > 0).then(|| maglev::slot(entry.slot_bits, slots.ilog2())),
    }
}

#[cfg(test)]
mod tests {
    use lb_common::{addr::Be16, maps::services::VipKey};

    use super::*;
    use crate::examples;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn flow(backend: BackendId, service: Option<&ServiceView>) -> FlowView {
        let to = VipKey::new(address("192.0.2.10").into(), Be16::new(6443), 6);
        let tuple = Tuple::new(address("198.51.100.7").into(), Be16::new(40_000), to);
        let (slot_bits, deadline) = (0x8000_0000, 9_500_000_000);
        let entry =
            FlowEntry { backend: backend.bits(), slot_bits, deadline, service: 0, stage: Stage::Closing as u32 };
        view(&tuple, &entry, service, "old", 2_000_000_000)
    }

    #[test]
    fn a_flow_is_named_by_its_service_and_backend() {
        let service = examples::service();
        let seen = flow(BackendId::new(1, 1), Some(&service));
        let expected = FlowView {
            service: "kubernetes".to_owned(),
            protocol: "tcp".to_owned(),
            client: address("198.51.100.7"),
            client_port: Some(40_000),
            vip: address("192.0.2.10"),
            port: 6443,
            backend: Some(address("10.0.2.2")),
            backend_port: Some(6443),
            table: "old",
            stage: "closing",
            expires_in_ms: 7_500,
            slot: Some(2_048),
        };
        assert_eq!(seen, expected);
        let gone = flow(BackendId::new(1, 2), Some(&service));
        assert_eq!((gone.backend, gone.backend_port), (None, None), "another generation is another backend");
        assert_eq!(flow(BackendId::new(1, 1), None).slot, None);
    }

    #[test]
    fn filters_are_all_asked() {
        let flow = flow(BackendId::new(1, 1), Some(&examples::service()));
        let net = |text: &str| Some(text.parse().unwrap());
        let takes = |filter: FlowFilter| filter.takes(&flow);
        let all = FlowFilter {
            service: Some("kubernetes".to_owned()),
            backend: Some((address("10.0.2.2"), Some(6443))),
            client: net("198.51.100.0/24"),
            limit: 1,
        };
        assert!(takes(FlowFilter::default()) && takes(all.clone()));
        assert!(!takes(FlowFilter { service: Some("web".to_owned()), ..all }));
        assert!(!takes(FlowFilter { backend: Some((address("10.0.2.2"), Some(80))), ..all.clone() }));
        assert!(takes(FlowFilter { backend: Some((address("10.0.2.2"), None)), ..all.clone() }));
        assert!(!takes(FlowFilter { client: net("198.51.101.0/24"), ..all }));
    }
}

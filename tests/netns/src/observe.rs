//! What an agent's pinned maps say, read by the test itself: neither the agent nor `lbctl` has to be believed.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddrV4},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use etherparse::PacketBuilder;
use lb_agent::inspect::{BackendView, Inspection, Inspector, Rings};
use lb_common::addr::BackendId;

use crate::{agent::Agent, wait};

/// Bytes of the shortest frame that the program can be asked about.
const SHORTEST: usize = 64;

/// Everything in the maps but the slots of the rings.
///
/// # Errors
/// If nothing is pinned yet.
pub fn inspect(agent: &Agent) -> Result<Inspection> {
    let read = Inspector::open(agent.pin_path()).and_then(|maps| maps.read(Rings::Skip));
    read.with_context(|| format!("reading the maps under {}", agent.pin_path().display()))
}

/// The backends of the service `name`, once per VIP and port.
///
/// # Errors
/// As [`inspect`].
pub fn backends(agent: &Agent, name: &str) -> Result<Vec<BackendView>> {
    let services = inspect(agent)?.services.into_iter();
    Ok(services.filter(|service| service.name == name).flat_map(|service| service.backends).collect())
}

/// Packets by verdict and by drop reason, under their labels.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Counters(BTreeMap<&'static str, u64>);

impl Counters {
    /// What the agent's data plane has counted so far.
    ///
    /// # Errors
    /// As [`inspect`].
    pub fn of(agent: &Agent) -> Result<Self> {
        let Inspection { verdicts, drops, .. } = inspect(agent)?;
        let counts = verdicts.into_iter().chain(drops);
        Ok(Self(counts.map(|count| (count.name, count.packets)).collect()))
    }

    /// What came since `earlier`; labels without a packet are left out.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let grown = self.0.iter().map(|(name, now)| (*name, now - earlier.get(name)));
        Self(grown.filter(|(_, packets)| *packets > 0).collect())
    }

    /// The same without labels other than these.
    #[must_use]
    pub fn only(&self, labels: &[&str]) -> Self {
        let wanted = self.0.iter().filter(|(name, _)| labels.contains(name));
        Self(wanted.map(|(name, packets)| (*name, *packets)).collect())
    }

    /// Packets under a label.
    #[must_use]
    pub fn get(&self, label: &str) -> u64 {
        self.0.get(label).copied().unwrap_or(0)
    }
}

/// Waits until the maps know a way to every backend, and returns how long that took.
///
/// # Errors
/// After `limit`.
pub async fn wait_for_hops(agent: &Agent, limit: Duration) -> Result<Duration> {
    let look = || async {
        let services = inspect(agent)?.services;
        ensure!(!services.is_empty(), "no service");
        let all = services.iter().flat_map(|service| &service.backends);
        let unknown: Vec<_> =
            all.filter(|backend| backend.hop.mode == "unknown").map(|backend| backend.address).collect();
        ensure!(unknown.is_empty(), "no way to {unknown:?}");
        Ok(())
    };
    Ok(wait::until("a way to every backend", limit, look).await?.1)
}

/// The backends that this agent's program chooses for new TCP connections over IPv4 from these ends to `target`, as it does
/// for packets; `None` where it would do something else.
///
/// # Errors
/// As [`inspect`].
pub fn choices(agent: &Agent, sources: &[SocketAddrV4], target: SocketAddrV4) -> Result<Vec<Option<IpAddr>>> {
    let services = inspect(agent)?.services;
    let of = |id: BackendId| {
        let mut backends = services.iter().flat_map(|service| &service.backends);
        backends.find(|one| (one.index, one.generation) == (id.index(), id.generation())).map(|one| one.address)
    };
    let choose = |source: &SocketAddrV4| {
        let frame = syn(*source, target)?;
        let report = lb_agent::inspect::lookup(agent.pin_path(), &frame).context("asking the program")?;
        Ok(if report.backend == 0 { None } else { of(BackendId::from_bits(report.backend)) })
    };
    sources.iter().map(choose).collect()
}

/// The frame that begins a connection.
fn syn(source: SocketAddrV4, target: SocketAddrV4) -> Result<Vec<u8>> {
    let builder = PacketBuilder::ethernet2([0; 6], [0; 6]).ipv4(source.ip().octets(), target.ip().octets(), 64);
    let builder = builder.tcp(source.port(), target.port(), 1, u16::MAX).syn();
    let mut frame = Vec::new();
    builder.write(&mut frame, &[]).context("writing a frame")?;
    frame.resize(frame.len().max(SHORTEST), 0);
    Ok(frame)
}

/// Number of slots, of all rings, that are not settled.
///
/// # Errors
/// As [`inspect`].
pub fn unsettled(agent: &Agent) -> Result<usize> {
    let dump = Inspector::open(agent.pin_path())?.dump("RINGS")?.context("no rings")?;
    let states = dump.entries.iter().flat_map(|slot| &slot.0).filter(|(field, _)| *field == "state");
    Ok(states.filter(|(_, state)| state != "settled").count())
}

/// Waits until every slot of these agents' rings is settled: after the start on nodes with backends that is one
/// `flowTimeout` later, so that had better be short.
///
/// # Errors
/// After `limit`.
pub async fn wait_until_settled(agents: &[Agent], limit: Duration) -> Result<()> {
    let look = || async {
        let unsettled = agents.iter().map(unsettled).collect::<Result<Vec<_>>>()?;
        ensure!(unsettled.iter().all(|count| *count == 0), "{unsettled:?} slots are not settled");
        Ok(())
    };
    wait::until("settled rings", limit, look).await?;
    Ok(())
}

/// The counters of these agents when no packet is under way any more: two readings in a row are the same.
///
/// # Errors
/// After `limit`.
pub async fn counters_at_rest(agents: &[Agent], limit: Duration) -> Result<Vec<Counters>> {
    let read = || agents.iter().map(Counters::of).collect::<Result<Vec<_>>>();
    let look = || async {
        let (first, second) = (read()?, read()?);
        ensure!(first == second, "packets are still counted: {first:?}, then {second:?}");
        Ok(second)
    };
    Ok(wait::until("packets to come to rest", limit, look).await?.0)
}

//! The task that keeps the snapshot right.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use futures::{StreamExt, stream};
use nix::errno::Errno;
use rtnetlink::MulticastGroup;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    Client, Event, EventSocket, NetlinkError, addresses,
    dirty::Dirty,
    links,
    neighbours::{self, Key},
    routes,
    state::State,
};
use crate::model::Network;

/// Events that come this soon after the first lead to one snapshot with it.
const COALESCE: Duration = Duration::from_millis(5);

/// The longest pause after a snapshot that was quick to make.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Everything is read again this often, in case the kernel changed something without an event.
const RESYNC: Duration = Duration::from_secs(10);

/// How often it is checked which neighbours have to be asked for.
const ASK_TICK: Duration = Duration::from_millis(250);

/// How many neighbours are asked for at most per tick, so that thousands do not flood the links at once.
const ASK_LIMIT: usize = 256;

/// Requests under way at once.
const REQUESTS_AT_ONCE: usize = 32;

/// Pause before the sockets are opened again after an error.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);

const GROUPS: [MulticastGroup; 9] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
    MulticastGroup::Nexthop,
];

/// Watches the network of the calling thread's network namespace until `cancel`. `wanted` are the addresses whose way
/// is followed; it may change at any time.
///
/// The snapshot is complete when this returns, apart from MACs that the kernel has still to resolve. Later ones follow
/// a change within 50 ms (a few thousand wanted addresses take longer to look up), and are only published if they
/// differ. The kernel keeps as many neighbours as `net.ipv4.neigh.default.gc_thresh3` (default 1024) allows.
///
/// # Errors
/// If the kernel cannot be asked. Errors after the start are logged, the last snapshot stays in force, and the sockets
/// are opened again.
pub async fn start(
    wanted: watch::Receiver<BTreeSet<IpAddr>>,
    cancel: CancellationToken,
) -> Result<watch::Receiver<Network>, NetlinkError> {
    let mut watcher = Watcher::open(wanted)?;
    watcher.refresh(Dirty::all()).await?;
    let (sender, receiver) = watch::channel(watcher.state.network());
    tokio::spawn(async move {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = watcher.run(&sender) => {}
        }
    });
    Ok(receiver)
}

/// Reads the network once, without making the kernel resolve anything.
///
/// # Errors
/// If the kernel cannot be asked.
pub async fn snapshot_once(wanted: &BTreeSet<IpAddr>) -> Result<Network, NetlinkError> {
    let mut state = State::default();
    read(&Client::open()?, &mut state, wanted, Dirty::all()).await?;
    Ok(state.network())
}

struct Watcher {
    client: Client,
    events: EventSocket,
    wanted: watch::Receiver<BTreeSet<IpAddr>>,
    state: State,
    /// Whether the last neighbours asked for found no room in the kernel's table.
    table_full: bool,
}

impl Watcher {
    /// Listens first and reads then, so that no change falls between the two.
    fn open(wanted: watch::Receiver<BTreeSet<IpAddr>>) -> Result<Self, NetlinkError> {
        let events = EventSocket::open(&GROUPS)?;
        Ok(Self { events, client: Client::open()?, wanted, state: State::default(), table_full: false })
    }

    /// Follows the network; after an error with new sockets.
    async fn run(&mut self, sender: &watch::Sender<Network>) {
        let mut dirty = Dirty::default();
        while let Err(error) = self.follow(sender, dirty).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "following the network failed, starting again");
            tokio::time::sleep(REOPEN_PAUSE).await;
            match (EventSocket::open(&GROUPS), Client::open()) {
                (Ok(events), Ok(client)) => (self.events, self.client) = (events, client),
                (Err(error), _) | (_, Err(error)) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "no netlink sockets, trying again");
                }
            }
            dirty = Dirty::all();
        }
    }

    /// Follows the network until nobody wants to know any more, or an error.
    async fn follow(&mut self, sender: &watch::Sender<Network>, mut dirty: Dirty) -> Result<(), NetlinkError> {
        let mut batch = Vec::new();
        let mut refresh_at = (!dirty.is_clean()).then(Instant::now);
        let (mut ready_at, mut resync_at, mut ask_at) = (Instant::now(), Instant::now() + RESYNC, Instant::now());
        loop {
            let wake_at = resync_at.min(ask_at).min(refresh_at.map_or(resync_at, |at| at.max(ready_at)));
            tokio::select! {
                () = sender.closed() => return Ok(()),
                Ok(()) = self.wanted.changed() => (dirty.snapshot, refresh_at) = (true, Some(Instant::now())),
                received = self.events.receive(&mut batch) => {
                    received?;
                    self.take(&mut batch, &mut dirty);
                }
                () = sleep_until(wake_at) => {}
            }
            let now = Instant::now();
            if now >= resync_at {
                (dirty, resync_at) = (Dirty::all(), now + RESYNC);
            }
            if !dirty.is_clean() && now >= *refresh_at.get_or_insert(now + COALESCE) && now >= ready_at {
                self.refresh(std::mem::take(&mut dirty)).await?;
                self.publish(sender);
                let (took, done) = (now.elapsed(), Instant::now());
                (refresh_at, ready_at, ask_at) = (None, done + pause_after(took), done);
            }
            if Instant::now() >= ask_at {
                self.ask().await;
                ask_at = Instant::now() + ASK_TICK;
            }
        }
    }

    fn take(&mut self, batch: &mut Vec<Event>, dirty: &mut Dirty) {
        for event in batch.drain(..) {
            if matches!(event, Event::Overrun) {
                tracing::warn!("more network events than the agent could read, reading everything again");
            }
            dirty.take(&event, &mut self.state);
        }
    }

    async fn refresh(&mut self, dirty: Dirty) -> Result<(), NetlinkError> {
        let wanted = self.wanted.borrow_and_update().clone();
        read(&self.client, &mut self.state, &wanted, dirty).await
    }

    fn publish(&self, sender: &watch::Sender<Network>) {
        let network = self.state.network();
        sender.send_if_modified(|current| {
            let changed = *current != network;
            if changed {
                *current = network;
            }
            changed
        });
    }

    /// Makes the kernel resolve the neighbours that are due. One that cannot be asked for is tried again when due next.
    async fn ask(&mut self) {
        let due = self.state.due(Instant::now().into_std(), ASK_LIMIT);
        if due.is_empty() {
            return;
        }
        let resolve = |key: Key| neighbours::resolve(&self.client, key);
        let results: Vec<_> = stream::iter(due).map(resolve).buffer_unordered(REQUESTS_AT_ONCE).collect().await;
        let errors: Vec<_> = results.into_iter().filter_map(Result::err).collect();
        for error in &errors {
            tracing::debug!(error = error as &dyn std::error::Error, "not resolving a neighbour");
        }
        let table_full = errors.iter().any(|error| error.errno() == Some(Errno::ENOBUFS));
        if table_full && !self.table_full {
            tracing::warn!(
                "the kernel's neighbour table is full, some next hops stay unknown; raise \
                 net.ipv4.neigh.default.gc_thresh3 and net.ipv6.neigh.default.gc_thresh3"
            );
        }
        self.table_full = table_full;
    }
}

/// Reads into `state` what is dirty, and the way to addresses that are newly wanted.
async fn read(client: &Client, state: &mut State, wanted: &BTreeSet<IpAddr>, dirty: Dirty) -> Result<(), NetlinkError> {
    if dirty.links {
        state.interfaces = links::interfaces(client).await?;
    }
    if dirty.addresses {
        state.addresses = addresses::visible(&addresses(client).await?);
    }
    if dirty.neighbours {
        state.set_neighbours(neighbours::neighbours(client).await?);
    }
    let mut addresses = dirty.routes.of(wanted);
    addresses.extend(wanted.iter().filter(|address| !state.knows(**address)));
    let hops = routes::hops(client, addresses).await?;
    state.set_hops(hops, wanted);
    Ok(())
}

/// How long to let events gather after a refresh that took this long: ten times as long, to spend at most a tenth of a
/// core, but not over 50 ms, unless the refresh itself took longer.
fn pause_after(took: Duration) -> Duration {
    (took * 10).min(LONGEST_PAUSE).max(took)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_after_a_refresh_bounds_delay_and_load() {
        let millis = Duration::from_millis;
        for (took, pause) in [(0, 0), (1, 10), (5, 50), (20, 50), (200, 200)] {
            assert_eq!(pause_after(millis(took)), millis(pause), "{took} ms");
        }
    }
}

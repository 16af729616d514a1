//! The task that keeps held and announced VIPs as the plan wants them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::MulticastGroup;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{AnnounceError, Announcer, Applied, Holder, Loopback};
use crate::netlink::{Event, EventSocket, KernelAddress, LOOPBACK_INDEX, NetlinkError, held_address};

/// Everything is checked this often, in case something was changed without an event that tells.
const RESYNC: Duration = Duration::from_secs(30);

/// Events that come this soon after the first are repaired with it.
const COALESCE: Duration = Duration::from_millis(10);

/// The shortest time between two repairs, in case somebody removes what is put back, again and again.
const REPAIR_PAUSE: Duration = Duration::from_millis(100);

/// After the first failure; each further one in a row doubles it.
const FIRST_RETRY: Duration = Duration::from_millis(250);

/// The longest pause between retries.
const LAST_RETRY: Duration = Duration::from_secs(30);

const GROUPS: [MulticastGroup; 5] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];

/// What a plan wants of this node's VIPs.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DesiredAnnouncements {
    /// VIPs whose flows this node terminates.
    pub held: BTreeSet<IpAddr>,
    /// VIPs that the network is told to send here, with the lifetime of the announcement (3..=3600 s).
    pub announced: BTreeMap<IpAddr, Duration>,
}

/// What came of it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AnnounceStatus {
    /// The set that this is the result of; `None` before the first.
    pub desired: Option<DesiredAnnouncements>,
    /// VIPs that are held.
    pub held: BTreeSet<IpAddr>,
    /// VIPs that are announced.
    pub announced: BTreeSet<IpAddr>,
    /// VIPs that should be announced, but somebody else has put them on `lo`: they are left alone.
    pub foreign: BTreeSet<IpAddr>,
    /// What failed, by VIP, and what to do about it. It is tried again.
    pub errors: BTreeMap<IpAddr, String>,
}

/// Follows `desired` until `cancel`, in the network namespace of the calling thread. `None` stands for "not known yet":
/// nothing is added or removed before the first complete set. What is removed by hand comes back within a second.
/// When cancelled, everything stays as it is: held without end, announced until the lifetime is over. The returned
/// channel closes when the task has ended; clean up ([`withdraw_all`](super::withdraw_all)) after that.
///
/// # Errors
/// If there are no netlink sockets. Later errors are in the status.
pub fn spawn(
    desired: watch::Receiver<Option<DesiredAnnouncements>>,
    cancel: CancellationToken,
) -> Result<watch::Receiver<AnnounceStatus>, NetlinkError> {
    let (status, receiver) = watch::channel(AnnounceStatus::default());
    let mut driver = Driver {
        desired,
        status,
        events: EventSocket::open(&GROUPS)?,
        holder: Holder::open()?,
        loopback: Loopback::open()?,
        failures: 0,
    };
    tokio::spawn(async move { driver.run(&cancel).await });
    Ok(receiver)
}

struct Driver {
    desired: watch::Receiver<Option<DesiredAnnouncements>>,
    status: watch::Sender<AnnounceStatus>,
    events: EventSocket,
    holder: Holder,
    loopback: Loopback,
    /// Applications in a row that failed for a VIP or more.
    failures: u32,
}

impl Driver {
    /// Looks at `cancel` between applications only, so that none goes on behind the back of who cleans up after it.
    async fn run(&mut self, cancel: &CancellationToken) {
        let mut batch = Vec::new();
        let (mut apply_at, mut repair_from) = (Instant::now(), Instant::now());
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                Ok(()) = self.desired.changed() => apply_at = Instant::now(),
                received = self.events.receive(&mut batch) => {
                    if let Err(error) = received {
                        self.reopen(&error).await;
                        apply_at = Instant::now();
                    } else if self.is_hurt_by(&batch) {
                        apply_at = apply_at.min((Instant::now() + COALESCE).max(repair_from));
                    }
                    batch.clear();
                }
                () = sleep_until(apply_at) => {
                    let desired = self.desired.borrow_and_update().clone();
                    let pause = match &desired {
                        Some(desired) => self.apply(desired).await,
                        None => RESYNC,
                    };
                    (apply_at, repair_from) = (Instant::now() + pause, Instant::now() + REPAIR_PAUSE);
                }
            }
        }
    }

    fn is_hurt_by(&self, events: &[Event]) -> bool {
        let desired = self.desired.borrow();
        desired.as_ref().is_some_and(|desired| events.iter().any(|event| hurts(event, desired)))
    }

    /// Opens the sockets anew after an error. What fails here is tried again with the next error or application.
    async fn reopen(&mut self, error: &NetlinkError) {
        tracing::warn!(error = error as &dyn std::error::Error, "following the announcements failed, starting again");
        tokio::time::sleep(FIRST_RETRY).await;
        match (EventSocket::open(&GROUPS), Holder::open(), Loopback::open()) {
            (Ok(events), Ok(holder), Ok(loopback)) => {
                (self.events, self.holder, self.loopback) = (events, holder, loopback);
            }
            (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "no netlink sockets, trying again");
            }
        }
    }

    /// Applies a whole set: holds, announces and withdraws, releases. Returns when to do so again.
    async fn apply(&mut self, desired: &DesiredAnnouncements) -> Duration {
        let mut status = AnnounceStatus { desired: Some(desired.clone()), ..AnnounceStatus::default() };
        let held = self.holder.hold(&desired.held).await;
        collect_errors(&mut status, held.as_ref(), &desired.held);

        let announced = self.loopback.apply(&desired.announced).await;
        collect_errors(&mut status, announced.as_ref(), &desired.announced.keys().copied().collect());

        if let Ok(announced) = announced {
            // What could not be withdrawn is not released either.
            let keep = desired.held.iter().chain(announced.errors.keys()).copied().collect();
            let released = self.holder.release_others(&keep).await;
            collect_errors(&mut status, released.as_ref(), &BTreeSet::new());
            status.held = released.map(|released| released.kept).unwrap_or_default();
            status.announced = announced.added.union(&announced.kept).copied().collect();
            status.foreign = announced.foreign;
        }
        self.failures = if status.errors.is_empty() { 0 } else { self.failures.saturating_add(1) };
        self.publish(status);
        pause(desired, self.failures)
    }

    fn publish(&self, status: AnnounceStatus) {
        self.status.send_if_modified(|current| {
            for (vip, error) in &status.errors {
                if current.errors.get(vip) != Some(error) {
                    tracing::warn!(%vip, error, "VIP not as it should be, trying again");
                }
            }
            for vip in status.foreign.difference(&current.foreign) {
                tracing::warn!(%vip, "not announced: somebody else put it on lo; remove it there to have it announced");
            }
            let changed = *current != status;
            *current = status;
            changed
        });
    }
}

/// Adds what failed to `status`: for single VIPs, or for all of `wanted`.
fn collect_errors(status: &mut AnnounceStatus, result: Result<&Applied, &AnnounceError>, wanted: &BTreeSet<IpAddr>) {
    match result {
        Ok(applied) => status.errors.extend(applied.errors.iter().map(|(vip, error)| (*vip, text(error)))),
        Err(error) => status.errors.extend(wanted.iter().map(|vip| (*vip, text(error)))),
    }
}

/// An error with its causes.
fn text(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Whether an event tells that something of `desired` is gone.
fn hurts(event: &Event, desired: &DesiredAnnouncements) -> bool {
    match event {
        Event::Overrun | Event::Unknown => true,
        // IPv4 routes go with the link without events of their own, and what failed works when it comes back.
        Event::Message(RouteNetlinkMessage::NewLink(message) | RouteNetlinkMessage::DelLink(message)) => {
            message.header.index == LOOPBACK_INDEX
        }
        Event::Message(RouteNetlinkMessage::DelAddress(message)) => KernelAddress::parse(message)
            .is_some_and(|gone| gone.interface == LOOPBACK_INDEX && desired.announced.contains_key(&gone.address)),
        Event::Message(RouteNetlinkMessage::DelRoute(message)) => {
            held_address(message).is_some_and(|vip| desired.held.contains(&vip))
        }
        Event::Message(_) => false,
    }
}

/// When to apply `desired` again: at a third of the shortest lifetime, and after failures sooner.
fn pause(desired: &DesiredAnnouncements, failures: u32) -> Duration {
    let renew = desired.announced.values().min().map_or(RESYNC, |lifetime| *lifetime / 3);
    let retry = match failures {
        0 => RESYNC,
        failures => FIRST_RETRY.saturating_mul(1 << (failures - 1).min(16)).min(LAST_RETRY),
    };
    renew.min(retry).clamp(REPAIR_PAUSE, RESYNC)
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::{
        address::{AddressAttribute, AddressMessage},
        link::LinkMessage,
    };

    use super::*;
    use crate::netlink::held_route;

    const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 10));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 11));

    fn desired(lifetime: u64) -> DesiredAnnouncements {
        DesiredAnnouncements { held: [VIP].into(), announced: [(VIP, Duration::from_secs(lifetime))].into() }
    }

    fn address(interface: u32, vip: IpAddr) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.index = interface;
        message.attributes = vec![AddressAttribute::Local(vip)];
        message
    }

    fn link(index: u32) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message
    }

    #[test]
    fn only_a_loss_of_what_is_wanted_calls_for_a_repair() {
        let cases = [
            ("the address", RouteNetlinkMessage::DelAddress(address(1, VIP)), true),
            ("another address", RouteNetlinkMessage::DelAddress(address(1, OTHER)), false),
            ("the address elsewhere", RouteNetlinkMessage::DelAddress(address(2, VIP)), false),
            ("a renewal", RouteNetlinkMessage::NewAddress(address(1, VIP)), false),
            ("the route", RouteNetlinkMessage::DelRoute(held_route(VIP)), true),
            ("another route", RouteNetlinkMessage::DelRoute(held_route(OTHER)), false),
            ("the route, added", RouteNetlinkMessage::NewRoute(held_route(VIP)), false),
            ("lo", RouteNetlinkMessage::NewLink(link(1)), true),
            ("another link", RouteNetlinkMessage::NewLink(link(2)), false),
        ];
        for (name, message, expected) in cases {
            assert_eq!(hurts(&Event::Message(message), &desired(30)), expected, "{name}");
        }
        assert!(hurts(&Event::Overrun, &desired(30)));
    }

    #[test]
    fn renewal_is_at_a_third_of_the_shortest_lifetime_and_failures_come_back_sooner() {
        let millis = Duration::from_millis;
        let cases = [
            (desired(3), 0, millis(1000)),
            (desired(30), 0, millis(10_000)),
            (desired(3600), 0, RESYNC),
            (DesiredAnnouncements::default(), 0, RESYNC),
            (desired(30), 1, millis(250)),
            (desired(30), 2, millis(500)),
            (desired(30), 4, millis(2000)),
            (desired(30), 1000, millis(10_000)),
            (desired(3600), 1000, LAST_RETRY),
        ];
        for (desired, failures, expected) in cases {
            assert_eq!(pause(&desired, failures), expected, "{failures} failures, {desired:?}");
        }
    }
}

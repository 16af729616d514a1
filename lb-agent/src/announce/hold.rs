//! The held state: a `local` route to the VIP, without lifetime, which outlives the agent.

use std::{collections::BTreeSet, net::IpAddr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;

use super::{AnnounceError, Applied};
use crate::netlink::{Client, NetlinkError, held_address, held_dump_request, held_route, loopback_is_up};

/// Releases every VIP that this node holds, whichever process held it. Withdraw first: with packet forwarding on, a
/// node that draws a VIP's traffic without holding it sends it in circles.
///
/// # Errors
/// If the kernel cannot be asked.
pub async fn release_all() -> Result<Applied, AnnounceError> {
    Holder::open()?.apply(&BTreeSet::new()).await
}

/// Holds VIPs by routes in table `local`.
#[derive(Debug)]
pub struct Holder {
    client: Client,
}

impl Holder {
    /// A holder in the network namespace of the calling thread.
    ///
    /// # Errors
    /// If there is no netlink socket.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self { client: Client::open()? })
    }

    /// Makes `wanted` the whole set of held VIPs, and releases every other one that the agent held, in this process or
    /// an earlier one. It can be called again at any time.
    ///
    /// # Errors
    /// If nothing could be done at all. What failed for one VIP is in [`Applied::errors`] and stops no other.
    pub async fn apply(&mut self, wanted: &BTreeSet<IpAddr>) -> Result<Applied, AnnounceError> {
        let present = self.present().await?;
        self.perform(changes(wanted, &present)).await
    }

    /// Holds `wanted` besides what is held.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub async fn hold(&mut self, wanted: &BTreeSet<IpAddr>) -> Result<Applied, AnnounceError> {
        let present = self.present().await?;
        let all = wanted.union(&present).copied().collect();
        self.perform(changes(&all, &present)).await
    }

    /// Releases every VIP that is held and not in `keep`.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub async fn release_others(&mut self, keep: &BTreeSet<IpAddr>) -> Result<Applied, AnnounceError> {
        let present = self.present().await?;
        let rest = keep.intersection(&present).copied().collect();
        self.perform(changes(&rest, &present)).await
    }

    /// The VIPs that are held.
    async fn present(&self) -> Result<BTreeSet<IpAddr>, NetlinkError> {
        let mut present = BTreeSet::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let request = RouteNetlinkMessage::GetRoute(held_dump_request(family));
            match self.client.dump("list the routes in table local", request).await {
                Ok(answers) => present.extend(answers.iter().filter_map(|answer| match answer {
                    RouteNetlinkMessage::NewRoute(message) => held_address(message),
                    _ => None,
                })),
                // A table appears with its first route; without IPv6 the family has none.
                Err(error) if matches!(error.errno(), Some(Errno::ENOENT | Errno::EAFNOSUPPORT)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(present)
    }

    async fn perform(&self, changes: Vec<Change>) -> Result<Applied, AnnounceError> {
        let up = loopback_is_up(&self.client).await?;
        let mut applied = Applied::default();
        for change in changes {
            let (vip, result) = match change {
                Change::Keep(vip) => {
                    applied.kept.insert(vip);
                    continue;
                }
                Change::Hold(vip) if up => (vip, self.add(vip).await.map(|()| applied.added.insert(vip))),
                Change::Hold(vip) => {
                    applied.errors.insert(vip, AnnounceError::LoopbackDown);
                    continue;
                }
                Change::Release(vip) => (vip, self.remove(vip).await.map(|()| applied.removed.insert(vip))),
            };
            if let Err(error) = result {
                applied.errors.insert(vip, error.into());
            }
        }
        Ok(applied)
    }

    async fn add(&self, vip: IpAddr) -> Result<(), NetlinkError> {
        let request = RouteNetlinkMessage::NewRoute(held_route(vip));
        let action = format!("hold {vip} by a route in table local");
        self.client.change(&action, request, NLM_F_CREATE | NLM_F_EXCL).await?;
        tracing::info!(%vip, "held");
        Ok(())
    }

    async fn remove(&self, vip: IpAddr) -> Result<(), NetlinkError> {
        let request = RouteNetlinkMessage::DelRoute(held_route(vip));
        match self.client.change(&format!("release {vip} from table local"), request, 0).await {
            Err(error) if error.errno() == Some(Errno::ESRCH) => {} // removed meanwhile
            result => result?,
        }
        tracing::info!(%vip, "released");
        Ok(())
    }
}

/// One step from the routes that are there to those that are wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Change {
    Hold(IpAddr),
    Keep(IpAddr),
    Release(IpAddr),
}

/// The steps from `present` to `wanted`: first what is held, then what is released.
fn changes(wanted: &BTreeSet<IpAddr>, present: &BTreeSet<IpAddr>) -> Vec<Change> {
    let holds = wanted.iter().map(|&vip| if present.contains(&vip) { Change::Keep(vip) } else { Change::Hold(vip) });
    let releases = present.difference(wanted).map(|&vip| Change::Release(vip));
    holds.chain(releases).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_changes_lead_from_what_is_held_to_what_is_wanted() {
        let [a, b]: [IpAddr; 2] = [[192, 0, 2, 1].into(), "2001:db8::1".parse().unwrap()];
        let cases: [(&[IpAddr], &[IpAddr], &[Change]); 5] = [
            (&[], &[], &[]),
            (&[a], &[], &[Change::Hold(a)]),
            (&[a], &[a], &[Change::Keep(a)]),
            (&[], &[a], &[Change::Release(a)]),
            (&[b], &[a], &[Change::Hold(b), Change::Release(a)]),
        ];
        for (wanted, present, expected) in cases {
            let set = |vips: &[IpAddr]| vips.iter().copied().collect();
            assert_eq!(changes(&set(wanted), &set(present)), expected, "{wanted:?} from {present:?}");
        }
    }
}

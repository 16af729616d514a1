//! The announcer `loopback`: the VIP as an address on `lo`, for a routing daemon to redistribute.
//!
//! The address is a /32 or /128 without prefix route, never preferred (so that no connection of the node starts from
//! it), marked by `IFA_PROTO` (kernel 5.18), and it has a lifetime: an agent that hangs cannot go on announcing.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage, CacheInfo},
};
use nix::errno::Errno;

use super::{AnnounceError, Announcer, Applied};
use crate::netlink::{Client, IFA_PROTOCOL, KernelAddress, LOOPBACK_INDEX, NetlinkError, addresses, loopback_is_up};

/// Withdraws every VIP that is announced on `lo`, whichever process announced it.
///
/// # Errors
/// If the kernel cannot be asked.
pub async fn withdraw_all() -> Result<Applied, AnnounceError> {
    Loopback::open()?.apply(&BTreeMap::new()).await
}

/// Announces VIPs as addresses on `lo`.
#[derive(Debug)]
pub struct Loopback {
    client: Client,
}

impl Loopback {
    /// An announcer in the network namespace of the calling thread.
    ///
    /// # Errors
    /// If there is no netlink socket.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self { client: Client::open()? })
    }

    async fn perform(&self, change: Change) -> Result<(), NetlinkError> {
        match change {
            Change::Add { vip, seconds } => {
                let request = RouteNetlinkMessage::NewAddress(announcement(vip, seconds));
                // Exclusive, so that an address which appeared just now is not taken over.
                let action = format!("announce {vip} on lo");
                self.client.change(&action, request, NLM_F_CREATE | NLM_F_EXCL).await?;
                tracing::info!(%vip, lifetime = seconds, "announced on lo");
            }
            Change::Renew { vip, seconds } => {
                let request = RouteNetlinkMessage::NewAddress(announcement(vip, seconds));
                let action = format!("renew {vip} on lo");
                self.client.change(&action, request, NLM_F_CREATE | NLM_F_REPLACE).await?;
                tracing::debug!(%vip, lifetime = seconds, "renewed on lo");
            }
            Change::Remove { vip } => {
                let request = RouteNetlinkMessage::DelAddress(address(vip));
                match self.client.change(&format!("withdraw {vip} from lo"), request, 0).await {
                    Err(error) if error.errno() == Some(Errno::EADDRNOTAVAIL) => {} // expired meanwhile
                    result => result?,
                }
                tracing::info!(%vip, "withdrawn from lo");
            }
            Change::Keep { .. } | Change::Leave { .. } => {}
        }
        Ok(())
    }
}

impl Announcer for Loopback {
    async fn apply(&mut self, wanted: &BTreeMap<IpAddr, Duration>) -> Result<Applied, AnnounceError> {
        let present = addresses(&self.client).await?;
        let up = loopback_is_up(&self.client).await?;
        let mut applied = Applied::default();
        for change in changes(wanted, &present) {
            let vip = change.vip();
            if let (Change::Add { .. }, false) = (change, up) {
                applied.errors.insert(vip, AnnounceError::LoopbackDown);
                continue;
            }
            if let Err(error) = self.perform(change).await {
                applied.errors.insert(vip, error.into());
                continue;
            }
            let done = match change {
                Change::Add { .. } => &mut applied.added,
                Change::Renew { .. } | Change::Keep { .. } => &mut applied.kept,
                Change::Remove { .. } => &mut applied.removed,
                Change::Leave { .. } => &mut applied.foreign,
            };
            done.insert(vip);
        }
        Ok(applied)
    }
}

/// One step from the addresses that are there to those that are wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Change {
    /// Is not there.
    Add { vip: IpAddr, seconds: u32 },
    /// Is there, and a third of its lifetime or more is over.
    Renew { vip: IpAddr, seconds: u32 },
    /// Is there, renewed not long ago.
    Keep { vip: IpAddr },
    /// Is there, but is none of ours.
    Leave { vip: IpAddr },
    /// Is ours, but not wanted.
    Remove { vip: IpAddr },
}

impl Change {
    const fn vip(self) -> IpAddr {
        match self {
            Self::Add { vip, .. }
            | Self::Renew { vip, .. }
            | Self::Keep { vip }
            | Self::Leave { vip }
            | Self::Remove { vip } => vip,
        }
    }
}

/// The steps from `present`, every address of the node, to `wanted`.
fn changes(wanted: &BTreeMap<IpAddr, Duration>, present: &[KernelAddress]) -> Vec<Change> {
    let on_loopback = || present.iter().filter(|address| address.interface == LOOPBACK_INDEX);
    let mut changes: Vec<_> = wanted
        .iter()
        .map(|(&vip, &lifetime)| {
            let seconds = whole_seconds(lifetime);
            let mut same = on_loopback().filter(|address| address.address == vip).peekable();
            if same.peek().is_none() {
                return Change::Add { vip, seconds };
            }
            // An IPv4 address can be there twice, with two prefixes.
            match same.find(|address| address.is_announcement()) {
                None => Change::Leave { vip },
                Some(ours) if is_fresh(ours, seconds) => Change::Keep { vip },
                Some(_) => Change::Renew { vip, seconds },
            }
        })
        .collect();
    let stale: BTreeSet<IpAddr> = on_loopback()
        .filter(|address| address.is_announcement() && !wanted.contains_key(&address.address))
        .map(|address| address.address)
        .collect();
    changes.extend(stale.into_iter().map(|vip| Change::Remove { vip }));
    changes
}

/// Whether less than a third of the lifetime is over. Also false where the kernel has another lifetime or a preferred
/// address than was asked for, since somebody changed it by hand.
const fn is_fresh(address: &KernelAddress, seconds: u32) -> bool {
    let valid = address.valid_seconds;
    address.preferred_seconds == 0 && valid <= seconds && valid > seconds - seconds / 3
}

/// The lifetime as the kernel counts it, rounded up, at least one second and never the value that means for ever.
fn whole_seconds(lifetime: Duration) -> u32 {
    let seconds = lifetime.as_secs() + u64::from(lifetime.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(u32::MAX).clamp(1, u32::MAX - 1)
}

/// The announcement of `vip` for this long.
fn announcement(vip: IpAddr, seconds: u32) -> AddressMessage {
    let mut lifetimes = CacheInfo::default();
    lifetimes.ifa_valid = seconds;
    lifetimes.ifa_preferred = 0;
    let mut message = address(vip);
    message.attributes.extend([
        AddressAttribute::Flags(AddressFlags::Noprefixroute | AddressFlags::Nodad),
        AddressAttribute::CacheInfo(lifetimes),
        AddressAttribute::Protocol(IFA_PROTOCOL.into()),
    ]);
    message
}

/// `vip` as a host address on `lo`.
fn address(vip: IpAddr) -> AddressMessage {
    let mut message = AddressMessage::default();
    (message.header.family, message.header.prefix_len) = match vip {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    message.header.index = LOOPBACK_INDEX;
    message.attributes = vec![AddressAttribute::Local(vip), AddressAttribute::Address(vip)];
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 10));

    fn ours(valid_seconds: u32) -> KernelAddress {
        KernelAddress {
            interface: LOOPBACK_INDEX,
            address: VIP,
            prefix_length: 32,
            no_prefix_route: true,
            protocol: Some(IFA_PROTOCOL),
            valid_seconds,
            preferred_seconds: 0,
        }
    }

    #[test]
    fn the_changes_lead_from_what_is_there_to_what_is_wanted() {
        let permanent = KernelAddress {
            protocol: None,
            no_prefix_route: false,
            valid_seconds: u32::MAX,
            preferred_seconds: u32::MAX,
            ..ours(0)
        };
        let elsewhere = KernelAddress { interface: 2, ..permanent };
        let made_infinite = KernelAddress { valid_seconds: u32::MAX, ..ours(0) };
        let made_preferred = KernelAddress { preferred_seconds: 30, ..ours(30) };
        let old_kernel = KernelAddress { protocol: None, ..ours(30) };
        let subnet = KernelAddress { prefix_length: 24, ..permanent };
        let add = Change::Add { vip: VIP, seconds: 30 };
        let renew = Change::Renew { vip: VIP, seconds: 30 };
        let (keep, leave, remove) =
            (Change::Keep { vip: VIP }, Change::Leave { vip: VIP }, Change::Remove { vip: VIP });
        let cases = [
            ("nothing there, nothing wanted", false, vec![], vec![]),
            ("missing", true, vec![], vec![add]),
            ("just renewed", true, vec![ours(30)], vec![keep]),
            ("under a third is over", true, vec![ours(21)], vec![keep]),
            ("a third is over", true, vec![ours(20)], vec![renew]),
            ("nearly expired", true, vec![ours(1)], vec![renew]),
            ("has a longer lifetime", true, vec![ours(60)], vec![renew]),
            ("made infinite by hand", true, vec![made_infinite], vec![renew]),
            ("made preferred by hand", true, vec![made_preferred], vec![renew]),
            ("from a kernel without marks", true, vec![old_kernel], vec![keep]),
            ("stale", false, vec![ours(30)], vec![remove]),
            ("stale, from a kernel without marks", false, vec![old_kernel], vec![remove]),
            ("somebody else's and wanted", true, vec![permanent], vec![leave]),
            ("somebody else's and not wanted", false, vec![permanent], vec![]),
            ("somebody else's subnet beside ours", true, vec![subnet, ours(30)], vec![keep]),
            ("somebody else's subnet beside a stale one of ours", false, vec![subnet, ours(30)], vec![remove]),
            ("on another interface", true, vec![elsewhere], vec![add]),
        ];
        for (name, is_wanted, present, expected) in cases {
            let wanted = is_wanted.then_some((VIP, Duration::from_secs(30))).into_iter().collect();
            assert_eq!(changes(&wanted, &present), expected, "{name}");
        }
    }

    #[test]
    fn a_renewal_each_third_of_the_lifetime_finds_the_address_due() {
        for seconds in 3..=3600 {
            let elapsed = seconds / 3; // what the kernel counts, in whole seconds, when the timer fires
            assert!(!is_fresh(&ours(seconds - elapsed), seconds), "{seconds} s");
            assert!(is_fresh(&ours(seconds), seconds), "{seconds} s");
        }
    }

    #[test]
    fn a_lifetime_is_whole_seconds_and_never_infinite() {
        let cases = [(0, 1), (1, 1), (2999, 3), (3000, 3), (3001, 4), (u64::MAX, u32::MAX - 1)];
        for (millis, seconds) in cases {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), seconds, "{millis} ms");
        }
    }

    #[test]
    fn an_announcement_carries_the_marks_by_which_it_is_recognized() {
        for vip in [VIP, "2001:db8::10".parse().unwrap()] {
            let address = KernelAddress::parse(&announcement(vip, 30)).unwrap();
            assert!(address.is_announcement(), "{address:?}");
            assert!(KernelAddress { protocol: None, ..address }.is_announcement(), "{address:?}");
        }
    }
}

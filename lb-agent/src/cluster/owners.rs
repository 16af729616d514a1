//! Who has an address that several Services ask for: one of them, or all that share it. It is the controller's rule for what
//! Services have, so agents serve nothing that it takes away.

use std::{collections::HashMap, net::IpAddr};

use super::{holders::Holders, problem::Problem, service::Wish};
use crate::model::{ClusterService, ObjectName, Shared};

/// Addresses that Services do not get because others have them.
#[derive(Debug, Default)]
pub(super) struct Owners<'a> {
    refused: HashMap<(&'a ObjectName, IpAddr), Problem>,
}

impl<'a> Owners<'a> {
    /// Settles it among wishes in their order, the eldest first. What a Service was given goes before what another only
    /// names among its external addresses.
    pub(super) fn settle(wishes: impl Iterator<Item = (&'a ObjectName, &'a ClusterService, &'a Shared<Wish>)>) -> Self {
        let (mut owners, mut holders, mut named) = (Self::default(), Holders::default(), Vec::new());
        for (name, service, wish) in wishes {
            for vip in wish.vips.keys().copied() {
                if is_given(service, vip) {
                    owners.claim(&mut holders, vip, name, service);
                } else {
                    named.push((vip, name, service));
                }
            }
        }
        for (vip, name, service) in named {
            owners.claim(&mut holders, vip, name, service);
        }
        owners
    }

    /// Why a Service does not have the address; `None` if it does.
    pub(super) fn objection(&self, name: &'a ObjectName, vip: IpAddr) -> Option<&Problem> {
        self.refused.get(&(name, vip))
    }

    fn claim(&mut self, holders: &mut Holders<'a>, vip: IpAddr, name: &'a ObjectName, service: &'a ClusterService) {
        match holders.refuse(vip, name, service) {
            Some(problem) => {
                self.refused.insert((name, vip), problem);
            }
            None => holders.add(vip, name, service),
        }
    }
}

fn is_given(service: &ClusterService, vip: IpAddr) -> bool {
    let mut given = service.ingress.iter().filter_map(|one| one.ip.as_deref());
    service.external_ips.is_empty() || given.any(|text| text.parse() == Ok(vip))
}

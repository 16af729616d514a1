//! Who has which address, and who may join in.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{claim::sharing_key, problem::Problem};
use crate::model::inventory::{ClusterService, ObjectName};

/// Addresses and those that have them.
#[derive(Debug, Default)]
pub(super) struct Holders<'a> {
    by_address: BTreeMap<IpAddr, Vec<Holder<'a>>>,
    by_key: BTreeMap<&'a str, BTreeSet<IpAddr>>,
}

#[derive(Clone, Copy, Debug)]
struct Holder<'a> {
    name: &'a ObjectName,
    service: &'a ClusterService,
    /// Nobody may join in, whatever the annotations say.
    alone: bool,
}

impl<'a> Holders<'a> {
    /// Why a Service can't have the address; `None` if it can.
    pub(super) fn refuse(&self, address: IpAddr, name: &ObjectName, service: &ClusterService) -> Option<Problem> {
        let holders = self.by_address.get(&address)?;
        holders.iter().filter(|holder| holder.name != name).find_map(|holder| {
            let shares_key =
                !holder.alone && sharing_key(service).is_some_and(|key| sharing_key(holder.service) == Some(key));
            let fits = shares_key && !have_common_port(service, holder.service);
            (!fits).then(|| Problem::Taken { address, by: holder.name.clone(), shares_key })
        })
    }

    /// Whether anybody has the address.
    pub(super) fn is_taken(&self, address: IpAddr) -> bool {
        self.by_address.contains_key(&address)
    }

    /// The Service has the address from now on.
    pub(super) fn add(&mut self, address: IpAddr, name: &'a ObjectName, service: &'a ClusterService) {
        if let Some(key) = sharing_key(service) {
            self.by_key.entry(key).or_default().insert(address);
        }
        self.insert(address, Holder { name, service, alone: false });
    }

    /// Somebody who is none of our business has the address.
    pub(super) fn add_stranger(&mut self, address: IpAddr, name: &'a ObjectName, service: &'a ClusterService) {
        self.insert(address, Holder { name, service, alone: true });
    }

    /// Addresses that Services with the same sharing key have, lowest first.
    pub(super) fn shared_by(&self, service: &ClusterService) -> impl Iterator<Item = IpAddr> {
        sharing_key(service).and_then(|key| self.by_key.get(key)).into_iter().flatten().copied()
    }

    fn insert(&mut self, address: IpAddr, holder: Holder<'a>) {
        let holders = self.by_address.entry(address).or_default();
        if !holders.iter().any(|known| known.name == holder.name) {
            holders.push(holder);
        }
    }
}

fn have_common_port(left: &ClusterService, right: &ClusterService) -> bool {
    left.ports.iter().any(|a| right.ports.iter().any(|b| a.protocol == b.protocol && a.port == b.port))
}

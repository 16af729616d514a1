//! Which address a Service may have: the one rule of the controller, which gives addresses, and of the agents, which
//! serve them. What the controller would not give is not announced, whoever wrote it where (CVE-2020-8554).

use std::{collections::BTreeMap, net::IpAddr};

use super::{forbidden::Forbidden, pools::PoolInForce, problem::Problem};
use crate::model::inventory::{ClusterService, ObjectName};

/// The rule of one state of a cluster, but for the addresses that other Services have.
#[derive(Clone, Copy, Debug)]
pub struct Admission<'a> {
    /// Pools in force by name.
    pub pools: &'a BTreeMap<String, PoolInForce>,
    /// Addresses that are somebody's.
    pub forbidden: &'a Forbidden<'a>,
}

impl<'a> Admission<'a> {
    /// The pool in force that has the address: there is one at most.
    #[must_use]
    pub fn pool_of(&self, address: IpAddr) -> Option<(&'a String, &'a PoolInForce)> {
        self.pools.iter().find(|(_, pool)| pool.contains(address))
    }

    /// The pool whose address the Service may have.
    ///
    /// # Errors
    /// Why it may not.
    pub fn admit(
        &self,
        name: &ObjectName,
        service: &ClusterService,
        address: IpAddr,
    ) -> Result<(&'a String, &'a PoolInForce), Problem> {
        let (pool, in_force) = self.pool_of(address).ok_or(Problem::NoPoolHas { address })?;
        if let Some(why) = in_force.objection(name, service) {
            return Err(Problem::NotAdmitted { address, pool: pool.clone(), why });
        }
        match self.forbidden.owner(address) {
            Some(owner) => Err(Problem::Forbidden { address, owner }),
            None => Ok((pool, in_force)),
        }
    }
}

#[cfg(test)]
#[path = "admit_tests.rs"]
mod tests;

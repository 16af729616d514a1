//! Which Service has which addresses: a function of what is in the API server, the same in every process.
//!
//! Invariants: no address is given twice but to Services that share it; an address that a Service has stays its own
//! while a pool admits the Service, or no pool has the address any more. Forbidden addresses are never given anew.
//! Of two Services the elder goes first, then the one whose name comes first.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{
    admit::Admission,
    claim::{ClassRule, Requests, families, requests},
    forbidden::Forbidden,
    holders::Holders,
    pools::PoolInForce,
    problem::Problem,
    shelf::Shelves,
};
use crate::model::inventory::{ClusterService, FamilyPolicy, IpFamily, ObjectName};

/// A Service and what is known of its status.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Claimant {
    /// The Service, as the API server showed it last.
    pub service: Arc<ClusterService>,
    /// We wrote its `status.loadBalancer.ingress`, as the server remembers.
    pub ours: bool,
    /// Addresses that were written on top of what was shown and may not be shown yet.
    pub pending: Option<Vec<IpAddr>>,
}

/// All that decides.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// Services of every type.
    pub services: &'a BTreeMap<ObjectName, Claimant>,
    /// Pools in force.
    pub pools: &'a BTreeMap<String, PoolInForce>,
    /// Addresses that are never given.
    pub forbidden: &'a Forbidden<'a>,
    /// Which Services are ours.
    pub rule: &'a ClassRule,
}

/// What comes of a Service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// None of our business.
    NotOurs,
    /// It is no load balancer any more, but what we wrote stands in its status.
    Release,
    /// Its status was written by somebody else and stays as it is.
    Foreign(Problem),
    /// It has these addresses.
    Decided(Decision),
}

/// The addresses of a Service.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Decision {
    /// Addresses in the order of the Service's families.
    pub addresses: Vec<Given>,
    /// Why it has not all that it asks for.
    pub problems: Vec<Problem>,
    /// It has what it needs: an address, both if it requires both, and those that it asked for.
    pub complete: bool,
}

/// An address of a Service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Given {
    /// The address.
    pub address: IpAddr,
    /// Its pool; `None` if that is gone.
    pub pool: Option<String>,
}

/// Decides for all Services.
#[must_use]
pub fn allocate(situation: &Situation<'_>) -> BTreeMap<ObjectName, Verdict> {
    let mut round = Round {
        situation: *situation,
        admission: Admission { pools: situation.pools, forbidden: situation.forbidden },
        holders: Holders::default(),
        shelves: Shelves::new(situation.pools, &situation.forbidden.spans()),
        wished: BTreeSet::new(),
        verdicts: BTreeMap::new(),
    };
    let claims = round.claims();
    let kept: Vec<_> = claims.iter().map(|claim| round.keep(claim)).collect();
    round.note_strangers();
    round.wished = claims.iter().flat_map(|claim| round.admissible_wishes(claim)).collect();
    for (claim, kept) in claims.iter().zip(kept) {
        let decision = if claim.service.deleting { round.leave(kept) } else { round.give(claim, kept) };
        round.verdicts.insert(claim.name.clone(), Verdict::Decided(decision));
    }
    round.verdicts
}

/// A Service of ours and the addresses that it has.
struct Claim<'a> {
    name: &'a ObjectName,
    service: &'a ClusterService,
    live: Vec<IpAddr>,
    requests: Requests,
}

/// What a Service keeps of what it has.
#[derive(Default)]
struct Kept {
    addresses: BTreeMap<IpFamily, IpAddr>,
    problems: Vec<Problem>,
}

struct Round<'a> {
    situation: Situation<'a>,
    admission: Admission<'a>,
    holders: Holders<'a>,
    shelves: Shelves<'a>,
    /// Addresses that Services ask for by name: nobody else is given one of them unasked.
    wished: BTreeSet<IpAddr>,
    verdicts: BTreeMap<ObjectName, Verdict>,
}

impl<'a> Round<'a> {
    /// The Services that are to be decided for, elder ones first. For the others, the verdict stands.
    fn claims(&mut self) -> Vec<Claim<'a>> {
        let mut claims = Vec::new();
        for (name, claimant) in self.situation.services {
            let service = &*claimant.service;
            if !self.situation.rule.covers(service) {
                let release = claimant.ours && !service.is_load_balancer && !service.ingress.is_empty();
                let verdict = if release { Verdict::Release } else { Verdict::NotOurs };
                self.verdicts.insert(name.clone(), verdict);
                continue;
            }
            match self.live(name, claimant) {
                Ok(live) => claims.push(Claim { name, service, live, requests: requests(service) }),
                Err(problem) => {
                    self.verdicts.insert(name.clone(), Verdict::Foreign(problem));
                }
            }
        }
        claims.sort_by_key(|claim| (claim.service.created, claim.name));
        claims
    }

    /// The addresses that a Service has or may have by now, unless somebody else wrote them.
    fn live(&self, name: &ObjectName, claimant: &Claimant) -> Result<Vec<IpAddr>, Problem> {
        let mut live = Vec::new();
        for entry in &claimant.service.ingress {
            let text = entry.ip.as_deref().or(entry.hostname.as_deref()).unwrap_or("an empty entry");
            let address = entry.ip.as_deref().and_then(|ip| ip.parse().ok()).filter(|address| {
                let pool = self.admission.pool_of(*address);
                claimant.ours || pool.is_some_and(|(_, pool)| pool.admits(name, &claimant.service))
            });
            live.push(address.ok_or_else(|| Problem::ForeignStatus { ingress: text.to_owned() })?);
        }
        live.extend(claimant.pending.iter().flatten());
        Ok(live)
    }

    /// Lets a Service keep what it has, as far as it may. What it has to give up is nobody's before the status says so.
    fn keep(&mut self, claim: &Claim<'a>) -> Kept {
        let wanted = families(claim.service);
        let mut kept = Kept::default();
        for &address in &claim.live {
            let family = IpFamily::of(address);
            let refused = self.holders.refuse(address, claim.name, claim.service);
            if refused.is_none() {
                self.holders.add(address, claim.name, claim.service);
            }
            if !wanted.contains(&family) || kept.addresses.contains_key(&family) {
                continue;
            }
            match self.admission.pool_of(address) {
                Some((_, pool)) if !pool.admits(claim.name, claim.service) => continue,
                Some(_) => {}
                None => kept.problems.push(Problem::PoolGone { address }),
            }
            if let Some(problem) = refused {
                kept.problems.push(problem);
                continue;
            }
            if let Some(owner) = self.situation.forbidden.owner(address) {
                kept.problems.push(Problem::NotServed { address, owner });
            }
            kept.addresses.insert(family, address);
        }
        kept
    }

    /// Addresses that Services of others have, and those that any Service uses as external ones.
    fn note_strangers(&mut self) {
        for (name, claimant) in self.situation.services {
            let service = &*claimant.service;
            let foreign = matches!(self.verdicts.get(name), Some(Verdict::NotOurs | Verdict::Foreign(_)));
            let ingress = service.ingress.iter().filter(|_| foreign).filter_map(|entry| entry.ip.as_deref());
            for text in ingress.chain(service.external_ips.iter().map(String::as_str)) {
                if let Ok(address) = text.parse() {
                    self.holders.add_stranger(address, name, service);
                }
            }
        }
    }

    fn admissible_wishes(&self, claim: &Claim<'a>) -> Vec<IpAddr> {
        let wishes = claim.requests.wanted.values().copied();
        let admits =
            |address| self.admission.pool_of(address).is_some_and(|(_, pool)| pool.admits(claim.name, claim.service));
        wishes.filter(|address| admits(*address)).collect()
    }

    /// A Service that is going keeps what it has and gets nothing new.
    fn leave(&self, kept: Kept) -> Decision {
        let addresses = kept.addresses.into_values().map(|address| self.given(address)).collect();
        Decision { addresses, problems: kept.problems, complete: true }
    }

    /// Gives a Service what it lacks.
    fn give(&mut self, claim: &Claim<'a>, kept: Kept) -> Decision {
        let service = claim.service;
        let Kept { addresses: mut has, mut problems } = kept;
        problems.extend(claim.requests.problems.iter().cloned());
        let mut complete = claim.requests.problems.is_empty();
        let (mut found, mut lacking) = (BTreeMap::new(), Vec::new());
        for family in families(service) {
            let result = match (claim.requests.wanted.get(&family), has.get(&family)) {
                (Some(wanted), Some(have)) if wanted == have => continue,
                (None, Some(_)) => continue,
                (Some(wanted), _) => self.may_have(claim, *wanted).inspect_err(|_| complete = false),
                // Whoever asks for what can't be read is not to be surprised by something else.
                (None, None) if !claim.requests.problems.is_empty() => continue,
                (None, None) => self.choose(claim, family),
            };
            match result {
                Ok(address) => {
                    found.insert(family, address);
                }
                Err(problem) => lacking.push(problem),
            }
        }
        problems.extend(lacking);
        let all = families(service).iter().all(|family| has.contains_key(family) || found.contains_key(family));
        if service.family_policy == FamilyPolicy::RequireDualStack && !all {
            found.clear();
            complete = false;
            problems.push(Problem::NotBoth);
        }
        for (family, address) in found {
            self.holders.add(address, claim.name, service);
            has.insert(family, address);
        }
        problems.retain(|problem| match problem {
            Problem::PoolGone { address } | Problem::NotServed { address, .. } => {
                has.values().any(|had| had == address)
            }
            _ => true,
        });
        complete &= !has.is_empty();
        let order = families(service);
        let addresses = order.iter().filter_map(|family| has.get(family)).map(|address| self.given(*address)).collect();
        Decision { addresses, problems, complete }
    }

    /// Whether a Service may have the address that it asks for.
    fn may_have(&self, claim: &Claim<'a>, address: IpAddr) -> Result<IpAddr, Problem> {
        let (pool, in_force) = self.admission.admit(claim.name, claim.service, address)?;
        if in_force.deleting {
            return Err(Problem::PoolDeleting { address, pool: pool.clone() });
        }
        self.holders.refuse(address, claim.name, claim.service).map_or(Ok(address), Err)
    }

    /// The address for a Service that asks for none: a shared one if it shares, else the lowest free one of the first
    /// pool, by priority and name.
    fn choose(&mut self, claim: &Claim<'a>, family: IpFamily) -> Result<IpAddr, Problem> {
        let shared = self.holders.shared_by(claim.service).filter(|address| IpFamily::of(*address) == family);
        if let Some(address) = shared.into_iter().find(|address| self.may_have(claim, *address).is_ok()) {
            return Ok(address);
        }
        let (mut used_up, mut on_request) = (Vec::new(), Vec::new());
        for (name, pool) in self.shelves.order() {
            if pool.deleting || !pool.admits(claim.name, claim.service) || !pool.has(family) {
                continue;
            }
            if !pool.pool.auto_assign {
                on_request.push(name.clone());
                continue;
            }
            let (holders, wished) = (&self.holders, &self.wished);
            let free = |address| !holders.is_taken(address) && !wished.contains(&address);
            match self.shelves.lowest(name, family, free) {
                Some(address) => return Ok(address),
                None => used_up.push(name.clone()),
            }
        }
        Err(Problem::NoneFree { family, used_up, on_request })
    }

    fn given(&self, address: IpAddr) -> Given {
        Given { address, pool: self.admission.pool_of(address).map(|(name, _)| name.clone()) }
    }
}

#[cfg(test)]
#[path = "allocate_history_tests.rs"]
mod history_tests;
#[cfg(test)]
#[path = "allocate_tests.rs"]
mod tests;

//! What Services ask for, remembered: a Service is judged again when it, its slices, or what all are judged by changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter::Peekable,
    net::IpAddr,
    vec,
};

use super::{
    admit::Admission,
    claim::ClassRule,
    endpoints::Nodes,
    forbidden::Forbidden,
    pools::PoolInForce,
    service::{Rules, Wish, wish},
};
use crate::model::{
    ClusterNode, ClusterService, Inventory, KubernetesSettings, ObjectName, Shared, inventory::EndpointSlice,
};

/// What Services ask for, in the order of their names, and by what they were judged.
#[derive(Debug, Default)]
pub(super) struct Judged {
    basis: Option<Basis>,
    services: Vec<One>,
    /// Indices of those that ask for anything, the eldest first.
    order: Vec<usize>,
}

/// What all are judged by.
#[derive(Debug, Eq, PartialEq)]
struct Basis {
    settings: KubernetesSettings,
    nodes: BTreeMap<String, ClusterNode>,
    taken: BTreeSet<IpAddr>,
    pools: BTreeMap<String, PoolInForce>,
}

/// A Service, what belongs to it, and what it asks for.
#[derive(Debug)]
struct One {
    name: ObjectName,
    service: Shared<ClusterService>,
    slices: Vec<Shared<EndpointSlice>>,
    wish: Option<Shared<Wish>>,
}

/// What is new about the wishes.
#[derive(Debug)]
pub(super) enum News {
    /// There may be others, in another order, or of Services that changed.
    Anything,
    /// They are of the same Services, which are as they were (their ages, ports, keys and addresses too), and judged by
    /// the same; these have another, told after the one before.
    Wishes(Vec<(Shared<Wish>, Shared<Wish>)>),
}

impl Judged {
    /// Judges what is to be judged again. `taken` are VIPs of the configuration.
    pub(super) fn follow(
        &mut self,
        settings: &KubernetesSettings,
        inventory: &Inventory,
        taken: BTreeSet<IpAddr>,
        pools: BTreeMap<String, PoolInForce>,
    ) -> News {
        let same = self.basis.take().filter(|basis| {
            basis.nodes == inventory.nodes
                && basis.pools == pools
                && basis.settings == *settings
                && basis.taken == taken
        });
        let before = std::mem::take(&mut self.services);
        let before = same.as_ref().map(|_| before);
        let basis =
            same.unwrap_or_else(|| Basis { settings: settings.clone(), nodes: inventory.nodes.clone(), taken, pools });
        let news = self.judge(&basis, inventory, before);
        if matches!(news, News::Anything) {
            self.sort();
        }
        self.basis = Some(basis);
        news
    }

    /// The wishes, the eldest Service's first.
    pub(super) fn wishes(&self) -> impl Iterator<Item = (&ObjectName, &ClusterService, &Shared<Wish>)> {
        self.order.iter().filter_map(|index| {
            let one = &self.services[*index];
            Some((&one.name, &*one.service, one.wish.as_ref()?))
        })
    }

    /// Judges all but those of `before` that did not change; `None` if they were judged by something else.
    fn judge(&mut self, basis: &Basis, inventory: &Inventory, before: Option<Vec<One>>) -> News {
        let forbidden = Forbidden::of(&inventory.nodes, [], &basis.settings.reserved);
        let rules = Rules {
            class: ClassRule::of(&basis.settings),
            admission: Admission { pools: &basis.pools, forbidden: &forbidden },
            taken: &basis.taken,
            nodes: Nodes::of(inventory),
            local_first: basis.settings.local_first,
            second_chance: basis.settings.second_chance,
        };
        let mut news = before.as_ref().filter(|before| before.len() == inventory.services.len()).map(|_| Vec::new());
        let before = before.unwrap_or_default();
        let (mut before, mut slices) = (before.into_iter().peekable(), inventory.slices.iter().peekable());
        self.services.reserve_exact(inventory.services.len());
        for (name, service) in &inventory.services {
            while slices.next_if(|(of, _)| *of < name).is_some() {}
            let slices = slices.next_if(|(of, _)| *of == name).map_or(&[][..], |(_, slices)| slices);
            let known = known(&mut before, name).filter(|known| known.service == *service);
            let known = match known {
                Some(known) if known.slices == *slices => {
                    self.services.push(known);
                    continue;
                }
                known => known.map(|known| known.wish),
            };
            let wish = wish(&rules, name, service, slices);
            let wish = wish.map(|wish| kept(wish, known.as_ref().and_then(Option::as_ref)));
            note(&mut news, known, wish.as_ref());
            self.services.push(One { name: name.clone(), service: service.clone(), slices: slices.to_vec(), wish });
        }
        news.map_or(News::Anything, News::Wishes)
    }

    fn sort(&mut self) {
        let asks = |(index, one): (usize, &One)| one.wish.is_some().then_some(index);
        self.order = self.services.iter().enumerate().filter_map(asks).collect();
        let age = |index: &usize| {
            let one = &self.services[*index];
            (one.service.created, &one.name)
        };
        self.order.sort_by(|a, b| age(a).cmp(&age(b)));
    }
}

/// The one of this name, if it comes before all that are greater.
fn known(before: &mut Peekable<vec::IntoIter<One>>, name: &ObjectName) -> Option<One> {
    while before.next_if(|one| one.name < *name).is_some() {}
    before.next_if(|one| one.name == *name)
}

/// The wish, with what is as in the one before in the very same place.
fn kept(mut wish: Wish, before: Option<&Shared<Wish>>) -> Shared<Wish> {
    let Some(before) = before else { return wish.into() };
    for (service, before) in wish.services.iter_mut().zip(&before.services) {
        if service == before {
            *service = before.clone();
        }
    }
    if wish == **before { before.clone() } else { wish.into() }
}

/// Notes what became of a wish. `before` is `None` if the Service was another or not there.
fn note(
    news: &mut Option<Vec<(Shared<Wish>, Shared<Wish>)>>,
    before: Option<Option<Shared<Wish>>>,
    wish: Option<&Shared<Wish>>,
) {
    match (before, wish) {
        (Some(None), None) => {}
        (Some(Some(before)), Some(wish)) => {
            if let Some(news) = news.as_mut().filter(|_| !before.is(wish)) {
                news.push((before, wish.clone()));
            }
        }
        _ => *news = None,
    }
}

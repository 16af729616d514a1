//! Slow start: a backend that begins to take flows while others serve begins with a tenth of its weight and has all of
//! it after a while, in ten steps, so that rings change rarely.
//!
//! Steps are counted from the moment at which *this* director saw the backend begin. Directors see that at slightly
//! different moments, so their rings can differ until the last of them has made the step; what keeps established flows
//! in place then is the same as at any other change of a ring.

use std::{collections::BTreeMap, time::Duration};

use crate::model::{BackendAddress, Service};

/// Steps from the smallest share to the whole weight.
const STEPS: u16 = 10;
/// Largest weight that a ring is built with.
const MAX_WEIGHT: u16 = 1000;

/// Since when backends take flows, for services with a slow start: what one decision leaves to the next.
///
/// Empty at the agent's start, when whoever takes flows has its whole weight at once.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Takers(BTreeMap<String, BTreeMap<BackendAddress, Since>>);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Since {
    /// The service's beginning or the agent's, or nobody else served: no slow start.
    Ever,
    /// This moment.
    At(Duration),
}

/// What slow start makes of a service.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Start {
    /// Weights in the order of the backends. While nobody starts, those of the configuration; else those of all that
    /// take flows are multiplied by a common factor, which changes no ring, so that a share of them is a whole number.
    pub(super) weights: Vec<u16>,
    /// Tenths of its weight that a backend has, if it has not all of it yet.
    pub(super) tenths: Vec<Option<u16>>,
    /// Time until the next step of any of them.
    pub(super) next_change: Option<Duration>,
}

/// Decides the weights of a service. `takes` says of each backend whether it takes flows; `believed`, whether the probes
/// are believed: if not, whoever joins has to help at once. The service's entry in `after` is written from that in `before`.
pub(super) fn start(
    service: &Service,
    takes: &[bool],
    believed: bool,
    now: Duration,
    before: &Takers,
    after: &mut Takers,
) -> Start {
    let total = service.slow_start;
    let mut start = Start {
        weights: service.backends.iter().map(|backend| backend.weight).collect(),
        tenths: vec![None; takes.len()],
        next_change: None,
    };
    if total.is_zero() {
        return start;
    }
    let since = since(service, takes, believed, now, before.0.get(&service.name));
    for (tenths, backend) in start.tenths.iter_mut().zip(&service.backends) {
        let address = BackendAddress { address: backend.address, port: backend.port };
        let Some(Since::At(begun)) = since.get(&address) else { continue };
        let elapsed = now.saturating_sub(*begun);
        if elapsed >= total {
            continue;
        }
        let step = step(elapsed, total);
        *tenths = Some(step.max(1));
        let left = step_begin(step + 1, total).saturating_sub(elapsed);
        start.next_change = Some(start.next_change.map_or(left, |next| next.min(left)));
    }
    after.0.insert(service.name.clone(), since);
    scale(&mut start, takes);
    start
}

/// Since when each backend that takes flows does so.
fn since(
    service: &Service,
    takes: &[bool],
    believed: bool,
    now: Duration,
    before: Option<&BTreeMap<BackendAddress, Since>>,
) -> BTreeMap<BackendAddress, Since> {
    let takers = || {
        let takers = service.backends.iter().zip(takes).filter(|(_, takes)| **takes);
        takers.map(|(backend, _)| BackendAddress { address: backend.address, port: backend.port })
    };
    let others_serve = before.is_some_and(|before| takers().any(|taker| before.contains_key(&taker)));
    let new = if others_serve && believed { Since::At(now) } else { Since::Ever };
    let known = |taker: &BackendAddress| before.and_then(|before| before.get(taker)).copied();
    takers().map(|taker| (taker, known(&taker).unwrap_or(new))).collect()
}

/// Step that `elapsed` of `total` is in, 0..=`STEPS`.
fn step(elapsed: Duration, total: Duration) -> u16 {
    let step = elapsed.as_nanos() * u128::from(STEPS) / total.as_nanos();
    u16::try_from(step).unwrap_or(STEPS).min(STEPS)
}

/// Time after which a step begins. Step 1 does not differ from step 0, so it is left out.
fn step_begin(step: u16, total: Duration) -> Duration {
    let nanoseconds = (total.as_nanos() * u128::from(step.max(2))).div_ceil(u128::from(STEPS));
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

/// Gives those that start their share, and all that take flows a common factor that makes room for it.
fn scale(start: &mut Start, takes: &[bool]) {
    if start.tenths.iter().all(Option::is_none) {
        return;
    }
    let takers = start.weights.iter().zip(takes).filter(|(_, takes)| **takes);
    let heaviest = takers.map(|(weight, _)| *weight).max().unwrap_or(1);
    let factor = (MAX_WEIGHT / heaviest.max(1)).clamp(1, STEPS);
    for ((weight, tenths), _) in start.weights.iter_mut().zip(&start.tenths).zip(takes).filter(|(_, takes)| **takes) {
        *weight *= factor;
        if let Some(tenths) = tenths {
            let share = u32::from(*weight) * u32::from(*tenths) / u32::from(STEPS);
            *weight = u16::try_from(share).unwrap_or(MAX_WEIGHT).max(1);
        }
    }
}

#[cfg(test)]
#[path = "slow_start_tests.rs"]
mod tests;

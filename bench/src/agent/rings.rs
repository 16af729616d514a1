//! How long it takes to build a ring.

use std::{collections::BTreeSet, hint::black_box, net::Ipv4Addr, time::Instant};

use lb_common::{
    addr::Be16,
    maglev::{Member, build},
};

use crate::schema::{Case, Results};

const BACKENDS: [u32; 5] = [3, 10, 100, 1_000, 10_000];
/// The default size and the one of the budget.
const SIZES: [u8; 2] = [12, 16];
/// The case that has a budget: backends, logarithm of the slots, milliseconds.
const BUDGET: (u32, u8, f64) = (100, 16, 5.0);

/// Adds a case for every number of backends and size of the ring.
pub fn measure(results: &mut Results, samples: usize) {
    for backends in BACKENDS {
        let members: Vec<Member> = (0..backends).map(member).collect();
        for log2 in SIZES.into_iter().chain([advised(backends)]).collect::<BTreeSet<u8>>() {
            let times = (0..samples).map(|_| {
                let start = Instant::now();
                black_box(build(black_box(&members), log2));
                start.elapsed().as_secs_f64() * 1e3
            });
            let name = format!("ring of {} slots for {backends} backends", 1u32 << log2);
            let case = Case::new(&name, "ring building", "ms", times.collect());
            let (of, size, budget) = BUDGET;
            results.cases.push(if (backends, log2) == (of, size) { case.within(budget) } else { case });
        }
    }
}

/// Logarithm of the smallest ring with a hundred slots for each backend, as many as shares within one percent take.
fn advised(backends: u32) -> u8 {
    u8::try_from((backends * 100).next_power_of_two().ilog2()).unwrap_or(u8::MAX)
}

fn member(number: u32) -> Member {
    let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 128, 0, 0).to_bits() + number);
    Member { address: std::net::IpAddr::V4(address).into(), port: Be16::new(8080), weight: 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advised_ring_has_a_hundred_slots_a_backend_and_not_twice_as_many() {
        for (backends, log2) in [(3, 9), (10, 10), (100, 14), (1_000, 17), (10_000, 20)] {
            assert_eq!(advised(backends), log2, "{backends} backends");
        }
    }
}

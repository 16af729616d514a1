use proptest::prelude::*;

use super::*;
use crate::addr::{Be16, IpAddr16, wire_word};

fn members(set: u8, count: u8) -> Vec<Member> {
    (0..count)
        .map(|n| Member { address: IpAddr16::v4(wire_word([10, set, 7, n])), port: Be16::new(6443), weight: 1 })
        .collect()
}

fn shares(ring: &[u32], count: usize) -> Vec<usize> {
    let mut shares = vec![0; count];
    for owner in ring {
        shares[*owner as usize] += 1;
    }
    shares
}

#[test]
fn three_backends_have_a_third_of_the_slots_each() {
    for set in 0..30 {
        for log2 in [12, 16] {
            let ring = build(&members(set, 3), log2);
            for share in shares(&ring, 3) {
                let percent = share as f64 * 100.0 / ring.len() as f64;
                assert!((33.2..=33.4).contains(&percent), "set {set}: {percent} % of 2^{log2} slots");
            }
        }
    }
}

/// Share of the slots of the nine that stay which move when the tenth goes, in percent, averaged over 30 sets.
fn disruption(log2: u8) -> f64 {
    let mut total = 0.0;
    for set in 0..30 {
        let ten = members(set, 10);
        let before = build(&ten, log2);
        let after = build(&ten[..9], log2);
        let others = before.iter().filter(|owner| **owner != 9).count();
        let moved = before.iter().zip(&after).filter(|(old, new)| **old != 9 && old != new).count();
        total += moved as f64 * 100.0 / others as f64;
    }
    total / 30.0
}

#[test]
fn removing_one_of_ten_moves_few_of_the_others_slots() {
    let (default, large) = (disruption(12), disruption(16));
    assert!(default <= 1.5, "{default} % in a ring of 4096");
    assert!(large <= 0.5, "{large} % in a ring of 65536");
}

#[test]
fn weights_share_the_slots_in_proportion() {
    let mut three = members(1, 3);
    (three[0].weight, three[1].weight, three[2].weight) = (1, 2, 5);
    let shares = shares(&build(&three, 12), 3);
    for (share, weight) in shares.iter().zip([1.0, 2.0, 5.0]) {
        assert!((*share as f64 - 4096.0 * weight / 8.0).abs() <= 2.0, "{shares:?}");
    }
}

#[test]
fn weight_zero_takes_no_slot_and_an_empty_set_no_ring() {
    let mut two = members(1, 2);
    two[1].weight = 0;
    assert_eq!(shares(&build(&two, 12), 2), [4096, 0]);
    two[0].weight = 0;
    assert!(build(&two, 12).is_empty());
    assert!(build(&[], 12).is_empty());
}

#[test]
fn a_slot_is_the_upper_bits_of_the_hash() {
    assert_eq!(slot(0xffff_ffff, 12), 4095);
    assert_eq!(slot(0x000f_ffff, 12), 0);
    assert_eq!(slot(0x8000_0000, 1), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_slot_is_owned_and_the_order_of_backends_does_not_matter(seed in any::<u8>(), weights in prop::collection::vec(0u16..=1000, 1..40), turn in any::<prop::sample::Index>()) {
        let set: Vec<Member> = weights.iter().zip(members(seed, 40)).map(|(weight, member)| Member { weight: *weight, ..member }).collect();
        let mut turned = set.clone();
        turned.rotate_left(turn.index(set.len()));
        let owners = |set: &[Member]| build(set, 10).into_iter().map(|owner| set[owner as usize].address).collect::<Vec<_>>();
        let ring = owners(&set);
        prop_assert_eq!(ring.len(), if weights.iter().any(|weight| *weight > 0) { 1024 } else { 0 });
        prop_assert_eq!(ring, owners(&turned));
    }

    #[test]
    fn shares_differ_by_at_most_one_turn(seed in any::<u8>(), count in 1u8..100) {
        let shares = shares(&build(&members(seed, count), 12), count as usize);
        let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
        prop_assert!(most - least <= 1, "{:?}", shares);
    }
}

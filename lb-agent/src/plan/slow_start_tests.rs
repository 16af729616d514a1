use std::net::IpAddr;

use lb_common::{addr::Be16, maglev};

use super::*;
use crate::model::{Backend, Delivery, HoldWhen, MssClamp, Protocol, RingSize};

const TOTAL: Duration = Duration::from_secs(30);

fn service(weights: &[u16]) -> Service {
    let backend =
        |(last, weight): (u8, &u16)| Backend { address: IpAddr::from([10, 0, 0, last]), port: 80, weight: *weight };
    Service {
        name: "s".to_owned(),
        vips: Vec::new(),
        ports: vec![80],
        protocol: Protocol::Tcp,
        delivery: Delivery::Auto,
        ring_size: RingSize::DEFAULT,
        backends: (1..).zip(weights).map(backend).collect(),
        probe: None,
        flow_timeout: Protocol::Tcp.flow_timeout(),
        affinity: None,
        source_ranges: Vec::new(),
        mss_clamp: MssClamp::Off,
        hold: HoldWhen::Trusted,
        connect_translation: false,
        second_chance: true,
        local_first: false,
        slow_start: TOTAL,
        drop_unmatched: true,
    }
}

/// A director over time.
struct Director {
    service: Service,
    takers: Takers,
}

impl Director {
    fn new(weights: &[u16]) -> Self {
        Self { service: service(weights), takers: Takers::default() }
    }

    fn at(&mut self, seconds: u64, takes: &[bool]) -> Start {
        self.decide(Duration::from_secs(seconds), takes, true)
    }

    fn decide(&mut self, now: Duration, takes: &[bool], believed: bool) -> Start {
        let mut after = Takers::default();
        let start = start(&self.service, takes, believed, now, &self.takers, &mut after);
        self.takers = after;
        start
    }
}

#[test]
fn at_the_agents_start_everybody_has_its_weight() {
    let mut director = Director::new(&[1, 2]);
    let start = director.at(5, &[true, true]);
    assert_eq!(start, Start { weights: vec![1, 2], tenths: vec![None, None], next_change: None });
}

#[test]
fn who_comes_back_ramps_up_in_ten_steps() {
    let mut director = Director::new(&[1, 1]);
    director.at(0, &[true, false]);
    let mut now = Duration::from_secs(100);
    let mut seen = Vec::new();
    loop {
        let start = director.decide(now, &[true, true], true);
        seen.push((now.as_secs() - 100, start.weights));
        let Some(left) = start.next_change else { break };
        now += left;
    }
    let expected: Vec<_> = [(0, 1), (6, 2), (9, 3), (12, 4), (15, 5), (18, 6), (21, 7), (24, 8), (27, 9)]
        .map(|(second, weight)| (second, vec![10, weight]))
        .into_iter()
        .chain([(30, vec![1, 1])])
        .collect();
    assert_eq!(seen, expected);
}

#[test]
fn a_decision_between_two_steps_changes_nothing_but_the_time_left() {
    let mut director = Director::new(&[1, 1]);
    director.at(0, &[true, false]);
    director.at(100, &[true, true]);
    let start = director.at(107, &[true, true]);
    assert_eq!((start.weights, start.next_change), (vec![10, 2], Some(Duration::from_secs(2))));
}

#[test]
fn who_joins_while_nobody_serves_has_its_weight() {
    let mut director = Director::new(&[1, 1]);
    director.at(0, &[false, false]);
    assert_eq!(director.at(1, &[true, false]).tenths, [None, None]);
    assert_eq!(director.at(2, &[false, true]).tenths, [None, None], "the one that served has gone");
}

#[test]
fn who_is_needed_because_probes_are_not_believed_has_its_weight() {
    let mut director = Director::new(&[1, 1]);
    director.at(0, &[true, false]);
    assert_eq!(director.decide(Duration::from_secs(1), &[true, true], false).tenths, [None, None]);
    assert_eq!(director.at(2, &[true, true]).tenths, [None, None], "and keeps it");
}

#[test]
fn a_weight_of_zero_that_ends_is_a_beginning() {
    let mut director = Director::new(&[1, 0]);
    director.at(0, &[true, false]);
    director.service.backends[1].weight = 1;
    assert_eq!(director.at(1, &[true, true]).tenths, [None, Some(1)]);
}

#[test]
fn failing_again_starts_anew() {
    let mut director = Director::new(&[1, 1]);
    director.at(0, &[true, false]);
    director.at(1, &[true, true]);
    director.at(20, &[true, false]);
    assert_eq!(director.at(21, &[true, true]).tenths, [None, Some(1)]);
}

#[test]
fn without_slow_start_nothing_is_remembered() {
    let mut director = Director::new(&[1, 1]);
    director.service.slow_start = Duration::ZERO;
    director.at(0, &[true, false]);
    assert_eq!(director.at(1, &[true, true]).weights, [1, 1]);
    assert_eq!(director.takers, Takers::default());
}

#[test]
fn weights_stay_in_range_and_shares_are_what_they_should_be() {
    for (weights, expected) in [
        ([1, 1, 1], [10, 10, 1]),
        ([3, 1, 2], [30, 10, 2]),
        ([100, 50, 100], [1000, 500, 100]),
        ([300, 1, 300], [900, 3, 90]),
        ([1000, 999, 1000], [1000, 999, 100]),
        ([1000, 1, 1], [1000, 1, 1]),
    ] {
        let mut director = Director::new(&weights);
        director.at(0, &[true, true, false]);
        assert_eq!(director.at(1, &[true, true, true]).weights, expected, "{weights:?}");
    }
}

#[test]
fn the_common_factor_moves_no_slot() {
    let ring = |weights: [u16; 3]| {
        let member = |(last, weight): (u8, &u16)| maglev::Member {
            address: IpAddr::from([10, 0, 0, last]).into(),
            port: Be16::new(80),
            weight: *weight,
        };
        let members: Vec<_> = (1..).zip(&weights).map(member).collect();
        maglev::build(&members, 10)
    };
    assert_eq!(ring([1, 2, 5]), ring([10, 20, 50]));
    assert_ne!(ring([1, 2, 5]), ring([10, 20, 5]));
}

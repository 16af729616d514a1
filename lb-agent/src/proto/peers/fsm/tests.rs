use proptest::prelude::*;

use super::*;
use crate::model::Gate;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn address(index: usize) -> IpAddr {
    IpAddr::from([10, 0, 0, u8::try_from(index + 1).unwrap()])
}

fn name(index: usize) -> String {
    format!("node-{}", index + 1)
}

fn key(secret: u8) -> Key {
    Key::new(&[secret; 16], u32::from_be_bytes([secret; 4]))
}

fn peers_of(index: usize, all: &[usize]) -> Vec<Peer> {
    let others = all.iter().filter(|other| **other != index);
    others.map(|other| Peer { name: name(*other), addresses: vec![address(*other)] }).collect()
}

fn agent(index: usize, all: &[usize], secret: u8, boot: u64, is_admitted: bool, now: Instant) -> Peers {
    Peers::new(&name(index), key(secret), Settings::default(), boot, &peers_of(index, all), is_admitted, now)
}

/// Agents and the network between them; what is sent arrives a millisecond later.
struct Net {
    now: Instant,
    agents: Vec<Option<Peers>>,
    /// Pairs between which nothing passes, in this direction.
    cut: BTreeSet<(usize, usize)>,
    flying: Vec<(usize, usize, Vec<u8>)>,
    /// All that was ever sent: from, to, bytes.
    sent: Vec<(usize, usize, Vec<u8>)>,
}

impl Net {
    fn new(agents: usize) -> Self {
        let now = Instant::now();
        let all: Vec<usize> = (0..agents).collect();
        let made = all.iter().map(|index| Some(agent(*index, &all, 7, 100 + *index as u64, false, now))).collect();
        Self { now, agents: made, cut: BTreeSet::new(), flying: Vec::new(), sent: Vec::new() }
    }

    fn isolate(&mut self, index: usize) {
        for other in (0..self.agents.len()).filter(|other| *other != index) {
            self.cut.extend([(index, other), (other, index)]);
        }
    }

    fn run(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds {
            self.now += ms(1);
            for (from, to, bytes) in std::mem::take(&mut self.flying) {
                if let Some(agent) = &mut self.agents[to] {
                    agent.handle_datagram(address(from), &bytes, self.now);
                }
            }
            for from in 0..self.agents.len() {
                let agents = self.agents.len();
                let Some(agent) = &mut self.agents[from] else { continue };
                if agent.poll_timeout() <= self.now {
                    agent.handle_timeout(self.now);
                }
                while let Some(transmit) = agent.poll_output() {
                    let to = (0..agents).find(|index| address(*index) == transmit.to).unwrap();
                    self.sent.push((from, to, transmit.bytes.clone()));
                    if !self.cut.contains(&(from, to)) {
                        self.flying.push((from, to, transmit.bytes));
                    }
                }
            }
        }
    }

    fn members(&self, index: usize) -> &Members {
        self.agents[index].as_ref().unwrap().members()
    }

    /// States of its peers in order, one letter each: heard, silent, unknown, left, stranger (as t).
    fn states(&self, index: usize) -> String {
        let letter = |member: &Member| match member.state {
            MemberState::Stranger { .. } => 't',
            ref state => state.label().chars().next().unwrap(),
        };
        self.members(index).peers.values().map(letter).collect()
    }
}

#[test]
fn agents_hear_one_another_within_a_few_round_trips() {
    let mut net = Net::new(3);
    net.run(10);
    for index in 0..3 {
        assert_eq!(net.states(index), "hh");
        assert_eq!(net.members(index).gate, Gate::Open);
        assert!(net.members(index).peers.values().all(|member| member.knows_us == Some(true)));
    }
    let before = net.sent.len();
    net.run(10_000);
    let each = (net.sent.len() - before) / 6;
    assert!((20..=23).contains(&each), "{each} datagrams in 10 s");
}

#[test]
fn a_peer_is_silent_after_three_intervals_and_back_with_its_next_word() {
    let mut net = Net::new(3);
    net.run(5_000);
    net.agents[2] = None;
    net.run(1_000);
    assert_eq!((net.states(0).as_str(), net.states(1).as_str()), ("hh", "hh"));
    net.run(501);
    assert_eq!((net.states(0).as_str(), net.states(1).as_str()), ("hs", "hs"));
    assert!(!net.members(0).most_silent);
    assert_eq!(net.members(0).silent(address(2)), Some("node-3"));
    assert_eq!(net.members(0).silent(address(1)), None);
    net.agents[2] = Some(agent(2, &[0, 1, 2], 7, 999, true, net.now));
    net.run(5);
    assert_eq!((net.states(0).as_str(), net.states(2).as_str()), ("hh", "hh"));
}

#[test]
fn who_hears_nobody_believes_nobody_silent() {
    let mut net = Net::new(4);
    net.run(1_000);
    net.isolate(3);
    net.run(2_000);
    assert_eq!(net.states(3), "sss");
    assert!(net.members(3).most_silent && net.members(3).silent(address(0)).is_none());
    assert_eq!((net.states(0).as_str(), net.members(0).most_silent), ("hhs", false));
    // Two of three: most.
    net.isolate(2);
    net.run(2_000);
    assert!(net.members(0).most_silent);
    assert_eq!(net.members(0).gate, Gate::Open, "who has been admitted stays so");
}

#[test]
fn who_stood_still_himself_takes_nobody_for_silent() {
    let mut net = Net::new(3);
    net.run(2_000);
    let still = net.agents[0].take();
    net.run(10_000);
    net.agents[0] = still;
    net.run(1);
    assert_eq!((net.states(0).as_str(), net.states(1).as_str()), ("hh", "sh"));
    net.agents[2] = None;
    net.run(2_000);
    assert_eq!((net.states(0).as_str(), net.states(1).as_str()), ("hs", "hs"));
}

#[test]
fn who_says_that_it_stops_for_a_while_is_waited_for() {
    let mut net = Net::new(2);
    net.run(1_000);
    let now = net.now;
    net.agents[1].as_mut().unwrap().leave(now);
    let last = net.agents[1].as_mut().unwrap().poll_output().unwrap();
    net.agents[1] = None;
    net.flying.push((1, 0, last.bytes));
    net.run(59_000);
    assert_eq!(net.states(0), "l");
    net.run(2_000);
    assert_eq!(net.states(0), "s");
}

#[test]
fn what_was_recorded_does_not_count_again_whoever_was_started_anew() {
    let mut net = Net::new(2);
    net.run(5_000);
    // The second dies, and everything that it ever sent to the first is sent again and again.
    net.agents[1] = None;
    net.run(2_000);
    assert_eq!(net.states(0), "s");
    let recorded: Vec<_> = net.sent.iter().filter(|(from, to, _)| (*from, *to) == (1, 0)).cloned().collect();
    net.flying.extend(recorded.iter().cloned());
    net.run(5);
    assert_eq!(net.states(0), "s");
    // The first is started anew and has nothing to remember.
    net.agents[0] = Some(agent(0, &[0, 1], 7, 4_711, false, net.now));
    net.flying.extend(recorded.iter().cloned());
    net.run(5);
    assert_eq!(net.states(0), "u");
    // The second is started anew; its former incarnation does not come back.
    net.agents[1] = Some(agent(1, &[0, 1], 7, 815, false, net.now));
    net.run(1_000);
    assert_eq!(net.states(0), "h");
    net.agents[1] = None;
    net.flying.extend(net.sent.iter().filter(|(from, to, _)| (*from, *to) == (1, 0)).cloned());
    net.run(1_600);
    net.flying.extend(net.sent.iter().filter(|(from, to, _)| (*from, *to) == (1, 0)).cloned());
    net.run(5);
    assert_eq!(net.states(0), "s");
    // Nor does anything count that was sent to others or by the receiver itself.
    net.flying.extend(net.sent.iter().map(|(_, _, bytes)| (1, 0, bytes.clone())));
    net.run(5);
    assert_eq!(net.states(0), "s");
}

#[test]
fn a_node_that_a_live_peer_does_not_know_waits_until_it_does() {
    let mut net = Net::new(3);
    let now = net.now;
    net.agents[1].as_mut().unwrap().set_peers(&peers_of(1, &[1, 2]), now);
    net.run(300);
    assert_eq!(net.members(0).gate, Gate::Unknown(vec!["node-2".to_owned()]));
    assert_eq!(net.members(2).gate, Gate::Open);
    let now = net.now;
    net.agents[1].as_mut().unwrap().set_peers(&peers_of(1, &[0, 1, 2]), now);
    net.run(600);
    assert_eq!(net.members(0).gate, Gate::Open);
    assert!(net.members(0).not_known_to.is_empty());
}

#[test]
fn the_deadline_admits_a_node_and_the_peers_that_do_not_know_it_are_named() {
    let mut net = Net::new(2);
    let now = net.now;
    net.agents[1].as_mut().unwrap().set_peers(&[], now);
    net.run(4_900);
    assert_eq!(net.members(0).gate, Gate::Unknown(vec!["node-2".to_owned()]));
    assert!(net.members(0).not_known_to.is_empty());
    net.run(200);
    assert_eq!(net.members(0).gate, Gate::Open);
    assert_eq!(net.members(0).not_known_to, ["node-2"]);
}

#[test]
fn where_nobody_speaks_a_node_waits_for_a_moment_only_and_one_that_announced_before_for_none() {
    let now = Instant::now();
    let mut alone = agent(0, &[0, 1, 2], 7, 1, false, now);
    assert_eq!(alone.members().gate, Gate::Asking);
    let mut waited = ms(0);
    while alone.members().gate != Gate::Open {
        while alone.poll_output().is_some() {}
        waited = alone.poll_timeout() - now;
        alone.handle_timeout(now + waited);
    }
    assert_eq!(waited, ms(1_000));
    alone.handle_timeout(now + ms(10_000));
    assert!(alone.members().peers.values().all(|member| member.state == MemberState::Unknown));
    assert!(!alone.members().most_silent);
    assert_eq!(agent(0, &[0, 1, 2], 7, 1, true, now).members().gate, Gate::Open);
    assert_eq!(agent(0, &[0], 7, 1, false, now).members().gate, Gate::Open, "there are no peers");
}

#[test]
fn who_was_started_anew_hears_from_the_others_whom_they_miss() {
    let mut net = Net::new(4);
    net.run(1_000);
    net.agents[3] = None;
    net.run(2_000);
    net.agents[0] = Some(agent(0, &[0, 1, 2, 3], 7, 999, true, net.now));
    net.run(1_400);
    assert_eq!(net.states(0), "hhu");
    net.run(700);
    assert_eq!(net.states(0), "hhs");
}

#[test]
fn another_secret_is_reported_by_all_and_only_the_one_that_has_it_stops() {
    let mut net = Net::new(3);
    net.agents[2] = Some(agent(2, &[0, 1, 2], 8, 300, false, net.now));
    net.run(2_000);
    let stranger = |fingerprint: &str| MemberState::Stranger { fingerprint: fingerprint.to_owned() };
    assert_eq!(net.members(0).peers["node-3"].state, stranger("08080808"));
    assert_eq!(net.members(2).peers["node-1"].state, stranger("07070707"));
    assert_eq!((&net.members(0).gate, &net.members(1).gate), (&Gate::Open, &Gate::Open));
    let by = vec!["node-1".to_owned(), "node-2".to_owned()];
    assert_eq!(net.members(2).gate, Gate::Outvoted { fingerprint: "07070707".to_owned(), by });
    assert_eq!(net.members(0).silent(address(2)), None, "its backends are as good as before");
    let now = net.now;
    net.agents[2].as_mut().unwrap().set_key(key(7), Settings::default(), now);
    net.run(600);
    assert_eq!((net.states(0).as_str(), net.states(2).as_str()), ("hh", "hh"));
    assert_eq!(net.members(2).gate, Gate::Open);
}

#[test]
fn who_cannot_hear_the_node_cannot_pass_for_a_stranger() {
    let mut net = Net::new(3);
    net.run(1_000);
    net.agents[2] = None;
    let mut forger = agent(2, &[0, 1, 2], 8, 300, false, net.now);
    for _ in 0..10 {
        let now = net.now;
        forger.handle_timeout(now);
        while let Some(transmit) = forger.poll_output() {
            let to = usize::from(transmit.to == address(1));
            net.flying.push((2, to, transmit.bytes));
        }
        net.run(500);
    }
    assert_eq!(net.states(0), "hs");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is lost, delayed or doubled: who can hear one another within time do, and a dead peer never passes for alive.
    #[test]
    fn the_dead_stay_silent_and_the_living_are_heard_again(
        lossy in prop::collection::vec((0..3_usize, 0..3_usize, 0..6_000_u64, 1..3_000_u64), 0..8),
        replays in prop::collection::vec((any::<prop::sample::Index>(), 7_000..11_000_u64), 0..40),
        restart in 0..6_000_u64,
    ) {
        let mut net = Net::new(3);
        for at in 0..6_000_u64 {
            let cut = lossy.iter().filter(|(_, _, from, length)| (*from..from + length).contains(&at));
            net.cut = cut.map(|(from, to, ..)| (*from, *to)).collect();
            if at == restart {
                net.agents[1] = Some(agent(1, &[0, 1, 2], 7, 777, true, net.now));
            }
            net.run(1);
        }
        net.cut.clear();
        net.run(1_100);
        for index in 0..3 {
            prop_assert_eq!(net.states(index), "hh");
        }
        net.agents[2] = None;
        let recorded = net.sent.clone();
        for at in 7_000..11_000_u64 {
            for (index, _) in replays.iter().filter(|(_, when)| *when == at) {
                let (from, _, bytes) = index.get(&recorded).clone();
                net.flying.extend([(from, 0, bytes.clone()), (2, 1, bytes)]);
            }
            net.run(1);
            if at >= 8_501 {
                prop_assert_eq!(net.states(0), "hs");
                prop_assert_eq!(net.states(1), "hs");
            }
        }
    }
}

//! The plug of a worker is pulled while no API is there to help, and put in again.
//!
//! Two things send new connections to a node that is dead. The router, which has a way to it: the link has lost its carrier,
//! so the routing daemon takes that way out at once. This is the network's part; where a switch hides the loss it takes BFD or
//! the hold time of BGP instead, and no agent can help. And the directors on the nodes that live, who have the dead
//! node's pods in their rings: nobody but they themselves can find out that it is silent, and this is what takes
//! the three intervals.
//!
//! When the node is back its agent speaks to its peers before its data plane takes what they send. In these moments a SYN
//! may have to be repeated, which clients of that part wait for.

use std::time::{Duration, Instant};

use anyhow::ensure;
use lb_agent::config::MembershipConfig;
use netns_tests::{
    traffic::{Attempt, LongLived, Stream, Tally},
    wait,
};
use tokio::time::{sleep, sleep_until};

use super::bed::{Bed, LIMIT, PATIENCE, vip};

/// Name and address, by its last byte, of the Service that has a pod on every node.
const NAME: &str = "everywhere";
pub const ADDRESS: u8 = 4;
/// The worker, and the others.
const VICTIM: usize = 2;
const ALIVE: [usize; 2] = [0, 1];
const ALL: [usize; 3] = [0, 1, 2];
/// So many intervals of the agents' probes after the pull new connections are clean.
const INTERVALS: u32 = 3;
/// Time between two new connections.
const PERIOD: Duration = Duration::from_millis(50);
/// When TCP repeats a SYN (RFC 6298): what took as long lost one.
const REPEATED: Duration = Duration::from_secs(1);
/// Connections that stay open, the port of the first, and time between two requests on each.
const OPEN: u16 = 30;
const FIRST_PORT: u16 = 20_000;
const PULSE: Duration = Duration::from_millis(200);

/// The Service, announced by every node.
pub async fn make_service(bed: &Bed) {
    bed.serve(NAME, ADDRESS).unwrap();
    bed.place(NAME, &ALL).unwrap();
    bed.goes_to(ADDRESS, &ALL).await.unwrap();
    let tally = bed.ask(ADDRESS, 20).await.unwrap();
    assert_eq!(tally.failed(), 0, "{tally:?}");
}

/// What happened when.
struct Times {
    /// The link was up until then, and every process ran.
    cut: Instant,
    /// Nothing was left.
    pulled: Instant,
    /// The three intervals were over: nothing that is begun from then on fails.
    clean: Instant,
    /// What was found out is done: not a SYN gets lost.
    done: Instant,
}

/// Of all connections that are begun only those of the three intervals may fail, and of those that stay open only the dead
/// node's.
pub async fn is_pulled_and_put_in_again(bed: &mut Bed) {
    // The agents of this bed have the defaults.
    let interval = MembershipConfig::default().interval;
    let some_intervals = interval * INTERVALS;
    let client = bed.cluster.client(vip(ADDRESS), LIMIT).unwrap();
    let older = open(bed, FIRST_PORT).await;
    let stream = Stream::start(&bed.cluster.runtime, client, PERIOD);
    sleep(some_intervals).await;

    let cut = Instant::now();
    bed.cluster.kill_node(VICTIM).unwrap();
    let pulled = Instant::now();
    let clean = pulled + some_intervals;
    // The dead agent may have spoken just before, so the three intervals may be over when the others find it silent.
    let times = Times { cut, pulled, clean, done: clean + interval / 5 };
    let routed = bed.goes_to(ADDRESS, &ALIVE).await.unwrap();
    bed.directs(&ALIVE, NAME, &ALIVE).await.unwrap();
    eprintln!("pulled within {:?}; the router went on for {routed:?}, directors for {:?}", pulled - cut, cut.elapsed());
    sleep_until((clean + some_intervals).into()).await;
    let victim = &bed.cluster.names()[VICTIM];
    judge(&stream.stop().await, &times, victim);
    live_on(older, victim).await;
    is_put_in_again(bed).await;
}

/// What became of all that was begun.
fn judge(attempts: &[Attempt], times: &Times, victim: &String) {
    let Times { cut, pulled, clean, done } = *times;
    let meets = |one: &&Attempt| one.outcome.is_err() || one.took >= REPEATED;
    let is_excused = |one: &&Attempt| {
        let until = if one.outcome.is_err() { clean } else { done };
        one.started < until && one.started + one.took > cut
    };
    let (excused, bad): (Vec<_>, Vec<_>) = attempts.iter().filter(meets).partition(is_excused);
    let failed = Tally::of(excused.iter().copied()).failed();
    let (met, all) = (excused.len(), attempts.len());
    eprintln!("{met} of {all} connections met the dead node, {failed} of them failed, others had a second SYN");
    let after = |one: &Attempt| one.started.saturating_duration_since(pulled);
    let bad: Vec<_> = bad.into_iter().map(|one| (after(one), one.took, &one.outcome)).collect();
    assert!(bad.is_empty(), "clean from {:?} after the pull on: {bad:?}", clean - pulled);

    let served = |from: Instant, to: Instant| {
        let tally = Tally::of(attempts.iter().filter(|one| (from..to).contains(&one.started)));
        (tally.answers.contains_key(victim), tally.answers.len())
    };
    assert_eq!(served(attempts[0].started, cut), (true, ALL.len()), "before");
    assert_eq!(served(clean, Instant::now()), (false, ALIVE.len()), "without the node");
}

/// The node comes back and takes new connections again; no new one fails meanwhile. Open connections that the router gives
/// to it may: it does not know who had them while it was away, and those to pods are no sockets that would tell.
async fn is_put_in_again(bed: &mut Bed) {
    let client = bed.cluster.client(vip(ADDRESS), LIMIT).unwrap();
    let stream = Stream::start(&bed.cluster.runtime, client, PERIOD);
    let began = Instant::now();
    bed.cluster.start_node(VICTIM).unwrap();
    bed.cluster.agents[VICTIM].wait_ready(PATIENCE).await.unwrap();
    bed.directs(&ALL, NAME, &ALL).await.unwrap();
    bed.goes_to(ADDRESS, &ALL).await.unwrap();
    let took = began.elapsed();
    let tally = bed.ask(ADDRESS, 40).await.unwrap();
    assert_eq!((tally.failed(), tally.answers.len()), (0, ALL.len()), "{tally:?}");
    let attempts = stream.stop().await;
    let repeated = attempts.iter().filter(|one| one.took >= REPEATED).count();
    eprintln!(
        "it took part again after {took:?}; {repeated} of {} connections began with a second SYN",
        attempts.len()
    );
    let tally = Tally::of(&attempts);
    assert_eq!(tally.failed(), 0, "{tally:?}");
}

/// Connections that stay open, all of which have been answered.
async fn open(bed: &Bed, first_port: u16) -> LongLived {
    let client = bed.cluster.client(vip(ADDRESS), LIMIT).unwrap();
    let connections = LongLived::open(&bed.cluster.runtime, &client, OPEN, first_port, PULSE);
    answered(&connections, "nobody", &[0; OPEN as usize]).await;
    connections
}

/// Waits until every connection that is not with `dead` has more answers than these.
async fn answered(connections: &LongLived, dead: &str, than: &[u64]) {
    let look = || async {
        let lives = connections.lives();
        let silent = lives.iter().zip(than).filter(|(life, than)| {
            life.server.as_deref() != Some(dead) && (life.answered <= **than || life.broken.is_some())
        });
        let silent: Vec<_> = silent.collect();
        ensure!(silent.is_empty(), "{silent:?}");
        Ok(())
    };
    wait::until("every connection to be answered", LIMIT, look).await.unwrap();
}

/// Every connection that is not with `dead` goes on, and there are some of both kinds.
async fn live_on(connections: LongLived, dead: &str) {
    let lives = connections.lives();
    let with_dead = lives.iter().filter(|life| life.server.as_deref() == Some(dead)).count();
    assert!((1..lives.len()).contains(&with_dead), "{with_dead} of {lives:?}");
    let so_far: Vec<_> = lives.iter().map(|life| life.answered).collect();
    answered(&connections, dead, &so_far).await;
    connections.close().await;
}

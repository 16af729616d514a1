//! A disruption as the client sees it: new connections all the time, and open ones on every node.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use tokio::time::sleep;

use super::{
    bed::Bed,
    console::{Console, milliseconds},
};
use crate::{
    traffic::{Attempt, Life, LongLived, Stream, Tally},
    wait,
};

/// Time between two new connections to a VIP.
const PERIOD: Duration = Duration::from_millis(10);
/// Open connections to each VIP, and time between two requests on one.
const CONNECTIONS: u16 = 18;
const PULSE: Duration = Duration::from_millis(100);
/// A request that takes longer has failed: connect and answer together stay below two retransmissions of a SYN (1 s, 3 s).
const LIMIT: Duration = Duration::from_millis(2500);
/// How long traffic goes on before and after the disruption.
const BEFORE: Duration = Duration::from_millis(500);
const AFTER: Duration = Duration::from_secs(4);
/// From here on after the disruption nothing may fail: two probes of 200 ms that may take 200 ms each, the map update,
/// the withdrawal by the routing daemon, and room for a machine that is busy.
const CONVERGED: Duration = Duration::from_secs(2);

/// Traffic under way.
pub(super) struct Disruption {
    streams: Vec<Stream>,
    connections: Vec<LongLived>,
    moment: Instant,
}

impl Disruption {
    /// Starts traffic from `first_port` on and waits until it flows everywhere. The disruption is due right after.
    pub(super) async fn begin(bed: &Bed, first_port: u16, console: &Console) -> Result<Self> {
        let clients = bed.clients(LIMIT)?;
        let open = |client| LongLived::open(&bed.runtime, client, CONNECTIONS, first_port, PULSE);
        let connections: Vec<_> = clients.iter().map(open).collect();
        let streams = clients.into_iter().map(|client| Stream::start(&bed.runtime, client, PERIOD)).collect();
        let all_speak = || async {
            let lives: Vec<_> = connections.iter().flat_map(LongLived::lives).collect();
            let silent = lives.iter().filter(|life| life.answered < 2).count();
            ensure!(silent == 0, "{silent} of {} connections have no two answers: {:?}", lives.len(), breaks(&lives));
            Ok(lives)
        };
        let (lives, _) = wait::until("answers on every open connection", Duration::from_secs(5), all_speak).await?;
        console.note(&format!(
            "open connections, each with a request every {}: {}",
            milliseconds(PULSE),
            by_server(&lives)
        ));
        sleep(BEFORE).await;
        Ok(Self { streams, connections, moment: Instant::now() })
    }

    /// Lets traffic go on, ends it, and checks what the client saw after `victim` died.
    pub(super) async fn end(self, bed: &Bed, victim: &str, claim: &str, console: &mut Console) -> Result<()> {
        bed.wait_for_routes(2, console).await?;
        sleep(AFTER.saturating_sub(self.moment.elapsed())).await;
        let mut attempts = Vec::new();
        for stream in self.streams {
            attempts.extend(stream.stop().await);
        }
        let mut lives = Vec::new();
        for connections in self.connections {
            lives.extend(connections.close().await);
        }
        check_new(&attempts, self.moment, victim, claim, console);
        check_open(&lives, victim, console);
        Ok(())
    }
}

/// New connections: a short disturbance, then all are answered, by the survivors.
fn check_new(attempts: &[Attempt], moment: Instant, victim: &str, claim: &str, console: &mut Console) {
    let (before, after): (Vec<_>, Vec<_>) = attempts.iter().partition(|attempt| attempt.started < moment);
    let (during, later): (Vec<_>, Vec<_>) = after.into_iter().partition(|attempt| attempt.started < moment + CONVERGED);
    // Requests begun just before may be cut off by the disruption: they count as disturbed by it.
    let (calm, cut): (Vec<_>, Vec<_>) = before.into_iter().partition(|attempt| attempt.started + attempt.took < moment);
    let disturbed: Vec<_> = cut.into_iter().chain(during).collect();
    let tally = Tally::of(calm.iter().copied());
    console.expect(tally.failed() == 0, "before, no request fails", &show(&tally));
    let tally = Tally::of(disturbed.iter().copied());
    let slow = disturbed.iter().filter(|attempt| attempt.outcome.is_ok() && attempt.took > Duration::from_millis(500));
    console.note(&format!(
        "the first {} s: {}; slower than 500 ms: {}",
        CONVERGED.as_secs(),
        show(&tally),
        slow.count()
    ));
    let failed = disturbed.iter().chain(&later).filter(|attempt| attempt.outcome.is_err());
    let last = failed.map(|attempt| attempt.started.saturating_duration_since(moment)).max();
    console.note(&match last {
        Some(last) => format!("the last request that failed was begun {} after the kill", milliseconds(last)),
        None => "no request failed".to_owned(),
    });
    let tally = Tally::of(later.iter().copied());
    console.expect(tally.failed() == 0 && tally.answered() > 0, claim, &show(&tally));
    let two_others = tally.answers.len() == 2 && !tally.answers.contains_key(victim);
    console.expect(two_others, "then the two other nodes answer", &show(&tally));
}

/// Open connections: those to the victim end, no other notices.
fn check_open(lives: &[Life], victim: &str, console: &mut Console) {
    let (lost, others): (Vec<_>, Vec<_>) =
        lives.iter().cloned().partition(|life| life.server.as_deref() == Some(victim));
    let broken = breaks(&others);
    let answered: u64 = others.iter().map(|life| life.answered).sum();
    console.expect(
        broken.is_empty(),
        &format!("no open connection to the other nodes breaks: {}", by_server(&others)),
        &if broken.is_empty() { format!("{answered} requests answered") } else { format!("{broken:?}") },
    );
    let kinds = breaks(&lost);
    console.note(&format!(
        "open connections to {victim}: {} of {} broken {kinds:?}",
        kinds.values().sum::<usize>(),
        lost.len()
    ));
}

/// How many connections broke, by kind.
fn breaks(lives: &[Life]) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for (_, failure) in lives.iter().filter_map(|life| life.broken.as_ref()) {
        *kinds.entry(failure.to_string()).or_default() += 1;
    }
    kinds
}

/// Connections by server, as text.
fn by_server(lives: &[Life]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for life in lives {
        *counts.entry(life.server.as_deref().unwrap_or("nobody")).or_default() += 1;
    }
    counts.into_iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

/// A tally in a line.
fn show(tally: &Tally) -> String {
    let answers: Vec<_> = tally.answers.iter().map(|(name, count)| format!("{name} {count}")).collect();
    let failures: Vec<_> = tally.failures.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    let failures = if failures.is_empty() { "none".to_owned() } else { failures.join(", ") };
    format!("{} answered ({}), failed: {failures}", tally.answered(), answers.join(", "))
}

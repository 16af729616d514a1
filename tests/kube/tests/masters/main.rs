//! Control-plane nodes with an API server and an etcd member each: who serves, what an outage does, how nodes join.

#![expect(clippy::unwrap_used, reason = "a failing step is a failing test")]
#![expect(clippy::print_stderr, reason = "times that were measured are told")]

mod growing;
mod join;
mod outage;
mod serving;

use std::time::{Duration, Instant};

use kube_tests::{
    assets::Assets,
    masters::{Masters, ask::Attempt, ask::tally},
};
use tokio::sync::{Mutex, MutexGuard};

/// One bed at a time: three API servers are enough for two processors.
static TURN: Mutex<()> = Mutex::const_new(());

async fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().await
}

/// The server's version, for the table of promises.
fn title() -> String {
    Assets::find().unwrap().title()
}

/// Attempts begun within a time that failed, in words.
fn failed(attempts: &[Attempt], from: Instant, to: Instant) -> Vec<String> {
    let of = attempts.iter().filter(|attempt| (from..to).contains(&attempt.began));
    let failed = of.filter_map(|attempt| {
        let failure = attempt.outcome.as_ref().err()?;
        let (after, took) = (attempt.began.duration_since(from), attempt.took);
        Some(format!("{after:?} after the beginning, for {took:?}: {failure}"))
    });
    failed.collect()
}

/// Names of the servers that answered attempts begun within a time.
fn servers(attempts: &[Attempt], from: Instant, to: Instant) -> Vec<String> {
    let of = attempts.iter().filter(|attempt| (from..to).contains(&attempt.began));
    tally(of).0.into_keys().collect()
}

/// Does something, and shows the ends of all logs if it fails.
fn told<T>(masters: &mut Masters, result: anyhow::Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{error:#}\n{}", masters.log_tails()),
    }
}

/// What a routing daemon takes to tell the router, at most: it looks at its interfaces every second.
const ROUTING: Duration = Duration::from_secs(1);

//! The demonstration: `https://VIP:6443` served by three control-plane nodes through the XDP program, of which one server
//! and one node die under traffic.
//!
//! Everything the demo claims is measured from the client and checked; a claim that fails is told with what was seen, and
//! the demo fails at its end.

mod bed;
pub mod console;
mod disruption;
mod excerpts;
pub mod stage;

use std::{net::IpAddr, time::Duration};

use anyhow::Result;

use crate::{
    demo::{bed::Bed, console::Console, disruption::Disruption},
    routing::Suite,
    scope::Scope,
    topology::VIPS,
    traffic::{Attempt, Tally, burst},
};

/// Requests per family when all is well.
const REQUESTS: usize = 300;
/// Requests under way at once.
const PARALLEL: usize = 8;

/// What to show.
#[derive(Clone, Debug)]
pub struct Options {
    /// The VIPs to ask, of one family or both.
    pub vips: Vec<IpAddr>,
    /// The routing daemon of the router and of the nodes.
    pub suite: Suite,
    /// Whether to leave everything running at the end, until interrupted.
    pub keep: bool,
}

/// The families asked for; none named means both.
#[must_use]
pub fn vips(ipv4: bool, ipv6: bool) -> Vec<IpAddr> {
    VIPS.into_iter().filter(|vip| ipv4 == ipv6 || vip.is_ipv4() == ipv4).collect()
}

/// Runs the demo, with names of `scope`.
///
/// # Errors
/// If a step cannot be done or a claim failed; what was expected and seen has been printed then.
pub async fn run(scope: Scope, options: &Options) -> Result<()> {
    let mut console = Console::new();
    let mut bed = Bed::build(scope, options, &mut console)?;
    let shown = show(&mut bed, options, &mut console).await;
    if !console.is_right(shown) {
        console.raw(&bed.log_tails());
    }
    if options.keep {
        console.raw(&bed.directions());
        std::future::pending::<()>().await;
    }
    console.step("Removing everything");
    drop(bed);
    console.verdict()
}

async fn show(bed: &mut Bed, options: &Options, console: &mut Console) -> Result<()> {
    bed.start(console).await?;

    console.step(&format!("Sending {REQUESTS} requests to each VIP, every one on a connection of its own"));
    ask_everybody(bed, options, console).await?;

    excerpts::show(bed, options, console)?;

    console.step("Killing the server process of node-2 while requests go on");
    let claim = "the probes take node-2 out within 2 s";
    let disruption = Disruption::begin(bed, 41_000, console).await?;
    bed.servers[1].kill()?;
    disruption.end(bed, "node-2", claim, console).await?;

    console.step("Starting the server of node-2 again");
    bed.start_server(1)?;
    bed.settle(console).await?;
    ask_everybody(bed, options, console).await?;

    console.step("Killing node-3: its link goes down and all its processes die");
    let claim = "the routing daemon and the probes take node-3 out within 2 s";
    let disruption = Disruption::begin(bed, 42_000, console).await?;
    bed.kill_node(2)?;
    disruption.end(bed, "node-3", claim, console).await
}

/// Asks each VIP, shows who answered, and claims that every node did and nothing failed.
async fn ask_everybody(bed: &Bed, options: &Options, console: &mut Console) -> Result<()> {
    let mut rows = Vec::new();
    for &vip in &options.vips {
        let attempts = burst(&bed.runtime, &bed.client(vip, Duration::from_secs(2))?, REQUESTS, PARALLEL).await;
        rows.push((vip, attempts));
    }
    console.answers(&bed.names(), &rows);
    for (vip, attempts) in &rows {
        let tally = Tally::of(attempts);
        let silent: Vec<_> = bed.names().into_iter().filter(|name| !tally.answers.contains_key(name)).collect();
        console.expect(
            tally.failed() == 0 && attempts.len() == REQUESTS,
            &format!("all {REQUESTS} requests to {vip} are answered"),
            &format!("{} answered, failures: {:?}", tally.answered(), tally.failures),
        );
        let seen =
            if silent.is_empty() { "all three did".to_owned() } else { format!("{} did not", silent.join(", ")) };
        console.expect(silent.is_empty(), &format!("every node answers for {vip}"), &seen);
    }
    Ok(())
}

/// The `percent`-th percentile of the times to an answer.
fn percentile(attempts: &[Attempt], percent: usize) -> Duration {
    let answered = attempts.iter().filter(|attempt| attempt.outcome.is_ok());
    let mut times: Vec<_> = answered.map(|attempt| attempt.took).collect();
    times.sort();
    let at = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    times.get(at).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_family_named_means_both() {
        assert_eq!(vips(false, false), VIPS);
        assert_eq!(vips(true, true), VIPS);
        assert_eq!(vips(true, false), [VIPS[0]]);
        assert_eq!(vips(false, true), [VIPS[1]]);
    }
}

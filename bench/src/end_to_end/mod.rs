//! Traffic from end to end: through Levee and through what people use instead, in turns, in one run.
//!
//! On a machine with few cores the client and the servers eat most of the time, whatever is in between. What tells the
//! balancers apart is the CPU time of the whole machine for the same work, less that of plain routing in the same round.

mod balancers;
mod bed;
mod cpu;
mod load;
mod protocol;
mod report;
mod server;

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::Result;
use netns_tests::scope::{Scope, sweep};

use self::{
    bed::{Bed, Way},
    load::{Plan, Sample},
    protocol::Request,
};
use crate::{Options, interrupt::Interrupt, say, schema::Results};

/// One kind of work.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Load {
    /// Short requests, many at once: both CPUs are busy.
    Connections,
    /// Short requests, one after the other: how long one takes when nobody else asks.
    Alone,
    /// Bulk from a server to the client.
    Download,
    /// Bulk from the client to a server.
    Upload,
}

impl Load {
    const ALL: [Self; 4] = [Self::Connections, Self::Alone, Self::Download, Self::Upload];
}

/// How much is sent.
#[derive(Clone, Copy, Debug)]
struct Scale {
    rounds: usize,
    connections: u32,
    parallel: usize,
    alone: u32,
    bytes: u64,
}

impl Scale {
    const fn of(options: &Options) -> Self {
        if options.quick {
            Self { rounds: 4, connections: 3_000, parallel: 16, alone: 100, bytes: 32 << 20 }
        } else {
            Self { rounds: 24, connections: 10_000, parallel: 16, alone: 300, bytes: 128 << 20 }
        }
    }

    fn plan(&self, load: Load, target: SocketAddr) -> Plan {
        let one = |request| Plan { target, connections: 1, parallel: 1, request };
        let short = one(Request::Short);
        match load {
            Load::Connections => Plan { connections: self.connections, parallel: self.parallel, ..short },
            Load::Alone => Plan { connections: self.alone, ..short },
            Load::Download => one(Request::Download(self.bytes)),
            Load::Upload => one(Request::Upload(self.bytes)),
        }
    }
}

/// All samples of a run, each list in the order of the rounds.
type Record = BTreeMap<(Load, Way), Vec<Sample>>;

/// Measures.
///
/// # Errors
/// Without root, without one of the programs, after a signal, or if a single connection fails.
pub fn run(options: &Options) -> Result<Results> {
    let interrupt = Interrupt::watch()?;
    let scale = Scale::of(options);
    sweep();
    say("building the test bed");
    let bed = Bed::build(Scope::new()?)?;
    interrupt.check()?;
    // The first round fills caches and tables; it is thrown away.
    let warm_up = Scale { connections: scale.connections / 10 + 1, alone: 20, bytes: 4 << 20, ..scale };
    round(&bed, &warm_up, 0, &interrupt, &mut Record::new())?;

    let (before, lost) = (bed.counters()?, bed.link_drops()?);
    let mut record = Record::new();
    for number in 0..scale.rounds {
        say(&format!("round {} of {}", number + 1, scale.rounds));
        round(&bed, &scale, number, &interrupt, &mut record)?;
    }
    let counted = bed.counters()?.since(&before);
    Ok(report::results(&scale, &record, &counted, bed.link_drops()? - lost))
}

/// Every load every way. The way that begins changes from round to round, so that no way always follows the same one.
fn round(bed: &Bed, scale: &Scale, number: usize, interrupt: &Interrupt, record: &mut Record) -> Result<()> {
    let ways = Way::ALL.iter().cycle().skip(number % Way::ALL.len()).take(Way::ALL.len());
    for (load, &way) in Load::ALL.iter().flat_map(|load| ways.clone().map(move |way| (*load, way))) {
        interrupt.check()?;
        let sample = bed.measure(way, |target| scale.plan(load, target))?;
        record.entry((load, way)).or_default().push(sample);
    }
    Ok(())
}

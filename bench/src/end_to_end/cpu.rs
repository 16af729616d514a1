//! CPU time of the whole machine, and of the processes that have nothing to do with the benchmark.
//!
//! What a program does in a softirq is charged to whoever happens to run, so only the machine as a whole tells what a
//! packet costs. Idle time is exact on a tickless kernel (it is taken when a CPU goes to sleep and wakes up), busy time
//! is sampled by the tick: busy is therefore what is left of the clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

/// Ticks a second in `/proc` (`USER_HZ`), 100 on every architecture but alpha and ia64.
const TICKS: u32 = 100;
/// Process id of the parent of all kernel threads, which do the work of softirqs and belong to nobody.
const KTHREADD: u32 = 2;

/// CPU time spent between two moments.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spent {
    /// By the clock.
    pub elapsed: Duration,
    /// CPU time of the machine that was neither idle nor waiting for a disk, less `foreign`.
    pub busy: Duration,
    /// CPU time of processes that do not descend from this one.
    pub foreign: Duration,
    /// CPU time that the hypervisor gave to others.
    pub steal: Duration,
}

/// A moment from which CPU time is counted.
#[derive(Debug)]
pub struct Meter {
    at: Instant,
    machine: Machine,
    foreign: u64,
}

/// The first line of `/proc/stat`, in ticks, and how many CPUs there are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Machine {
    idle: u64,
    steal: u64,
    cpus: u32,
}

/// One process, from `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Process {
    parent: u32,
    /// Own ticks and those of children that were waited for.
    ticks: u64,
}

impl Meter {
    /// Starts counting.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub fn start() -> Result<Self> {
        let foreign = foreign_ticks()?;
        Ok(Self { machine: machine()?, at: Instant::now(), foreign })
    }

    /// What was spent since.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub fn spent(&self) -> Result<Spent> {
        let elapsed = self.at.elapsed();
        let now = machine()?;
        let foreign = ticks(foreign_ticks()?.saturating_sub(self.foreign));
        Ok(self.machine.until(now, elapsed, foreign))
    }
}

impl Machine {
    fn until(self, now: Self, elapsed: Duration, foreign: Duration) -> Spent {
        let idle = ticks(now.idle.saturating_sub(self.idle));
        let steal = ticks(now.steal.saturating_sub(self.steal));
        let busy = (elapsed * now.cpus).saturating_sub(idle).saturating_sub(steal).saturating_sub(foreign);
        Spent { elapsed, busy, foreign, steal }
    }
}

fn ticks(count: u64) -> Duration {
    Duration::from_millis(count * 1000 / u64::from(TICKS))
}

fn machine() -> Result<Machine> {
    let text = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    parse_machine(&text).context("/proc/stat has no line `cpu` with eight numbers")
}

/// Columns: user nice system idle iowait irq softirq steal (proc(5)).
fn parse_machine(text: &str) -> Option<Machine> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let numbers: Vec<u64> = line.split_whitespace().map_while(|number| number.parse().ok()).collect();
    let cpus = text.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count();
    let [_, _, _, idle, iowait, _, _, steal, ..] = numbers[..] else { return None };
    Some(Machine { idle: idle + iowait, steal, cpus: u32::try_from(cpus).ok()? })
}

/// Ticks of all processes that are neither this one nor below it nor of the kernel.
fn foreign_ticks() -> Result<u64> {
    let entries = fs::read_dir("/proc").context("listing /proc")?.flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // A process may end between the listing and the reading.
    let read = |id: u32| Some((id, parse_process(&fs::read_to_string(format!("/proc/{id}/stat")).ok()?)?));
    Ok(sum_foreign(&ids.filter_map(read).collect(), std::process::id()))
}

/// The fields after the name, which may hold spaces and parentheses itself.
fn parse_process(text: &str) -> Option<Process> {
    let (_, rest) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    // Fields 4 (ppid) and 14 to 17 (utime stime cutime cstime) of proc(5); `rest` begins with field 3.
    let ticks = (11..=14).map(number).sum::<Option<u64>>()?;
    Some(Process { parent: u32::try_from(number(1)?).ok()?, ticks })
}

fn sum_foreign(processes: &BTreeMap<u32, Process>, own: u32) -> u64 {
    let mut ours = BTreeSet::from([own, KTHREADD]);
    loop {
        let below =
            |(id, process): (&u32, &Process)| (ours.contains(&process.parent) && !ours.contains(id)).then_some(*id);
        let found: Vec<u32> = processes.iter().filter_map(below).collect();
        if found.is_empty() {
            break;
        }
        ours.extend(found);
    }
    // An ancestor counts this process only when it has ended, and then nobody measures.
    processes.iter().filter(|(id, _)| !ours.contains(id)).map(|(_, process)| process.ticks).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "cpu  100 2 30 4000 50 6 70 8 0 0\ncpu0 50 1 15 2000 25 3 35 4 0 0\n\
                        cpu1 50 1 15 2000 25 3 35 4 0 0\nintr 12 0\nctxt 1\n";

    #[test]
    fn the_machines_idle_time_is_idle_and_iowait() {
        assert_eq!(parse_machine(STAT), Some(Machine { idle: 4050, steal: 8, cpus: 2 }));
        assert_eq!(parse_machine("cpu  1 2 3\n"), None);
        assert_eq!(parse_machine("intr 1\n"), None);
    }

    #[test]
    fn busy_is_what_is_left_of_the_clock() {
        let before = Machine { idle: 1000, steal: 5, cpus: 2 };
        let after = Machine { idle: 1040, steal: 6, cpus: 2 };
        let [elapsed, foreign] = [1000, 90].map(Duration::from_millis);
        let expected = Spent {
            elapsed,
            busy: Duration::from_millis(2000 - 400 - 10 - 90),
            foreign,
            steal: Duration::from_millis(10),
        };
        assert_eq!(before.until(after, elapsed, foreign), expected);
    }

    #[test]
    fn a_process_is_read_past_a_name_with_parentheses() {
        let text = "77 (a) b (c) S 5 77 77 0 -1 4194560 100 0 0 0 11 12 13 14 20 0 1 0 100 0 0";
        assert_eq!(parse_process(text), Some(Process { parent: 5, ticks: 11 + 12 + 13 + 14 }));
        assert_eq!(parse_process("77 (a) S 5"), None);
    }

    #[test]
    fn foreign_is_who_neither_descends_from_us_nor_is_the_kernels() {
        let process = |id, parent, ticks| (id, Process { parent, ticks });
        let processes = BTreeMap::from([
            process(1, 0, 1),
            process(2, 0, 10),
            process(20, 2, 100),  // a kernel thread
            process(50, 1, 1000), // this one
            process(60, 50, 10_000),
            process(40, 60, 100_000), // a grandchild with a smaller id
            process(70, 1, 1_000_000),
        ]);
        assert_eq!(sum_foreign(&processes, 50), 1 + 1_000_000);
    }
}

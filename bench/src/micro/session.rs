//! One process's worth of measuring: loads the programs, proves that they do what they should, and takes turns.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use aya::programs::ProgramFd;
use lb_common::verdict::Action;
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

use super::{
    cases::{EVER_NEW, End, Spec},
    counters::{self, LruCounters, Totals},
    frames,
    harness::Harness,
    programs::{Order, Program, Programs, history_of, objects},
    template::Template,
};
use crate::say;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Samples of each case.
    pub samples: usize,
    /// Runs per sample.
    pub repeat: u32,
    /// In which order programs are loaded.
    pub order: Order,
}

/// What one process measured of one case.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Measured {
    /// Nanoseconds per packet, a sample each.
    pub samples: Vec<f64>,
    /// What was counted during the samples.
    pub counters: BTreeMap<String, u64>,
}

/// The loaded programs, with the harness aimed at one after the other.
pub struct Session {
    programs: Programs,
    harness: Harness,
    cases: Vec<Case>,
}

/// A case with what has to be at hand for a sample.
struct Case {
    spec: Spec,
    template: Template,
    frame: Vec<u8>,
    program: ProgramFd,
    lru: Option<LruCounters>,
    /// Number of the next run.
    next: u64,
}

impl Session {
    /// Loads what the cases need. From here on the thread stays on one CPU: entries of a per-CPU table are whole only on
    /// the CPU that wrote them.
    ///
    /// # Errors
    /// If an object is not there or the kernel refuses it.
    ///
    /// # Panics
    /// Without root or a BPF filesystem, saying what to do.
    pub fn open(cases: &[Spec], order: Order) -> Result<Self> {
        pin()?;
        let objects = objects()?;
        let wanted: Vec<Program> = cases.iter().map(|spec| spec.program).collect();
        let (mut programs, harness);
        match order {
            Order::Forward => {
                programs = Programs::load(&wanted, order, &objects)?;
                harness = Harness::load(&objects)?;
            }
            Order::Swapped => {
                harness = Harness::load(&objects)?;
                programs = Programs::load(&wanted, order, &objects)?;
            }
        }
        let cases = cases.iter().map(|spec| Case::new(*spec, &mut programs, &harness)).collect::<Result<_>>()?;
        Ok(Self { programs, harness, cases })
    }

    /// Checks of every case that the frames which come out are right, run after run, and so are the counters.
    ///
    /// # Errors
    /// If one is not, saying what differs.
    pub fn check(&mut self) -> Result<()> {
        for at in 0..self.cases.len() {
            self.check_case(at).with_context(|| format!("checking the case \"{}\"", self.cases[at].spec.name))?;
        }
        Ok(())
    }

    /// Takes all samples, the cases in turns.
    ///
    /// # Errors
    /// If a run fails, or counters do not move by just the number of runs.
    pub fn measure(&mut self, plan: &Plan) -> Result<BTreeMap<String, Measured>> {
        let mut measured = BTreeMap::<String, Measured>::new();
        say("warming up");
        for at in 0..self.cases.len() {
            self.warm_up(at, plan.repeat)?;
        }
        for sample in 1..=plan.samples {
            say(&format!("sample {sample} of {}", plan.samples));
            for at in 0..self.cases.len() {
                let spec = self.cases[at].spec;
                let sample = self.sample(at, plan.repeat);
                let (nanoseconds, totals) = sample.with_context(|| format!("measuring the case \"{}\"", spec.name))?;
                let measured = measured.entry(spec.name.to_owned()).or_default();
                measured.samples.push(nanoseconds);
                for (name, value) in totals {
                    *measured.counters.entry(name).or_default() += value;
                }
            }
        }
        Ok(measured)
    }

    /// Sends single packets, then several in a row, so that what the harness leaves undone would show.
    fn check_case(&mut self, at: usize) -> Result<()> {
        let case = &mut self.cases[at];
        self.harness.aim(&case.program, &case.template)?;
        let world = history_of(case.spec.program).pop().context("a program without a world")?;
        for (first, repeat) in [(0, 1), (0, 3), (12_345, 1), (12_345, 3)] {
            self.harness.count_from(first)?;
            let run = first + u64::from(repeat) - 1;
            let packet = frames::packet_of(&case.spec.traffic, case.template.flow(run));
            let expected = frames::expected(case.spec.end, &world, &packet);
            let totals = self.programs.bed(case.spec.program).map(|bed| counters::read(bed)).transpose()?;
            let runs = self.harness.run(&case.frame, repeat)?;
            ensure!(runs.action == action(case.spec.end), "run {run} ended in xdp_action {}", runs.action);
            let blank = |frame: &[u8]| frames::without_checksums(case.spec.end, &case.frame, frame);
            let is_template = case.template.flow(run) == case.template.flow(0) && case.spec.end != End::Floor(20);
            let right = if is_template { runs.frame == expected } else { blank(&runs.frame) == blank(&expected) };
            ensure!(right, "run {run} made\n{:02x?}\nbut should have made\n{expected:02x?}", runs.frame);
            if let (Some(before), Some(bed)) = (totals, self.programs.bed(case.spec.program)) {
                check_counters(case, &counters::since(&before, &counters::read(bed)?), repeat)?;
            }
        }
        case.next = 20_000;
        Ok(())
    }

    /// Fills caches and tables: every flow twice, if they are to be met again.
    fn warm_up(&mut self, at: usize, repeat: u32) -> Result<()> {
        let case = &mut self.cases[at];
        let flows = if case.template.flows < EVER_NEW { case.template.flows } else { 0 };
        let runs = repeat.max(u32::try_from(2 * flows).context("too many flows")?);
        self.harness.aim(&case.program, &case.template)?;
        self.harness.count_from(case.next)?;
        case.next += u64::from(runs);
        self.harness.run(&case.frame, runs).map(drop)
    }

    fn sample(&mut self, at: usize, repeat: u32) -> Result<(f64, Totals)> {
        let case = &mut self.cases[at];
        self.harness.aim(&case.program, &case.template)?;
        self.harness.count_from(case.next)?;
        case.next += u64::from(repeat);
        let bed = self.programs.bed(case.spec.program);
        let before = bed.as_deref().map(counters::read).transpose()?;
        let lru_before = case.lru.as_ref().map(LruCounters::read).transpose()?;
        let runs = self.harness.run(&case.frame, repeat)?;
        ensure!(runs.action == action(case.spec.end), "the last run ended in xdp_action {}", runs.action);
        let mut totals = Totals::new();
        if let (Some(before), Some(bed)) = (before, bed) {
            totals = counters::since(&before, &counters::read(bed)?);
            check_counters(case, &totals, repeat)?;
        }
        if let (Some(before), Some(lru)) = (lru_before, &case.lru) {
            totals.extend(counters::since(&before, &lru.read()?));
            let inserts = totals.get("LRU inserts").copied().unwrap_or(0);
            totals.insert("LRU hits".to_owned(), u64::from(repeat).saturating_sub(inserts));
        }
        Ok((runs.mean.as_nanos() as f64, totals))
    }
}

impl Case {
    fn new(spec: Spec, programs: &mut Programs, harness: &Harness) -> Result<Self> {
        let program = match spec.program {
            Program::Floor => harness.own("floor")?,
            Program::FloorGrown => harness.own("floor_grown")?,
            _ => {
                let bed = programs.bed(spec.program).context("the program is not loaded")?;
                bed.program().fd().context("the program is not loaded")?.try_clone()?
            }
        };
        let lru =
            programs.bed(spec.program).filter(|_| spec.program.is_yardstick()).map(LruCounters::open).transpose()?;
        let frame = (spec.traffic.packet)().frame().bytes();
        Ok(Self { template: frames::template(&spec.traffic), spec, frame, program, lru, next: 0 })
    }
}

/// Counters have to move by just the number of runs.
fn check_counters(case: &Case, counted: &Totals, repeat: u32) -> Result<()> {
    let length = case.template.length - 14;
    let expected = counters::expected(case.spec.end, u64::from(repeat), length);
    if *counted != expected {
        bail!("{repeat} runs counted {counted:?}, which should be {expected:?}");
    }
    Ok(())
}

fn action(end: End) -> u32 {
    let action = match end {
        End::Floor(_) => Action::Transmit,
        End::NotOurs | End::Local => Action::Pass,
        End::Sent(_, action) => action,
    };
    action as u32
}

/// Stays on one CPU, the last that the process may use: the first serves most interrupts.
fn pin() -> Result<()> {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this).context("asking which CPUs may be used")?;
    let last = (0..CpuSet::count()).rev().find(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    let mut only = CpuSet::new();
    only.set(last.context("no CPU may be used")?).context("choosing a CPU")?;
    sched_setaffinity(this, &only).context("staying on one CPU")
}

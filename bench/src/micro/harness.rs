//! The harness program, as the benchmark drives it.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use aya::{
    Ebpf, TestRun,
    maps::{Array, MapData, ProgramArray},
    programs::{ProgramFd, TestRunOptions, Xdp},
};
use packets_tests::IN;

use super::{programs::read_object, template::Template};

/// The harness of both families, with their maps.
pub struct Harness {
    ebpf: Ebpf,
    template: Array<MapData, [u64; 8]>,
    runs: Array<MapData, u64>,
    under_test: ProgramArray<MapData>,
}

/// What a number of runs gave.
#[derive(Clone, Debug)]
pub struct Runs {
    /// `xdp_action` of the last one.
    pub action: u32,
    /// Mean time of one, as the kernel took it: whole nanoseconds.
    pub mean: Duration,
    /// The frame as the last one left it.
    pub frame: Vec<u8>,
}

impl Harness {
    /// Loads the harness.
    ///
    /// # Errors
    /// If the object is not there or the kernel refuses it.
    pub fn load(objects: &Path) -> Result<Self> {
        let mut ebpf = Ebpf::load(&read_object(&objects.join("harness.o"))?).context("loading the harness")?;
        for name in ["harness_ipv4", "harness_ipv6", "floor", "floor_grown"] {
            let program: &mut Xdp = ebpf.program_mut(name).context(name)?.try_into().context(name)?;
            program.load().with_context(|| format!("loading the program {name}"))?;
        }
        let mut map = |name: &'static str| ebpf.take_map(name).with_context(|| format!("the harness lacks {name}"));
        let template = map("TEMPLATE")?.try_into().context("TEMPLATE")?;
        let runs = map("RUNS")?.try_into().context("RUNS")?;
        let under_test = map("UNDER_TEST")?.try_into().context("UNDER_TEST")?;
        Ok(Self { ebpf, template, runs, under_test })
    }

    /// Sets what the next runs are about: the program under test, and the frames.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn aim(&mut self, program: &ProgramFd, template: &Template) -> Result<()> {
        self.under_test.set(0, program, 0).context("aiming the harness at a program")?;
        self.template.set(0, words(template), 0).context("writing the template")
    }

    /// Sets the number of the next run, which says whose flow's packet it gets.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn count_from(&mut self, run: u64) -> Result<()> {
        self.runs.set(0, run, 0).context("setting the number of the next run")
    }

    /// One of the harness's own programs.
    ///
    /// # Errors
    /// If there is none of this name.
    pub fn own(&self, name: &str) -> Result<ProgramFd> {
        Ok(self.program(name)?.fd().context("the program is not loaded")?.try_clone()?)
    }

    /// Runs the program under test so often, beginning with `frame` as it is; the frame afterwards is handed back only
    /// after a single run or if `keep` says so.
    ///
    /// # Errors
    /// If the kernel refuses, or has no frame to hand on.
    pub fn run(&self, frame: &[u8], repeat: u32) -> Result<Runs> {
        let is_ipv4 = frame.get(12..14) == Some(&[0x08, 0x00]);
        let program = self.program(if is_ipv4 { "harness_ipv4" } else { "harness_ipv6" })?;
        let length = u32::try_from(frame.len()).context("the frame is too long")?;
        // `struct xdp_md` (include/uapi/linux/bpf.h): data, data_end, data_meta, ingress_ifindex, rx_queue_index,
        // egress_ifindex.
        let context: Vec<u8> = [0, length, 0, IN, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect();
        let mut out = vec![0; frame.len() + GROWTH];
        let result = program.test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            repeat,
            ..TestRunOptions::default()
        });
        let result = result.context("running the harness")?;
        out.truncate(result.data_size_out as usize);
        if result.return_value == ABORTED {
            bail!("the harness could not hand on a frame of {length} bytes: it has no program, or another template");
        }
        Ok(Runs { action: result.return_value, mean: result.duration, frame: out })
    }

    fn program(&self, name: &str) -> Result<&Xdp> {
        let program = self.ebpf.program(name).with_context(|| format!("the harness has no program {name}"))?;
        program.try_into().with_context(|| format!("{name} is no XDP program"))
    }
}

/// `XDP_ABORTED`.
const ABORTED: u32 = 0;
/// How much longer than it came in a frame can leave.
const GROWTH: usize = 128;

/// The template as the map takes it, on a little-endian machine, where the harness was compiled for.
fn words(template: &Template) -> [u64; 8] {
    let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    [
        template.length,
        template.flows,
        template.vips,
        template.link,
        template.link_end,
        template.hop,
        pair(template.source, template.destination),
        pair(template.ports, template.pad),
    ]
}

//! One task per target asks at its interval; one task collects the verdicts and publishes the report.
//!
//! Invariant: the report holds exactly the targets that are wanted, and is published only when something in it is
//! another. A target that stays wanted keeps its task and its verdict, whatever else changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    hash::{Hash, Hasher},
    time::Duration,
};

use siphasher::sip::SipHasher24;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval_at},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, info};

use super::{Answer, hysteresis::Hysteresis, tcp};
use crate::model::{HealthReport, ProbeState, ProbeTarget};

/// First probes are spread over this long (the interval, if that is shorter): no burst, and still a verdict soon.
const START_SPREAD: Duration = Duration::from_secs(1);
/// Verdicts that wait for the collector; a task with one more waits, too.
const QUEUED: usize = 256;

/// Probes the wanted targets by TCP until `cancel` or until nobody can want others any more. Needs a tokio runtime.
///
/// The report has every wanted target, `Unknown` until its first verdict.
pub fn spawn(
    targets: watch::Receiver<BTreeSet<ProbeTarget>>,
    cancel: CancellationToken,
) -> watch::Receiver<HealthReport> {
    spawn_with(targets, cancel, tcp::probe)
}

/// `spawn` with another way to ask.
fn spawn_with<P, F>(
    targets: watch::Receiver<BTreeSet<ProbeTarget>>,
    cancel: CancellationToken,
    probe: P,
) -> watch::Receiver<HealthReport>
where
    P: Fn(ProbeTarget) -> F + Clone + Send + 'static,
    F: Future<Output = Answer> + Send,
{
    let (report, receiver) = watch::channel(HealthReport::default());
    tokio::spawn(async move {
        cancel.run_until_cancelled(Collector::new(report, probe).run(targets)).await;
    });
    receiver
}

/// A verdict on its way to the collector.
struct Verdict {
    target: ProbeTarget,
    /// Of the task that came to it: a target can be removed and wanted again while its verdict is on the way.
    task: u64,
    state: ProbeState,
}

/// A running task; it ends when this is dropped.
struct Task {
    id: u64,
    _running: DropGuard,
}

struct Collector<P> {
    report: watch::Sender<HealthReport>,
    probe: P,
    tasks: BTreeMap<ProbeTarget, Task>,
    started: u64,
    verdicts: (mpsc::Sender<Verdict>, mpsc::Receiver<Verdict>),
}

impl<P, F> Collector<P>
where
    P: Fn(ProbeTarget) -> F + Clone + Send + 'static,
    F: Future<Output = Answer> + Send,
{
    fn new(report: watch::Sender<HealthReport>, probe: P) -> Self {
        Self { report, probe, tasks: BTreeMap::new(), started: 0, verdicts: mpsc::channel(QUEUED) }
    }

    async fn run(mut self, mut targets: watch::Receiver<BTreeSet<ProbeTarget>>) {
        let wanted = targets.borrow_and_update().clone();
        self.adopt(&wanted);
        loop {
            tokio::select! {
                changed = targets.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let wanted = targets.borrow_and_update().clone();
                    self.adopt(&wanted);
                }
                Some(verdict) = self.verdicts.1.recv() => self.record(verdict),
            }
        }
    }

    /// Stops what is not wanted any more and starts what is new.
    fn adopt(&mut self, wanted: &BTreeSet<ProbeTarget>) {
        self.tasks.retain(|target, _| wanted.contains(target));
        for target in wanted {
            if !self.tasks.contains_key(target) {
                let task = self.start(*target);
                self.tasks.insert(*target, task);
            }
        }
        self.report.send_if_modified(|report| {
            let before = report.targets.len();
            report.targets.retain(|target, _| wanted.contains(target));
            let mut changed = report.targets.len() != before;
            for target in wanted {
                report.targets.entry(*target).or_insert_with(|| {
                    changed = true;
                    ProbeState::Unknown
                });
            }
            changed
        });
    }

    fn start(&mut self, target: ProbeTarget) -> Task {
        self.started += 1;
        let (id, cancel) = (self.started, CancellationToken::new());
        let (probe, verdicts) = (self.probe.clone(), self.verdicts.0.clone());
        let stop = cancel.clone();
        tokio::spawn(async move {
            stop.run_until_cancelled(watch_target(target, id, probe, verdicts)).await;
        });
        Task { id, _running: cancel.drop_guard() }
    }

    fn record(&self, verdict: Verdict) {
        let Verdict { target, task, state } = verdict;
        if self.tasks.get(&target).is_none_or(|current| current.id != task) {
            return; // from a task that was stopped
        }
        self.report.send_if_modified(|report| {
            let before = report.targets.insert(target, state.clone());
            log(&target, before.as_ref(), &state);
            before.as_ref() != Some(&state)
        });
    }
}

/// Asks a target for ever and hands on every new verdict.
async fn watch_target<P, F>(target: ProbeTarget, task: u64, probe: P, verdicts: mpsc::Sender<Verdict>)
where
    P: Fn(ProbeTarget) -> F,
    F: Future<Output = Answer>,
{
    let mut hysteresis = Hysteresis::new(&target.probe);
    let mut ticks = interval_at(Instant::now() + start_delay(&target), target.probe.interval);
    // A suspended process must not ask as often as it missed to.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let answer = probe(target).await;
        debug!(address = %target.address, port = target.probe.port, ?answer, "probed");
        if !hysteresis.take(answer) {
            continue;
        }
        if verdicts.send(Verdict { target, task, state: hysteresis.state().clone() }).await.is_err() {
            return;
        }
    }
}

/// When a target is asked first: spread by its hash, so that targets do not move together.
fn start_delay(target: &ProbeTarget) -> Duration {
    let mut hasher = SipHasher24::new();
    target.hash(&mut hasher);
    let spread = target.probe.interval.min(START_SPREAD);
    let nanoseconds = (spread.as_nanos() * u128::from(hasher.finish() >> 32)) >> 32;
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0))
}

fn log(target: &ProbeTarget, before: Option<&ProbeState>, state: &ProbeState) {
    let (backend, port) = (target.address, target.probe.port);
    match (before, state) {
        (Some(ProbeState::Failed { .. }), ProbeState::Failed { reason }) => {
            debug!(%backend, port, reason, "backend still fails its probe");
        }
        (_, ProbeState::Failed { reason }) => info!(%backend, port, reason, "backend fails its probe"),
        (_, ProbeState::Healthy) => info!(%backend, port, "backend answers its probe"),
        (_, ProbeState::Unknown) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::IpAddr,
        sync::{Arc, Mutex},
    };

    use tokio::{
        net::{TcpListener, TcpSocket},
        time::{advance, timeout},
    };

    use super::*;
    use crate::model::Probe;

    const INTERVAL: Duration = Duration::from_secs(2);

    fn target(last: u8, port: u16) -> ProbeTarget {
        let probe = Probe { port, interval: INTERVAL, timeout: Duration::from_secs(1), rise: 2, fall: 3 };
        ProbeTarget { address: IpAddr::from([127, 0, 0, last]), probe }
    }

    fn failed() -> ProbeState {
        ProbeState::Failed { reason: "refused".to_owned() }
    }

    /// Backends in memory.
    #[derive(Clone, Default)]
    struct Backends(Arc<Mutex<Memory>>);

    #[derive(Default)]
    struct Memory {
        failing: BTreeSet<IpAddr>,
        asked: Vec<(ProbeTarget, Instant)>,
    }

    impl Backends {
        fn fail(&self, target: &ProbeTarget, fails: bool) {
            let mut inner = self.0.lock().unwrap();
            if fails {
                inner.failing.insert(target.address)
            } else {
                inner.failing.remove(&target.address)
            };
        }

        fn asked(&self, target: &ProbeTarget) -> Vec<Instant> {
            self.0.lock().unwrap().asked.iter().filter(|(asked, _)| asked == target).map(|(_, at)| *at).collect()
        }

        /// Takes a while to answer, as a probe does.
        async fn ask(self, target: ProbeTarget) -> Answer {
            self.0.lock().unwrap().asked.push((target, Instant::now()));
            tokio::time::sleep(Duration::from_millis(300)).await;
            let fails = self.0.lock().unwrap().failing.contains(&target.address);
            if fails { Answer::No("refused".to_owned()) } else { Answer::Yes }
        }
    }

    struct Running {
        backends: Backends,
        targets: watch::Sender<BTreeSet<ProbeTarget>>,
        report: watch::Receiver<HealthReport>,
        cancel: CancellationToken,
    }

    fn start(wanted: &[ProbeTarget], failing: &[ProbeTarget]) -> Running {
        let backends = Backends::default();
        failing.iter().for_each(|target| backends.fail(target, true));
        let (targets, receiver) = watch::channel(wanted.iter().copied().collect());
        let (cancel, asked) = (CancellationToken::new(), backends.clone());
        let report = spawn_with(receiver, cancel.clone(), move |target| asked.clone().ask(target));
        Running { backends, targets, report, cancel }
    }

    impl Running {
        fn state(&self, target: &ProbeTarget) -> Option<ProbeState> {
            self.report.borrow().targets.get(target).cloned()
        }

        /// Lets this many intervals pass.
        async fn pass(&self, intervals: u32) {
            tokio::time::sleep(INTERVAL * intervals).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn verdicts_follow_the_answers() {
        let (good, bad) = (target(1, 80), target(2, 80));
        let running = start(&[good, bad], &[bad]);
        running.pass(1).await; // start spread, one answer
        assert_eq!((running.state(&good), running.state(&bad)), (Some(ProbeState::Healthy), Some(ProbeState::Unknown)));
        running.pass(2).await;
        assert_eq!(running.state(&bad), Some(failed()));
        running.backends.fail(&bad, false);
        running.pass(1).await;
        assert_eq!(running.state(&bad), Some(failed()));
        running.pass(1).await;
        assert_eq!(running.state(&bad), Some(ProbeState::Healthy));
    }

    #[tokio::test(start_paused = true)]
    async fn the_interval_runs_from_start_to_start() {
        let one = target(1, 80);
        let running = start(&[one], &[]);
        running.pass(10).await;
        let asked = running.backends.asked(&one);
        let gaps: BTreeSet<Duration> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!((asked.len(), gaps), (10, BTreeSet::from([INTERVAL])));
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_keeps_its_state_while_others_come_and_go() {
        let (kept, removed, added) = (target(1, 80), target(2, 80), target(3, 80));
        let running = start(&[kept, removed], &[kept]);
        running.pass(4).await;
        assert_eq!(running.state(&kept), Some(failed()));
        running.targets.send_replace(BTreeSet::from([kept, added]));
        tokio::time::sleep(Duration::from_millis(1)).await;
        let states = [&kept, &removed, &added].map(|target| running.state(target));
        assert_eq!(states, [Some(failed()), None, Some(ProbeState::Unknown)]);
        let (before, gone) = (running.backends.asked(&kept).len(), running.backends.asked(&removed).len());
        running.pass(3).await;
        assert_eq!(running.backends.asked(&kept).len(), before + 3);
        assert_eq!(running.backends.asked(&removed).len(), gone);
        assert_eq!(running.state(&added), Some(ProbeState::Healthy));
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_that_comes_back_begins_anew() {
        let one = target(1, 80);
        let running = start(&[one], &[one]);
        running.pass(4).await;
        running.targets.send_replace(BTreeSet::new());
        running.pass(1).await;
        assert_eq!(running.state(&one), None);
        running.targets.send_replace(BTreeSet::from([one]));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(running.state(&one), Some(ProbeState::Unknown));
    }

    #[tokio::test(start_paused = true)]
    async fn only_changes_are_published() {
        let (good, bad) = (target(1, 80), target(2, 80));
        let mut running = start(&[good, bad], &[bad]);
        running.pass(4).await;
        running.report.borrow_and_update();
        running.pass(10).await;
        assert!(!running.report.has_changed().unwrap());
        running.targets.send_replace(BTreeSet::from([good, bad]));
        running.pass(1).await;
        assert!(!running.report.has_changed().unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_slept_asks_once() {
        let one = target(1, 80);
        let running = start(&[one], &[]);
        running.pass(2).await;
        let before = running.backends.asked(&one).len();
        advance(INTERVAL * 20).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let more = running.backends.asked(&one).len() - before;
        assert!((1..=2).contains(&more), "{more} probes after 20 missed");
    }

    #[tokio::test(start_paused = true)]
    async fn cancelling_ends_probes_and_report() {
        let one = target(1, 80);
        let mut running = start(&[one], &[]);
        running.pass(2).await;
        running.cancel.cancel();
        while running.report.changed().await.is_ok() {}
        let before = running.backends.asked(&one).len();
        running.pass(5).await;
        assert_eq!(running.backends.asked(&one).len(), before);
    }

    #[test]
    fn first_probes_are_spread() {
        let delays: Vec<Duration> = (0..=255).map(|last| start_delay(&target(last, 80))).collect();
        assert!(delays.iter().all(|delay| *delay < START_SPREAD));
        for tenth in 0..10 {
            let begin = START_SPREAD * tenth / 10;
            let here = delays.iter().filter(|delay| (begin..begin + START_SPREAD / 10).contains(delay)).count();
            assert!((10..=45).contains(&here), "{here} of 256 first probes in tenth {tenth}");
        }
    }

    #[tokio::test]
    async fn real_listeners_are_told_from_closed_ports() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap().port();
        let bound = TcpSocket::new_v4().unwrap(); // keeps the port from others, and listens to nobody
        bound.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let closed = bound.local_addr().unwrap().port();
        let quick = |port| {
            let mut target = target(1, port);
            (target.probe.interval, target.probe.fall) = (Duration::from_millis(100), 2);
            target
        };
        let (_targets, receiver) = watch::channel(BTreeSet::from([quick(open), quick(closed)]));
        let mut report = spawn(receiver, CancellationToken::new());
        let settled = |report: &HealthReport| {
            report.state(&quick(open)) == ProbeState::Healthy
                && report.state(&quick(closed)) == ProbeState::Failed { reason: "connection refused".to_owned() }
        };
        timeout(Duration::from_secs(60), report.wait_for(settled)).await.expect("verdicts").unwrap();
    }
}

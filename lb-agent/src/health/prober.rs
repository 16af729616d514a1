//! One task per target asks at its interval; one task collects the verdicts and publishes the report.
//!
//! Invariant: the report holds exactly the targets that are wanted, and is published only when something in it is
//! another. A target that stays wanted keeps its task and its verdict, whatever else changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, info, warn};

use super::{
    Answer,
    ask::{self, Ask},
    hysteresis::Hysteresis,
    pace::{Pace, Seed},
};
use crate::model::{Ended, Failing, HealthReport, ProbeState, ProbeTarget};

/// Verdicts that wait for the collector; a task with one more waits, too.
const QUEUED: usize = 256;

/// Makes the way to ask a target.
type Means = Arc<dyn Fn(&ProbeTarget) -> Ask + Send + Sync>;

/// Probes the wanted targets until `cancel` or until nobody can want others any more. Needs a tokio runtime.
///
/// The report has every wanted target, `Unknown` until its first verdict. A target that takes the place of another with
/// the same address and port (an edited probe) begins with that one's verdict.
pub fn spawn(
    targets: watch::Receiver<BTreeSet<ProbeTarget>>,
    cancel: CancellationToken,
) -> watch::Receiver<HealthReport> {
    spawn_with(targets, cancel, Arc::new(ask::of), Seed::random())
}

/// `spawn` with another way to ask.
fn spawn_with(
    targets: watch::Receiver<BTreeSet<ProbeTarget>>,
    cancel: CancellationToken,
    means: Means,
    seed: Seed,
) -> watch::Receiver<HealthReport> {
    let (report, receiver) = watch::channel(HealthReport::default());
    tokio::spawn(async move {
        cancel.run_until_cancelled(Collector::new(report, means, seed).run(targets)).await;
    });
    receiver
}

/// A verdict on its way to the collector.
struct Verdict {
    target: ProbeTarget,
    /// Of the task that came to it: a target can be removed and wanted again while its verdict is on the way.
    task: u64,
    state: ProbeState,
    failing: Option<Failing>,
}

/// A running task; it ends when this is dropped.
struct Task {
    id: u64,
    _running: DropGuard,
}

struct Collector {
    report: watch::Sender<HealthReport>,
    means: Means,
    seed: Seed,
    tasks: BTreeMap<ProbeTarget, Task>,
    started: u64,
    verdicts: (mpsc::Sender<Verdict>, mpsc::Receiver<Verdict>),
}

impl Collector {
    fn new(report: watch::Sender<HealthReport>, means: Means, seed: Seed) -> Self {
        Self { report, means, seed, tasks: BTreeMap::new(), started: 0, verdicts: mpsc::channel(QUEUED) }
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
        let new: Vec<(ProbeTarget, ProbeState)> = {
            let report = self.report.borrow();
            let new = wanted.iter().filter(|target| !self.tasks.contains_key(target));
            new.map(|target| (target.clone(), inherited(&report, wanted, target))).collect()
        };
        self.tasks.retain(|target, _| wanted.contains(target));
        for (target, state) in &new {
            let task = self.start(target.clone(), state.clone());
            self.tasks.insert(target.clone(), task);
        }
        self.report.send_if_modified(|report| {
            let before = report.targets.len();
            report.targets.retain(|target, _| wanted.contains(target));
            report.failing.retain(|target, _| wanted.contains(target));
            let changed = report.targets.len() != before || !new.is_empty();
            report.targets.extend(new);
            changed
        });
    }

    fn start(&mut self, target: ProbeTarget, state: ProbeState) -> Task {
        self.started += 1;
        let (id, cancel) = (self.started, CancellationToken::new());
        let (means, verdicts, seed) = (Arc::clone(&self.means), self.verdicts.0.clone(), self.seed);
        let stop = cancel.clone();
        tokio::spawn(async move {
            let ask = means(&target);
            let pace = Pace::new(&target, seed, Instant::now());
            let hysteresis = Hysteresis::new(&target.probe, state);
            let watcher = Watcher { target, task: id, hysteresis, pace, answered: None, failed: None, failing: None };
            stop.run_until_cancelled(watcher.run(&ask, verdicts)).await;
        });
        Task { id, _running: cancel.drop_guard() }
    }

    fn record(&self, verdict: Verdict) {
        let Verdict { target, task, state, failing } = verdict;
        if self.tasks.get(&target).is_none_or(|current| current.id != task) {
            return; // from a task that was stopped
        }
        self.report.send_if_modified(|report| {
            let before = report.targets.get(&target);
            let turned = before != Some(&state);
            if turned {
                log(&target, before, &state);
            }
            let failed = failing.map(|failing| report.failing.insert(target.clone(), failing));
            report.targets.insert(target, state);
            turned || failed.is_some_and(|before| before != failing)
        });
    }
}

/// What a new target begins with: the verdict on a target of the same address and port that it replaces.
fn inherited(report: &HealthReport, wanted: &BTreeSet<ProbeTarget>, target: &ProbeTarget) -> ProbeState {
    let is_replaced = |(other, _): &(&ProbeTarget, &ProbeState)| {
        other.address == target.address && other.probe.port == target.probe.port && !wanted.contains(other)
    };
    report.targets.iter().find(is_replaced).map_or(ProbeState::Unknown, |(_, state)| state.clone())
}

/// Watches one target.
struct Watcher {
    target: ProbeTarget,
    task: u64,
    hysteresis: Hysteresis,
    pace: Pace,
    /// When the target answered last.
    answered: Option<Instant>,
    /// When it failed last.
    failed: Option<Instant>,
    failing: Option<Failing>,
}

impl Watcher {
    /// Asks for ever and hands on every new verdict, and that the target began or ceased to fail.
    async fn run(mut self, ask: &Ask, verdicts: mpsc::Sender<Verdict>) {
        loop {
            sleep_until(self.pace.next(Instant::now())).await;
            let answer = ask().await;
            debug!(address = %self.target.address, port = self.target.probe.port, ?answer, "probed");
            let is_other = self.note(&answer, Instant::now());
            if !self.hysteresis.take(answer) && !is_other {
                continue;
            }
            let (target, task, state) = (self.target.clone(), self.task, self.hysteresis.state().clone());
            if verdicts.send(Verdict { target, task, state, failing: self.failing }).await.is_err() {
                return;
            }
        }
    }

    /// Notes when an answer came; true if the target began or ceased to fail with it.
    fn note(&mut self, answer: &Answer, now: Instant) -> bool {
        match answer {
            Answer::Unknown(_) => false,
            Answer::No { .. } => {
                self.failed = Some(now);
                if self.failing.is_some_and(|failing| failing.ended.is_none()) {
                    return false;
                }
                let answered = self.answered.map(Instant::into_std);
                self.failing = Some(Failing { since: now.into_std(), answered, ended: None });
                true
            }
            Answer::Yes | Answer::WantsCredentials(_) => {
                self.answered = Some(now);
                match (&mut self.failing, self.failed) {
                    (Some(Failing { ended: ended @ None, .. }), Some(failed)) => {
                        *ended = Some(Ended { failed: failed.into_std(), answered: now.into_std() });
                        true
                    }
                    _ => false,
                }
            }
        }
    }
}

fn log(target: &ProbeTarget, before: Option<&ProbeState>, state: &ProbeState) {
    let (backend, port) = (target.address, target.probe.port);
    match (before, state) {
        (Some(ProbeState::Failed { .. }), ProbeState::Failed { reason, port_open }) => {
            debug!(%backend, port, reason, port_open, "backend still fails its probe");
        }
        (_, ProbeState::Failed { reason, port_open }) => {
            info!(%backend, port, reason, port_open, "backend fails its probe");
        }
        (_, ProbeState::Healthy) => info!(%backend, port, "backend answers its probe"),
        (Some(ProbeState::WantsCredentials { .. }), ProbeState::WantsCredentials { .. }) => {}
        (_, ProbeState::WantsCredentials { reason }) => {
            warn!(%backend, port, reason, "backend does not tell how it is, and is taken for healthy");
        }
        (_, ProbeState::Unknown) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, sync::Mutex, time::Duration};

    use tokio::{
        net::{TcpListener, TcpSocket},
        time::{advance, timeout},
    };

    use super::*;
    use crate::model::{Probe, ProbeKind};

    const INTERVAL: Duration = Duration::from_secs(2);

    fn target(last: u8, port: u16) -> ProbeTarget {
        let timeout = Duration::from_secs(1);
        let probe = Probe { kind: ProbeKind::Tcp, port, interval: INTERVAL, timeout, rise: 2, fall: 3 };
        ProbeTarget { address: IpAddr::from([127, 0, 0, last]), probe: Arc::new(probe) }
    }

    /// The same target, probed in another way.
    fn edited(target: &ProbeTarget, edit: impl FnOnce(&mut Probe)) -> ProbeTarget {
        let mut target = target.clone();
        edit(Arc::make_mut(&mut target.probe));
        target
    }

    fn failed() -> ProbeState {
        ProbeState::Failed { reason: "refused".to_owned(), port_open: false }
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
            self.0.lock().unwrap().asked.push((target.clone(), Instant::now()));
            tokio::time::sleep(Duration::from_millis(300)).await;
            let fails = self.0.lock().unwrap().failing.contains(&target.address);
            if fails { Answer::closed("refused") } else { Answer::Yes }
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
        let (targets, receiver) = watch::channel(wanted.iter().cloned().collect());
        let (cancel, asked) = (CancellationToken::new(), backends.clone());
        let means = move |target: &ProbeTarget| -> Ask {
            let (target, asked) = (target.clone(), asked.clone());
            Box::new(move || Box::pin(asked.clone().ask(target.clone())))
        };
        let report = spawn_with(receiver, cancel.clone(), Arc::new(means), Seed(7));
        Running { backends, targets, report, cancel }
    }

    impl Running {
        fn state(&self, target: &ProbeTarget) -> Option<ProbeState> {
            self.report.borrow().targets.get(target).cloned()
        }

        /// Waits until the target was asked, and has answered, this many times from the start.
        async fn answered(&self, target: &ProbeTarget, times: usize) {
            while self.backends.asked(target).len() < times {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            tokio::time::sleep(Duration::from_millis(400)).await;
        }

        /// Lets this many intervals pass.
        async fn pass(&self, intervals: u32) {
            tokio::time::sleep(INTERVAL * intervals).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn verdicts_follow_the_answers() {
        let (good, bad) = (target(1, 80), target(2, 80));
        let running = start(&[good.clone(), bad.clone()], std::slice::from_ref(&bad));
        running.answered(&good, 1).await;
        running.answered(&bad, 2).await;
        assert_eq!((running.state(&good), running.state(&bad)), (Some(ProbeState::Healthy), Some(ProbeState::Unknown)));
        running.answered(&bad, 3).await;
        assert_eq!(running.state(&bad), Some(failed()));
        running.backends.fail(&bad, false);
        running.answered(&bad, 4).await;
        assert_eq!(running.state(&bad), Some(ProbeState::Failed { reason: "refused".to_owned(), port_open: true }));
        running.answered(&bad, 5).await;
        assert_eq!(running.state(&bad), Some(ProbeState::Healthy));
    }

    #[tokio::test(start_paused = true)]
    async fn the_interval_runs_from_start_to_start() {
        let one = target(1, 80);
        let running = start(std::slice::from_ref(&one), &[]);
        running.answered(&one, 10).await;
        let asked = running.backends.asked(&one);
        for pair in asked.windows(2) {
            let gap = pair[1] - pair[0];
            // Tokio's timers have a resolution of a millisecond.
            assert!(gap >= INTERVAL * 9 / 10 && gap <= INTERVAL + Duration::from_millis(1), "{gap:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_edited_probe_keeps_the_verdict() {
        let (before, other_port) = (target(1, 80), target(1, 81));
        let running = start(std::slice::from_ref(&before), std::slice::from_ref(&before));
        running.answered(&before, 3).await;
        let after = edited(&before, |probe| probe.fall = 5);
        running.targets.send_replace(BTreeSet::from([after.clone(), other_port.clone()]));
        tokio::time::sleep(Duration::from_millis(1)).await;
        let states = [&before, &after, &other_port].map(|target| running.state(target));
        assert_eq!(states, [None, Some(failed()), Some(ProbeState::Unknown)]);
        running.backends.fail(&before, false);
        running.answered(&after, 2).await;
        assert_eq!(running.state(&after), Some(ProbeState::Healthy), "it goes on from there");
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_keeps_its_state_while_others_come_and_go() {
        let (kept, removed, added) = (target(1, 80), target(2, 80), target(3, 80));
        let running = start(&[kept.clone(), removed.clone()], std::slice::from_ref(&kept));
        running.answered(&kept, 3).await;
        assert_eq!(running.state(&kept), Some(failed()));
        running.targets.send_replace(BTreeSet::from([kept.clone(), added.clone()]));
        tokio::time::sleep(Duration::from_millis(1)).await;
        let states = [&kept, &removed, &added].map(|target| running.state(target));
        assert_eq!(states, [Some(failed()), None, Some(ProbeState::Unknown)]);
        let (before, gone) = (running.backends.asked(&kept).len(), running.backends.asked(&removed).len());
        running.answered(&kept, before + 3).await;
        assert_eq!(running.backends.asked(&kept).len(), before + 3);
        assert_eq!(running.backends.asked(&removed).len(), gone);
        assert_eq!(running.state(&added), Some(ProbeState::Healthy));
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_that_comes_back_begins_anew() {
        let one = target(1, 80);
        let running = start(std::slice::from_ref(&one), std::slice::from_ref(&one));
        running.pass(4).await;
        running.targets.send_replace(BTreeSet::new());
        running.pass(1).await;
        assert_eq!(running.state(&one), None);
        running.targets.send_replace(BTreeSet::from([one.clone()]));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(running.state(&one), Some(ProbeState::Unknown));
    }

    #[tokio::test(start_paused = true)]
    async fn only_changes_are_published() {
        let (good, bad) = (target(1, 80), target(2, 80));
        let mut running = start(&[good.clone(), bad.clone()], std::slice::from_ref(&bad));
        running.pass(4).await;
        running.report.borrow_and_update();
        running.pass(10).await;
        assert!(!running.report.has_changed().unwrap());
        running.targets.send_replace(BTreeSet::from([good, bad]));
        running.pass(1).await;
        assert!(!running.report.has_changed().unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_told_before_it_is_enough_for_a_verdict() {
        let one = target(1, 80);
        let running = start(std::slice::from_ref(&one), &[]);
        running.answered(&one, 1).await;
        assert!(running.report.borrow().failing.is_empty());
        running.backends.fail(&one, true);
        running.answered(&one, 2).await;
        let report = running.report.borrow().clone();
        let failing = report.failing[&one];
        assert_eq!(report.state(&one), ProbeState::Healthy);
        assert!(failing.answered.is_some_and(|answered| answered < failing.since), "{failing:?}");
        running.answered(&one, 3).await;
        assert_eq!(running.report.borrow().failing[&one], failing, "since the first of them");
        running.backends.fail(&one, false);
        running.answered(&one, 4).await;
        let ended = running.report.borrow().failing[&one].ended.unwrap();
        assert!(failing.since < ended.failed && ended.failed < ended.answered, "{failing:?}, {ended:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_slept_asks_once() {
        let one = target(1, 80);
        let running = start(std::slice::from_ref(&one), &[]);
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
        let mut running = start(std::slice::from_ref(&one), &[]);
        running.pass(2).await;
        running.cancel.cancel();
        while running.report.changed().await.is_ok() {}
        let before = running.backends.asked(&one).len();
        running.pass(5).await;
        assert_eq!(running.backends.asked(&one).len(), before);
    }

    #[tokio::test]
    async fn real_listeners_are_told_from_closed_ports() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap().port();
        let bound = TcpSocket::new_v4().unwrap(); // keeps the port from others, and listens to nobody
        bound.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let closed = bound.local_addr().unwrap().port();
        let quick =
            |port| edited(&target(1, port), |probe| (probe.interval, probe.fall) = (Duration::from_millis(100), 2));
        let (_targets, receiver) = watch::channel(BTreeSet::from([quick(open), quick(closed)]));
        let mut report = spawn(receiver, CancellationToken::new());
        let settled = |report: &HealthReport| {
            report.state(&quick(open)) == ProbeState::Healthy
                && report.state(&quick(closed))
                    == ProbeState::Failed { reason: "connection refused".to_owned(), port_open: false }
        };
        timeout(Duration::from_secs(60), report.wait_for(settled)).await.expect("verdicts").unwrap();
    }
}

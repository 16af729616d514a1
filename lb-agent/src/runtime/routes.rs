//! Keeps the routes to the VIPs of the API servers in NSX-T: servers that the cluster names, probes of them, and the keeper
//! of routes while this process leads.
//!
//! Whoever does not lead watches and probes as well, so that a new leader knows at once which servers answer.
//!
//! Invariant: the keeper is told that the lead is over before it is.

mod hops;

use std::{collections::BTreeSet, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use self::hops::Hops;
use crate::{
    cluster::control_plane::{self, Remembered},
    config::RouteConfig,
    controller::Lead,
    election::Timing,
    health,
    kubernetes::{client::Access, crds::VipPool},
    model::{ControlPlaneSettings, HealthReport, Judgement, ProbeTarget, Snapshot},
    nsxt::{self, Wanted},
    sources::kubernetes::{self, Scope, Settings},
};

/// Where next hops come from, as the log has it.
const SOURCE: &str = "default/kubernetes";
/// How long the end of the keeper is waited for: as long as it takes to end its sessions, and a little more.
const FAREWELL: Duration = Duration::from_secs(3);

/// How long before its end the lead is taken for over: a tenth of what a renewal has.
pub(super) fn margin(timing: Timing) -> Duration {
    timing.renew_deadline() / 10
}

/// Keeps the routes while this process leads, until `cancel`.
pub(super) fn keep(
    config: RouteConfig,
    access: &Access,
    lead: Lead,
    margin: Duration,
    cancel: &CancellationToken,
) -> watch::Receiver<nsxt::Status> {
    let RouteConfig { control_plane, nsxt } = config;
    let settings = Settings { scope: Scope::ApiServers, ..Settings::default() };
    let snapshots = kubernetes::spawn::<VipPool>(settings, access.clone(), cancel.clone()).snapshots;
    let (targets, receiver) = watch::channel(BTreeSet::new());
    let health = health::spawn(receiver, cancel.clone());
    let (wanted, receiver) = watch::channel(Wanted::default());
    let deciding = Deciding { settings: control_plane, snapshots, targets, health, wanted };
    let until = cancel.clone();
    tokio::spawn(async move { until.run_until_cancelled(deciding.run()).await });
    let (sender, leader) = watch::channel(false);
    let until = cancel.clone();
    tokio::spawn(async move { until.run_until_cancelled(follow_lead(lead, margin, sender)).await });
    nsxt::spawn(nsxt, nsxt::Timing::default(), receiver, leader, cancel.clone())
}

/// Waits until nothing is written any more.
pub(super) async fn ended(routes: Option<watch::Receiver<nsxt::Status>>) {
    let Some(mut routes) = routes else { return };
    let ended = async { while routes.changed().await.is_ok() {} };
    if timeout(FAREWELL, ended).await.is_err() {
        tracing::warn!("the keeper of NSX-T routes does not end");
    }
}

/// Says who leads, from an end that moves. Returns when nobody listens.
async fn follow_lead(mut lead: Lead, margin: Duration, leader: watch::Sender<bool>) {
    loop {
        let end = lead.borrow_and_update().and_then(|end| end.checked_sub(margin));
        let end = end.filter(|end| Instant::now() < *end);
        leader.send_if_modified(|leads| std::mem::replace(leads, end.is_some()) != end.is_some());
        tokio::select! {
            // Whoever decides it is gone: what it said last holds until its time is over.
            () = changed(&mut lead) => {}
            () = reached(end) => {}
            () = leader.closed() => return,
        }
    }
}

/// Waits for another value; for ever if there will be none.
async fn changed<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn reached(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// Decides which servers are next hops.
struct Deciding {
    settings: ControlPlaneSettings,
    snapshots: watch::Receiver<Option<Snapshot>>,
    targets: watch::Sender<BTreeSet<ProbeTarget>>,
    health: watch::Receiver<HealthReport>,
    wanted: watch::Sender<Wanted>,
}

impl Deciding {
    async fn run(mut self) {
        let (mut remembered, mut hops) = (Remembered::default(), Hops::default());
        let (mut servers, mut said) = (None, Vec::new());
        loop {
            if let Some(snapshot) = self.snapshots.borrow_and_update().clone() {
                let mut judgements = Vec::new();
                let inventory = Some(&*snapshot.inventory);
                let service = control_plane::service(&self.settings, inventory, &mut remembered, &mut judgements);
                tell(&mut said, judgements);
                servers = Some(service.backends.iter().map(|backend| backend.address).collect::<BTreeSet<_>>());
            }
            if let Some(servers) = &servers {
                self.decide(servers, &mut hops);
            }
            tokio::select! {
                () = changed(&mut self.snapshots) => {}
                () = changed(&mut self.health) => {}
            }
        }
    }

    fn decide(&mut self, servers: &BTreeSet<std::net::IpAddr>, hops: &mut Hops) {
        let target = |address| Some(ProbeTarget { address, probe: self.settings.probe.clone()? });
        let targets: BTreeSet<_> = servers.iter().filter_map(|server| target(*server)).collect();
        self.targets.send_if_modified(|before| std::mem::replace(before, targets.clone()) != targets);
        let report = self.health.borrow_and_update();
        let state = |server| target(server).map(|target| report.state(&target));
        let Some(hops) = hops.next(servers, state) else { return };
        let vips = self.settings.vips.iter().copied().collect();
        let wanted = Wanted { source: SOURCE.to_owned(), vips, hops };
        self.wanted.send_if_modified(|before| std::mem::replace(before, wanted.clone()) != wanted);
    }
}

/// Logs what is odd about the servers, once.
fn tell(said: &mut Vec<Judgement>, now: Vec<Judgement>) {
    for judgement in now.iter().filter(|judgement| !said.contains(judgement)) {
        tracing::warn!(reason = judgement.reason.as_str(), "{}", judgement.message);
    }
    *said = now;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lead is over a margin before its end, unless the end moves.
    #[tokio::test(start_paused = true)]
    async fn the_keeper_stops_before_the_lead_ends() {
        let seconds = Duration::from_secs;
        let margin = margin(Timing::default());
        assert_eq!(margin, Duration::from_millis(200));
        let (sender, lead) = watch::channel(None);
        let (leader, mut leads) = watch::channel(false);
        tokio::spawn(follow_lead(lead, margin, leader));
        assert!(timeout(seconds(9), leads.changed()).await.is_err());
        let begin = Instant::now();
        sender.send_replace(Some(begin + seconds(2)));
        leads.wait_for(|leads| *leads).await.unwrap();
        sleep_until(begin + seconds(1)).await;
        sender.send_replace(Some(begin + seconds(3)));
        leads.wait_for(|leads| !leads).await.unwrap();
        assert_eq!(begin.elapsed(), seconds(3) - margin);
        sender.send_replace(Some(begin + seconds(9)));
        leads.wait_for(|leads| *leads).await.unwrap();
        sender.send_replace(None);
        leads.wait_for(|leads| !leads).await.unwrap();
        assert_eq!(begin.elapsed(), seconds(3) - margin);
        // Nobody renews it, and nobody says so.
        sender.send_replace(Some(begin + seconds(9)));
        leads.wait_for(|leads| *leads).await.unwrap();
        drop(sender);
        leads.wait_for(|leads| !leads).await.unwrap();
        assert_eq!(begin.elapsed(), seconds(9) - margin);
    }
}

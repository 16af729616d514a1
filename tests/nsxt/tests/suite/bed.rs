//! What the tests of the client share: managers, a configuration for them, a keeper of routes under way.

use std::{fs, path::Path, time::Duration};

use lb_agent::{
    config::{NsxtConfig, parse_nsxt},
    nsxt::{Realization, Status, Timing, Wanted, spawn},
};
use nsxt_tests::{ADMIN, Server, World};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

pub const T1: &str = "/infra/tier-1s/t1";
pub const VIP: &str = "192.168.160.249";
pub const ROUTE: &str = "/infra/tier-1s/t1/static-routes/to-192.168.160.249";

/// Managers with gateway `t1`, and files for a configuration.
pub struct Bed {
    pub server: Server,
    pub dir: TempDir,
}

impl Bed {
    pub async fn new(nodes: usize) -> Self {
        let server = Server::start(nodes).await;
        server.world.add_gateway(T1, "pks-1-cluster-router", None);
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ca.pem"), server.authority.pem()).unwrap();
        let bed = Self { server, dir };
        bed.set_password(ADMIN.1);
        bed
    }

    pub fn world(&self) -> &World {
        &self.server.world
    }

    pub fn set_password(&self, password: &str) {
        fs::write(self.dir.path().join("password"), format!("{password}\n")).unwrap();
    }

    /// A configuration with these lines instead of, or beside, the usual ones. Times are those of tests.
    pub fn config(&self, lines: &[&str]) -> NsxtConfig {
        let key = |line: &str| line.split(':').next().unwrap_or_default().to_owned();
        let trust = ["caFile", "thumbprint", "insecureSkipVerify"];
        let is_trust = |line: &str| trust.contains(&key(line).as_str());
        let managers: Vec<_> = self.server.urls().iter().map(|url| format!("\"{url}\"")).collect();
        let managers = format!("managers: [{}]", managers.join(", "));
        let certificate = lines.contains(&"auth: certificate");
        let mut usual = vec!["cluster: c1", "tier1: t1", "caFile: ca.pem", "requestsPerSecond: 50", &managers];
        if !certificate {
            usual.extend(["username: admin", "passwordFile: password"]);
        }
        let replaced =
            |line: &str| lines.iter().any(|other| key(other) == key(line) || (is_trust(other) && is_trust(line)));
        let kept = usual.iter().filter(|line| !replaced(line)).chain(lines);
        let text: String = kept.map(|line| format!("  {line}\n")).collect();
        let config = parse_nsxt("test", &format!("nsxt:\n{text}"), self.dir.path());
        let mut config = config.unwrap_or_else(|errors| panic!("{errors}")).unwrap();
        config.resync = Duration::from_millis(100);
        config.timeout = Duration::from_secs(5);
        config
    }

    /// Starts to keep a route to the VIP with these hops, as the leader.
    pub fn keep(&self, config: NsxtConfig, hops: &[&str]) -> Run {
        Run::start(config, wanted(&[VIP], hops), true)
    }

    /// The next hops of the route to the VIP.
    pub fn hops(&self) -> Option<Vec<String>> {
        self.world().route(ROUTE).map(|route| hops_of(&route))
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Addresses of a route's next hops.
pub fn hops_of(route: &Value) -> Vec<String> {
    let hops = route["next_hops"].as_array().unwrap();
    hops.iter().map(|hop| hop["ip_address"].as_str().unwrap().to_owned()).collect()
}

pub fn wanted(vips: &[&str], hops: &[&str]) -> Wanted {
    Wanted {
        source: "default/kubernetes".to_owned(),
        vips: vips.iter().map(|vip| vip.parse().unwrap()).collect(),
        hops: hops.iter().map(|hop| hop.parse().unwrap()).collect(),
    }
}

/// A keeper under way. It ends with this.
pub struct Run {
    pub wanted: watch::Sender<Wanted>,
    pub leader: watch::Sender<bool>,
    pub status: watch::Receiver<Status>,
    _cancel: DropGuard,
}

impl Run {
    pub fn start(config: NsxtConfig, wanted: Wanted, leads: bool) -> Self {
        let timing = Timing {
            first_retry: Duration::from_millis(20),
            longest_retry: Duration::from_millis(100),
            poll: Duration::from_millis(20),
        };
        let (wanted, wanted_receiver) = watch::channel(wanted);
        let (leader, leader_receiver) = watch::channel(leads);
        let cancel = CancellationToken::new();
        let status = spawn(config, timing, wanted_receiver, leader_receiver, cancel.clone());
        Self { wanted, leader, status, _cancel: cancel.drop_guard() }
    }

    /// Waits until the status is so.
    pub async fn until(&mut self, what: &str, is_so: impl FnMut(&Status) -> bool) -> Status {
        let result = timeout(PATIENCE, self.status.wait_for(is_so)).await.map(|status| status.unwrap().clone());
        result.unwrap_or_else(|_| panic!("{what}: {:#?}", *self.status.borrow()))
    }

    /// Waits until the route has these next hops and is in force.
    pub async fn has(&mut self, hops: &[&str]) -> Status {
        let hops: Vec<std::net::IpAddr> = hops.iter().map(|hop| hop.parse().unwrap()).collect();
        let vip = VIP.parse().unwrap();
        self.until("the route", |status| {
            let route = status.routes.get(&vip);
            status.error.is_none()
                && route.is_some_and(|route| {
                    route.hops == hops && route.problem.is_none() && route.realization == Realization::Realized
                })
        })
        .await
    }

    /// Waits until so many more comparisons came to their end.
    pub async fn passes(&mut self, more: u64) -> Status {
        let before = self.status.borrow().passes;
        self.until("comparisons", |status| status.passes >= before + more).await
    }

    /// Waits until so many more comparisons were tried.
    pub async fn attempts(&mut self, more: u64) -> Status {
        let before = self.status.borrow().attempts;
        self.until("attempts", |status| status.attempts >= before + more).await
    }

    /// Waits for an error that holds this.
    pub async fn fails(&mut self, part: &str) -> String {
        let status = self.until(part, |status| status.error.as_ref().is_some_and(|error| error.contains(part))).await;
        status.error.unwrap()
    }

    /// Waits for a problem of the route that holds this.
    pub async fn refuses(&mut self, part: &str) -> Status {
        let vip = VIP.parse().unwrap();
        self.until(part, |status| {
            let problem = status.routes.get(&vip).and_then(|route| route.problem.as_ref());
            problem.is_some_and(|problem| problem.contains(part))
        })
        .await
    }
}

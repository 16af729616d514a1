use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Report, Settings, SharedReport,
    fake_api::{Cluster, FakeApi, Mode},
    run,
};
use crate::cluster::claim::ClassRule;

/// A controller that leads as long as it is told to.
struct Running {
    lead: watch::Sender<Option<Instant>>,
    report: SharedReport,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    fn start(api: &FakeApi) -> Self {
        let settings = Settings {
            class: ClassRule::default(),
            reserved: vec!["192.0.2.0/32".parse().unwrap()],
            identity: "n1".to_owned(),
            write_timeout: Duration::from_secs(5),
            lease_namespace: "levee-system".to_owned(),
            lease_grace: Duration::from_secs(600),
        };
        let (lead, leads) = watch::channel(forever());
        let (report, cancel) = (SharedReport::default(), CancellationToken::new());
        let task = tokio::spawn(run(api.client(), settings, leads, report.clone(), cancel.clone()));
        Self { lead, report, cancel, task }
    }

    async fn stop(self) -> Report {
        self.cancel.cancel();
        self.task.await.unwrap();
        self.report.read()
    }
}

fn forever() -> Option<Instant> {
    Some(Instant::now() + Duration::from_secs(3600))
}

fn pool(name: &str, addresses: &[&str]) -> Value {
    let metadata = json!({"name": name, "uid": format!("pool-{name}"), "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"});
    json!({"apiVersion": "levee.dev/v1alpha1", "kind": "VipPool", "metadata": metadata, "spec": {"addresses": addresses}})
}

fn service(name: &str) -> Value {
    let metadata = json!({"name": name, "namespace": "ns", "uid": format!("uid-{name}"), "creationTimestamp": "2026-01-01T00:00:00Z"});
    let spec = json!({
        "type": "LoadBalancer",
        "loadBalancerClass": "levee.dev/levee",
        "ipFamilies": ["IPv4"],
        "clusterIPs": ["10.96.0.1"],
        "ports": [{"port": 80, "protocol": "TCP"}],
    });
    json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec, "status": {"loadBalancer": {}}})
}

fn node(name: &str, ready: &str) -> Value {
    let conditions = json!([{"type": "Ready", "status": ready, "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]);
    let addresses = json!([{"type": "InternalIP", "address": "192.0.2.1"}]);
    let status = json!({"conditions": conditions, "addresses": addresses});
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {}, "status": status})
}

const ALLOCATED: &str = "levee.dev/AddressAllocated";
const HIDDEN: &str = "levee.dev/ClientAddressHidden";
const ACCEPTED: &str = "levee.dev/Accepted";

fn said(status: &str, reason: &str) -> Option<(String, String)> {
    Some((status.to_owned(), reason.to_owned()))
}

#[tokio::test]
async fn a_service_gets_its_address_with_conditions_and_an_event_and_then_there_is_rest() {
    let api = FakeApi::start(Mode::Current).await;
    api.put("nodes", node("n1", "True"));
    api.put("vippools", pool("edge", &["192.0.2.0/29"]));
    api.put("services", service("web"));
    let running = Running::start(&api);
    // .0 is reserved, .1 a node's.
    api.until("an address and an Event", |cluster| {
        cluster.addresses("ns/web") == ["192.0.2.2"] && !cluster.events.is_empty()
    })
    .await;
    api.read(|cluster| {
        assert_eq!(cluster.get("services", "ns/web")["status"]["loadBalancer"]["ingress"][0]["ipMode"], "VIP");
        assert_eq!(cluster.condition("services", "ns/web", ALLOCATED), said("True", "Allocated"));
        assert_eq!(cluster.condition("services", "ns/web", HIDDEN), said("True", "TrafficPolicyCluster"));
        assert_eq!(cluster.condition("services", "ns/web", ACCEPTED), said("True", "Accepted"));
        assert_eq!(cluster.events, [("IPAllocated".to_owned(), "the address is 192.0.2.2".to_owned())]);
    });
    let counted = |used: u64, free: u64| {
        move |cluster: &Cluster| {
            let status = &cluster.get("vippools", "edge")["status"];
            status["used"]["total"] == used && status["free"]["ipv4"] == free
        }
    };
    api.until("counts", counted(1, 5)).await;
    // Heartbeats, and whatever else does not matter, are no reason to write.
    let writes = api.read(|cluster| cluster.writes.len());
    for ready in ["False", "True"] {
        api.put("nodes", node("n1", ready));
        api.change("services", "ns/web", |service| service["metadata"]["labels"]["seen"] = json!(ready));
    }
    api.put("services", service("later"));
    api.until("the next address", |cluster| cluster.addresses("ns/later") == ["192.0.2.3"]).await;
    api.until("counts", counted(2, 4)).await;
    assert_eq!(api.read(|cluster| cluster.writes[writes..].to_vec()), ["services ns/later", "vippools edge"]);
    let report = running.stop().await;
    assert_eq!(report.writes[&("service", "applied")], 2);
}

#[tokio::test]
async fn fifty_restarts_with_random_failures_change_no_address_and_give_none_twice() {
    let api = FakeApi::start(Mode::Current).await;
    api.put("vippools", pool("edge", &["192.0.2.0/27"]));
    let names: Vec<String> = (0..10).map(|number| format!("s{number}")).collect();
    let served = |cluster: &Cluster, names: &[String]| {
        names.iter().all(|name| !cluster.addresses(&format!("ns/{name}")).is_empty())
    };
    for restart in 0..50u64 {
        // Services come while it goes on.
        let there = names.len().min(usize::try_from(restart / 4).unwrap() + 1);
        if restart % 4 == 0 && usize::try_from(restart / 4).unwrap() < names.len() {
            api.put("services", service(&names[there - 1]));
        }
        api.fail(60, restart + 1);
        // It is stopped in the middle of its work: after a few writes, whatever became of them.
        let enough = api.read(|cluster| cluster.writes.len()) + 1 + usize::try_from(restart % 3).unwrap();
        let running = Running::start(&api);
        let stop = |cluster: &Cluster| cluster.writes.len() >= enough || served(cluster, &names[..there]);
        api.until("some writes", stop).await;
        running.stop().await;
    }
    api.fail(0, 1);
    let running = Running::start(&api);
    api.until("everybody has an address", |cluster| served(cluster, &names)).await;
    running.stop().await;
    let mut first: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, addresses) in api.read(Cluster::address_history) {
        if addresses.is_empty() {
            assert!(!first.contains_key(&name), "{name} lost its address");
        } else {
            assert_eq!(*first.entry(name.clone()).or_insert_with(|| addresses.clone()), addresses, "{name}");
        }
    }
    let different: std::collections::BTreeSet<_> = first.values().collect();
    assert_eq!((first.len(), different.len()), (10, 10), "{first:?}");
}

#[tokio::test]
async fn an_old_server_gets_merge_patches_and_is_not_asked_again_for_what_it_drops() {
    let api = FakeApi::start(Mode::Old).await;
    api.put("vippools", pool("edge", &["192.0.2.8/29"]));
    api.put("services", service("a"));
    let running = Running::start(&api);
    api.until("an address", |cluster| cluster.addresses("ns/a") == ["192.0.2.8"]).await;
    let before = api.read(|cluster| cluster.writes.len());
    api.change("services", "ns/a", |service| service["metadata"]["labels"]["seen"] = json!("1"));
    api.put("services", service("b"));
    api.until("the next address", |cluster| cluster.addresses("ns/b") == ["192.0.2.9"]).await;
    let since = api.read(|cluster| cluster.writes[before..].to_vec());
    let services: Vec<_> = since.iter().filter(|write| write.starts_with("services")).collect();
    assert_eq!(services, ["services ns/b"], "one write, no apply, and nothing for what was written before");
    running.stop().await;
}

#[tokio::test]
async fn a_status_of_somebody_else_stays_and_is_reported() {
    let api = FakeApi::start(Mode::Current).await;
    api.put("vippools", pool("edge", &["192.0.2.8/29"]));
    let mut foreign = service("foreign");
    foreign["status"]["loadBalancer"]["ingress"] = json!([{"hostname": "lb.example.com"}]);
    api.put("services", foreign);
    let running = Running::start(&api);
    let told = |cluster: &Cluster| cluster.events.iter().any(|(reason, _)| reason == "AllocationFailed");
    api.until("an Event", told).await;
    api.read(|cluster| {
        let expected = said("False", "ForeignStatus");
        assert_eq!(cluster.condition("services", "ns/foreign", ALLOCATED), expected);
    });
    assert_eq!(running.stop().await.services_refused, 0, "a report is forgotten with the lead");
}

#[tokio::test]
async fn a_bad_edit_of_a_pool_is_reported_and_the_one_before_stays_in_force_across_restarts() {
    let api = FakeApi::start(Mode::Current).await;
    api.put("vippools", pool("edge", &["192.0.2.8/29"]));
    api.put("services", service("a"));
    let running = Running::start(&api);
    api.until("an address", |cluster| cluster.addresses("ns/a") == ["192.0.2.8"]).await;
    let ready = |cluster: &Cluster| cluster.condition("vippools", "edge", "Ready");
    api.until("ready", |cluster| ready(cluster) == said("True", "PoolInForce")).await;
    api.change("vippools", "edge", |pool| {
        pool["spec"]["addresses"] = json!(["nonsense"]);
        pool["metadata"]["generation"] = json!(2);
    });
    let told = |cluster: &Cluster| cluster.events.iter().any(|(reason, _)| reason == "PoolInvalid");
    api.until("an Event", |cluster| ready(cluster) == said("False", "PoolInvalid") && told(cluster)).await;
    assert!(running.report.read().pools["edge"].refused);
    running.stop().await;
    let running = Running::start(&api);
    api.put("services", service("b"));
    api.until("an address of the pool as it was", |cluster| cluster.addresses("ns/b") == ["192.0.2.9"]).await;
    assert_eq!(api.read(|cluster| cluster.addresses("ns/a")), ["192.0.2.8"]);
    running.stop().await;
}

#[tokio::test]
async fn who_does_not_lead_writes_nothing() {
    let api = FakeApi::start(Mode::Current).await;
    api.put("vippools", pool("edge", &["192.0.2.8/29"]));
    let running = Running::start(&api);
    api.put("services", service("a"));
    api.until("an address", |cluster| cluster.addresses("ns/a") == ["192.0.2.8"]).await;
    running.lead.send_replace(None);
    api.put("services", service("b"));
    // Another one leads now; when it has done the work, the first has had its chance too.
    let other = Running::start(&api);
    api.until("an address from the other", |cluster| cluster.addresses("ns/b") == ["192.0.2.9"]).await;
    other.stop().await;
    assert!(!running.stop().await.leading);
    let writes = api.read(|cluster| cluster.writes.clone());
    let services: Vec<_> = writes.iter().filter(|write| write.starts_with("services")).collect();
    assert_eq!(services, ["services ns/a", "services ns/b"], "each by the one that led");
}

#[tokio::test]
async fn what_no_node_can_serve_stands_in_a_condition_and_one_event_until_it_is_mended() {
    let api = FakeApi::start(Mode::Current).await;
    api.put("vippools", pool("edge", &["192.0.2.8/29"]));
    let mut odd = service("odd");
    odd["spec"]["loadBalancerSourceRanges"] = json!(["10.0.0.0/99"]);
    api.put("services", odd);
    let mut elsewhere = service("elsewhere");
    elsewhere["spec"]["loadBalancerClass"] = json!("example.org/other");
    elsewhere["spec"]["loadBalancerSourceRanges"] = json!(["10.0.0.0/99"]);
    api.put("services", elsewhere);
    let running = Running::start(&api);
    let warned =
        |cluster: &Cluster| cluster.events.iter().filter(|(reason, _)| reason == "SourceRangesInvalid").count();
    let accepted = |cluster: &Cluster| cluster.condition("services", "ns/odd", ACCEPTED);
    api.until("an Event", |cluster| warned(cluster) > 0).await;
    api.read(|cluster| {
        assert_eq!(accepted(cluster), said("False", "SourceRangesInvalid"));
        assert_eq!(cluster.addresses("ns/odd"), ["192.0.2.8"]);
        let written: Vec<_> = cluster.writes.iter().filter(|write| write.starts_with("services")).collect();
        assert_eq!(written, ["services ns/odd"], "one write for address and conditions");
    });
    // What does not matter, and another Service, are no reason to tell it again.
    api.change("services", "ns/odd", |service| service["metadata"]["labels"]["seen"] = json!("1"));
    api.put("services", service("web"));
    api.until("the next address", |cluster| cluster.addresses("ns/web") == ["192.0.2.9"]).await;
    assert_eq!(api.read(warned), 1);
    api.change("services", "ns/odd", |service| service["spec"]["loadBalancerSourceRanges"] = json!(["10.0.0.0/9"]));
    api.until("it is mended", |cluster| accepted(cluster) == said("True", "Accepted")).await;
    running.stop().await;
    api.read(|cluster| {
        assert_eq!((warned(cluster), cluster.addresses("ns/odd")), (1, vec!["192.0.2.8".to_owned()]));
        assert!(cluster.writes.iter().all(|write| write != "services ns/elsewhere"));
    });
}

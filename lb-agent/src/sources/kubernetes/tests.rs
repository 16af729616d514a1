use std::{
    net::{IpAddr, SocketAddr},
    time::SystemTime,
};

use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::{
    kubernetes::{
        client::{Credentials, Limits},
        fake::{BETA_SLICES, Fake, Fault, NODES, POOLS, SERVICES, SLICES, Store, Streaming, kubeconfig},
    },
    model::inventory::{Inventory, ObjectName},
};

/// Nothing here takes that long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, CustomResource, Debug, Deserialize, Serialize)]
#[kube(group = "levee.dev", version = "v1alpha1", kind = "VipPool", schema = "disabled")]
struct VipPoolSpec {
    addresses: Vec<String>,
}

impl PoolObject for VipPool {
    fn pool(&self) -> Result<ClusterPool, String> {
        let addresses = self.spec.addresses.iter().map(|text| text.parse().map_err(|error| format!("{error}")));
        let spec = crate::model::Pool {
            addresses: addresses.collect::<Result<_, _>>()?,
            namespaces: Vec::new(),
            service_selector: BTreeMap::new(),
            priority: 0,
            auto_assign: true,
            avoid_buggy_ips: false,
            allow_external_ips: false,
            announce: crate::model::pool::AnnouncePolicy::default(),
        };
        let uid = self.metadata.uid.clone().unwrap_or_default();
        Ok(ClusterPool { uid, created: 0, deleting: false, spec: Some(spec), last_good: None, is_judged: false })
    }
}

/// A source, what it watches, and its files.
struct Bench {
    source: Source,
    access: Access,
    folder: Arc<TempDir>,
    cancel: CancellationToken,
    _servers: watch::Sender<Vec<SocketAddr>>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

fn quick() -> Settings {
    let milliseconds = Duration::from_millis;
    Settings {
        first_answer: milliseconds(100),
        belief: Belief { interval: milliseconds(50), ..Belief::default() },
        retry: Retry { min: milliseconds(10), max: milliseconds(50) },
        streaming: None,
        ..Settings::default()
    }
}

fn limits() -> Limits {
    Limits { connect: Duration::from_secs(1), answer: Duration::from_secs(1), ..Limits::default() }
}

fn bench_with(fake: &Fake, settings: impl FnOnce(&mut Settings), limits: Limits) -> Bench {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let path = fake.kubeconfig(folder.path());
    bench_at(folder, Credentials::Kubeconfig(path), Vec::new(), settings, limits)
}

fn bench_at(
    folder: Arc<TempDir>,
    credentials: Credentials,
    servers: Vec<SocketAddr>,
    settings: impl FnOnce(&mut Settings),
    limits: Limits,
) -> Bench {
    let (_servers, receiver) = watch::channel(servers);
    let access = Access::new(credentials, receiver, limits);
    let cancel = CancellationToken::new();
    let mut wanted = quick();
    settings(&mut wanted);
    let source = spawn::<VipPool>(wanted, access.clone(), cancel.clone());
    Bench { source, access, folder, cancel, _servers }
}

fn bench(fake: &Fake) -> Bench {
    bench_with(fake, |_| {}, limits())
}

impl Bench {
    /// Waits for an inventory with this in it.
    async fn wait(&mut self, what: &str, is: impl Fn(&Inventory) -> bool) -> Snapshot {
        let is_there = |snapshot: &Option<Snapshot>| snapshot.as_ref().is_some_and(|snapshot| is(&snapshot.inventory));
        let found = timeout(PATIENCE, self.source.snapshots.wait_for(is_there)).await;
        let found = found.unwrap_or_else(|_| panic!("{what}: {:#?}", *self.source.status.borrow()));
        found.unwrap().clone().unwrap()
    }

    async fn live(&mut self) -> Arc<Inventory> {
        let is_live = |snapshot: &Option<Snapshot>| matches!(snapshot, Some(Snapshot { origin: Origin::Live, .. }));
        let found = timeout(PATIENCE, self.source.snapshots.wait_for(is_live)).await;
        let found = found.unwrap_or_else(|_| panic!("not live: {:#?}", *self.source.status.borrow()));
        Arc::clone(&found.unwrap().as_ref().unwrap().inventory)
    }

    async fn status(&mut self, what: &str, is: impl Fn(&SourceStatus) -> bool) -> SourceStatus {
        let found = timeout(PATIENCE, self.source.status.wait_for(|status| is(status))).await;
        found.unwrap_or_else(|_| panic!("{what}: no such status")).unwrap().clone()
    }

    fn services(&self) -> Vec<String> {
        let snapshot = self.source.snapshots.borrow();
        snapshot.as_ref().unwrap().inventory.services.keys().map(ToString::to_string).collect()
    }
}

/// Waits until something holds of a server.
async fn until(fake: &Fake, what: &str, is: impl Fn(&mut Store) -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is(&mut fake.store()) {
        assert!(Instant::now() < end, "{what}");
        sleep(Duration::from_millis(5)).await;
    }
}

fn service(address: &str) -> Value {
    json!({"spec": {"type": "LoadBalancer", "loadBalancerIP": address, "ports": [{"port": 80}]}})
}

fn slice_of(service: &str, address: &str) -> Value {
    json!({
        "metadata": {"labels": {"kubernetes.io/service-name": service}}, "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "nodeName": "n1"}], "ports": [{"port": 8080}]
    })
}

/// A server with one object of each kind, and `default/kubernetes`.
fn furnished() -> Fake {
    let fake = Fake::complete();
    furnish(&mut fake.store());
    fake
}

fn furnish(store: &mut Store) {
    store.put(NODES, "n1", json!({"status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}}));
    store.put(SERVICES, "default/kubernetes", json!({"spec": {"type": "ClusterIP", "clusterIP": "10.96.0.1"}}));
    store.put(SERVICES, "shop/web", service("192.0.2.1"));
    store.put(SLICES, "shop/web-1", slice_of("web", "10.1.0.5"));
    store.put(POOLS, "main", json!({"spec": {"addresses": ["192.0.2.0/28"]}}));
}

fn has_service(name: &str) -> impl Fn(&Inventory) -> bool {
    let (namespace, name) = name.split_once('/').unwrap();
    let name = ObjectName::new(namespace, name);
    move |inventory| inventory.services.contains_key(&name)
}

#[tokio::test]
async fn lists_and_then_changes_become_inventories() {
    let fake = furnished();
    let mut bench = bench(&fake);
    let inventory = bench.live().await;
    assert_eq!(bench.services(), ["default/kubernetes", "shop/web"]);
    let web = ObjectName::new("shop", "web");
    assert_eq!(inventory.nodes["n1"].internal, [IpAddr::from([10, 0, 0, 1])]);
    assert_eq!(inventory.slices[&web][0].endpoints[0].addresses, [IpAddr::from([10, 1, 0, 5])]);
    assert_eq!(inventory.pools["main"].spec.as_ref().unwrap().addresses, ["192.0.2.0/28".parse().unwrap()]);
    fake.store().put(SERVICES, "shop/api", service("192.0.2.2"));
    bench.wait("an object that was added", has_service("shop/api")).await;
    fake.store().put(SLICES, "shop/web-1", slice_of("web", "10.1.0.6"));
    bench.wait("a change", |i| i.slices[&web][0].endpoints[0].addresses == [IpAddr::from([10, 1, 0, 6])]).await;
    for name in ["shop/api", "shop/web", "default/kubernetes"] {
        fake.store().delete(SERVICES, name);
    }
    bench.wait("the last deletion, told by the watch", |inventory| inventory.services.is_empty()).await;
    let status = bench.source.status.borrow().clone();
    assert_eq!((status.server, status.error), (Some(fake.address.to_string()), None));
    assert_eq!(inventory.services.len(), 2, "what was published stays as it was");
}

#[tokio::test]
async fn long_lists_come_in_pages() {
    let fake = furnished();
    for number in 0..1_100 {
        fake.store().put(SERVICES, &format!("many/{number}"), service("192.0.2.9"));
    }
    let mut bench = bench(&fake);
    assert_eq!(bench.live().await.services.len(), 1_102);
    assert_eq!(fake.store().count(SERVICES, "continue="), 2);
}

#[tokio::test]
async fn streaming_lists_are_used_where_they_work() {
    for (streaming, works) in
        [(Streaming::Works, true), (Streaming::Refused, false), (Streaming::Error, false), (Streaming::Ignored, false)]
    {
        let fake = furnished();
        fake.store().streaming = streaming;
        let mut bench = bench_with(&fake, |settings| settings.streaming = Some(Duration::from_millis(200)), limits());
        assert_eq!(bench.live().await.services.len(), 2, "{streaming:?}");
        let status = bench.status("live", |status| status.origin == Some(Origin::Live)).await;
        assert_eq!(status.kinds[&Kind::Services].is_streaming, works, "{streaming:?}");
        assert_eq!(fake.store().count(SERVICES, "limit=500") == 0, works, "{streaming:?}: lists by pages");
        fake.store().put(SERVICES, "shop/api", service("192.0.2.2"));
        bench.wait("what follows the list", has_service("shop/api")).await;
    }
}

#[tokio::test]
async fn a_watch_that_ends_is_resumed_where_it_was_and_not_in_a_hurry() {
    let fake = furnished();
    let mut bench = bench(&fake);
    bench.live().await;
    until(&fake, "a watch", |store| store.watches(SERVICES) == 1).await;
    let lists = fake.store().count(SERVICES, "limit=500");
    for _ in 0..2 {
        {
            let mut store = fake.store();
            store.end_watches(SERVICES);
            let name = format!("shop/{}", store.version);
            store.put(SERVICES, &name, service("192.0.2.2")); // while nobody watches
        }
        until(&fake, "the next watch", |store| store.watches(SERVICES) == 1).await;
    }
    bench.wait("what came in between", |inventory| inventory.services.len() == 4).await;
    assert_eq!(fake.store().count(SERVICES, "limit=500"), lists, "no new list");
    let store = fake.store();
    let begins: Vec<_> = store.asked.iter().filter(|a| a.path == SERVICES && a.query.contains("watch=true")).collect();
    // Half a second apart where they are sent; on a busy machine some of it is lost on the way.
    for pair in begins.windows(2) {
        let gap = pair[1].at - pair[0].at;
        assert!(gap >= Duration::from_millis(250), "a server that ends watches at once was asked again after {gap:?}");
    }
}

#[tokio::test]
async fn a_history_that_ended_leads_to_a_new_list() {
    let fake = furnished();
    let mut bench = bench(&fake);
    bench.live().await;
    until(&fake, "a watch", |store| store.watches(SERVICES) == 1).await;
    {
        let mut store = fake.store();
        store.end_watches(SERVICES);
        store.put(SERVICES, "shop/api", service("192.0.2.2"));
        store.oldest = store.version; // the watch that follows is told 410
    }
    bench.wait("what came in between", has_service("shop/api")).await;
    assert_eq!(fake.store().count(SERVICES, "limit=500"), 2);
}

#[tokio::test]
async fn a_history_that_went_back_leads_to_a_new_list() {
    let fake = furnished();
    fake.store().version = 1_000;
    fake.store().put(SERVICES, "shop/api", service("192.0.2.2"));
    let mut bench = bench(&fake);
    bench.live().await;
    until(&fake, "a watch", |store| store.watches(SERVICES) == 1).await;
    let (address, store) = fake.kill();
    {
        let mut store = store.lock().unwrap();
        store.go_back(500);
        store.put(SERVICES, "shop/restored", service("192.0.2.3"));
        store.objects.get_mut(SERVICES).unwrap().remove("shop/api");
    }
    let _fake = Fake::on(address, store);
    bench.wait("the restored state", has_service("shop/restored")).await;
    assert_eq!(bench.services(), ["default/kubernetes", "shop/restored", "shop/web"]);
}

#[tokio::test]
async fn failures_leave_the_last_state_and_end() {
    let faults = [Fault::Garbage, Fault::Status(500, None), Fault::Status(403, None), Fault::Hang];
    for fault in faults {
        let fake = furnished();
        let short = Limits { answer: Duration::from_millis(100), ..limits() };
        let mut bench = bench_with(&fake, |_| {}, short);
        bench.live().await;
        until(&fake, "a watch", |store| store.watches(SERVICES) == 1).await;
        {
            let mut store = fake.store();
            store.fault = Some(fault);
            store.end_watches(SERVICES);
            store.put(SERVICES, "shop/api", service("192.0.2.2"));
        }
        let status = bench.status("a failure", |status| status.kinds[&Kind::Services].failures >= 2).await;
        assert!(status.kinds[&Kind::Services].error.is_some() && status.origin == Some(Origin::Live), "{status:?}");
        assert_eq!(bench.services(), ["default/kubernetes", "shop/web"], "{fault:?}");
        fake.store().fault = None;
        bench.wait("what came in between", has_service("shop/api")).await;
        bench.status("all is well", |status| status.kinds[&Kind::Services].error.is_none()).await;
    }
}

#[tokio::test]
async fn an_event_that_cannot_be_read_leads_to_a_new_list() {
    let lines = ["{\"type\":\"ADDED\",\"object\":7}", "nonsense", "{\"type\":\"ADDED\",\"object\":{\"metadata\":{}}}"];
    for line in lines {
        let fake = furnished();
        let mut bench = bench(&fake);
        bench.live().await;
        until(&fake, "a watch", |store| store.watches(SERVICES) == 1).await;
        {
            let mut store = fake.store();
            store.send(SERVICES, line);
            // What the garbage was about: nobody will tell of it again.
            let mut object = service("192.0.2.2");
            object["metadata"] = json!({"name": "lost", "namespace": "shop", "resourceVersion": "102"});
            store.objects.get_mut(SERVICES).unwrap().insert("shop/lost".to_owned(), object);
        }
        bench.wait(line, has_service("shop/lost")).await;
    }
}

#[tokio::test]
async fn a_server_that_hangs_in_the_middle_of_a_watch_is_left() {
    let fake = furnished();
    let short = Limits { watch_idle: Duration::from_millis(300), ..limits() };
    let mut bench = bench_with(&fake, |_| {}, short);
    bench.live().await;
    until(&fake, "a watch", |store| store.watches(SERVICES) == 1).await;
    let watches = fake.store().count(SERVICES, "watch=true");
    until(&fake, "another watch, since nothing came", |store| store.count(SERVICES, "watch=true") > watches).await;
    bench.status("the failure", |status| status.kinds[&Kind::Services].failures > 0).await;
    assert_eq!(fake.store().count(SERVICES, "limit=500"), 1, "resumed, not listed");
}

#[tokio::test]
async fn when_a_server_dies_the_next_one_is_asked() {
    let (own, other) = (furnished(), furnished());
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let last = kubeconfig(folder.path(), "http://127.0.0.1:1", "{}", "{}");
    let servers = vec![own.address, other.address];
    let mut bench = bench_at(folder, Credentials::Kubeconfig(last), servers, |_| {}, limits());
    bench.live().await;
    assert_eq!(bench.access.state().server, Some(own.address.to_string()));
    assert_eq!(other.store().asked.len(), 0, "the own server comes first");
    other.store().version = own.store().version; // as if they shared a data store
    other.store().put(SERVICES, "shop/api", service("192.0.2.2"));
    own.kill();
    bench.wait("what the other server tells", has_service("shop/api")).await;
    assert_eq!(bench.access.state().server, Some(other.address.to_string()));
}

#[tokio::test]
async fn a_server_that_asks_for_patience_gets_it() {
    let fake = furnished();
    (fake.store().fault, fake.store().fault_for) = (Some(Fault::Status(429, Some(1))), SERVICES.to_owned());
    let mut bench = bench(&fake);
    until(&fake, "the first request", |store| store.count(SERVICES, "") == 1).await;
    fake.store().fault = None;
    bench.live().await;
    let store = fake.store();
    let asked: Vec<_> = store.asked.iter().filter(|asked| asked.path == SERVICES).collect();
    let wait = asked[1].at - asked[0].at;
    assert!(wait >= Duration::from_millis(990), "asked again after {wait:?}");
}

#[tokio::test]
async fn an_api_that_comes_back_empty_is_believed_only_when_it_insists() {
    let fake = furnished();
    let mut bench = bench_with(&fake, |settings| settings.belief.interval = Duration::from_millis(300), limits());
    bench.live().await;
    until(&fake, "a watch", |store| store.watches(SERVICES) == 1).await;
    let (address, _) = fake.kill();
    let fresh = Fake::complete(); // a fresh data store: the server makes its own Service, and versions begin anew
    fresh.store().version = 1;
    fresh.store().put(SERVICES, "default/kubernetes", json!({"spec": {"clusterIP": "10.96.0.1"}}));
    let (_, store) = fresh.kill();
    let fresh = Fake::on(address, store);
    let begin = Instant::now();
    let status = bench.status("a doubt", |status| status.kinds[&Kind::Services].doubted.is_some()).await;
    let doubted = status.kinds[&Kind::Services].doubted.unwrap();
    assert_eq!((doubted.listed, doubted.held, doubted.needed), (0, 1, 3));
    assert_eq!(bench.services(), ["default/kubernetes", "shop/web"]);
    bench.wait("belief", |inventory| inventory.services.len() == 1 && inventory.slices.is_empty()).await;
    assert!(begin.elapsed() >= Duration::from_millis(590), "two intervals: {:?}", begin.elapsed());
    assert!(fresh.store().count(SERVICES, "limit=500") >= 3);
}

#[tokio::test]
async fn what_is_restored_during_a_doubt_ends_it() {
    let fake = furnished();
    let mut bench = bench_with(&fake, |settings| settings.belief.interval = PATIENCE * 2, limits());
    bench.live().await;
    until(&fake, "a watch", |store| store.watches(SERVICES) == 1).await;
    let (address, _) = fake.kill();
    let (_, store) = Fake::complete().kill();
    store.lock().unwrap().version = 1;
    let fake = Fake::on(address, store);
    bench.status("a doubt", |status| status.kinds.values().all(|kind| kind.doubted.is_some())).await;
    furnish(&mut fake.store());
    fake.store().put(SERVICES, "shop/new", service("192.0.2.7"));
    bench.wait("all that is there", has_service("shop/new")).await;
    bench.status("no doubt", |status| status.kinds.values().all(|kind| kind.doubted.is_none())).await;
}

#[tokio::test]
async fn the_saved_inventory_is_in_force_until_a_server_answers() {
    let fake = furnished();
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let credentials = Credentials::Kubeconfig(fake.kubeconfig(folder.path()));
    let file = folder.path().join("inventory.json");
    let keep = |settings: &mut Settings| settings.saved = Some(file.clone());
    let mut before = bench_at(Arc::clone(&folder), credentials.clone(), Vec::new(), keep, limits());
    let known = before.live().await;
    before.status("saved", |status| status.saved.as_ref().is_some_and(|saved| saved.writes == 1)).await;
    drop(before);
    let hour = Duration::from_secs(3600);
    std::fs::File::options().write(true).open(&file).unwrap().set_modified(SystemTime::now() - hour).unwrap();
    let (address, store) = fake.kill();
    let mut after = bench_at(Arc::clone(&folder), credentials, Vec::new(), keep, limits());
    let saved = after.wait("the saved inventory", |_| true).await;
    assert_eq!(saved.inventory, known);
    let Origin::Saved { age } = saved.origin else { panic!("{:?}", saved.origin) };
    assert!(age >= hour && age < hour + PATIENCE, "{age:?}");
    assert!(after.source.status.borrow().error.as_ref().is_some_and(|error| error.contains(&address.to_string())));
    let _fake = Fake::on(address, store);
    assert_eq!(after.live().await, known);
    assert_eq!(after.folder.path(), folder.path());
}

#[tokio::test]
async fn a_saved_inventory_that_cannot_be_used_is_told_of_and_replaced() {
    let fake = furnished();
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let credentials = Credentials::Kubeconfig(fake.kubeconfig(folder.path()));
    let file = folder.path().join("inventory.json");
    std::fs::write(&file, "{\"format\":\"levee-inventory\",\"version\":99}\n{}").unwrap();
    let keep = |settings: &mut Settings| settings.saved = Some(file.clone());
    let mut bench = bench_at(folder, credentials, Vec::new(), keep, limits());
    bench
        .status("the reason", |status| {
            let error = status.saved.as_ref().and_then(|saved| saved.error.clone());
            error.is_some_and(|error| error.contains("version 99"))
        })
        .await;
    bench.status("replaced", |status| status.saved.as_ref().is_some_and(|saved| saved.writes == 1)).await;
    assert_eq!(*saved::read(&file).unwrap().unwrap().inventory, *bench.live().await);
}

#[tokio::test]
async fn kinds_that_a_server_does_not_have_are_empty_and_old_slices_will_do() {
    let fake = Fake::new(&[NODES, SERVICES, BETA_SLICES]);
    fake.store().put(BETA_SLICES, "shop/web-1", slice_of("web", "10.1.0.5"));
    let mut bench = bench(&fake);
    let inventory = bench.live().await;
    assert_eq!(inventory.slices[&ObjectName::new("shop", "web")].len(), 1);
    assert!(inventory.pools.is_empty());
}

#[tokio::test]
async fn what_is_no_api_server_is_not_believed() {
    let fake = Fake::new(&[SERVICES, SLICES, POOLS]); // 404 for nodes
    let mut bench = bench(&fake);
    let status = bench.status("the reason", |status| status.kinds.get(&Kind::Nodes).is_some_and(|k| k.error.is_some()));
    let error = status.await.kinds[&Kind::Nodes].error.clone().unwrap();
    assert!(error.contains("is it an API server?"), "{error}");
    bench.status("the others", |status| status.kinds.values().filter(|kind| kind.is_complete).count() == 3).await;
    assert!(bench.source.snapshots.borrow().is_none());
}

#[tokio::test]
async fn a_pool_that_is_spoilt_stays_as_it_was() {
    let fake = furnished();
    let mut bench = bench(&fake);
    let before = bench.live().await;
    fake.store().put(POOLS, "main", json!({"spec": {"addresses": ["192.0.2.9-192.0.2.1"]}}));
    let status = bench.status("the reason", |status| !status.kinds[&Kind::Pools].unreadable.is_empty()).await;
    assert!(status.kinds[&Kind::Pools].unreadable["/main"].contains("ends before it begins"), "{status:?}");
    assert_eq!(bench.live().await.pools, before.pools);
}

#[tokio::test]
async fn changes_that_come_together_are_published_together() {
    let fake = furnished();
    let mut bench = bench(&fake);
    bench.live().await;
    until(&fake, "a watch", |store| store.watches(SERVICES) == 1).await;
    let before = bench.source.status.borrow().publications;
    {
        let mut store = fake.store();
        for number in 0..1_000 {
            store.put(SERVICES, &format!("many/{number}"), service("192.0.2.9"));
        }
    }
    bench.wait("all", |inventory| inventory.services.len() == 1_002).await;
    let status = bench.status("the last", |status| status.kinds[&Kind::Services].objects == 1_002).await;
    let publications = status.publications - before;
    assert!(publications <= 200, "{publications} publications of 1,000 changes");
}

//! The fault switches of the stand-in, each seen by a client.

#![expect(clippy::unwrap_used, reason = "a failing step is a failing test")]

use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Node, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Error, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
    runtime::watcher,
};
use kube_tests::{
    access::Keys,
    place::Place,
    stub::{
        Settings, Stub,
        faults::{Fault, Only, Verb},
    },
};
use netns_tests::{netns::Netns, netns::NetnsRuntime, scope::Scope, wait};
use serde_json::{Value, json};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);
/// A time in which an answer that does come would have come.
const SHORT: Duration = Duration::from_millis(500);

struct Bed {
    stub: Stub,
    keys: Keys,
    scope: Scope,
}

impl Bed {
    fn new(settings: Settings) -> Self {
        let scope = Scope::new().unwrap();
        let keys = Keys::new(&scope).unwrap();
        let stub = Stub::start(&scope, &keys, &Place::loopback(), settings).unwrap();
        Self { stub, keys, scope }
    }

    async fn client(&self) -> Client {
        self.stub.access().client(&self.keys.admin).await.unwrap()
    }
}

fn service(name: &str) -> Value {
    json!({ "metadata": { "name": name }, "spec": { "ports": [{ "port": 80 }] } })
}

fn lease(holder: &str) -> Lease {
    serde_json::from_value(json!({ "metadata": { "name": "l" }, "spec": { "holderIdentity": holder } })).unwrap()
}

fn code(error: &Error) -> u16 {
    if let Error::Api(status) = error { status.code } else { 0 }
}

#[tokio::test]
async fn failures_are_told_to_whom_they_are_meant_for() {
    let bed = Bed::new(Settings::default());
    let client = bed.client().await;
    let (nodes, services): (Api<Node>, Api<Service>) = (Api::all(client.clone()), Api::all(client.clone()));
    let list = ListParams::default();
    for (fault, expected) in
        [(Fault::too_many_requests(7), 429), (Fault::internal_error(), 500), (Fault::forbidden(), 403)]
    {
        let on = bed.stub.fault(Only::verbs(&[Verb::List]).of("nodes"), fault);
        assert_eq!(code(&nodes.list(&list).await.unwrap_err()), expected);
        services.list(&list).await.unwrap();
        bed.stub.heal(on);
        nodes.list(&list).await.unwrap();
    }
    bed.stub.fault(Only::default().times(1), Fault::too_many_requests(7));
    let request = hyper::Request::get("/api/v1/nodes").body(kube::client::Body::empty()).unwrap();
    let answer = client.send(request).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].as_bytes()), (429, b"7".as_slice()));
    bed.stub.fault(Only::default().times(1), Fault::Garbage);
    assert!(matches!(nodes.list(&list).await.unwrap_err(), Error::SerdeError(_)));
    nodes.list(&list).await.unwrap();
}

#[tokio::test]
async fn a_refusing_stand_in_takes_no_connection_and_closes_what_is_open() {
    let bed = Bed::new(Settings::default());
    let nodes: Api<Node> = Api::all(bed.client().await);
    let mut events = nodes.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    bed.stub.refuse().await.unwrap();
    assert_eq!(bed.stub.connections(), 0);
    let rest = timeout(PATIENCE, async { while let Some(Ok(_)) = events.next().await {} }).await;
    assert!(rest.is_ok(), "the watch goes on");
    let refused = std::net::TcpStream::connect(bed.stub.access().address).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    assert!(nodes.list(&ListParams::default()).await.is_err());
    bed.stub.accept().await.unwrap();
    nodes.list(&ListParams::default()).await.unwrap();
    assert!(bed.stub.connections() > 0);
    bed.stub.disconnect().await.unwrap();
    assert_eq!(bed.stub.connections(), 0);
    nodes.list(&ListParams::default()).await.unwrap();
}

#[tokio::test]
async fn what_hangs_answers_when_it_is_let_go() {
    let bed = Bed::new(Settings::default());
    let client = bed.client().await;
    let services: Api<Service> = Api::all(client.clone());
    let mut events = services.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    let hang = bed.stub.fault(Only::default().of("services"), Fault::Hang);
    bed.stub.put("/api/v1/namespaces/n/services/a", service("a")).unwrap();
    let listing = tokio::spawn({
        let services = services.clone();
        async move { services.list(&ListParams::default()).await }
    });
    assert!(timeout(SHORT, events.next()).await.is_err(), "an event came");
    assert!(!listing.is_finished(), "the list came");
    Api::<Node>::all(client).list(&ListParams::default()).await.unwrap();
    bed.stub.heal(hang);
    let event = timeout(PATIENCE, events.next()).await.unwrap().unwrap().unwrap();
    assert!(matches!(event, WatchEvent::Added(_)), "{event:?}");
    assert_eq!(timeout(PATIENCE, listing).await.unwrap().unwrap().unwrap().items.len(), 1);
}

#[tokio::test]
async fn a_forgotten_version_is_told_as_an_answer_and_as_an_event() {
    let bed = Bed::new(Settings::default());
    let services: Api<Service> = Api::all(bed.client().await);
    let watch = |version: String| {
        let services = services.clone();
        async move {
            let mut events = services.watch(&WatchParams::default(), &version).await?.boxed();
            timeout(PATIENCE, events.next()).await.unwrap().unwrap()
        }
    };
    let told = |event: kube::Result<WatchEvent<Service>>| match event {
        Ok(WatchEvent::Error(status)) => (200, status.code),
        Ok(other) => panic!("{other:?}"),
        Err(error) => (code(&error), code(&error)),
    };
    bed.stub.put("/api/v1/namespaces/n/services/a", service("a")).unwrap();
    let version = bed.stub.version().to_string();
    bed.stub.fault(Only::verbs(&[Verb::Watch]).times(1), Fault::Gone);
    assert_eq!(told(watch(version.clone()).await), (410, 410));
    bed.stub.fault(Only::verbs(&[Verb::Watch]).times(1), Fault::GoneEvent);
    assert_eq!(told(watch(version.clone()).await), (200, 410));

    let mut open = services.watch(&WatchParams::default(), &version).await.unwrap().boxed();
    bed.stub.compact();
    assert_eq!(told(watch(version).await), (410, 410));
    assert_eq!(told(timeout(PATIENCE, open.next()).await.unwrap().unwrap()), (200, 410));
    assert!(timeout(PATIENCE, open.next()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_lost_write_is_performed_and_a_reset_one_is_not() {
    let bed = Bed::new(Settings::default());
    let leases: Api<Lease> = Api::namespaced(bed.client().await, "n");
    bed.stub.fault(Only::writes().of("leases").times(1), Fault::LostWrite);
    let lost = leases.create(&PostParams::default(), &lease("a")).await.unwrap_err();
    assert_eq!(code(&lost), 0, "{lost}");
    assert_eq!(leases.get("l").await.unwrap().spec.unwrap().holder_identity.as_deref(), Some("a"));
    bed.stub.fault(Only::writes().of("leases").times(1), Fault::Reset);
    let patch = json!({ "spec": { "holderIdentity": "b" } });
    let patch = Patch::Merge(&patch);
    assert!(leases.patch("l", &PatchParams::default(), &patch).await.is_err());
    assert_eq!(leases.get("l").await.unwrap().spec.unwrap().holder_identity.as_deref(), Some("a"));
}

#[tokio::test]
async fn a_late_write_is_performed_late() {
    let bed = Bed::new(Settings::default());
    let leases: Api<Lease> = Api::namespaced(bed.client().await, "n");
    bed.stub.fault(Only::writes().of("leases"), Fault::Late(SHORT));
    let start = Instant::now();
    leases.create(&PostParams::default(), &lease("a")).await.unwrap();
    assert!(start.elapsed() >= SHORT);
    let start = Instant::now();
    leases.get("l").await.unwrap();
    assert!(start.elapsed() < PATIENCE);
    // Late even for a client that has given up.
    bed.stub.heal_all();
    bed.stub.fault(Only::writes().of("leases"), Fault::Late(SHORT * 6));
    let patch = json!({ "spec": { "holderIdentity": "b" } });
    let write = |patch: Value| {
        let leases = leases.clone();
        async move { leases.patch("l", &PatchParams::default(), &Patch::Merge(&patch)).await }
    };
    assert!(timeout(SHORT, write(patch)).await.is_err());
    let look = || async {
        let holder = leases.get("l").await.unwrap().spec.unwrap().holder_identity;
        anyhow::ensure!(holder.as_deref() == Some("b"), "{holder:?}");
        Ok(())
    };
    wait::until("the late write", PATIENCE, look).await.unwrap();
    bed.stub.heal_all();
    // Slowly: the object's bytes, one by one.
    bed.stub.fault(Only::verbs(&[Verb::Get]), Fault::Slow(50, Duration::from_millis(50)));
    let start = Instant::now();
    leases.get("l").await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(200), "{:?}", start.elapsed());
}

#[tokio::test]
async fn an_empty_list_and_a_new_etcd_are_complete_lists_of_nothing() {
    let bed = Bed::new(Settings::default());
    let services: Api<Service> = Api::all(bed.client().await);
    for name in ["a", "b", "c"] {
        bed.stub.put(&format!("/api/v1/namespaces/n/services/{name}"), service(name)).unwrap();
    }
    let on = bed.stub.fault(Only::verbs(&[Verb::List]), Fault::EmptyLists);
    let empty = services.list(&ListParams::default()).await.unwrap();
    assert_eq!((empty.items.len(), empty.metadata.continue_), (0, None));
    bed.stub.heal(on);
    let page = services.list(&ListParams::default().limit(2)).await.unwrap();
    let next = ListParams::default().limit(2).continue_token(&page.metadata.continue_.unwrap());
    let rest = services.list(&next).await.unwrap();
    let names: Vec<_> = page.items.iter().chain(&rest.items).map(ResourceExt::name_any).collect();
    assert_eq!((names.join(","), rest.metadata.continue_), ("a,b,c".to_owned(), None));

    let version = bed.stub.version();
    let mut events = services.watch(&WatchParams::default(), &version.to_string()).await.unwrap().boxed();
    bed.stub.wipe();
    assert!(timeout(PATIENCE, events.next()).await.unwrap().is_none(), "the watch goes on");
    let empty = services.list(&ListParams::default()).await.unwrap();
    assert_eq!((empty.items.len(), bed.stub.version() < version), (0, true));
}

#[tokio::test]
async fn bookmarks_and_lists_in_streams_come_as_they_are_asked_for() {
    let bed = Bed::new(Settings { bookmark_every: Duration::from_hours(1), streaming_lists: true });
    let services: Api<Service> = Api::all(bed.client().await);
    for name in ["a", "b"] {
        bed.stub.put(&format!("/api/v1/namespaces/n/services/{name}"), service(name)).unwrap();
    }
    let mut events = watcher(services.clone(), watcher::Config::default().streaming_lists()).boxed();
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(match timeout(PATIENCE, events.next()).await.unwrap().unwrap().unwrap() {
            watcher::Event::Init => "init".to_owned(),
            watcher::Event::InitApply(object) => object.name_any(),
            watcher::Event::InitDone => "done".to_owned(),
            other => format!("{other:?}"),
        });
    }
    assert_eq!(seen, ["init", "a", "b", "done"]);
    assert!(bed.stub.requests().iter().all(|request| request.verb != Verb::List), "a list was asked for");

    let mut events = services.watch(&WatchParams::default(), &bed.stub.version().to_string()).await.unwrap().boxed();
    bed.stub.put("/apis/coordination.k8s.io/v1/namespaces/n/leases/l", json!({})).unwrap();
    bed.stub.bookmark();
    match timeout(PATIENCE, events.next()).await.unwrap().unwrap().unwrap() {
        WatchEvent::Bookmark(bookmark) => {
            assert_eq!(bookmark.metadata.resource_version, bed.stub.version().to_string());
        }
        other => panic!("{other:?}"),
    }

    let old = Bed::new(Settings { streaming_lists: false, ..Settings::default() });
    let services: Api<Service> = Api::all(old.client().await);
    let refused = services.watch(&WatchParams::default().initial_events(), "0").await.map(drop).unwrap_err();
    assert_eq!(code(&refused), 422);
}

#[tokio::test]
async fn requests_are_recorded_with_user_and_bytes() {
    let bed = Bed::new(Settings::default());
    let agent = bed.keys.user(&bed.scope, "agent", "agents").unwrap();
    bed.stub.know("agent", &agent).unwrap();
    let leases: Api<Lease> = Api::namespaced(bed.stub.access().client(&agent).await.unwrap(), "n");
    leases.create(&PostParams::default(), &lease("a")).await.unwrap();
    assert!(leases.get("none").await.is_err());
    let told: Vec<_> = bed
        .stub
        .requests()
        .iter()
        .map(|it| (it.verb, it.resource.clone(), it.user.clone(), it.received > 0, it.answered(), it.bytes_sent() > 0))
        .collect();
    let expected = |verb, body, code| (verb, "leases".to_owned(), "agent".to_owned(), body, Some(code), true);
    assert_eq!(told, [expected(Verb::Create, true, 201), expected(Verb::Get, false, 404)]);
    bed.stub.forget_requests();
    assert!(bed.stub.requests().is_empty());
}

#[tokio::test]
async fn a_stand_in_listens_in_its_namespace_only() {
    let scope = Scope::new().unwrap();
    let keys = Keys::new(&scope).unwrap();
    let netns = Netns::create(&scope, "stub").unwrap();
    let place = Place::inside(&netns, "127.0.0.1".parse().unwrap());
    let stub = Stub::start(&scope, &keys, &place, Settings::default()).unwrap();
    let runtime = NetnsRuntime::start(&netns).unwrap();
    let (access, admin) = (stub.access().clone(), keys.admin.clone());
    let asked = runtime.spawn(async move {
        let nodes: Api<Node> = Api::all(access.client(&admin).await.unwrap());
        nodes.list(&ListParams::default()).await.map(|list| list.items.len())
    });
    assert_eq!(asked.await.unwrap().unwrap(), 0);
    assert!(std::net::TcpStream::connect(stub.access().address).is_err());
}

#[tokio::test]
async fn ten_thousand_services_are_listed_and_watched() {
    let bed = Bed::new(Settings::default());
    let endpoints: Vec<_> =
        (0..10).map(|n| json!({ "addresses": [format!("10.1.{n}.1")], "conditions": { "ready": true } })).collect();
    for n in 0..10_000 {
        let name = format!("s{n:05}");
        bed.stub.put(&format!("/api/v1/namespaces/n/services/{name}"), service(&name)).unwrap();
        let slice = json!({
            "metadata": { "labels": { "kubernetes.io/service-name": name } }, "addressType": "IPv4", "endpoints": endpoints,
        });
        bed.stub.put(&format!("/apis/discovery.k8s.io/v1/namespaces/n/endpointslices/{name}"), slice).unwrap();
    }
    let client = bed.client().await;
    let slices: Api<EndpointSlice> = Api::all(client);
    let mut events = watcher(slices, watcher::Config::default()).boxed();
    let mut count = 0;
    loop {
        match timeout(PATIENCE, events.next()).await.unwrap().unwrap().unwrap() {
            watcher::Event::InitApply(slice) => count += slice.endpoints.len(),
            watcher::Event::InitDone => break,
            _ => {}
        }
    }
    assert_eq!(count, 100_000);
    // The watch begins after the list.
    let began = || async {
        anyhow::ensure!(bed.stub.requests().iter().any(|it| it.verb == Verb::Watch), "no watch yet");
        Ok(())
    };
    let (began, changed) = tokio::join!(wait::until("the watch", PATIENCE, began), async {
        bed.stub
            .put("/apis/discovery.k8s.io/v1/namespaces/n/endpointslices/s00007", json!({ "endpoints": [] }))
            .unwrap();
        timeout(PATIENCE, events.next()).await.unwrap().unwrap().unwrap()
    });
    began.unwrap();
    assert!(matches!(&changed, watcher::Event::Apply(slice) if slice.name_any() == "s00007"), "{changed:?}");
}

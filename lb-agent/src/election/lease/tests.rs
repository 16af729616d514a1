use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use k8s_openapi::api::coordination::v1::LeaseSpec;
use serde_json::{Value, json};

use super::*;

/// How the stand-in treats requests for the Lease.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Fault {
    #[default]
    None,
    /// Answers 500.
    Error,
    /// Does not answer.
    Hang,
    /// Writes, and does not answer.
    HangBehind,
}

/// An API server that knows one Lease.
#[derive(Default)]
struct Server {
    lease: Option<Lease>,
    version: u64,
    fault: Fault,
    requests: Vec<String>,
    events: Vec<Value>,
    /// Patches by name of the Lease.
    patches: BTreeMap<String, Value>,
}

type Shared = Arc<Mutex<Server>>;

fn refusal(code: u16, reason: &str) -> Response {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason});
    (StatusCode::from_u16(code).unwrap(), Json(status)).into_response()
}

async fn faulty(shared: &Shared, what: &str, act: impl FnOnce(&mut Server) -> Response) -> Response {
    let (answer, fault) = {
        let mut server = shared.lock().unwrap();
        server.requests.push(what.to_owned());
        match server.fault {
            Fault::Error => (refusal(500, "InternalError"), Fault::Error),
            Fault::Hang => (refusal(500, "never sent"), Fault::Hang),
            fault => (act(&mut server), fault),
        }
    };
    if matches!(fault, Fault::Hang | Fault::HangBehind) {
        std::future::pending::<()>().await;
    }
    answer
}

impl Server {
    fn store(&mut self, mut lease: Lease) -> Response {
        self.version += 1;
        lease.metadata.resource_version = Some(self.version.to_string());
        lease.metadata.namespace = Some(NAMESPACE.to_owned());
        lease.metadata.uid = Some("u-1".to_owned());
        self.lease = Some(lease.clone());
        Json(lease).into_response()
    }

    fn spec(&self) -> LeaseSpec {
        self.lease.clone().unwrap().spec.unwrap()
    }
}

async fn read(State(shared): State<Shared>) -> Response {
    let act = |server: &mut Server| match &server.lease {
        Some(lease) => Json(lease.clone()).into_response(),
        None => refusal(404, "NotFound"),
    };
    faulty(&shared, "read", act).await
}

async fn create(State(shared): State<Shared>, Json(lease): Json<Lease>) -> Response {
    let act = |server: &mut Server| match &server.lease {
        Some(_) => refusal(409, "AlreadyExists"),
        None => server.store(lease),
    };
    faulty(&shared, "create", act).await
}

async fn replace(State(shared): State<Shared>, Json(lease): Json<Lease>) -> Response {
    let act = |server: &mut Server| {
        let present = server.lease.as_ref().map(|lease| lease.metadata.resource_version.clone());
        match present {
            None => refusal(404, "NotFound"),
            Some(version) if version != lease.metadata.resource_version => refusal(409, "Conflict"),
            Some(_) => server.store(lease),
        }
    };
    faulty(&shared, "replace", act).await
}

async fn patch(Path(name): Path<String>, State(shared): State<Shared>, body: axum::body::Bytes) -> Response {
    let patch: Value = serde_json::from_slice(&body).unwrap();
    let mut server = shared.lock().unwrap();
    server.requests.push("patch".to_owned());
    if server.fault != Fault::None {
        return refusal(500, "InternalError");
    }
    server.patches.insert(name, patch.clone());
    Json(patch).into_response()
}

async fn event(State(shared): State<Shared>, Json(event): Json<Value>) -> Response {
    shared.lock().unwrap().events.push(event.clone());
    (StatusCode::CREATED, Json(event)).into_response()
}

fn client(shared: &Shared) -> Client {
    let leases = "/apis/coordination.k8s.io/v1/namespaces/levee-system/leases";
    let router = Router::new()
        .route(leases, post(create))
        .route(&format!("{leases}/levee-controller"), get(read))
        .route(&format!("{leases}/levee-controller"), put(replace))
        .route(&format!("{leases}/{{name}}"), axum::routing::patch(patch))
        .route("/apis/events.k8s.io/v1/namespaces/levee-system/events", post(event))
        .with_state(Arc::clone(shared));
    Client::new(router, NAMESPACE)
}

fn stand(shared: &Shared, identity: &str) -> LeaseElection {
    LeaseElection::start(client(shared), LeaseSettings::controller(identity.to_owned()))
}

fn set(shared: &Shared, fault: Fault) {
    shared.lock().unwrap().fault = fault;
}

/// Waits until it leads or does not, and returns how long that took on the paused clock.
async fn until(election: &LeaseElection, leads: bool) -> Duration {
    let begun = TokioInstant::now();
    let mut leadership = election.leadership();
    let wait = leadership.wait_for(|leadership| leadership.is_ours(now()) == leads);
    timeout(Duration::from_secs(60), wait).await.expect("waited in vain").unwrap();
    begun.elapsed()
}

const LEASE: Duration = Duration::from_secs(3);
const DEADLINE: Duration = Duration::from_secs(2);
/// A retry period at its longest.
const RETRY: Duration = Duration::from_millis(600);
/// The timer's grain.
const GRAIN: Duration = Duration::from_millis(5);

#[tokio::test(start_paused = true)]
async fn the_first_candidate_creates_the_lease_leads_and_says_so() {
    let shared = Shared::default();
    let election = stand(&shared, "node-1_aa");
    until(&election, true).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(election.leadership().borrow().is_ours(now()));
    let server = shared.lock().unwrap();
    let spec = server.spec();
    assert_eq!(spec.holder_identity.as_deref(), Some("node-1_aa"));
    assert_eq!((spec.lease_duration_seconds, spec.lease_transitions), (Some(3), Some(0)));
    assert!(spec.acquire_time <= spec.renew_time);
    let renewals = server.requests.iter().filter(|request| *request == "replace").count();
    assert!((10_000 / 600..=10_000 / 500).contains(&renewals), "{renewals} renewals in 10 s");
    assert_eq!(server.events.len(), 1, "{:?}", server.events);
    let event = &server.events[0];
    assert_eq!((&event["reason"], &event["note"]), (&json!("LeaderElection"), &json!("node-1_aa became leader")));
    assert_eq!(event["reportingController"], json!("levee-controller"));
    assert_eq!((&event["regarding"]["kind"], &event["regarding"]["uid"]), (&json!("Lease"), &json!("u-1")));
}

#[tokio::test(start_paused = true)]
async fn the_second_takes_over_when_the_first_is_silent_for_the_leases_duration() {
    let shared = Shared::default();
    let first = stand(&shared, "node-1_aa");
    until(&first, true).await;
    let second = stand(&shared, "node-2_bb");
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(!second.leadership().borrow().is_ours(now()));
    assert_eq!(second.leadership().borrow().leader.as_deref(), Some("node-1_aa"));
    first.task.abort(); // as a SIGKILL: nothing is handed over
    let took = until(&second, true).await;
    assert!(took <= LEASE + RETRY + GRAIN && took >= LEASE - RETRY - GRAIN, "{took:?}");
    assert_eq!(second.leadership().borrow().transitions, 1);
    let spec = shared.lock().unwrap().spec();
    assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("node-2_bb"), Some(1)));
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_api_hangs_stops_in_time_and_comes_back() {
    for fault in [Fault::Hang, Fault::Error, Fault::HangBehind] {
        let shared = Shared::default();
        let election = stand(&shared, "node-1_aa");
        until(&election, true).await;
        set(&shared, fault);
        let took = until(&election, false).await;
        assert!(took <= DEADLINE + GRAIN && took >= DEADLINE - RETRY, "{fault:?}: {took:?}");
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert!(!election.leadership().borrow().is_ours(now()));
        set(&shared, Fault::None);
        let took = until(&election, true).await;
        assert!(took <= DEADLINE / 2 + RETRY + GRAIN, "{fault:?}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_follower_survives_errors_of_reading_and_takes_over() {
    let shared = Shared::default();
    let first = stand(&shared, "node-1_aa");
    until(&first, true).await;
    let second = stand(&shared, "node-2_bb");
    tokio::time::sleep(Duration::from_secs(2)).await;
    first.task.abort();
    set(&shared, Fault::Error);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(!second.leadership().borrow().is_ours(now()));
    set(&shared, Fault::None);
    let took = until(&second, true).await;
    assert!(took <= RETRY + GRAIN, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn who_resigns_empties_the_record_and_the_next_need_not_wait() {
    let shared = Shared::default();
    let first = stand(&shared, "node-1_aa");
    until(&first, true).await;
    let second = stand(&shared, "node-2_bb");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut leadership = first.leadership();
    first.resign().await;
    assert_eq!(leadership.borrow_and_update().ours_until, None);
    assert_eq!(shared.lock().unwrap().spec().holder_identity.as_deref(), Some(""));
    let took = until(&second, true).await;
    assert!(took <= RETRY + GRAIN, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn resigning_waits_for_a_hung_api_for_a_while_only() {
    let shared = Shared::default();
    let first = stand(&shared, "node-1_aa");
    until(&first, true).await;
    let leadership = first.leadership();
    set(&shared, Fault::Hang);
    let begun = TokioInstant::now();
    first.resign().await;
    assert!(begun.elapsed() <= FAREWELL + GRAIN, "{:?}", begun.elapsed());
    assert_eq!(leadership.borrow().ours_until, None);
}

#[tokio::test(start_paused = true)]
async fn an_edit_of_somebody_else_is_kept_and_costs_no_lead() {
    let shared = Shared::default();
    let election = stand(&shared, "node-1_aa");
    until(&election, true).await;
    {
        let mut server = shared.lock().unwrap();
        let mut lease = server.lease.clone().unwrap();
        lease.metadata.annotations = Some(BTreeMap::from([("note".to_owned(), "mine".to_owned())]));
        server.store(lease);
    }
    let mut leadership = election.leadership();
    leadership.mark_unchanged();
    for _ in 0..20 {
        leadership.changed().await.unwrap();
        assert!(leadership.borrow_and_update().is_ours(now()));
    }
    let server = shared.lock().unwrap();
    let annotations = server.lease.clone().unwrap().metadata.annotations.unwrap();
    assert_eq!(annotations["note"], "mine");
    assert_eq!(server.events.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_renews_its_lease_every_ten_seconds_and_shows_its_fingerprint() {
    let shared = Shared::default();
    let (fingerprint, shown) = watch::channel("0a1b2c3d".to_owned());
    let cancel = CancellationToken::new();
    let renewing = node::renew(client(&shared), NAMESPACE.to_owned(), "node-1".to_owned(), shown, cancel.clone());
    let task = tokio::spawn(renewing);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(shared.lock().unwrap().requests.len(), 7, "at the beginning and six times after it");
    set(&shared, Fault::Error);
    tokio::time::sleep(Duration::from_secs(20)).await;
    set(&shared, Fault::None);
    fingerprint.send_replace("11111111".to_owned());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let patch = shared.lock().unwrap().patches["levee-node-node-1"].clone();
    assert_eq!(patch["metadata"]["annotations"]["levee.dev/secret-fingerprint"], "11111111");
    assert_eq!(
        (&patch["spec"]["leaseDurationSeconds"], &patch["spec"]["holderIdentity"]),
        (&json!(40), &json!("node-1"))
    );
    let sighting = node::sighting(&serde_json::from_value(patch).unwrap()).unwrap();
    assert_eq!((sighting.node.as_str(), sighting.duration), ("node-1", Duration::from_secs(40)));
    cancel.cancel();
    task.await.unwrap();
}

//! The stand-in answers as the real server does: one table of requests, put to both.

#![expect(clippy::unwrap_used, reason = "a failing step is a failing test")]

use std::collections::BTreeMap;

use http_body_util::BodyExt;
use hyper::Request;
use kube::{Client, client::Body};
use kube_tests::{
    access::User,
    bed::Bed,
    definitions::{install, open_definition},
    place::Place,
    stub::{Settings, Stub},
};
use serde_json::{Value, json};

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const NODES: &str = "/api/v1/nodes";
const POOLS: &str = "/apis/levee.dev/v1alpha1/vippools";

const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// The watch that begins with what is there.
const STATE: &str = "watched from the state";

/// One request. `<tag>` in path or body is the version that the request of this tag was answered with.
struct Step {
    tag: &'static str,
    method: &'static str,
    path: String,
    content: &'static str,
    body: String,
}

fn step(tag: &'static str, method: &'static str, path: impl Into<String>) -> Step {
    Step { tag, method, path: path.into(), content: JSON, body: String::new() }
}

fn send(tag: &'static str, method: &'static str, path: impl Into<String>, body: &Value) -> Step {
    Step { body: body.to_string(), ..step(tag, method, path) }
}

fn patch(tag: &'static str, content: &'static str, path: impl Into<String>, body: &Value) -> Step {
    Step { content, ..send(tag, "PATCH", path, body) }
}

fn lease(name: &str, version: &str, holder: &str) -> Value {
    let mut lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": name },
        "spec": { "holderIdentity": holder },
    });
    if !version.is_empty() {
        lease["metadata"]["resourceVersion"] = version.into();
    }
    lease
}

fn pool(name: &str, size: u32) -> Value {
    json!({
        "apiVersion": "levee.dev/v1alpha1", "kind": "VipPool", "metadata": { "name": name },
        "spec": { "size": size }, "status": { "free": 1 },
    })
}

fn objects_and_versions() -> Vec<Step> {
    let one = format!("{LEASES}/one");
    vec![
        step("missing", "GET", &one),
        send("made", "POST", LEASES, &lease("one", "", "a")),
        send("twice", "POST", LEASES, &lease("one", "", "a")),
        step("read", "GET", &one),
        send("replaced", "PUT", &one, &lease("one", "<made>", "b")),
        send("stale", "PUT", &one, &lease("one", "<made>", "c")),
        send("blind", "PUT", &one, &lease("one", "", "c")),
        send("misnamed", "PUT", &one, &lease("two", "<replaced>", "c")),
        send("other kind", "POST", LEASES, &pool("one", 1)),
        send("made by update", "PUT", format!("{LEASES}/two"), &lease("two", "", "a")),
        send("with a version", "POST", LEASES, &lease("three", "7", "a")),
        send("nameless", "POST", LEASES, &json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease" })),
        Step { body: "{".to_owned(), ..step("no JSON", "POST", LEASES) },
        send("no name in the path", "PUT", LEASES, &lease("one", "", "a")),
        step("no resource", "GET", "/apis/levee.dev/v1alpha1/nothings"),
        step("not found", "DELETE", format!("{LEASES}/three")),
        send("other version", "DELETE", &one, &json!({ "preconditions": { "resourceVersion": "<made>" } })),
        send("other identity", "DELETE", &one, &json!({ "preconditions": { "uid": "x" } })),
    ]
}

fn patches() -> Vec<Step> {
    let one = format!("{LEASES}/one");
    let by = |manager: &str, more: &str| format!("{LEASES}/applied?fieldManager={manager}{more}");
    vec![
        patch(
            "merged",
            MERGE,
            &one,
            &json!({ "spec": { "leaseDurationSeconds": 5 }, "metadata": { "labels": { "a": "b" } } }),
        ),
        patch("merged away", MERGE, &one, &json!({ "spec": { "leaseDurationSeconds": null } })),
        patch(
            "merged for a version",
            MERGE,
            &one,
            &json!({ "metadata": { "resourceVersion": "<made>" }, "spec": { "holderIdentity": "x" } }),
        ),
        patch("of a kind unknown", "text/plain", &one, &json!({})),
        patch("of nothing", MERGE, format!("{LEASES}/three"), &json!({})),
        patch("applied", APPLY, by("me", ""), &lease("applied", "", "a")),
        patch("applied again", APPLY, by("me", ""), &lease("applied", "", "b")),
        patch("against another", APPLY, by("you", ""), &lease("applied", "", "c")),
        patch("by force", APPLY, by("you", "&force=true"), &lease("applied", "", "c")),
        patch("against the taker", APPLY, by("me", ""), &lease("applied", "", "d")),
        patch("by nobody", APPLY, format!("{LEASES}/applied"), &lease("applied", "", "d")),
    ]
}

fn lists_and_watches() -> Vec<Step> {
    let watch =
        |version: &str, more: &str| format!("{LEASES}?watch=true&timeoutSeconds=2&resourceVersion={version}{more}");
    vec![
        step("list", "GET", LEASES),
        step("everywhere", "GET", "/apis/coordination.k8s.io/v1/leases?fieldSelector=metadata.namespace%3Ddefault"),
        step("a page", "GET", format!("{LEASES}?limit=2")),
        step("by label", "GET", format!("{LEASES}?labelSelector=a%3Db")),
        step("by no label", "GET", format!("{LEASES}?labelSelector=%21a")),
        step("by name", "GET", format!("{LEASES}?fieldSelector=metadata.name%3Dtwo")),
        step("by a field unknown", "GET", format!("{LEASES}?fieldSelector=spec.holderIdentity%3Da")),
        step("removed", "DELETE", format!("{LEASES}/two")),
        step("removed twice", "DELETE", format!("{LEASES}/two")),
        step("watched", "GET", watch("<made>", "")),
        step("watched by label", "GET", watch("<made>", "&labelSelector=a%3Db")),
        step(STATE, "GET", format!("{LEASES}?watch=true&timeoutSeconds=2")),
    ]
}

fn status_and_generations() -> Vec<Step> {
    let ingress = json!({ "loadBalancer": { "ingress": [{ "ip": "192.0.2.1" }] } });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web" },
        "spec": { "ports": [{ "port": 80 }] }, "status": ingress,
    });
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node-1", "labels": { "a": "b" } } });
    let (web, one) = (format!("{SERVICES}/web"), format!("{POOLS}/one"));
    let with_status = |free: u32| json!({ "status": { "free": free } });
    let kept = json!({ "metadata": { "name": "kept", "finalizers": ["levee.dev/test"] } });
    vec![
        send("service", "POST", SERVICES, &service),
        patch("not its status", MERGE, &web, &json!({ "status": ingress })),
        patch(
            "its status",
            MERGE,
            format!("{web}/status"),
            &json!({ "status": ingress, "spec": { "type": "NodePort" } }),
        ),
        step("service read", "GET", &web),
        send("node", "POST", NODES, &node),
        send("node blindly", "PUT", format!("{NODES}/node-1"), &node),
        send(
            "no node",
            "PUT",
            format!("{NODES}/node-2"),
            &json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node-2" } }),
        ),
        send("pool", "POST", POOLS, &pool("one", 1)),
        patch("pool changed", MERGE, &one, &json!({ "spec": { "size": 2 }, "status": { "free": 5 } })),
        patch("pool's status", MERGE, format!("{one}/status"), &with_status(2)),
        patch(
            "pool's status applied",
            APPLY,
            format!("{one}/status?fieldManager=me&force=true"),
            &json!({
                "apiVersion": "levee.dev/v1alpha1", "kind": "VipPool", "metadata": { "name": "one" }, "status": { "free": 3 },
            }),
        ),
        patch("pool's label", MERGE, &one, &json!({ "metadata": { "labels": { "a": "b" } } })),
        send("pool blindly", "PUT", &one, &pool("one", 3)),
        send("no pool", "PUT", format!("{POOLS}/two"), &pool("two", 3)),
        patch("pool by strategy", STRATEGIC, &one, &json!({})),
        step("pools", "GET", POOLS),
        send("kept pool", "POST", POOLS, &{
            let mut pool = pool("kept", 1);
            pool["metadata"] = kept["metadata"].clone();
            pool
        }),
        step("kept pool removed", "DELETE", format!("{POOLS}/kept")),
        step("kept pool there", "GET", format!("{POOLS}/kept")),
        patch("kept pool let go", MERGE, format!("{POOLS}/kept"), &json!({ "metadata": { "finalizers": null } })),
        step("kept pool gone", "GET", format!("{POOLS}/kept")),
    ]
}

/// Runs the table on one server; what matters of every answer.
async fn run(client: &Client) -> Vec<(&'static str, Value)> {
    let steps = [objects_and_versions(), patches(), lists_and_watches(), status_and_generations()];
    let mut versions: BTreeMap<&str, String> = BTreeMap::new();
    let mut answers = Vec::new();
    for Step { tag, method, path, content, body } in steps.into_iter().flatten() {
        let fill = |text: String| {
            versions.iter().fold(text, |text, (tag, version)| text.replace(&format!("<{tag}>"), version))
        };
        let request = Request::builder().method(method).uri(fill(path)).header("content-type", content);
        let request = request.body(Body::from(fill(body).into_bytes())).unwrap();
        let answer = client.send(request).await.unwrap();
        let code = answer.status().as_u16();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        if let Some(version) = lines.first().and_then(|it| it["metadata"]["resourceVersion"].as_str()) {
            versions.insert(tag, version.to_owned());
        }
        let mut shapes: Vec<_> = lines.iter().map(shape).filter(|shape| *shape != Value::Null).collect();
        if tag == STATE {
            shapes.sort_by_key(Value::to_string); // a server tells what is there in no order
        }
        answers.push((tag, json!({ "code": code, "answer": shapes })));
    }
    answers
}

/// What has to be the same of an object.
fn shape(object: &Value) -> Value {
    if let Some(event) = object["type"].as_str().filter(|_| object["object"].is_object()) {
        // Bookmarks come when the server likes.
        let shape =
            json!({ "event": event, "name": object["object"]["metadata"]["name"], "kind": object["object"]["kind"] });
        return if event == "BOOKMARK" { Value::Null } else { shape };
    }
    if object["kind"] == "Status" {
        let details = &object["details"];
        let causes = details["causes"]
            .as_array()
            .map_or(0, |causes| causes.iter().filter(|cause| cause["reason"] == "FieldManagerConflict").count());
        let about = if object["reason"] == "NotFound" && details["name"].is_null() {
            Value::Null
        } else {
            json!([details["name"], details["group"]])
        };
        let (status, code, reason) = (&object["status"], &object["code"], &object["reason"]);
        return json!({ "status": status, "code": code, "reason": reason, "about": about, "conflicts": causes });
    }
    let metadata = &object["metadata"];
    if let Some(items) = object["items"].as_array() {
        let items: Vec<_> = items.iter().map(|item| json!([item["metadata"]["name"], item["kind"]])).collect();
        let more = metadata["continue"].as_str().is_some_and(|token| !token.is_empty());
        return json!({ "kind": object["kind"], "apiVersion": object["apiVersion"], "items": items, "more": more });
    }
    let is = |field: &str| metadata[field].as_str().is_some_and(|text| !text.is_empty());
    json!({
        "kind": object["kind"],
        "apiVersion": object["apiVersion"],
        "name": metadata["name"],
        "namespace": metadata["namespace"],
        "labels": metadata["labels"],
        "finalizers": metadata["finalizers"],
        "generation": metadata["generation"],
        "is": [is("uid"), is("resourceVersion"), is("creationTimestamp"), is("deletionTimestamp")],
        "holder": object["spec"]["holderIdentity"],
        "duration": object["spec"]["leaseDurationSeconds"],
        "size": object["spec"]["size"],
        "type": object["spec"]["type"],
        "affinity": object["spec"]["sessionAffinity"],
        "ports": object["spec"]["ports"],
        "status": if object["kind"] == "Node" { &Value::Null } else { &object["status"] },
    })
}

#[tokio::test]
async fn the_stand_in_answers_as_the_server_does() {
    let bed = Bed::start().await.unwrap();
    let stub = Stub::start(&bed.scope, &bed.keys, &Place::loopback(), Settings::default()).unwrap();
    let admin = bed.admin().await.unwrap();
    let mut definition = open_definition("levee.dev", "v1alpha1", "VipPool", "vippools", "Cluster");
    definition["spec"]["versions"][0]["subresources"] = json!({ "status": {} });
    install(&admin, serde_json::from_value(definition).unwrap()).await.unwrap();

    let real = run(&admin).await;
    let standing_in = run(&stub.access().client(&bed.keys.admin).await.unwrap()).await;
    let differing: Vec<String> = real
        .iter()
        .zip(&standing_in)
        .filter(|(real, other)| real != other)
        .map(|((tag, real), (_, other))| format!("{tag}:\n  the server:   {real}\n  the stand-in: {other}"))
        .collect();
    assert!(differing.is_empty(), "{} of {} differ\n{}", differing.len(), real.len(), differing.join("\n"));
    assert_eq!(real.len(), standing_in.len());
    // The table is no good if it only sees failures.
    let codes = |code: u16| real.iter().filter(|(_, answer)| answer["code"] == code).count();
    assert!(codes(200) > 20 && codes(201) > 5 && codes(409) > 5, "{real:?}");
}

#[tokio::test]
async fn an_unknown_token_is_refused_by_both() {
    let bed = Bed::start().await.unwrap();
    let stub = Stub::start(&bed.scope, &bed.keys, &Place::loopback(), Settings::default()).unwrap();
    for access in [bed.access(), stub.access()] {
        let client = access.client(&User::Token("wrong".to_owned())).await.unwrap();
        let answer = client.send(Request::get(NODES).body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), 401);
    }
}

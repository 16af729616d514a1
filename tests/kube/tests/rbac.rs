//! The roles of the manifests on a real server: every right is one that the programs use, none is missing, and there is
//! nothing beyond.

#![expect(clippy::unwrap_used, reason = "a failing step is a failing test")]

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use hyper::{Method, Request, StatusCode};
use k8s_openapi::api::core::v1::{Node, ObjectReference, Service};
use kube::{
    Api, Client, CustomResourceExt,
    api::{Patch, PatchParams, PostParams},
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use kube_tests::{
    access::User,
    bed::{Bed, account_token, make_namespace},
    controller::Controller,
    definitions::install,
    deployed::{NAMESPACE, Right, api_of, objects_of, rights, title},
    server::Settings,
};
use lb_agent::{
    election::lease::node,
    kubernetes::{
        client::{Access, Credentials, Limits},
        crds::VipPool,
    },
    sources::kubernetes::{self, Source},
};
use netns_tests::{scope::Scope, wait};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Limit of what is awaited of a server that runs.
const PATIENCE: Duration = Duration::from_secs(60);
const AGENT: &str = "levee-agent";
const CONTROLLER: &str = "levee-controller";
const LEASES: &str = "coordination.k8s.io";

fn object<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// Installs what roles are about, and the roles themselves.
async fn install_roles(client: &Client) {
    make_namespace(client, NAMESPACE).await.unwrap();
    install(client, VipPool::crd()).await.unwrap();
    let kinds = ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"];
    for part in objects_of(&kinds).unwrap() {
        let made = api_of(client, &part).create(&PostParams::default(), &object(part.clone())).await;
        made.unwrap_or_else(|error| panic!("{}: {error}", title(&part)));
    }
}

/// The roles of an account, and the rights that each gives.
fn roles_of(account: &str) -> Vec<(Value, BTreeSet<Right>)> {
    let mut roles = objects_of(&["ClusterRole", "Role"]).unwrap();
    roles.retain(|role| role["metadata"]["name"] == account);
    assert_eq!(roles.len(), 2, "a ClusterRole and a Role");
    roles.into_iter().map(|role| (role.clone(), rights(&role["rules"]))).collect()
}

fn granted(account: &str) -> BTreeSet<Right> {
    roles_of(account).into_iter().flat_map(|(_, rights)| rights).collect()
}

fn right(group: &str, resource: &str, verb: &str) -> Right {
    let [group, resource, verb] = [group, resource, verb].map(str::to_owned);
    Right { group, resource, verb, name: None }
}

/// A request that needs this right, about `name` in `namespace`.
async fn ask(client: &Client, right: &Right, namespace: &str, name: &str) -> StatusCode {
    let Right { group, resource, verb, .. } = right;
    let (plural, below) = resource.split_once('/').unwrap_or((resource, ""));
    let version = if group == "levee.dev" { "v1alpha1" } else { "v1" };
    let base = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    let in_namespace = !["nodes", "vippools", "namespaces", "clusterroles"].contains(&plural);
    let all = !in_namespace || namespace.is_empty();
    let many = if all { format!("{base}/{plural}") } else { format!("{base}/namespaces/{namespace}/{plural}") };
    let below = if below.is_empty() { String::new() } else { format!("/{below}") };
    let one = format!("{many}/{name}{below}");
    let (method, uri, content) = match verb.as_str() {
        "list" => (Method::GET, many, ""),
        "watch" => (Method::GET, format!("{many}?watch=1&timeoutSeconds=1"), ""),
        "create" if below.is_empty() => (Method::POST, many, "application/json"),
        "create" => (Method::POST, one, "application/json"),
        "update" => (Method::PUT, one, "application/json"),
        "patch" => (Method::PATCH, one, "application/merge-patch+json"),
        "delete" => (Method::DELETE, one, ""),
        _ => (Method::GET, one, ""),
    };
    let body = if content.is_empty() { Vec::new() } else { b"{}".to_vec() };
    let mut request = Request::builder().method(method).uri(uri);
    if !content.is_empty() {
        request = request.header("content-type", content);
    }
    client.send(request.body(body.into()).unwrap()).await.unwrap().status()
}

/// A request as the account makes it: reads are about all namespaces, Leases about those of our own.
async fn use_right(client: &Client, right: &Right) -> StatusCode {
    let namespace = match (right.group.as_str(), right.verb.as_str()) {
        (LEASES, _) => NAMESPACE,
        (_, "list" | "watch") => "",
        _ => "default",
    };
    ask(client, right, namespace, right.name.as_deref().unwrap_or("web")).await
}

/// Waits until the server has learned of a change of roles.
async fn becomes(client: &Client, right: &Right, allowed: bool) {
    let look = || async {
        let status = use_right(client, right).await;
        ensure!((status != StatusCode::FORBIDDEN) == allowed, "{status}");
        Ok(())
    };
    wait::until(&format!("{right:?} to be allowed: {allowed}"), PATIENCE, look).await.unwrap();
}

/// Makes the rules of a role those of the rights.
async fn set_rules(admin: &Client, role: &Value, rights: &BTreeSet<Right>) {
    let rule = |right: &Right| {
        let Right { group, resource, verb, name } = right;
        let names = name.iter().collect::<Vec<_>>();
        json!({ "apiGroups": [group], "resources": [resource], "verbs": [verb], "resourceNames": names })
    };
    let rules: Vec<_> = rights.iter().map(rule).collect();
    let name = role["metadata"]["name"].as_str().unwrap();
    let patch = Patch::Merge(json!({ "rules": rules }));
    api_of(admin, role).patch(name, &PatchParams::default(), &patch).await.unwrap();
}

/// Takes each right away on its own: its request is refused, all others are not.
async fn each_right_counts(admin: &Client, client: &Client, account: &str) {
    let all = granted(account);
    for right in &all {
        becomes(client, right, true).await;
    }
    for (role, rights) in roles_of(account) {
        for right in &rights {
            let mut rest = rights.clone();
            rest.remove(right);
            set_rules(admin, &role, &rest).await;
            becomes(client, right, false).await;
            for other in all.iter().filter(|other| *other != right) {
                let status = use_right(client, other).await;
                assert_ne!(status, StatusCode::FORBIDDEN, "{other:?} without {right:?}");
            }
        }
        set_rules(admin, &role, &rights).await;
        for right in &rights {
            becomes(client, right, true).await;
        }
    }
}

/// What an account may do in a namespace, as the server itself says.
async fn allowed(client: &Client, namespace: &str) -> BTreeSet<Right> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": { "namespace": namespace },
    });
    let request = Request::post("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews");
    let request = request.header("content-type", "application/json").body(review.to_string().into_bytes()).unwrap();
    let answer: Value = client.request(request).await.unwrap();
    assert_eq!(answer["status"]["incomplete"], false, "{answer}");
    rights(&answer["status"]["resourceRules"])
}

#[tokio::test]
async fn each_right_counts_and_there_is_none_beyond() {
    let bed = Bed::start().await.unwrap();
    let admin = bed.admin().await.unwrap();
    install_roles(&admin).await;
    let lease = json!({ "metadata": { "name": CONTROLLER } });
    Api::namespaced(admin.clone(), NAMESPACE)
        .create(&PostParams::default(), &object::<k8s_openapi::api::coordination::v1::Lease>(lease))
        .await
        .unwrap();
    let account = async |name: &str| {
        let token = account_token(&admin, NAMESPACE, name).await.unwrap();
        bed.client(&token).await.unwrap()
    };
    let nobody = account("nobody").await;
    for name in [AGENT, CONTROLLER] {
        let client = account(name).await;
        each_right_counts(&admin, &client, name).await;
        let cluster_wide = rights(
            &objects_of(&["ClusterRole"]).unwrap().iter().find(|role| role["metadata"]["name"] == name).unwrap()["rules"],
        );
        for (namespace, expected) in
            [(NAMESPACE, granted(name)), ("default", cluster_wide.clone()), ("kube-system", cluster_wide)]
        {
            let everybodys = allowed(&nobody, namespace).await;
            let own: BTreeSet<_> = allowed(&client, namespace).await.difference(&everybodys).cloned().collect();
            assert_eq!(own, expected, "{name} in {namespace}");
        }
        refused(&client, name).await;
    }
}

/// What would do harm, asked for.
async fn refused(client: &Client, account: &str) {
    let mut beyond = vec![
        ("", "secrets", "get", NAMESPACE, "levee-secret"),
        ("", "secrets", "list", "", ""),
        ("", "secrets", "list", NAMESPACE, ""),
        ("", "configmaps", "get", NAMESPACE, CONTROLLER),
        ("", "pods", "create", NAMESPACE, ""),
        ("", "services", "update", "default", "web"),
        ("", "services", "patch", "default", "web"),
        ("", "nodes", "patch", "", "node-1"),
        ("", "serviceaccounts/token", "create", NAMESPACE, CONTROLLER),
        ("levee.dev", "vippools", "patch", "", "first"),
        ("levee.dev", "vippools", "delete", "", "first"),
        ("rbac.authorization.k8s.io", "clusterroles", "patch", "", AGENT),
        (LEASES, "leases", "create", "kube-system", ""),
        (LEASES, "leases", "patch", "kube-system", "kube-scheduler"),
        (LEASES, "leases", "update", "kube-system", "kube-scheduler"),
        (LEASES, "leases", "delete", "kube-system", "kube-scheduler"),
        (LEASES, "leases", "list", "kube-system", ""),
    ];
    if account == AGENT {
        beyond.push(("", "services/status", "patch", "default", "web"));
        beyond.push(("levee.dev", "vippools/status", "patch", "", "first"));
        beyond.push((LEASES, "leases", "update", NAMESPACE, CONTROLLER));
        beyond.push((LEASES, "leases", "delete", NAMESPACE, CONTROLLER));
    } else {
        beyond.push(("discovery.k8s.io", "endpointslices", "list", "", ""));
        beyond.push((LEASES, "leases", "update", NAMESPACE, "levee-node-node-1"));
        beyond.push((LEASES, "leases", "patch", NAMESPACE, "levee-node-node-1"));
    }
    for (group, resource, verb, namespace, name) in beyond {
        let status = ask(client, &right(group, resource, verb), namespace, name).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{account}: {verb} {group}/{resource} {name} in {namespace:?}");
    }
}

/// What an account used, as the server's audit log says; and what it was refused.
fn used(log: &Path, account: &str) -> (BTreeSet<Right>, Vec<String>) {
    let text = fs::read_to_string(log).unwrap_or_default();
    let (mut used, mut refused) = (BTreeSet::new(), Vec::new());
    // The last line may not be whole yet.
    for event in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        if event["user"]["username"] != format!("system:serviceaccount:{NAMESPACE}:{account}") {
            continue;
        }
        let about = &event["objectRef"];
        let Some(resource) = about["resource"].as_str() else { continue };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let resource = match about["subresource"].as_str() {
            Some(below) => format!("{resource}/{below}"),
            None => resource.to_owned(),
        };
        let asked = right(&text(&about["apiGroup"]), &resource, &text(&event["verb"]));
        match event["responseStatus"]["code"].as_u64() {
            Some(403) => refused.push(event.to_string()),
            // A patch that makes its object needs the right to create as well.
            Some(201) => used.extend([Right { verb: "create".to_owned(), ..asked.clone() }, asked]),
            _ => {
                used.insert(asked);
            }
        }
    }
    (used, refused)
}

/// Waits until every right was used that the manifests give, `watch` aside while `is_running`: a watch can be told of when
/// it ends. No other was tried.
async fn uses_all(log: &Path, account: &str, is_running: bool) {
    let expected: BTreeSet<_> = granted(account).into_iter().map(|right| Right { name: None, ..right }).collect();
    let look = || async {
        let (used, refused) = used(log, account);
        assert_eq!(refused, Vec::<String>::new(), "{account} was refused");
        assert!(used.is_subset(&expected), "{account} used {:?}", used.difference(&expected).collect::<Vec<_>>());
        let idle: Vec<_> = expected.difference(&used).filter(|right| !is_running || right.verb != "watch").collect();
        ensure!(idle.is_empty(), "not used: {idle:?}");
        Ok(())
    };
    wait::until(&format!("every right of {account} to be used"), PATIENCE, look).await.unwrap();
}

/// Does with the agent's library what an agent does.
async fn be_an_agent(bed: &Bed, token: &User, cancel: &CancellationToken) -> Source {
    let kubeconfig = bed.access().kubeconfig(&bed.scope, "agent.kubeconfig", token).unwrap();
    let access =
        Access::new(Credentials::Kubeconfig(kubeconfig), watch::Sender::default().subscribe(), Limits::default());
    let settings = kubernetes::Settings { streaming: None, ..kubernetes::Settings::default() };
    let source = kubernetes::spawn::<VipPool>(settings, access.clone(), cancel.clone());
    let look = || async { source.snapshots.borrow().clone().context("no inventory") };
    wait::until("the agent's inventory", PATIENCE, look).await.unwrap();

    let (_sender, fingerprint) = watch::channel("0011223344556677".to_owned());
    let (client, stop) = (access.client(), cancel.clone());
    tokio::spawn(node::renew(client.clone(), NAMESPACE.to_owned(), "node-1".to_owned(), fingerprint, stop));
    let look = || async {
        let nodes = node::sight(&client, NAMESPACE).await?;
        ensure!(nodes.iter().any(|sighting| sighting.node == "node-1"), "{nodes:?}");
        Ok(())
    };
    wait::until("the node's Lease", PATIENCE, look).await.unwrap();

    let reporter = Reporter { controller: node::MANAGER.to_owned(), instance: Some("node-1".to_owned()) };
    let recorder = Recorder::new(client.clone(), reporter);
    let about = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Service".to_owned()),
        namespace: Some("default".to_owned()),
        name: Some("web".to_owned()),
        ..ObjectReference::default()
    };
    let event = Event {
        type_: EventType::Warning,
        reason: "Refused".to_owned(),
        note: Some("an address is in no pool".to_owned()),
        action: "Serve".to_owned(),
        secondary: None,
    };
    for _ in 0..2 {
        recorder.publish(&event, &about).await.unwrap();
    }
    source
}

#[tokio::test]
async fn the_programs_use_every_right_and_need_no_other() {
    let files = Scope::new().unwrap();
    let (policy, log) = (files.file("audit-policy.json"), files.file("audit.log"));
    let rules = json!([{ "level": "Metadata", "omitStages": ["RequestReceived"] }]);
    fs::write(&policy, json!({ "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules }).to_string())
        .unwrap();
    let flags =
        vec![format!("--audit-policy-file={}", policy.display()), format!("--audit-log-path={}", log.display())];
    let bed = Bed::start_with(&Settings { flags, ..Settings::default() }).await.unwrap();
    let admin = bed.admin().await.unwrap();
    install_roles(&admin).await;
    let pool = VipPool::new("first", object(json!({ "addresses": ["192.0.2.8/30"] })));
    Api::all(admin.clone()).create(&PostParams::default(), &pool).await.unwrap();
    Api::<Node>::all(admin.clone())
        .create(&PostParams::default(), &object(json!({ "metadata": { "name": "n" } })))
        .await
        .unwrap();
    let services: Api<Service> = Api::namespaced(admin.clone(), "default");
    let service =
        json!({ "metadata": { "name": "web" }, "spec": { "type": "LoadBalancer", "ports": [{ "port": 80 }] } });
    services.create(&PostParams::default(), &object(service)).await.unwrap();

    let cancel = CancellationToken::new();
    let token = account_token(&admin, NAMESPACE, AGENT).await.unwrap();
    let source = be_an_agent(&bed, &token, &cancel).await;
    uses_all(&log, AGENT, true).await;
    cancel.cancel();
    drop(source);
    uses_all(&log, AGENT, false).await;

    let token = account_token(&admin, NAMESPACE, CONTROLLER).await.unwrap();
    // The Lease of the agent's node, which has no object here, is removed a second after its last renewal.
    let settings = json!({ "nodeLeaseGrace": "1s" });
    let mut controller = Controller::new(&bed.scope, "1", bed.access(), &token, &settings).unwrap();
    controller.start(&bed.scope).unwrap();
    // Given, taken and given again: the second Event of a kind is a patch of the first.
    for (kind, count) in [("LoadBalancer", 1), ("ClusterIP", 0), ("LoadBalancer", 1)] {
        let patch = Patch::Merge(json!({ "spec": { "type": kind } }));
        services.patch("web", &PatchParams::default(), &patch).await.unwrap();
        let look = || async {
            let found = addresses(&services.get("web").await?).context("no status")?;
            ensure!(found == count, "{found} addresses\n{}", controller.log_tail());
            Ok(())
        };
        wait::until(&format!("{count} addresses of a {kind}"), PATIENCE, look).await.unwrap();
    }
    uses_all(&log, CONTROLLER, true).await;
    controller.stop().unwrap();
    uses_all(&log, CONTROLLER, false).await;
}

/// How many addresses a Service has.
fn addresses(service: &Service) -> Result<usize> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    Ok(balancer.and_then(|balancer| balancer.ingress.as_ref()).map_or(0, Vec::len))
}

//! What a real API server does that everything else here relies on.

#![expect(clippy::unwrap_used, reason = "a failing step is a failing test")]

use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::{ConfigMap, Namespace, Service},
        discovery::v1::EndpointSlice,
        rbac::v1::{Role, RoleBinding},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Error, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
    core::Status,
};
use kube_tests::{
    ability::Ability,
    access::User,
    bed::{Bed, START, account_token, label, make_namespace, version_of},
    definitions::{install, open_definition},
    server::{Settings, Token},
};
use netns_tests::{scope::residue, wait};
use serde_json::json;
use tokio::time::timeout;

/// Limit of what is awaited of a server that runs.
const PATIENCE: Duration = Duration::from_secs(30);

fn service(name: &str) -> Service {
    let port = json!([{ "port": 80 }]);
    serde_json::from_value(json!({ "metadata": { "name": name }, "spec": { "ports": port } })).unwrap()
}

fn lease(name: &str, holder: &str) -> Lease {
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    let spec = LeaseSpec { holder_identity: Some(holder.to_owned()), ..LeaseSpec::default() };
    Lease { metadata, spec: Some(spec) }
}

fn status(error: Error) -> Box<Status> {
    let Error::Api(status) = error else { panic!("not an answer of the server: {error}") };
    status
}

/// The next event that is no bookmark: its kind, and the object's name.
async fn next_event<S>(events: &mut S) -> (&'static str, String)
where
    S: Stream<Item = kube::Result<WatchEvent<Service>>> + Unpin,
{
    loop {
        return match timeout(PATIENCE, events.next()).await.unwrap().unwrap().unwrap() {
            WatchEvent::Added(object) => ("added", object.name_any()),
            WatchEvent::Modified(object) => ("modified", object.name_any()),
            WatchEvent::Deleted(object) => ("deleted", object.name_any()),
            WatchEvent::Error(status) => ("error", status.reason),
            WatchEvent::Bookmark(_) => continue,
        };
    }
}

#[tokio::test]
async fn a_server_keeps_what_it_is_told_and_tells_every_change() {
    let bed = Bed::start().await.unwrap();
    let client = bed.admin().await.unwrap();
    versions_and_conflicts(&client).await;
    watches(&client).await;
    status_is_written_apart(&client).await;
    field_owners(&client).await;
    leases(&client).await;
    slices(&client).await;
    custom_resources(&client).await;
    let prefix = bed.scope.prefix().to_owned();
    assert_ne!(residue(&prefix), Vec::<String>::new());
    drop(bed);
    assert_eq!(residue(&prefix), Vec::<String>::new());
}

/// A write for an old version is refused, and one that says no version is not.
async fn versions_and_conflicts(client: &Client) {
    let services: Api<Service> = Api::namespaced(client.clone(), "default");
    let first = services.create(&PostParams::default(), &service("conflict")).await.unwrap();
    let mut newer = first.clone();
    newer.metadata.labels = Some(label("a", "b"));
    let newer = services.replace("conflict", &PostParams::default(), &newer).await.unwrap();
    assert_ne!(version_of(&newer), version_of(&first));
    let refused = status(services.replace("conflict", &PostParams::default(), &first).await.unwrap_err());
    assert_eq!((refused.code, refused.reason.as_str()), (409, "Conflict"));
    let again = status(services.create(&PostParams::default(), &service("conflict")).await.unwrap_err());
    assert_eq!((again.code, again.reason.as_str()), (409, "AlreadyExists"));
    let same = services.replace("conflict", &PostParams::default(), &newer).await.unwrap();
    assert_eq!(version_of(&same), version_of(&newer), "a write that changes nothing has no version of its own");
}

/// A watch begins after the version it names; an object that ceases to fit its selector is deleted to it.
async fn watches(client: &Client) {
    let services: Api<Service> = Api::namespaced(client.clone(), "default");
    let version = services.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let mut labelled = service("watched");
    labelled.metadata.labels = Some(label("watch", "me"));
    services.create(&PostParams::default(), &labelled).await.unwrap();
    services.create(&PostParams::default(), &service("other")).await.unwrap();
    for value in ["me", "not"] {
        let patch = json!({ "metadata": { "labels": { "watch": value, "again": value } } });
        services.patch("watched", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }
    services.delete("other", &DeleteParams::default()).await.unwrap();
    let mut all = services.watch(&WatchParams::default(), &version).await.unwrap().boxed();
    for expected in [
        ("added", "watched"),
        ("added", "other"),
        ("modified", "watched"),
        ("modified", "watched"),
        ("deleted", "other"),
    ] {
        let (kind, name) = next_event(&mut all).await;
        assert_eq!((kind, name.as_str()), expected);
    }
    let chosen = WatchParams::default().labels("watch=me");
    let mut chosen = services.watch(&chosen, &version).await.unwrap().boxed();
    for expected in ["added", "modified", "deleted"] {
        assert_eq!(next_event(&mut chosen).await, (expected, "watched".to_owned()));
    }
}

/// `/status` writes the status alone, and nothing else does.
async fn status_is_written_apart(client: &Client) {
    let services: Api<Service> = Api::namespaced(client.clone(), "default");
    services.create(&PostParams::default(), &service("status")).await.unwrap();
    let ingress = json!([{ "ip": "192.0.2.1" }]);
    let both = json!({ "metadata": { "labels": { "l": "1" } }, "status": { "loadBalancer": { "ingress": ingress } } });
    let patched = services.patch("status", &PatchParams::default(), &Patch::Merge(&both)).await.unwrap();
    let ingress_of = |object: &Service| object.status.clone().unwrap().load_balancer.unwrap().ingress;
    assert_eq!((ingress_of(&patched), patched.labels().len()), (None, 1));
    let spec = json!({ "spec": { "sessionAffinity": "ClientIP" }, "status": both["status"] });
    let patched = services.patch_status("status", &PatchParams::default(), &Patch::Merge(&spec)).await.unwrap();
    assert_eq!(ingress_of(&patched).unwrap()[0].ip.as_deref(), Some("192.0.2.1"));
    assert_eq!(patched.spec.unwrap().session_affinity.as_deref(), Some("None"));
}

/// Server-side apply: a field of another is a conflict unless it is taken by force.
async fn field_owners(client: &Client) {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "default");
    let wanted = |holder: &str| {
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": "owned" },
            "spec": { "holderIdentity": holder },
        })
    };
    let apply = |manager: &'static str, holder: &'static str, force: bool| {
        let leases = leases.clone();
        async move {
            let parameters = PatchParams { force, ..PatchParams::apply(manager) };
            leases.patch("owned", &parameters, &Patch::Apply(&wanted(holder))).await
        }
    };
    apply("one", "a", false).await.unwrap();
    apply("two", "a", false).await.unwrap();
    let refused = status(apply("two", "b", false).await.unwrap_err());
    assert_eq!((refused.code, refused.reason.as_str()), (409, "Conflict"), "{refused:?}");
    let taken = apply("two", "b", true).await.unwrap();
    assert_eq!(taken.spec.unwrap().holder_identity.as_deref(), Some("b"));
}

/// Of two that take a lease at the version they saw, one has it.
async fn leases(client: &Client) {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "default");
    let seen = leases.create(&PostParams::default(), &lease("leader", "nobody")).await.unwrap();
    let take = |holder: &str| {
        let mut lease = seen.clone();
        lease.spec.as_mut().unwrap().holder_identity = Some(holder.to_owned());
        let leases = leases.clone();
        async move { leases.replace("leader", &PostParams::default(), &lease).await }
    };
    let (one, two) = tokio::join!(take("one"), take("two"));
    let holder = leases.get("leader").await.unwrap().spec.unwrap().holder_identity.unwrap();
    assert_eq!([one.is_ok(), two.is_ok()], [holder == "one", holder == "two"]);
    let loser = if one.is_err() { one } else { two };
    assert_eq!(status(loser.unwrap_err()).code, 409);
    let mut blind = lease("leader", "three");
    blind.metadata.resource_version = None;
    let refused = status(leases.replace("leader", &PostParams::default(), &blind).await.unwrap_err());
    assert_eq!(refused.code, 422, "a Lease wants the version: {refused:?}");
}

/// `EndpointSlice` of v1 is served, built in or not.
async fn slices(client: &Client) {
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), "default");
    let slice = json!({
        "metadata": { "name": "web-1", "labels": { "kubernetes.io/service-name": "web" } },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": ["10.0.1.2"], "conditions": { "ready": true }, "nodeName": "node-1" }],
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
    });
    slices.create(&PostParams::default(), &serde_json::from_value(slice).unwrap()).await.unwrap();
    let chosen = ListParams::default().labels("kubernetes.io/service-name=web");
    let listed = slices.list(&chosen).await.unwrap().items;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].endpoints[0].node_name.as_deref(), Some("node-1"));
}

/// A custom resource is served once it is made, and its objects are checked against its schema.
async fn custom_resources(client: &Client) {
    let mut definition = open_definition("test.levee.dev", "v1", "Thing", "things", "Cluster");
    let schema = json!({ "type": "object", "properties": {
        "spec": { "type": "object", "properties": { "size": { "type": "integer", "maximum": 9 } } },
    }});
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = schema;
    install(client, serde_json::from_value(definition).unwrap()).await.unwrap();
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    assert!(definitions.get_opt("things.test.levee.dev").await.unwrap().is_some());
    let make = |size: u32| {
        let thing = json!({
            "apiVersion": "test.levee.dev/v1", "kind": "Thing",
            "metadata": { "name": format!("thing-{size}") }, "spec": { "size": size },
        });
        let request = hyper::Request::post("/apis/test.levee.dev/v1/things").header("content-type", "application/json");
        let request = request.body(thing.to_string().into_bytes()).unwrap();
        let client = client.clone();
        async move { client.request::<serde_json::Value>(request).await }
    };
    assert_eq!(make(9).await.unwrap()["metadata"]["generation"], 1);
    assert_eq!(status(make(10).await.unwrap_err()).code, 422);
}

#[tokio::test]
#[cfg_attr(lacks_slices, ignore = "needs Kubernetes 1.21: the server itself writes the slice default/kubernetes")]
async fn a_server_writes_its_own_slice() {
    let bed = Bed::start().await.unwrap();
    assert!(bed.assets.can(Ability::Slices));
    let slices: Api<EndpointSlice> = Api::namespaced(bed.admin().await.unwrap(), "default");
    let look = || async { Ok(slices.get("kubernetes").await?) };
    let (slice, _) = wait::until("the slice default/kubernetes", PATIENCE, look).await.unwrap();
    assert_eq!(slice.endpoints[0].addresses, ["192.0.2.10"]);
}

#[tokio::test]
#[cfg_attr(lacks_ip_mode, ignore = "needs Kubernetes 1.30: ipMode of an ingress")]
async fn the_mode_of_an_ingress_is_kept() {
    let bed = Bed::start().await.unwrap();
    let services: Api<Service> = Api::namespaced(bed.admin().await.unwrap(), "default");
    let balanced = json!({ "spec": { "type": "LoadBalancer" } });
    services.create(&PostParams::default(), &service("mode")).await.unwrap();
    services.patch("mode", &PatchParams::default(), &Patch::Merge(&balanced)).await.unwrap();
    let ingress = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "192.0.2.1", "ipMode": "VIP" }] } } });
    let patched = services.patch_status("mode", &PatchParams::default(), &Patch::Merge(&ingress)).await.unwrap();
    let ingress = patched.status.unwrap().load_balancer.unwrap().ingress.unwrap();
    assert_eq!(ingress[0].ip_mode.as_deref(), Some("VIP"));
}

#[tokio::test]
async fn rights_are_what_roles_give_and_no_more() {
    let token = Token { token: "secret".to_owned(), user: "robot".to_owned(), groups: vec!["robots".to_owned()] };
    let settings = Settings { tokens: vec![token], ..Settings::default() };
    let bed = Bed::start_with(&settings).await.unwrap();
    let admin = bed.admin().await.unwrap();
    make_namespace(&admin, "levee-system").await.unwrap();
    let account = account_token(&admin, "levee-system", "levee-agent").await.unwrap();
    let by_certificate = bed.keys.user(&bed.scope, "system:node:node-1", "system:nodes").unwrap();
    let by_file = User::Token("secret".to_owned());
    let role = json!({
        "metadata": { "name": "leases" },
        "rules": [{ "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create", "get"] }],
    });
    let subject = json!({ "kind": "ServiceAccount", "name": "levee-agent", "namespace": "levee-system" });
    let binding = json!({
        "metadata": { "name": "leases" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "leases" },
        "subjects": [subject, { "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "robot" }],
    });
    let namespace = "levee-system";
    let roles: Api<Role> = Api::namespaced(admin.clone(), namespace);
    roles.create(&PostParams::default(), &serde_json::from_value(role).unwrap()).await.unwrap();
    let bindings: Api<RoleBinding> = Api::namespaced(admin.clone(), namespace);
    bindings.create(&PostParams::default(), &serde_json::from_value(binding).unwrap()).await.unwrap();

    for (name, user) in [("account", &account), ("robot", &by_file)] {
        let client = bed.client(user).await.unwrap();
        let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
        // The server learns of roles by watching them itself.
        let make = || async {
            match leases.create(&PostParams::default(), &lease(name, name)).await {
                Err(Error::Api(status)) if status.code == 409 => Ok(()),
                other => Ok(other.map(drop)?),
            }
        };
        wait::until("the right to make a lease", PATIENCE, make).await.unwrap();
        leases.get(name).await.unwrap();
        let refused = status(leases.delete(name, &DeleteParams::default()).await.map(drop).unwrap_err());
        assert_eq!((refused.code, refused.reason.as_str()), (403, "Forbidden"), "{refused:?}");
        let elsewhere: Api<Lease> = Api::namespaced(client.clone(), "default");
        assert_eq!(status(elsewhere.get("x").await.unwrap_err()).code, 403);
    }
    let refused = |user| {
        let bed = &bed;
        async move {
            let namespaces: Api<Namespace> = Api::all(bed.client(&user).await.unwrap());
            status(namespaces.list(&ListParams::default()).await.map(drop).unwrap_err()).code
        }
    };
    assert_eq!(refused(User::Anonymous).await, 403);
    assert_eq!(refused(by_certificate).await, 403);
    assert_eq!(refused(User::Token("wrong".to_owned())).await, 401);
}

#[tokio::test]
async fn a_server_that_was_killed_goes_on_with_its_objects() {
    let mut bed = Bed::start().await.unwrap();
    let admin = bed.admin().await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(admin.clone(), "default");
    let map = ConfigMap {
        metadata: ObjectMeta { name: Some("kept".to_owned()), ..ObjectMeta::default() },
        ..ConfigMap::default()
    };
    let made = maps.create(&PostParams::default(), &map).await.unwrap();
    let mut events = maps.watch(&WatchParams::default(), &version_of(&made)).await.unwrap().boxed();

    bed.server.kill().unwrap();
    let ended = timeout(PATIENCE, async { while let Some(Ok(_)) = events.next().await {} }).await;
    assert!(ended.is_ok(), "the watch goes on without a server");
    assert!(maps.get("kept").await.is_err());
    bed.server.start(&bed.scope).unwrap();
    bed.server.ready(START).await.unwrap();
    let found = maps.get("kept").await.unwrap();
    assert_eq!((version_of(&found), found.uid()), (version_of(&made), made.uid()));

    // A watch from before goes on where it was, though another server was told of it.
    maps.delete("kept", &DeleteParams::default()).await.unwrap();
    let mut events = maps.watch(&WatchParams::default(), &version_of(&made)).await.unwrap().boxed();
    let event = timeout(PATIENCE, events.next()).await.unwrap().unwrap().unwrap();
    assert!(matches!(event, WatchEvent::Deleted(_)), "{event:?}");

    bed.etcd.kill().unwrap();
    let write = |name: &str| {
        let mut map = map.clone();
        map.metadata.name = Some(name.to_owned());
        let maps = maps.clone();
        async move { timeout(Duration::from_secs(3), maps.create(&PostParams::default(), &map)).await }
    };
    assert!(!matches!(write("lost").await, Ok(Ok(_))), "a write succeeded without etcd");
    bed.etcd.start(&bed.scope).unwrap();
    bed.etcd.ready(START).await.unwrap();
    bed.server.ready(START).await.unwrap();
    let look = || async { Ok(write("found").await??) };
    wait::until("a write after etcd is back", PATIENCE, look).await.unwrap();
}

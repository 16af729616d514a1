use std::{collections::BTreeMap, path::Path, sync::Arc, sync::Mutex};

use super::*;
use crate::{
    config,
    model::{ClusterNode, Interface, InterfaceKind, Inventory, MacAddr, network::InterfaceAddress},
};

const TEXT: &str = "\
node: {name: n1, addresses: [10.0.1.2]}
interfaces: [{name: eth0}]
secret: 000102030405060708090a0b0c0d0e0f
controlPlane: {vips: [192.0.2.6], backends: [10.0.1.2, 10.0.1.3], probe: none}
kubernetes: {kubeconfig: /k}
";

/// The sources that were started: what they yield goes in here.
type Started = Vec<(Errand, watch::Sender<Option<Snapshot>>)>;
static STARTED: Mutex<BTreeMap<String, Started>> = Mutex::new(BTreeMap::new());

/// Starts a source that is found by its `kubeconfig`, so that tests do not see each other's.
#[expect(clippy::unnecessary_wraps, reason = "a source that never fails")]
fn spawn(errand: Errand) -> Result<Followed> {
    let (sender, snapshots) = watch::channel(None);
    let (status, lease) = (watch::Sender::default().subscribe(), watch::Sender::default().subscribe());
    let name = errand.access.kubeconfig.as_ref().unwrap().display().to_string();
    STARTED.lock().unwrap().entry(name).or_default().push((errand, sender));
    Ok(Followed { snapshots, status, lease })
}

fn config(text: &str) -> Config {
    config::parse("levee.yaml", text, Path::new("/")).unwrap()
}

/// A host that `TEXT` fits.
fn network() -> watch::Receiver<Network> {
    let mut network = Network::default();
    let interface = Interface {
        index: 2,
        name: "eth0".to_owned(),
        mac: MacAddr([2, 0, 0, 0, 0, 1]),
        mtu: 1500,
        up: true,
        kind: InterfaceKind::Ethernet,
    };
    network.interfaces.insert(2, interface);
    network.addresses.push(on_eth0("10.0.1.2/24"));
    watch::channel(network).1
}

fn on_eth0(net: &str) -> InterfaceAddress {
    InterfaceAddress { interface: 2, net: net.parse().unwrap() }
}

fn snapshot(nodes: &[&str]) -> Snapshot {
    let mut inventory = Inventory::default();
    for (last, name) in (2..).zip(nodes) {
        let node = ClusterNode { internal: vec![[10, 0, 1, last].into()], ..ClusterNode::default() };
        inventory.nodes.insert((*name).to_owned(), node);
    }
    Snapshot { inventory: Arc::new(inventory), origin: Origin::Live }
}

fn compositor(text: &str) -> Compositor {
    Compositor::new(spawn, config(text), network(), CancellationToken::new()).unwrap()
}

/// What the latest source of this name yields, and the servers it is told.
fn source(name: &str) -> (watch::Sender<Option<Snapshot>>, watch::Receiver<Vec<SocketAddr>>, CancellationToken) {
    let started = STARTED.lock().unwrap();
    let (errand, sender) = started[name].last().unwrap();
    (sender.clone(), errand.servers.clone(), errand.cancel.clone())
}

fn wanted(update: Option<Update>) -> Wanted {
    match update {
        Some(Update::Wanted(wanted)) => *wanted,
        other => panic!("{other:?}"),
    }
}

fn peers(wanted: &Wanted) -> Vec<&str> {
    wanted.config.desired.peers.iter().map(|peer| peer.name.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn the_first_inventory_is_waited_for_and_servers_are_known_before() {
    let mut compositor = compositor(&TEXT.replace("/k", "/first"));
    let (sender, servers, _) = source("/first");
    assert_eq!(*servers.borrow(), ["10.0.1.2:6443", "10.0.1.3:6443"].map(|server| server.parse().unwrap()));
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(3)).await;
        sender.send_replace(Some(snapshot(&["n1", "n2"])));
        std::future::pending::<()>().await;
    });
    let first = compositor.first().await;
    assert_eq!(peers(&first), ["n2"]);
    assert_eq!(first.cluster.unwrap().origin, "live");
}

#[tokio::test(start_paused = true)]
async fn without_any_inventory_the_control_plane_is_served() {
    let mut compositor = compositor(&TEXT.replace("/k", "/never"));
    let first = compositor.first().await;
    let names: Vec<_> = first.config.desired.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["control-plane"]);
    assert_eq!(first.cluster.unwrap().origin, "none");
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_and_inventories_come_together_and_a_bad_edit_takes_nothing_away() {
    let text = TEXT.replace("/k", "/edits");
    let compositor = compositor(&text);
    let (sender, _, _) = source("/edits");
    let (outcomes, receiver) = mpsc::channel(1);
    let mut updates = compositor.run(receiver);
    sender.send_replace(Some(snapshot(&["n1", "n2"])));
    let update = wanted(updates.recv().await);
    assert_eq!((peers(&update), update.is_edit), (vec!["n2"], false));
    let elsewhere = config(&text.replace("10.0.1.2]}", "10.9.9.9]}"));
    outcomes.send(Ok(elsewhere)).await.unwrap();
    let Some(Update::Refused(errors)) = updates.recv().await else { panic!("the host has no such address") };
    assert!(errors.to_string().contains("10.9.9.9"), "{errors}");
    sender.send_replace(Some(snapshot(&["n1", "n2", "n3"])));
    let update = wanted(updates.recv().await);
    assert_eq!((peers(&update), update.config.desired.node.addresses.len()), (vec!["n2", "n3"], 1));
    outcomes.send(Ok(config(&text))).await.unwrap();
    assert!(wanted(updates.recv().await).is_edit);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_subnet_on_a_link_is_another_composition_and_the_same_again_is_none() {
    let text = TEXT.replace("/k", "/links");
    let (network, seen) = watch::channel(network().borrow().clone());
    let compositor = Compositor::new(spawn, config(&text), seen, CancellationToken::new()).unwrap();
    let (sender, _, _) = source("/links");
    let (_outcomes, receiver) = mpsc::channel(1);
    let mut updates = compositor.run(receiver);
    let compositions = |update: Option<Update>| wanted(update).cluster.unwrap().compositions;
    network.send_modify(|network| network.addresses.push(on_eth0("192.0.2.2/24")));
    let first = compositions(updates.recv().await);
    // A host address is no other subnet: what comes next is the inventory's.
    network.send_modify(|network| network.addresses.push(on_eth0("198.51.100.1/32")));
    tokio::task::yield_now().await;
    sender.send_replace(Some(snapshot(&["n1", "n2"])));
    let update = wanted(updates.recv().await);
    assert_eq!((peers(&update), update.cluster.as_ref().unwrap().compositions), (vec!["n2"], first + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_read_otherwise_is_another_source() {
    let text = TEXT.replace("/k", "/before");
    let compositor = compositor(&text);
    let (_, _, cancelled) = source("/before");
    let (outcomes, receiver) = mpsc::channel(1);
    let mut updates = compositor.run(receiver);
    outcomes.send(Ok(config(&format!("{text}http: off\n")))).await.unwrap();
    wanted(updates.recv().await);
    assert!(!cancelled.is_cancelled() && STARTED.lock().unwrap()["/before"].len() == 1);
    outcomes.send(Ok(config(&text.replace("/before", "/after")))).await.unwrap();
    wanted(updates.recv().await);
    assert!(cancelled.is_cancelled() && STARTED.lock().unwrap()["/after"].len() == 1);
    outcomes.send(Ok(config(&text.replace("kubernetes:", "# ")))).await.unwrap();
    let update = wanted(updates.recv().await);
    assert!(update.cluster.is_some(), "there is still a control plane");
    assert!(source("/after").2.is_cancelled());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_told_the_nodes_name_and_the_fingerprint_whenever_it_changes() {
    let text = TEXT.replace("{kubeconfig: /k}", "{kubeconfig: /lease, nodeName: worker-1}");
    let compositor = compositor(&text);
    let told = || {
        let started = STARTED.lock().unwrap();
        let errand = &started["/lease"].last().unwrap().0;
        (errand.node.clone(), errand.fingerprint.borrow().clone(), started["/lease"].len())
    };
    let before = config(&text).agent.secret.fingerprint();
    assert_eq!(told(), ("worker-1".to_owned(), before.clone(), 1));
    let (outcomes, receiver) = mpsc::channel(1);
    let mut updates = compositor.run(receiver);
    let other = text.replace("0f\n", "ff\n");
    let after = config(&other).agent.secret.fingerprint();
    assert_ne!(before, after);
    outcomes.send(Ok(config(&other))).await.unwrap();
    wanted(updates.recv().await);
    assert_eq!(told(), ("worker-1".to_owned(), after.clone(), 1), "the same source goes on");
    outcomes.send(Ok(config(&other.replace("worker-1", "worker-2")))).await.unwrap();
    wanted(updates.recv().await);
    assert_eq!(told(), ("worker-2".to_owned(), after, 2), "another Lease");
}

//! Three nodes serve one VIP; one of them loses the API alone, its server, and its power.

use std::{
    net::{IpAddr, SocketAddrV4},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Node};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use kube_tests::{
    controller::Controller,
    deployed::NAMESPACE,
    follow,
    masters::{
        FALL, INTERVAL, Masters, PATIENCE, VIP,
        ask::{Asking, PORTS, tally},
        create,
    },
};
use netns_tests::{
    cluster::PORT,
    monitor::{Monitor, Of},
    observe::choices,
    routing::Suite,
    topology::CLIENT,
    wait,
};
use serde_json::{Value, json};
use tokio::time::{sleep, sleep_until};

use crate::{ROUTING, failed, servers, title, told, turn};

/// Connections that are spread over the servers.
const COUNT: usize = 300;
/// Limit of a request where failures are counted: a SYN is repeated after a second, and again after two more.
const LIMIT: Duration = Duration::from_secs(10);
/// Time between two requests of a stream.
const PERIOD: Duration = Duration::from_millis(50);
/// The node that something happens to.
const VICTIM: usize = 2;
/// What a controller says when it leads, and when it does no more.
const LEADS: &str = "successfully acquired lease";
const STOPS: &str = "stopped leading";

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_serve_one_vip_and_one_of_them_leads() {
    let _turn = turn().await;
    let _kept = promises::keeps(&["S0-01", "S0-05", "S0-06", "F03"], &title());
    let mut masters = Masters::start(Suite::Frr).await.unwrap();
    masters.start_controllers(&json!({ "log": { "format": "json" } })).unwrap();
    let leader = the_leader(&masters).await;
    for node in 0..masters.servers.len() {
        assert_eq!(masters.held_and_announced(node).unwrap(), (true, true), "node {node}; {leader} leads");
    }
    every_server_takes_part(&masters).await;
    strangers_get_the_servers_own_answer(&masters).await;
    a_node_that_is_told_not_ready_stays(&masters).await;
    what_is_removed_returns(&masters).await;
    a_leader_without_the_api_stops_before_another_begins(&mut masters, leader).await;
    a_node_without_its_server_is_left_out(&mut masters).await;
    a_node_without_power_breaks_its_own_connections_only(&mut masters).await;
}

/// How often each controller has begun to lead.
fn leads(masters: &Masters) -> Vec<usize> {
    masters.controllers.iter().map(|controller| controller.logged(LEADS).len()).collect()
}

/// The controller that leads, when all take part and the Lease says the same.
async fn the_leader(masters: &Masters) -> usize {
    let look = || async {
        for controller in &masters.controllers {
            ensure!(!controller.logged("attempting to acquire").is_empty(), "{} takes no part yet", controller.name());
        }
        let leads = leads(masters);
        ensure!(leads.iter().sum::<usize>() > 0, "nobody leads");
        Ok(leads)
    };
    let (leads, _) = wait::until("a leader", PATIENCE, look).await.unwrap();
    assert_eq!(leads.iter().sum::<usize>(), 1, "{leads:?}");
    let leader = leads.iter().position(|count| *count == 1).unwrap();
    let holder = holder(masters, 0).await.unwrap();
    assert!(holder.starts_with(masters.controllers[leader].name()), "{holder}");
    leader
}

/// Who holds the Lease of the controllers, as a server says.
async fn holder(masters: &Masters, server: usize) -> Result<String> {
    let read = |client| async move {
        let lease = Api::<Lease>::namespaced(client, NAMESPACE).get("levee-controller").await?;
        Ok(lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default())
    };
    masters.ask(server, read).await
}

async fn every_server_takes_part(masters: &Masters) {
    let attempts = masters.asker(LIMIT).unwrap().many(&masters.cluster.runtime, COUNT, 8).await;
    let (answers, failures) = tally(&attempts);
    assert!(failures.is_empty() && answers.values().sum::<usize>() == COUNT, "{answers:?}, {failures:?}");
    assert_eq!(answers.keys().cloned().collect::<Vec<_>>(), masters.cluster.names(), "{answers:?}");
}

async fn strangers_get_the_servers_own_answer(masters: &Masters) {
    let asker = masters.asker(LIMIT).unwrap();
    let asked = masters.cluster.runtime.spawn(async move { asker.status("/").await });
    let (status, body) = asked.await.unwrap().unwrap();
    let expected = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": r#"forbidden: User "system:anonymous" cannot get path "/""#,
        "reason": "Forbidden", "details": {}, "code": 403,
    });
    assert_eq!((status, body), (403, expected));
}

/// What the API says of a node's health is no reason to move the address of the API.
async fn a_node_that_is_told_not_ready_stays(masters: &Masters) {
    let node = &masters.cluster.topology.nodes[VICTIM];
    let monitor = Monitor::start(&masters.cluster.scope, &node.netns, Of::Addresses).unwrap();
    let (name, mut mark) = (node.name.clone(), follow::node(node));
    mark["metadata"]["name"] = json!("mark");
    mark["status"]["addresses"] = json!([{ "type": "InternalIP", "address": "10.0.99.2" }]);
    let tell = |client: kube::Client| async move {
        let status = json!({ "status": { "conditions": [{ "type": "Ready", "status": "False" }] } });
        let nodes = Api::<Node>::all(client.clone());
        nodes.patch_status(&name, &PatchParams::default(), &Patch::Strategic(&status)).await?;
        create(&client, &mark).await
    };
    masters.ask(0, tell).await.unwrap();
    for agent in 0..masters.servers.len() {
        let seen = || async {
            let known = masters.status(agent)?["cluster"]["nodes"].clone();
            ensure!(known == masters.servers.len() + 1, "{known} nodes are known");
            Ok(())
        };
        wait::until("the agents to know what came after", PATIENCE, seen).await.unwrap();
        masters.serve(agent, &[0, 1, 2]).await.unwrap();
    }
    assert_eq!(masters.held_and_announced(VICTIM).unwrap(), (true, true));
    assert_eq!(monitor.deleted(VIP).unwrap(), Vec::<String>::new());
}

async fn what_is_removed_returns(masters: &Masters) {
    masters.cluster.topology.nodes[0].netns.ip(&format!("addr del {VIP}/32 dev lo")).unwrap();
    masters.wait_for(0, (true, true), INTERVAL).await.unwrap();
}

/// When a controller said something last.
fn said_at(controller: &Controller, what: &str) -> Option<jiff::Timestamp> {
    let line: Value = controller.logged(what).pop()?;
    line["timestamp"].as_str()?.parse().ok()
}

/// The leader's node alone reaches no API server any more.
async fn a_leader_without_the_api_stops_before_another_begins(masters: &mut Masters, leader: usize) {
    let netns = &masters.cluster.topology.nodes[leader].netns;
    let rule = format!(
        "add table inet cut; add chain inet cut out {{ type filter hook output priority 0; }}; \
         add rule inet cut out tcp dport {PORT} drop"
    );
    netns.run("nft", &[&rule]).unwrap();
    let others: Vec<_> = (0..masters.controllers.len()).filter(|node| *node != leader).collect();
    let taken = || async {
        let leads = leads(masters);
        ensure!(others.iter().any(|other| leads[*other] > 0), "{leads:?}");
        Ok(leads)
    };
    let leads_now = wait::until("another leader", PATIENCE, taken).await;
    let (leads_now, _) = told(masters, leads_now);
    assert_eq!(leads_now.iter().sum::<usize>(), 2, "{leads_now:?}");
    let next = others.iter().copied().find(|other| leads_now[*other] > 0).unwrap();
    let stopped = said_at(&masters.controllers[leader], STOPS).expect("the one that leads no more says so");
    let began = said_at(&masters.controllers[next], LEADS).unwrap();
    assert!(stopped <= began, "one led until {stopped}, the other from {began} on");

    let netns = &masters.cluster.topology.nodes[leader].netns;
    netns.run("nft", &["delete table inet cut"]).unwrap();
    let back = || async {
        let held = holder(masters, leader).await?;
        ensure!(held.starts_with(masters.controllers[next].name()), "{held}");
        ensure!(
            !masters.controllers[leader].logged("lease levee-system/levee-controller answers again").is_empty(),
            ""
        );
        Ok(())
    };
    let back = wait::until("the former leader to follow", PATIENCE, back).await;
    told(masters, back);
    let leads = leads(masters);
    assert_eq!(leads, leads_now, "nothing moved when it came back");
    let settled = masters.settled().await;
    told(masters, settled);
}

/// Its server is killed: the node is left out at once, and clients on it are served by others.
async fn a_node_without_its_server_is_left_out(masters: &mut Masters) {
    let begin = Instant::now();
    let runtime = masters.on_node(VICTIM).unwrap();
    let stream = Asking::start(&runtime, &masters.asker(LIMIT).unwrap(), PERIOD);
    sleep(INTERVAL).await;
    masters.servers[VICTIM].kill().unwrap();
    let killed = Instant::now();
    // The last good probe may have been just before, and what is found out has to be done.
    let bound = INTERVAL * FALL + INTERVAL / 2;
    let left = masters.wait_for(VICTIM, (false, false), bound).await;
    let took = told(masters, left);
    let rest = (bound + ROUTING).saturating_sub(killed.elapsed());
    let routes = masters.cluster.wait_for_routes(2, rest).await;
    told(masters, routes);
    sleep_until((killed + bound + INTERVAL).into()).await;
    let end = Instant::now();
    let attempts = stream.stop().await;
    drop(runtime);
    eprintln!("a node whose server was killed let go after {took:?}");
    assert_eq!(failed(&attempts, begin, killed - PERIOD * 2), Vec::<String>::new());
    assert_eq!(failed(&attempts, killed + bound, end), Vec::<String>::new());
    assert_eq!(servers(&attempts, killed + bound, end), masters.cluster.names()[..VICTIM]);

    let scope = &masters.cluster.scope;
    masters.servers[VICTIM].start(scope).unwrap();
    let settled = masters.settled().await;
    told(masters, settled);
}

/// All failures are counted, and each of them was a connection to the node that died.
async fn a_node_without_power_breaks_its_own_connections_only(masters: &mut Masters) {
    let IpAddr::V4(client) = CLIENT[0] else { panic!("{CLIENT:?}") };
    let IpAddr::V4(vip) = VIP else { panic!("{VIP}") };
    // Every port that the stream comes from is with a server: the directors agree, so one of them can be asked.
    let ports = PORTS.start..PORTS.start + 1000;
    let sources: Vec<_> = ports.map(|port| SocketAddrV4::new(client, port)).collect();
    let chosen = choices(&masters.cluster.agents[0], &sources, SocketAddrV4::new(vip, PORT)).unwrap();
    // The other members of etcd may have to find another leader, which is none of the balancer's business.
    let asker = masters.asker(LIMIT).unwrap().for_version();
    let stream = Asking::start(&masters.cluster.runtime, &asker, PERIOD);
    let begin = Instant::now();
    sleep(INTERVAL * 2).await;
    masters.pull_plug(VICTIM).unwrap();
    let pulled = Instant::now();
    let clean = pulled + INTERVAL * 3;
    let routes = masters.cluster.wait_for_routes(2, PATIENCE).await;
    told(masters, routes);
    sleep(INTERVAL * (FALL + 3)).await;
    let end = Instant::now();
    let attempts = stream.stop().await;

    assert_eq!(failed(&attempts, begin, pulled - PERIOD * 2), Vec::<String>::new());
    let late = failed(&attempts, clean, end);
    assert!(late.is_empty(), "three intervals after the plug was pulled: {late:?}\n{}", masters.log_tails());
    let lost: Vec<_> = attempts.iter().filter(|attempt| attempt.outcome.is_err()).collect();
    let dead = masters.address(VICTIM);
    let others: Vec<_> =
        lost.iter().filter(|attempt| chosen[usize::from(attempt.port - PORTS.start)] != Some(dead)).collect();
    assert!(others.is_empty(), "connections to other servers: {others:?}");
    eprintln!("{} of {} connections were lost, all to the node that died", lost.len(), attempts.len());
    assert_eq!(servers(&attempts, clean, end), masters.cluster.names()[..VICTIM]);
}

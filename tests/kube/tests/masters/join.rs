//! Nodes come one after the other, as `kubeadm init` and `kubeadm join` bring them: the agent first, then what needs the
//! address of the API, then the API server.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};
use kube_tests::{
    bed::START,
    etcd::Etcd,
    masters::{
        FALL, INTERVAL, Masters, PATIENCE,
        ask::{Asking, Attempt},
    },
    place::Place,
};
use netns_tests::{client::Failure, config::AgentConfig, routing::Suite};
use tokio::time::sleep;

use crate::{failed, servers, told, turn};

/// Limit of a request: a SYN is repeated after a second, and again after two more.
const LIMIT: Duration = Duration::from_secs(10);
/// Time between two requests.
const PERIOD: Duration = Duration::from_millis(50);

#[tokio::test(flavor = "multi_thread")]
async fn nodes_join_by_the_vip_with_their_agents_running_first() {
    let _turn = turn().await;
    let mut masters = Masters::build(Suite::Bird).unwrap();
    init(&mut masters).await;
    for node in 1..masters.servers.len() {
        join(&mut masters, node).await;
    }
    let last = masters.servers.len() - 1;
    a_client_beside_a_dead_server_is_served(&mut masters, last).await;
}

/// An agent whose peers and servers are written, those to come included, and which follows the API besides.
fn config(masters: &Masters, node: usize) -> AgentConfig {
    let written = AgentConfig::for_node(&masters.cluster.scope, &masters.cluster.topology, node).unwrap();
    AgentConfig { peers: written.peers, ..masters.agent_config(node, &[0, 1, 2]).unwrap() }
}

fn place(masters: &Masters, node: usize) -> Place {
    Place::inside(&masters.cluster.topology.nodes[node].netns, masters.address(node))
}

/// Makes an object by the VIP.
async fn make(masters: &Masters, name: String) -> anyhow::Result<()> {
    let make = |client| async move {
        let metadata = ObjectMeta { name: Some(name), ..ObjectMeta::default() };
        let map = ConfigMap { metadata, ..ConfigMap::default() };
        Api::<ConfigMap>::namespaced(client, "default").create(&PostParams::default(), &map).await?;
        Ok(())
    };
    masters.ask_vip(make).await
}

/// The first node: an agent where nothing else is, then etcd and the API server, then objects.
async fn init(masters: &mut Masters) {
    let (scope, name) = (&masters.cluster.scope, masters.cluster.topology.nodes[0].name.clone());
    let first = Etcd::single(scope, &masters.assets, &name, place(masters, 0));
    masters.start_agent(&config(masters, 0)).unwrap();
    masters.cluster.agents[0].wait_ready(PATIENCE).await.unwrap();
    assert_eq!(masters.held_and_announced(0).unwrap(), (false, false), "no server was there");

    masters.members = vec![first];
    masters.members[0].start(&masters.cluster.scope).unwrap();
    masters.members[0].ready(START).await.unwrap();
    masters.servers[0].start(&masters.cluster.scope).unwrap();
    masters.servers[0].ready(START).await.unwrap();
    // By the first good probe, which may be under way; a few more for a busy machine.
    let stands = masters.wait_for(0, (true, true), INTERVAL * 4).await;
    told(masters, stands);
    let routes = masters.cluster.wait_for_routes(1, PATIENCE).await;
    told(masters, routes);
    let served = masters.serve(0, &[0]).await;
    told(masters, served);
    let made = make(masters, "first".to_owned()).await;
    told(masters, made);
}

/// A further node: its agent, then a client on it that needs the API all the time, then etcd and the API server.
async fn join(masters: &mut Masters, node: usize) {
    let name = masters.cluster.topology.nodes[node].name.clone();
    let begin = Instant::now();
    let runtime = masters.on_node(node).unwrap();
    let stream = Asking::start(&runtime, &masters.asker(LIMIT).unwrap(), PERIOD);
    masters.start_agent(&config(masters, node)).unwrap();
    masters.cluster.agents[node].wait_ready(PATIENCE).await.unwrap();
    let before: Vec<_> = (0..node).collect();
    let serve = masters.serve(node, &before).await;
    told(masters, serve);
    assert_eq!(masters.held_and_announced(node).unwrap(), (false, false), "it has no server");
    sleep(INTERVAL * (FALL + 2)).await;
    assert_eq!(masters.held_and_announced(node).unwrap(), (false, false), "nor has it later");

    let scope = &masters.cluster.scope;
    let member = Etcd::joining(scope, &masters.assets, &name, place(masters, node), &masters.members).unwrap();
    masters.members.push(member);
    masters.members[node].start(&masters.cluster.scope).unwrap();
    masters.members[node].ready(START).await.unwrap();
    let joined = Instant::now();
    masters.servers[node].start(&masters.cluster.scope).unwrap();
    let ready = masters.servers[node].ready(START).await;
    told(masters, ready);
    let all: Vec<_> = (0..=node).collect();
    for agent in &all {
        let serve = masters.serve(*agent, &all).await;
        told(masters, serve);
    }
    let stands = masters.wait_for(node, (true, true), PATIENCE).await;
    told(masters, stands);
    let routes = masters.cluster.wait_for_routes(all.len(), PATIENCE).await;
    told(masters, routes);
    let made = make(masters, format!("of-{name}")).await;
    told(masters, made);
    sleep(INTERVAL).await;
    let end = Instant::now();
    let attempts = stream.stop().await;
    drop(runtime);

    assert_eq!(failed(&attempts, begin, joined), Vec::<String>::new(), "before its server was started");
    assert!(!servers(&attempts, begin, joined).contains(&name));
    // From its beginning on it is asked itself, and says for a while that it is not ready. What was on its way to another
    // server in that moment has to be asked anew.
    let is_broken = |attempt: &&Attempt| {
        attempt.began >= joined && attempt.outcome.as_ref().is_err_and(|failure| !is_answer(failure))
    };
    let broken: Vec<_> = attempts.iter().filter(is_broken).collect();
    assert!(!broken.iter().any(|attempt| attempt.outcome == Err(Failure::Refused)), "{broken:?}");
    assert!(broken.len() <= 1, "{broken:?}");
    eprintln!("{name} joined in {:?}; {} requests, {} broken", end - begin, attempts.len(), broken.len());
    assert!(servers(&attempts, joined, end).contains(&name), "its clients are served by its own server");
}

/// Whether it was an answer of a server, though not the right one.
const fn is_answer(failure: &Failure) -> bool {
    matches!(failure, Failure::WrongAnswer(_))
}

/// A client on a node whose own server was killed goes over the wire as soon as that is found out.
async fn a_client_beside_a_dead_server_is_served(masters: &mut Masters, node: usize) {
    let runtime = masters.on_node(node).unwrap();
    let stream = Asking::start(&runtime, &masters.asker(LIMIT).unwrap(), PERIOD);
    sleep(INTERVAL).await;
    masters.servers[node].kill().unwrap();
    let killed = Instant::now();
    // The last good probe may have been just before, and what is found out has to be done.
    let bound = INTERVAL * FALL + INTERVAL / 2;
    sleep(bound + INTERVAL * 2).await;
    let end = Instant::now();
    let attempts = stream.stop().await;
    assert_eq!(failed(&attempts, killed + bound, end), Vec::<String>::new());
    assert!(!servers(&attempts, killed + bound, end).contains(&masters.cluster.names()[node]));
}

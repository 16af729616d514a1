use std::time::Duration;

use super::*;
use crate::model::{Backend, Delivery, HoldWhen, MssClamp, Node, Peer, Protocol, RingSize, Service};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn service(name: &str, port: u16) -> Service {
    let backend = |address| Backend { address: ip(address), port, weight: 1 };
    Service {
        name: name.to_owned(),
        vips: vec![ip("192.0.2.10")],
        ports: vec![port],
        protocol: Protocol::Tcp,
        delivery: Delivery::Auto,
        ring_size: RingSize::DEFAULT,
        backends: ["10.0.0.1", "10.0.0.2"].map(backend).to_vec(),
        flow_timeout: Protocol::Tcp.flow_timeout(),
        affinity: None,
        probe: None,
        slow_start: Duration::ZERO,
        drop_unmatched: true,
        source_ranges: Vec::new(),
        mss_clamp: MssClamp::Off,
        hold: HoldWhen::Trusted,
        connect_translation: false,
        second_chance: true,
        local_first: false,
    }
}

/// Node 10.0.0.1 and its peer 10.0.0.2, both with a backend of `api` (6443) and of `web` (80).
fn desired() -> DesiredState {
    DesiredState {
        node: Node { name: "node-1".to_owned(), addresses: vec![ip("10.0.0.1")] },
        peers: vec![Peer { name: "node-2".to_owned(), addresses: vec![ip("10.0.0.2")] }],
        services: vec![service("api", 6443).into(), service("web", 80).into()],
        announcements: Vec::new(),
    }
}

fn request(target: &str, services: &[&str]) -> DrainRequest {
    let services = services.iter().map(|name| (*name).to_owned()).collect();
    DrainRequest { target: target.to_owned(), services, deadline_seconds: None }
}

fn names(answer: &DrainAnswer) -> Vec<String> {
    answer.backends.iter().map(|one| format!("{} {}:{}", one.service, one.address, one.port)).collect()
}

fn drain(drains: &mut Drains, target: &str, services: &[&str]) -> Result<Vec<String>, String> {
    let answer = drains.drain(&desired(), &request(target, services), 100, 0);
    answer.map(|answer| names(&answer)).map_err(|error| error.to_string())
}

fn undrain(drains: &mut Drains, target: &str, services: &[&str]) -> Result<Vec<String>, String> {
    let answer = drains.undrain(&desired(), &request(target, services));
    answer.map(|answer| names(&answer)).map_err(|error| error.to_string())
}

/// Which backends are drained, as `service address`.
fn drained(drains: &Drains) -> Vec<String> {
    let desired = desired();
    let drained = drains.drained(&desired);
    let is_drained = |(service, backend): &(String, BackendAddress)| drained.of(service, *backend).is_some();
    all(&desired).filter(is_drained).map(|(service, backend)| format!("{service} {}", backend.address)).collect()
}

#[test]
fn a_backend_is_named_by_address_port_and_services() {
    let mut drains = Drains::default();
    assert_eq!(drain(&mut drains, "10.0.0.2", &[]).unwrap(), ["api 10.0.0.2:6443", "web 10.0.0.2:80"]);
    assert_eq!(undrain(&mut drains, "10.0.0.2", &["web"]).unwrap(), ["web 10.0.0.2:80"]);
    assert_eq!(drained(&drains), ["api 10.0.0.2"]);
    assert_eq!(undrain(&mut drains, "10.0.0.2:6443", &[]).unwrap(), ["api 10.0.0.2:6443"]);
    assert!(drains.is_empty());
}

#[test]
fn a_node_is_drained_with_every_backend_there_is_and_comes() {
    let mut drains = Drains::default();
    drain(&mut drains, "10.0.0.2:80", &[]).unwrap();
    assert_eq!(drain(&mut drains, "node-2", &[]).unwrap().len(), 2);
    assert!(drains.backends.is_empty(), "the node's drain goes for its backends, too");
    let later = BackendAddress { address: ip("10.0.0.2"), port: 53 };
    let desired = desired();
    let drained = drains.drained(&desired);
    let (drain_of_later, node) = drained.of("dns", later).unwrap();
    assert_eq!((drain_of_later.with_node, node), (true, Some("node-2")));
    assert_eq!(
        undrain(&mut drains, "10.0.0.2", &[]).unwrap_err(),
        "10.0.0.2:6443 is drained with its node node-2; say `lbctl undrain node-2` first"
    );
    assert_eq!(undrain(&mut drains, "node-2", &[]).unwrap().len(), 2);
    assert!(drains.is_empty());
}

#[test]
fn services_of_a_node_are_drained_one_by_one_and_undrained_with_it() {
    let mut drains = Drains::default();
    assert_eq!(drain(&mut drains, "node-1", &["web"]).unwrap(), ["web 10.0.0.1:80"]);
    assert!(drains.nodes.is_empty(), "its announcements are not withdrawn for one service");
    assert_eq!(undrain(&mut drains, "node-1", &[]).unwrap(), ["web 10.0.0.1:80"]);
}

#[test]
fn only_this_nodes_own_drain_withdraws() {
    let of = |name| Drains::default().drain(&desired(), &request(name, &[]), 1, 0).unwrap();
    assert!(of("node-1").this_node && !of("node-2").this_node);
    assert_eq!(of("node-1").node.as_deref(), Some("node-1"));
}

#[test]
fn what_is_unknown_is_answered_with_what_exists() {
    let mut drains = Drains::default();
    let errors = [
        (drain(&mut drains, "node-3", &[]), "node-3 is neither an address nor a node; nodes are node-1, node-2"),
        (drain(&mut drains, "10.0.0.1", &["dns"]), "there is no service dns; there are api, web"),
        (drain(&mut drains, "10.0.0.9", &["web"]), "no backend of web is 10.0.0.9; there are 10.0.0.1:80, 10.0.0.2:80"),
        (undrain(&mut drains, "node-2", &[]), "node-2 is not drained; drained are none"),
    ];
    for (refused, expected) in errors {
        assert_eq!(refused.unwrap_err(), expected);
    }
    drain(&mut drains, "node-1", &[]).unwrap();
    drain(&mut drains, "10.0.0.2:80", &[]).unwrap();
    let refused = undrain(&mut drains, "10.0.0.2:6443", &[]).unwrap_err();
    assert_eq!(refused, "10.0.0.2:6443 is not drained; drained are node node-1, 10.0.0.2:80 of web");
}

#[test]
fn a_drain_that_is_repeated_keeps_its_beginning_and_gets_the_new_deadline() {
    let mut drains = Drains::default();
    drain(&mut drains, "10.0.0.2:80", &[]).unwrap();
    let again = DrainRequest { deadline_seconds: Some(60), ..request("10.0.0.2:80", &[]) };
    drains.drain(&desired(), &again, 150, 5_000_000_000).unwrap();
    let kept = drains.backends.values().next().unwrap();
    assert_eq!((kept.since, kept.deadline), (100, Some(65_000_000_000)));
    assert!(!kept.is_over(64_999_999_999) && kept.is_over(65_000_000_000));
}

#[test]
fn what_the_configuration_drops_is_forgotten() {
    let mut drains = Drains::default();
    drain(&mut drains, "node-2", &[]).unwrap();
    drain(&mut drains, "10.0.0.1:80", &[]).unwrap();
    let mut desired = desired();
    drains.retain(&desired);
    assert_eq!((drains.nodes.len(), drains.backends.len()), (1, 1));
    desired.peers.clear();
    desired.services.pop();
    drains.retain(&desired);
    assert!(drains.is_empty());
}

/// The maps' backends after these drains.
fn maps(drains: &Drains) -> Vec<(String, BackendAddress, Option<Drain>)> {
    let desired = desired();
    let drained = drains.drained(&desired);
    all(&desired)
        .map(|(service, backend)| {
            let drain = drained.of(&service, backend).map(|(drain, _)| drain);
            (service, backend, drain)
        })
        .collect()
}

#[test]
fn a_restart_finds_the_drains_again() {
    let mut drains = Drains::default();
    drain(&mut drains, "node-2", &[]).unwrap();
    drain(&mut drains, "10.0.0.1:80", &[]).unwrap();
    assert_eq!(Drains::adopted(&desired(), &maps(&drains), None), drains);

    let mut drains = Drains::default();
    drain(&mut drains, "node-1", &[]).unwrap();
    let this_node = drains.nodes.get("node-1").copied();
    assert_eq!(Drains::adopted(&desired(), &maps(&drains), this_node), drains);
    assert_eq!(Drains::adopted(&desired(), &maps(&drains), None), drains, "as after a change of the capacities");
    assert_eq!(Drains::adopted(&desired(), &[], this_node), drains, "a node without backends");
    assert!(Drains::adopted(&desired(), &maps(&Drains::default()), None).is_empty());
}

#[test]
fn a_backend_whose_node_is_not_known_any_more_stays_drained() {
    let mut drains = Drains::default();
    drain(&mut drains, "node-2", &[]).unwrap();
    let desired = DesiredState { peers: Vec::new(), ..desired() };
    let adopted = Drains::adopted(&desired, &maps(&drains), None);
    assert!(adopted.nodes.is_empty());
    assert_eq!(drained(&adopted), ["api 10.0.0.2", "web 10.0.0.2"]);
}

use super::*;

#[test]
fn servers_on_another_port_are_reached_and_answer_by_it() {
    let mut world = World::new(Delivery::Auto);
    world.desired.services[0].ports = vec![8443];
    let decision = world.decide();
    let key = |port| VipKey::new(ip(VIP).into(), Be16::new(port), 6);
    assert_eq!(decision.target.services[&key(8443)].target_port, 6443);
    assert_eq!(decision.target.rewrites, BTreeMap::from([(key(6443), Be16::new(8443))]));
    let flags = AddressEntry { flags: decision.target.addresses[&ip(VIP).into()] };
    assert!(flags.has(AddressEntry::REWRITTEN | AddressEntry::VIP | AddressEntry::HELD));

    // Another service on the same VIP takes nothing back.
    let other = Service { name: "z".to_owned(), ports: vec![6444], ..(*world.desired.services[0]).clone() };
    let other = Service { backends: vec![Backend { address: ip("10.0.0.1"), port: 6444, weight: 1 }], ..other };
    world.desired.services.push(other.into());
    let flags = AddressEntry { flags: world.decide().target.addresses[&ip(VIP).into()] };
    assert!(flags.has(AddressEntry::REWRITTEN));

    world.desired.services.truncate(1);
    world.desired.services[0].backends.remove(0);
    let target = world.decide().target;
    assert_eq!((target.services[&key(8443)].target_port, target.rewrites.len()), (0, 0), "no server here");
}

#[test]
fn connections_follow_the_probes() {
    let mut world = World::new(Delivery::Auto);
    world.desired.services[0].connect_translation = true;
    let ways = |world: &World| {
        let translations = world.decide().target.translations;
        let key = VipKey::new(ip(VIP).into(), Be16::new(6443), 6);
        translations.get(&key).into_iter().flatten().map(|to| IpAddr::from(to.address).to_string()).collect::<Vec<_>>()
    };
    assert_eq!(ways(&world), ["10.0.0.1"], "the own server first");
    world.probe("10.0.0.1", failed());
    assert_eq!(ways(&world), ["10.0.0.2", "10.0.9.3"]);
    world.probe("10.0.0.2", failed());
    assert_eq!(ways(&world), ["10.0.9.3"]);
    world.probe("10.0.9.3", failed());
    assert_eq!(ways(&world), ["10.0.0.1"], "when all fail, no probe is believed");
    world.desired.services[0].backends.clear();
    assert!(ways(&world).is_empty());
}

//! FRR with unnumbered sessions, and what becomes of the routes when a routing daemon starts anew.

use anyhow::{Result, ensure};
use netns_tests::{cluster::Cluster, routing::Suite};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::bed::{Bed, vip};

/// The next hops of the router to a VIP, as the kernel shows them.
fn shown(bed: &Bed, address: u8) -> Result<(Value, Vec<Value>)> {
    let text = bed.cluster.topology.router.ip(&format!("-j -4 -d route show {}", vip(address)))?;
    let routes: Vec<Value> = serde_json::from_str(&text)?;
    ensure!(routes.len() == 1, "{text}");
    let hops = routes[0]["nexthops"].as_array().cloned().unwrap_or_default();
    Ok((routes[0].clone(), hops))
}

/// Whether a hop leads to a link-local address of IPv6.
fn is_link_local(hop: &Value) -> bool {
    hop["via"]["family"] == "inet6" && hop["via"]["host"].as_str().is_some_and(|host| host.starts_with("fe80::"))
}

#[tokio::test]
async fn unnumbered_sessions_carry_one_route_with_a_hop_per_node() {
    let _kept = promises::keeps(&["S1-05"], "the stand-in, FRR unnumbered");
    let bed = Bed::start(Suite::FrrUnnumbered, 3).await.unwrap();
    bed.serve("web", 1).unwrap();
    bed.place("web", &[0, 1, 2]).unwrap();
    bed.goes_to(1, &[0, 1, 2]).await.unwrap();
    let (route, hops) = shown(&bed, 1).unwrap();
    assert_eq!((&route["protocol"], &route["metric"]), (&"bgp".into(), &20.into()), "{route}");
    assert!(hops.len() == 3 && hops.iter().all(|hop| is_link_local(hop) && hop["weight"] == 1), "{hops:?}");
    let tally = bed.ask(1, 60).await.unwrap();
    assert_eq!((tally.failed(), tally.answers.len()), (0, 3), "{tally:?}");

    bed.place("web", &[1]).unwrap();
    bed.goes_to(1, &[1]).await.unwrap();
    let (route, hops) = shown(&bed, 1).unwrap();
    assert!(hops.is_empty() && is_link_local(&route), "{route}");
    let tally = bed.ask(1, 20).await.unwrap();
    assert_eq!((tally.failed(), tally.answers.into_keys().collect::<Vec<_>>()), (0, vec!["node-2".to_owned()]));
}

#[tokio::test]
async fn bird_and_a_daemon_that_starts_anew_announce_what_was_there_before() {
    let _kept = promises::keeps(&["S1-04", "F24"], "the stand-in, BIRD, FRR unnumbered");
    for suite in [Suite::Bird, Suite::FrrUnnumbered] {
        let mut bed = Bed::start(suite, 2).await.unwrap();
        bed.serve("web", 1).unwrap();
        bed.place("web", &[0, 1]).unwrap();
        bed.goes_to(1, &[0, 1]).await.unwrap();
        if suite == Suite::FrrUnnumbered {
            let (_, hops) = shown(&bed, 1).unwrap();
            assert!(hops.iter().all(is_link_local), "{hops:?}");
        }

        // SIGHUP has each of the daemons read its configuration again.
        for process in &mut bed.cluster.routing.as_mut().unwrap().nodes[0].processes {
            process.signal(Signal::SIGHUP).unwrap();
        }
        stays(&mut bed).await;

        // One that crashed finds the addresses when it comes back.
        bed.cluster.routing.as_mut().unwrap().nodes[0].kill().unwrap();
        bed.goes_to(1, &[1]).await.unwrap();
        let Cluster { routing, scope, topology, .. } = &mut bed.cluster;
        routing.as_mut().unwrap().start_again(scope, topology, 0).unwrap();
        bed.goes_to(1, &[0, 1]).await.unwrap();
        let tally = bed.ask(1, 40).await.unwrap();
        assert_eq!((tally.failed(), tally.answers.len()), (0, 2), "{suite}: {tally:?}");
    }
}

/// The daemons still run, and announce an address that comes after as well as the one of before.
async fn stays(bed: &mut Bed) {
    bed.serve("late", 2).unwrap();
    bed.place("late", &[0]).unwrap();
    bed.goes_to(2, &[0]).await.unwrap();
    bed.goes_to(1, &[0, 1]).await.unwrap();
    for process in &mut bed.cluster.routing.as_mut().unwrap().nodes[0].processes {
        let ended = process.exit_status().unwrap();
        assert!(ended.is_none(), "{} ended: {ended:?}\n{}", process.name(), process.log_tail(20));
    }
}

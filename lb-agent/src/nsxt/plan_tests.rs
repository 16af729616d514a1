use proptest::prelude::*;
use serde_json::json;

use super::*;

const VIP: &str = "192.168.160.249";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn wanted(vips: &[&str], hops: &[&str]) -> Wanted {
    Wanted {
        source: "default/kubernetes".to_owned(),
        vips: vips.iter().map(|vip| ip(vip)).collect(),
        hops: hops.iter().map(|hop| ip(hop)).collect(),
    }
}

fn rules() -> Rules {
    Rules { cluster: "c1".to_owned(), max_next_hops: 8, distance: 1, adopt: false }
}

fn found(id: &str, network: &str, hops: &[&str], cluster: Option<&str>) -> Found {
    let hops: Vec<_> = hops.iter().map(|hop| json!({"ip_address": hop, "admin_distance": 1})).collect();
    let tags: Vec<_> = cluster.iter().map(|tag| json!({"scope": "levee.dev/cluster", "tag": tag})).collect();
    let body = json!({"id": id, "network": network, "next_hops": hops, "tags": tags, "_revision": 4});
    Found::read(Dialect::Policy, &body).unwrap()
}

/// The plan of the one VIP.
fn of_vip(hops: &[&str], rules: &Rules, there: &[Found]) -> VipPlan {
    let plan = plan(&wanted(&[VIP], hops), rules, Dialect::Policy, there);
    plan.vips[&ip(VIP)].clone()
}

fn ours(hops: &[&str]) -> Found {
    found("to-192.168.160.249", "192.168.160.249/32", hops, Some("c1"))
}

fn written(plan: &VipPlan) -> (&str, Vec<&str>, Option<i64>) {
    let (Step::Create { id, body } | Step::Replace { id, body }) = &plan.steps[0] else {
        panic!("{plan:?}");
    };
    let hops = body["next_hops"].as_array().unwrap().iter().map(|hop| hop["ip_address"].as_str().unwrap()).collect();
    (id, hops, body["_revision"].as_i64())
}

#[test]
fn a_route_that_is_not_there_is_made_with_its_hops_in_order() {
    let plan = of_vip(&["10.20.4.10", "10.20.4.2", "10.20.4.3"], &rules(), &[]);
    assert!(matches!(plan.steps[0], Step::Create { .. }));
    assert_eq!(written(&plan), ("to-192.168.160.249", vec!["10.20.4.2", "10.20.4.3", "10.20.4.10"], None));
}

#[test]
fn what_is_equal_is_kept_whatever_its_order() {
    let plan = of_vip(&["10.20.4.2", "10.20.4.3"], &rules(), &[ours(&["10.20.4.3", "10.20.4.2"])]);
    assert_eq!(plan.steps, [Step::Keep { id: "to-192.168.160.249".to_owned() }]);
}

#[test]
fn hops_shrink_and_grow_with_the_revision_that_was_read() {
    let there = [ours(&["10.20.4.2", "10.20.4.3"])];
    assert_eq!(written(&of_vip(&["10.20.4.3"], &rules(), &there)), ("to-192.168.160.249", vec!["10.20.4.3"], Some(4)));
    let grown = of_vip(&["10.20.4.2", "10.20.4.3", "10.20.4.4"], &rules(), &there);
    assert_eq!(written(&grown).1, ["10.20.4.2", "10.20.4.3", "10.20.4.4"]);
}

#[test]
fn without_hops_the_last_good_ones_stay() {
    let kept = vec![ip("10.20.4.2")];
    let plan = of_vip(&[], &rules(), &[ours(&["10.20.4.2"])]);
    assert_eq!(plan.steps, [Step::Refuse(Reason::NoHops { kept: kept.clone() })]);
    assert_eq!(plan.hops, kept);
    // A hop of the other family is none for this VIP.
    assert_eq!(of_vip(&["2001:db8::2"], &rules(), &[ours(&["10.20.4.2"])]).hops, kept);
    assert_eq!(of_vip(&[], &rules(), &[]).steps, [Step::Refuse(Reason::NoHops { kept: Vec::new() })]);
}

#[test]
fn families_are_not_mixed_and_a_vip_is_no_hop_of_its_own() {
    let wanted = wanted(&[VIP, "2001:db8::10"], &["10.20.4.2", "2001:db8::2", "2001:db8::10"]);
    let plan = plan(&wanted, &rules(), Dialect::Policy, &[]);
    assert_eq!(plan.vips[&ip(VIP)].hops, [ip("10.20.4.2")]);
    assert_eq!(plan.vips[&ip("2001:db8::10")].hops, [ip("2001:db8::2")]);
    let Step::Create { id, body } = &plan.vips[&ip("2001:db8::10")].steps[0] else { panic!() };
    assert_eq!((id.as_str(), &body["network"]), ("to-2001-db8--10", &json!("2001:db8::10/128")));
}

#[test]
fn too_many_hops_are_cut_and_those_on_the_route_stay() {
    let rules = Rules { max_next_hops: 2, ..rules() };
    let plan = of_vip(&["10.20.4.1", "10.20.4.2", "10.20.4.3"], &rules, &[ours(&["10.20.4.2", "10.20.4.3"])]);
    assert_eq!((plan.left_out, &plan.steps[..]), (1, &[Step::Keep { id: "to-192.168.160.249".to_owned() }][..]));
    assert_eq!(of_vip(&["10.20.4.3", "10.20.4.1", "10.20.4.2"], &rules, &[]).hops, [ip("10.20.4.1"), ip("10.20.4.2")]);
}

#[test]
fn a_foreign_route_is_left_alone_unless_it_may_be_adopted() {
    for (id, network) in [("to-192.168.160.249", "10.0.0.0/8"), ("x", "192.168.160.249/32"), ("x", "192.168.160.249")] {
        let there = [found(id, network, &["10.20.4.9"], None)];
        let reason = Reason::Foreign { id: id.to_owned(), network: network.to_owned(), cluster: None };
        assert_eq!(of_vip(&["10.20.4.2"], &rules(), &there).steps, [Step::Refuse(reason)]);
        let adopting = Rules { adopt: true, ..rules() };
        assert_eq!(written(&of_vip(&["10.20.4.2"], &adopting, &there)), (id, vec!["10.20.4.2"], Some(4)));
    }
}

#[test]
fn a_route_of_another_cluster_is_never_adopted() {
    let there = [found("to-192.168.160.249", "192.168.160.249/32", &["10.20.4.9"], Some("c2"))];
    let adopting = Rules { adopt: true, ..rules() };
    let steps = of_vip(&["10.20.4.2"], &adopting, &there).steps;
    let Step::Refuse(reason) = &steps[0] else { panic!("{steps:?}") };
    assert!(reason.to_string().contains("belongs to cluster `c2`"), "{reason}");
}

#[test]
fn a_double_of_ours_goes() {
    let there = [ours(&["10.20.4.2"]), found("other", "192.168.160.249/32", &["10.20.4.2"], Some("c1"))];
    let steps = of_vip(&["10.20.4.2"], &rules(), &there).steps;
    assert_eq!(steps, [Step::Keep { id: "to-192.168.160.249".to_owned() }, Step::Remove { id: "other".to_owned() }]);
}

#[test]
fn routes_to_former_vips_go_and_nothing_wanted_removes_nothing() {
    let there = [
        found("to-192.0.2.1", "192.0.2.1/32", &["10.20.4.2"], Some("c1")),
        found("to-192.0.2.2", "192.0.2.2/32", &["10.20.4.2"], Some("c2")),
        found("to-192.0.2.3", "192.0.2.3/32", &["10.20.4.2"], None),
    ];
    assert_eq!(plan(&wanted(&[VIP], &[]), &rules(), Dialect::Policy, &there).stale, ["to-192.0.2.1"]);
    assert_eq!(plan(&wanted(&[], &["10.20.4.2"]), &rules(), Dialect::Policy, &there), Plan::default());
}

proptest! {
    #[test]
    fn no_plan_empties_a_route_or_touches_what_is_not_ours(
        hops in proptest::collection::btree_set(0u8..12, 0..12),
        routes in proptest::collection::btree_map(0u8..4, (0u8..4, proptest::collection::vec(0u8..12, 0..4), 0u8..3), 0..5),
        adopt in any::<bool>(),
        max in 1usize..6,
    ) {
        let vip = |last: u8| format!("192.0.2.{last}");
        let hop = |last: &u8| format!("10.0.0.{last}");
        let there: Vec<_> = routes.iter().map(|(id, (network, hops, owner))| {
            let hops: Vec<_> = hops.iter().map(hop).collect();
            let hops: Vec<_> = hops.iter().map(String::as_str).collect();
            let cluster = [None, Some("c1"), Some("c2")][usize::from(*owner)];
            found(&format!("to-{}", vip(*id)), &format!("{}/32", vip(*network)), &hops, cluster)
        }).collect();
        let hops: Vec<_> = hops.iter().map(hop).collect();
        let hops: Vec<_> = hops.iter().map(String::as_str).collect();
        let rules = Rules { adopt, max_next_hops: max, ..rules() };
        let plan = plan(&wanted(&["192.0.2.0", "192.0.2.1"], &hops), &rules, Dialect::Policy, &there);
        let owner = |id: &str| there.iter().filter(|found| found.id == id).map(|found| found.cluster.as_deref()).collect::<Vec<_>>();
        for id in &plan.stale {
            prop_assert!(owner(id).contains(&Some("c1")));
        }
        for step in plan.vips.values().flat_map(|vip| &vip.steps) {
            match step {
                Step::Create { id, body } | Step::Replace { id, body } => {
                    let written = body["next_hops"].as_array().unwrap().len();
                    prop_assert!((1..=max).contains(&written));
                    prop_assert!(!owner(id).contains(&Some("c2")), "{step:?}");
                    prop_assert!(adopt || !owner(id).contains(&None), "{step:?}");
                }
                Step::Remove { id } => prop_assert!(owner(id).contains(&Some("c1"))),
                Step::Keep { .. } | Step::Refuse(_) => {}
            }
        }
    }
}

use super::*;
use crate::model::pool::AnnouncePolicy;

fn pool(addresses: &[&str]) -> Pool {
    Pool {
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        namespaces: vec![],
        service_selector: BTreeMap::new(),
        priority: 0,
        auto_assign: true,
        avoid_buggy_ips: false,
        allow_external_ips: false,
        announce: AnnouncePolicy::default(),
    }
}

fn object(created: i64, addresses: &[&str]) -> PoolObject {
    let spec = Ok(pool(addresses));
    PoolObject { uid: format!("uid-{created}"), created, deleting: false, spec, last_good: None }
}

fn broken(created: i64) -> PoolObject {
    PoolObject { spec: Err(PoolError::Empty), ..object(created, &[]) }
}

type Objects = BTreeMap<String, PoolObject>;

fn objects<const N: usize>(all: [(&str, PoolObject); N]) -> Objects {
    all.into_iter().map(|(name, object)| (name.to_owned(), object)).collect()
}

fn in_force(pools: &Pools) -> Vec<(&str, String)> {
    let shown = |pool: &PoolInForce| pool.pool.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    pools.in_force.iter().map(|(name, pool)| (name.as_str(), shown(pool))).collect()
}

fn overlap(with: &str, address: &str, earlier: bool) -> PoolJudgement {
    PoolJudgement::Overlaps { with: with.to_owned(), address: address.parse().unwrap(), earlier }
}

#[test]
fn of_two_that_overlap_the_elder_is_in_force_and_then_the_first_by_name() {
    let all = [("b", object(1, &["192.0.2.0/24"])), ("a", object(2, &["192.0.2.255-192.0.3.9"]))];
    let pools = PoolSet::default().update(&objects(all));
    assert_eq!(in_force(&pools), [("b", "192.0.2.0-192.0.2.255".to_owned())]);
    assert_eq!(pools.judgements["a"], overlap("b", "192.0.2.255", false));
    assert_eq!(pools.judgements["b"], PoolJudgement::InForce);

    let same_age = [("b", object(1, &["192.0.2.1"])), ("a", object(1, &["192.0.2.1"]))];
    assert_eq!(in_force(&PoolSet::default().update(&objects(same_age))), [("a", "192.0.2.1".to_owned())]);
}

#[test]
fn an_edit_never_pushes_out_a_pool_in_force() {
    let mut set = PoolSet::default();
    set.update(&objects([("old", object(1, &["192.0.2.1"])), ("new", object(2, &["192.0.2.2"]))]));
    // The elder one reaches for what the younger has.
    let edited = objects([("old", object(1, &["192.0.2.1-192.0.2.2"])), ("new", object(2, &["192.0.2.2"]))]);
    let pools = set.update(&edited);
    assert_eq!(in_force(&pools), [("new", "192.0.2.2".to_owned()), ("old", "192.0.2.1".to_owned())]);
    assert_eq!(pools.judgements["old"], overlap("new", "192.0.2.2", true));
    // When the younger is gone, the edit comes into force.
    let pools = set.update(&objects([("old", object(1, &["192.0.2.1-192.0.2.2"]))]));
    assert_eq!(in_force(&pools), [("old", "192.0.2.1-192.0.2.2".to_owned())]);
}

#[test]
fn a_bad_edit_leaves_the_last_good_one_in_force() {
    let mut set = PoolSet::default();
    set.update(&objects([("edge", object(1, &["192.0.2.1"]))]));
    let pools = set.update(&objects([("edge", broken(1))]));
    assert_eq!(in_force(&pools), [("edge", "192.0.2.1".to_owned())]);
    assert_eq!(pools.judgements["edge"], PoolJudgement::Invalid { error: PoolError::Empty, earlier: true });
    assert!(pools.judgements["edge"].is_refused());
    // Another pool of the same name inherits nothing.
    let pools = set.update(&objects([("edge", PoolObject { uid: "other".to_owned(), ..broken(9) })]));
    assert_eq!(in_force(&pools), []);
}

#[test]
fn a_new_process_takes_the_last_good_one_from_the_status() {
    let remembered = PoolObject { last_good: Some(pool(&["192.0.2.1"])), ..broken(5) };
    let younger_but_remembered = objects([("edge", remembered), ("elder", object(1, &["192.0.2.0/24"]))]);
    let pools = PoolSet::default().update(&younger_but_remembered);
    assert_eq!(in_force(&pools), [("edge", "192.0.2.1".to_owned())]);
    assert_eq!(pools.judgements["elder"], overlap("edge", "192.0.2.1", false));
}

#[test]
fn addresses_move_between_pools_in_one_step_whichever_comes_first() {
    for (giver, taker) in [(1, 2), (2, 1)] {
        let mut set = PoolSet::default();
        let before = objects([("g", object(giver, &["192.0.2.0/24"])), ("t", object(taker, &["192.0.3.0"]))]);
        set.update(&before);
        let after = objects([("g", object(giver, &["192.0.2.0/25"])), ("t", object(taker, &["192.0.2.128/25"]))]);
        let pools = set.update(&after);
        let expected = [("g", "192.0.2.0-192.0.2.127".to_owned()), ("t", "192.0.2.128-192.0.2.255".to_owned())];
        assert_eq!(in_force(&pools), expected, "{giver} {taker}");
    }
}

#[test]
fn a_pool_that_is_going_is_in_force_but_says_so() {
    let going = PoolObject { deleting: true, ..object(1, &["192.0.2.1"]) };
    let pools = PoolSet::default().update(&objects([("edge", going)]));
    assert!(pools.in_force["edge"].deleting);
    assert_eq!(pools.judgements["edge"], PoolJudgement::Deleting);
}

#[test]
fn no_pool_has_addresses_that_none_can_reach() {
    for bad in ["0.0.0.1", "127.0.0.0/16", "10.0.0.0-240.0.0.0", "255.255.255.255", "::/0", "fe80::1", "ff02::1"] {
        let error = check(&pool(&["192.0.2.1", bad])).unwrap_err();
        assert!(matches!(error, PoolError::Unusable { .. }), "{bad}: {error}");
    }
    assert_eq!(check(&pool(&["192.0.2.0/24", "2001:db8::/32", "fd00::/8"])), Ok(()));
    assert_eq!(check(&pool(&[])), Err(PoolError::Empty));
    let feared = Pool { avoid_buggy_ips: true, ..pool(&["192.0.2.0", "192.0.2.255-192.0.3.0"]) };
    assert_eq!(check(&feared), Err(PoolError::NothingLeft));
}

#[test]
fn namespaces_and_labels_admit() {
    let mut limited = pool(&["192.0.2.1"]);
    limited.namespaces = vec!["shop".to_owned(), "web".to_owned()];
    limited.service_selector = [("tier".to_owned(), "edge".to_owned())].into();
    let pool = PoolInForce::new(limited, false);
    let labels = [("tier".to_owned(), "edge".to_owned()), ("more".to_owned(), "1".to_owned())].into();
    let labelled = ClusterService { labels, ..ClusterService::default() };
    assert!(pool.admits(&ObjectName::new("web", "a"), &labelled));
    assert!(!pool.admits(&ObjectName::new("other", "a"), &labelled));
    assert!(!pool.admits(&ObjectName::new("web", "a"), &ClusterService::default()));
}

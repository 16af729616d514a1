use super::*;
use crate::model::inventory::{ClusterNode, ClusterService, EndpointSlice};

fn name(text: &str) -> ObjectName {
    text.split_once('/').map_or_else(|| ObjectName::new("", text), |(namespace, name)| ObjectName::new(namespace, name))
}

fn entry(kind: Kind, key: &ObjectName, mark: &str) -> Entry {
    let marked = [("mark".to_owned(), mark.to_owned())].into();
    match kind {
        Kind::Nodes => Entry::Node(ClusterNode { labels: marked, ..ClusterNode::default() }),
        Kind::Services => Entry::Service(ClusterService { uid: mark.to_owned(), ..ClusterService::default() }.into()),
        Kind::Slices => {
            let slice = EndpointSlice { name: key.name.clone(), ..EndpointSlice::default() };
            Entry::Slice(mark.to_owned(), slice.into())
        }
        Kind::Pools => Entry::Unreadable(mark.to_owned()),
    }
}

/// A complete list of objects of these names; the mark of each is `x`, for slices the Service.
fn list(keeper: &mut Keeper, kind: Kind, names: &[&str]) -> bool {
    let objects = names.iter().map(|text| name(text)).map(|key| (key.clone(), entry(kind, &key, "x"))).collect();
    keeper.handle(kind, Note::List { objects, streaming: false }, Instant::now())
}

fn change(keeper: &mut Keeper, kind: Kind, text: &str, mark: Option<&str>) {
    let key = name(text);
    let entry = mark.map_or(Entry::Nothing, |mark| entry(kind, &key, mark));
    assert!(!keeper.handle(kind, Note::Changed(key, entry), Instant::now()));
}

fn live(services: &[&str]) -> Keeper {
    let mut keeper = Keeper::new(Belief::default(), None);
    for kind in [Kind::Nodes, Kind::Slices, Kind::Pools] {
        assert!(!list(&mut keeper, kind, &[]));
    }
    assert!(!list(&mut keeper, Kind::Services, services));
    keeper
}

fn services(keeper: &mut Keeper) -> Vec<String> {
    keeper.publish().services.keys().map(ToString::to_string).collect()
}

#[test]
fn nothing_is_live_before_every_kind_had_a_complete_list() {
    let mut keeper = Keeper::new(Belief::default(), None);
    for kind in Kind::ALL {
        assert!(!keeper.is_live() && !keeper.is_due(), "{kind}");
        list(&mut keeper, kind, &["a/b"]);
    }
    assert!(keeper.is_live() && keeper.is_due());
    assert_eq!(services(&mut keeper), ["a/b"]);
    assert!(!keeper.is_due(), "all is published");
}

#[test]
fn a_relist_brings_what_is_new_and_takes_what_is_gone() {
    let mut keeper = live(&["a/1", "a/2", "a/3"]);
    services(&mut keeper);
    list(&mut keeper, Kind::Services, &["a/1", "a/2", "a/3"]);
    assert!(!keeper.is_due(), "nothing changed");
    list(&mut keeper, Kind::Services, &["a/2", "a/3", "a/4"]);
    assert_eq!(services(&mut keeper), ["a/2", "a/3", "a/4"]);
}

#[test]
fn an_empty_list_is_believed_when_others_say_the_same() {
    let mut keeper = live(&["default/kubernetes", "a/1", "a/2"]);
    services(&mut keeper);
    for lists in 1..3 {
        assert!(list(&mut keeper, Kind::Services, &["default/kubernetes"]), "a fresh server has this one by itself");
        let doubted = keeper.status()[&Kind::Services].doubted;
        assert_eq!(doubted, Some(Doubted { listed: 0, held: 2, lists, needed: 3 }));
        assert!(!keeper.is_due() && keeper.is_live() && !keeper.is_well());
    }
    assert!(!list(&mut keeper, Kind::Services, &["default/kubernetes"]));
    assert_eq!(services(&mut keeper), ["default/kubernetes"]);
    assert_eq!(keeper.status()[&Kind::Services].doubted, None);
}

#[test]
fn a_full_list_ends_a_doubt_and_the_next_begins_anew() {
    let mut keeper = live(&["a/1", "a/2"]);
    assert!(list(&mut keeper, Kind::Services, &[]));
    assert!(list(&mut keeper, Kind::Services, &[]));
    assert!(!list(&mut keeper, Kind::Services, &["a/1", "a/3"]));
    assert_eq!(services(&mut keeper), ["a/1", "a/3"]);
    assert!(list(&mut keeper, Kind::Services, &[]), "the first of three again");
    assert!(list(&mut keeper, Kind::Services, &[]));
    assert!(!list(&mut keeper, Kind::Services, &[]));
}

#[test]
fn what_comes_back_during_a_doubt_shows_only_when_it_is_enough() {
    let mut keeper = live(&["a/1", "a/2", "a/3", "a/4"]);
    services(&mut keeper);
    assert!(list(&mut keeper, Kind::Services, &[]));
    change(&mut keeper, Kind::Services, "a/9", Some("x"));
    assert!(!keeper.is_due());
    change(&mut keeper, Kind::Services, "a/1", Some("x"));
    assert_eq!(services(&mut keeper), ["a/1", "a/9"]);
}

#[test]
fn a_watch_that_tells_of_the_last_deletion_is_believed() {
    let mut keeper = live(&["a/1"]);
    services(&mut keeper);
    change(&mut keeper, Kind::Services, "a/1", None);
    assert!(keeper.is_due());
    assert_eq!(services(&mut keeper), Vec::<String>::new());
}

#[test]
fn what_was_saved_counts_as_known() {
    let saved = live(&["a/1", "a/2"]).publish();
    let mut keeper = Keeper::new(Belief::default(), Some(saved));
    for kind in [Kind::Nodes, Kind::Slices, Kind::Pools] {
        list(&mut keeper, kind, &[]);
    }
    assert!(list(&mut keeper, Kind::Services, &[]));
    assert!(!keeper.is_live(), "the saved one stays in force until the list is believed");
    assert!(!list(&mut keeper, Kind::Services, &["a/2"]));
    assert!(keeper.is_due());
    assert_eq!(services(&mut keeper), ["a/2"]);
}

#[test]
fn a_slice_that_changes_its_service_is_at_one_only() {
    let mut keeper = live(&[]);
    change(&mut keeper, Kind::Slices, "a/s1", Some("web"));
    change(&mut keeper, Kind::Slices, "a/s1", Some("api"));
    assert_eq!(keeper.publish().slices.keys().map(ToString::to_string).collect::<Vec<_>>(), ["a/api"]);
    let again = Keeper::new(Belief::default(), Some(keeper.publish()));
    assert_eq!(again.owners, keeper.owners, "a saved inventory tells the same");
    change(&mut keeper, Kind::Slices, "a/s1", None);
    assert!(keeper.publish().slices.is_empty());
}

#[test]
fn an_object_that_cannot_be_read_leaves_the_version_before() {
    let mut keeper = live(&["a/1"]);
    let bad = || Note::Changed(name("a/1"), Entry::Unreadable("nonsense".to_owned()));
    keeper.handle(Kind::Services, bad(), Instant::now());
    assert_eq!(keeper.status()[&Kind::Services].unreadable["a/1"], "nonsense");
    assert_eq!(services(&mut keeper), ["a/1"]);
    change(&mut keeper, Kind::Services, "a/1", Some("y"));
    assert!(keeper.status()[&Kind::Services].unreadable.is_empty());
}

#[test]
fn a_failure_is_told_until_something_is_heard() {
    let mut keeper = live(&["a/1"]);
    keeper.handle(Kind::Nodes, Note::Failed("refused".to_owned()), Instant::now());
    assert_eq!(keeper.status()[&Kind::Nodes].error.as_deref(), Some("refused"));
    assert!(keeper.is_live() && !keeper.is_well());
    keeper.handle(Kind::Nodes, Note::Heard, Instant::now());
    assert_eq!((keeper.status()[&Kind::Nodes].failures, keeper.is_well()), (1, true));
}

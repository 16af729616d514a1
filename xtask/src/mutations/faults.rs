//! The faults, and which promise each has to break.

/// A fault: a piece of code and what stands there instead.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// What it is called.
    pub name: &'static str,
    /// What the code does then.
    pub what: &'static str,
    /// The file.
    pub file: &'static str,
    /// What stands there, once in the file.
    pub right: &'static str,
    /// What stands there instead.
    pub wrong: &'static str,
    /// The promise that a test shows to be broken.
    pub promise: &'static str,
    /// Arguments of cargo that run the tests among which it is.
    pub tests: &'static [&'static str],
    /// That test.
    pub test: &'static str,
}

/// The tests with an API server.
const KUBE: &[&str] = &["xtask", "kube"];
/// The tests with NSX-T.
const NSXT: &[&str] = &["test", "-p", "nsxt-tests", "--test", "suite"];

/// All of them.
pub const FAULTS: &[Fault] = &[
    Fault {
        name: "empty-slice",
        what: "a route loses its hops when there is no server",
        file: "lb-agent/src/nsxt/plan.rs",
        right: "if hops.is_empty() {",
        wrong: "if false {",
        promise: "S0-16",
        tests: NSXT,
        test: "empty_hops_are_never_sent",
    },
    Fault {
        name: "readiness",
        what: "an endpoint that is not ready counts",
        file: "lb-agent/src/cluster/endpoints.rs",
        right: "let is_ready = endpoint.ready || (service.publish_not_ready && !endpoint.terminating);",
        wrong: "let is_ready = true;",
        promise: "S1-08",
        tests: KUBE,
        test: "addresses_stand_where_ready_pods_are_and_move_with_them",
    },
    Fault {
        name: "renew-for-ever",
        what: "a leader goes on though it cannot renew",
        file: "lb-agent/src/election/fsm.rs",
        right: "let until = begun + self.timing.renew_deadline();",
        wrong: "let until = begun + Duration::from_secs(3600);",
        promise: "S0-07",
        tests: KUBE,
        test: "of_two_controllers_the_leader_alone_writes",
    },
    Fault {
        name: "take-over-early",
        what: "a follower takes a lead that is not over",
        file: "lb-agent/src/election/fsm.rs",
        right: "let is_free = record.holder.is_empty() || now >= fresh_until;",
        wrong: "let is_free = true;",
        promise: "S0-07",
        tests: KUBE,
        test: "a_leader_that_dies_with_its_server_is_replaced_and_its_hop_leaves",
    },
    Fault {
        name: "withdrawal",
        what: "an address that is not wanted any more stays on `lo`",
        file: "lb-agent/src/announce/loopback.rs",
        right: "changes.extend(stale.into_iter().map(|vip| Change::Remove { vip }));",
        wrong: "drop(stale);",
        promise: "S1-02",
        tests: KUBE,
        test: "addresses_stand_where_ready_pods_are_and_move_with_them",
    },
];

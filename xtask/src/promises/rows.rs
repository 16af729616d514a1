//! The promises, and which of them a test has to show.

use Standing::Kept;

/// How a promise stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// A test shows it in every run.
    Kept,
    /// No test shows it yet.
    #[cfg_attr(not(test), expect(dead_code, reason = "those to come begin so"))]
    Open,
}

/// A promise: its id, what it says, how it stands. `S0` is a static route kept by a leader, `S1` service addresses on
/// `lo`, `F` what went wrong elsewhere.
pub const ROWS: &[(&str, &str, Standing)] = &[
    ("S0-01", "the VIP stands on every control-plane node, whoever leads", Kept),
    ("S0-02", "the API's endpoints are the next hops of one route", Kept),
    ("S0-03", "the route's requests are those of the Policy API", Kept),
    ("S0-04", "the route reaches the routers beyond the gateway", Kept),
    ("S0-05", "every API server takes part", Kept),
    ("S0-06", "an anonymous request through the VIP gets the API's own answer", Kept),
    ("S0-07", "only the leader writes", Kept),
    ("S0-08", "a change of leader is an event and a log line", Kept),
    ("S0-09", "a node that dies leaves the next hops", Kept),
    ("S0-10", "a node that returns joins them, with no empty list in between", Kept),
    ("S0-11", "every setting of the former controller has an equal", Kept),
    ("S0-12", "log lines carry the endpoints and the hops", Kept),
    ("S0-13", "metrics count updates and hops", Kept),
    ("S0-14", "a lease that cannot be read is survived", Kept),
    ("S0-15", "cleanup removes the route and the VIP", Kept),
    ("S0-16", "no empty route, no hop that is not ready, no unverified peer", Kept),
    ("S1-01", "a service's address stands only where a pod of it is", Kept),
    ("S1-02", "a changed address is assumed, the old one forfeited", Kept),
    ("S1-03", "FRR beside the agent announces the addresses", Kept),
    ("S1-04", "BIRD and unnumbered sessions do as well", Kept),
    ("S1-05", "several nodes are one ECMP route", Kept),
    ("S1-06", "a drained node forfeits, another assumes", Kept),
    ("S1-07", "services of one node do not disturb each other", Kept),
    ("S1-08", "only ready pods count", Kept),
    ("S1-09", "load balancers, external addresses and requested ones", Kept),
    ("S1-10", "any selector, and none", Kept),
    ("S1-11", "stale addresses go at the start, foreign ones stay", Kept),
    ("S1-12", "the time of a reconciliation is measured", Kept),
    ("S1-13", "it runs as a plain process and from the manifests", Kept),
    ("S1-14", "an API outage changes nothing", Kept),
    ("S1-15", "a backend sees the client's address", Kept),
    ("S1-16", "work is bounded at 2,000 services", Kept),
    ("F01", "all API servers are down, and nothing moves", Kept),
    ("F03", "a node that loses the API alone lets go before another takes over", Kept),
    ("F05", "a killed agent leaves no address for ever", Kept),
    ("F06", "a hung agent loses its address and takes nothing back", Kept),
    ("F07", "what is to be withdrawn at the end is withdrawn at once", Kept),
    ("F08", "a node without its API server is announced no longer", Kept),
    ("F09", "a rolling restart withdraws nothing", Kept),
    ("F10", "a probe that fails by chance moves no VIP", Kept),
    ("F11", "a server that stops gracefully keeps its connections", Kept),
    ("F12", "a server comes back after enough good probes, every time", Kept),
    ("F14", "a node that is only told not ready keeps the control plane", Kept),
    ("F15", "a lost link is noticed at once", Kept),
    ("F16", "a VIP is never taken for a node's own address", Kept),
    ("F17", "a node's own address is never taken for a VIP", Kept),
    ("F18", "one address has one purpose", Kept),
    ("F20", "what changed while the agent slept is right afterwards", Kept),
    ("F21", "a flushed address comes back", Kept),
    ("F23", "a restarted controller changes no address", Kept),
    ("F24", "a reloaded FRR loses no address", Kept),
    ("F25", "a bad edit leaves the last good state", Kept),
    ("F26", "what is for no VIP passes, kube-proxy's ports too", Kept),
    ("F27", "at rest the API is asked for next to nothing", Kept),
];

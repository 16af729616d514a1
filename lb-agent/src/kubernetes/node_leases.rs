//! What the Leases of nodes are called: agents write them, and the controller removes those of nodes that are no more.

/// Label by which they are found.
pub const LABEL: (&str, &str) = ("levee.dev/lease", "node");
const PREFIX: &str = "levee-node-";

/// Name of a node's Lease.
#[must_use]
pub fn name_of(node: &str) -> String {
    format!("{PREFIX}{node}")
}

/// The node whose Lease is called so; `None` if it is no node's.
#[must_use]
pub fn node_of(name: &str) -> Option<&str> {
    name.strip_prefix(PREFIX)
}

/// The label selector that finds all of them.
#[must_use]
pub fn selector() -> String {
    format!("{}={}", LABEL.0, LABEL.1)
}

//! What the silence of nodes means for a service: their backends take no new flows, unless nobody else could.

use crate::model::{Backend, Members, ProbeState};

/// Whose silence counts.
pub(super) struct Silence<'a>(Option<&'a Members>);

impl<'a> Silence<'a> {
    /// Judges the silence of those that could take flows (backends with weight, not drained). `none_believed`: all of
    /// them fail their probes, so that those that are left are told apart by silence alone.
    pub(super) fn judge<'b>(
        members: &'a Members,
        mut candidates: impl Iterator<Item = (&'b Backend, &'b ProbeState)>,
        none_believed: bool,
    ) -> Self {
        let is_left = |(backend, state): (&Backend, &ProbeState)| {
            (none_believed || state.takes_flows()) && members.silent(backend.address).is_none()
        };
        Self(candidates.any(is_left).then_some(members))
    }

    /// The node of this backend, if it is silent and that counts.
    pub(super) fn of(&self, backend: &Backend) -> Option<&'a str> {
        self.0?.silent(backend.address)
    }
}

/// Why a backend on a silent node takes no flows.
pub(super) fn reason(node: &str) -> String {
    format!("node {node} is silent: its agent answers no other agent, so no new flows go there")
}

//! Steps on ports that are rewritten, and on connections of this node's own processes.

use super::Plan;
use crate::plan::state::{MapOp, Redirect, ServiceState, TargetService, TargetState};

impl Plan<'_> {
    /// Sets the port that packets are given here, in front of the word that tells of it.
    pub(super) fn target_port(&mut self, service: &mut ServiceState, target: &TargetService) {
        if service.target_port != target.target_port {
            service.target_port = target.target_port;
            let step = Redirect::TargetPort { service: service.index, port: target.target_port };
            self.before.push(MapOp::Redirect(step));
        }
    }

    /// Ports of replies and ways of connections. A rewrite stands before any packet is given the other port, and goes
    /// when none is any more.
    pub(super) fn redirects(&mut self, target: &TargetState) {
        let state = &mut self.state;
        let changed = target.rewrites.iter().filter(|(key, port)| state.rewrites.get(*key) != Some(*port));
        self.before.extend(changed.map(|(key, port)| MapOp::Redirect(Redirect::Rewrite(*key, Some(*port)))));
        state.rewrites.extend(&target.rewrites);
        let changed = target.translations.iter().filter(|(key, to)| state.translations.get(*key) != Some(*to));
        self.before.extend(changed.map(|(key, to)| MapOp::Redirect(Redirect::Translation(*key, to.clone()))));
        let gone = state.translations.keys().filter(|key| !target.translations.contains_key(*key));
        self.before.extend(gone.map(|key| MapOp::Redirect(Redirect::Translation(*key, Vec::new()))));
        state.translations.clone_from(&target.translations);
    }

    /// Lets go of ports of replies that no service here has any more.
    pub(super) fn forget_rewrites(&mut self, target: &TargetState) {
        let state = &mut self.state;
        let gone = state.rewrites.keys().filter(|key| !target.rewrites.contains_key(*key));
        self.after.extend(gone.map(|key| MapOp::Redirect(Redirect::Rewrite(*key, None))));
        state.rewrites.clone_from(&target.rewrites);
    }
}

//! Services that are as they should be, so that a plan can pass them over.

use super::state::{BackendState, ServiceState, TargetService};
use crate::model::Shared;

/// The target that a service met when it was planned last and has not changed since: there is nothing to plan then. Whatever
/// changes a service, or lets its ring become smaller, forgets it. It is remembered to save work and says nothing of the maps, so that all are equal.
#[derive(Clone, Debug, Default)]
pub struct Met(pub(super) Option<Shared<TargetService>>);

impl PartialEq for Met {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Met {}

impl ServiceState {
    /// Whether there is nothing to do for this target.
    #[must_use]
    pub fn rests(&self, target: &Shared<TargetService>) -> bool {
        self.met.0.as_ref().is_some_and(|met| met.is(target))
    }

    /// Remembers that it was planned for this target, if there is nothing more to do for it now.
    pub(super) fn meet(&mut self, target: &Shared<TargetService>) {
        self.met = Met((!self.shrinks(target)).then(|| target.clone()));
    }

    /// Whether its ring may become smaller now.
    pub(super) fn shrinks(&self, target: &TargetService) -> bool {
        let takes = |state: &BackendState| state.takes();
        self.marks.is_empty()
            && !self.word.is_empty()
            && (self.word.log2() > u32::from(target.log2) || !self.backends.values().any(takes))
    }
}

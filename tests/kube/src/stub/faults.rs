//! Fault switches: what goes wrong, and for which requests.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::status::Failure;

/// What a request is, in the words of RBAC.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Verb {
    /// Reads an object, or a path that is no resource.
    Get,
    /// Reads many.
    List,
    /// Follows changes.
    Watch,
    /// Makes an object.
    Create,
    /// Replaces an object.
    Update,
    /// Changes an object in parts.
    Patch,
    /// Removes an object.
    Delete,
}

impl Verb {
    /// Whether it changes anything.
    #[must_use]
    pub const fn writes(self) -> bool {
        matches!(self, Self::Create | Self::Update | Self::Patch | Self::Delete)
    }
}

/// What goes wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// No answer while the switch is on, and no events on watches that are open.
    Hang,
    /// The answer comes late. A write is performed when it comes.
    Late(Duration),
    /// This failure, with `Retry-After` in seconds where there is one, and nothing is performed.
    Fails(Failure, Option<u64>),
    /// A watch that names a version gets 410 as its answer.
    Gone,
    /// A watch begins, and then ends with an event `ERROR` of 410.
    GoneEvent,
    /// The answer comes in pieces of so many bytes, with a pause after each.
    Slow(usize, Duration),
    /// The answer is 200 and no JSON.
    Garbage,
    /// A write is performed, and the connection is reset instead of an answer.
    LostWrite,
    /// The connection is reset and nothing is performed.
    Reset,
    /// Lists are complete and empty.
    EmptyLists,
}

impl Fault {
    /// 429 with `Retry-After`, in seconds.
    #[must_use]
    pub fn too_many_requests(retry_after: u64) -> Self {
        let message = "Too many requests, please try again later.";
        Self::Fails(Failure::new(429, "TooManyRequests", message), Some(retry_after))
    }

    /// 500.
    #[must_use]
    pub fn internal_error() -> Self {
        Self::Fails(Failure::new(500, "InternalError", "Internal error occurred: told to fail"), None)
    }

    /// 403.
    #[must_use]
    pub fn forbidden() -> Self {
        Self::Fails(Failure::new(403, "Forbidden", "forbidden: told to refuse"), None)
    }
}

/// Which requests a fault is for; by default all.
#[derive(Clone, Debug, Default)]
pub struct Only {
    verbs: Vec<Verb>,
    resource: Option<String>,
    name: Option<String>,
    times: Option<u32>,
}

impl Only {
    /// Requests of these verbs.
    #[must_use]
    pub fn verbs(verbs: &[Verb]) -> Self {
        Self { verbs: verbs.to_vec(), ..Self::default() }
    }

    /// Requests of every verb that writes.
    #[must_use]
    pub fn writes() -> Self {
        Self::verbs(&[Verb::Create, Verb::Update, Verb::Patch, Verb::Delete])
    }

    /// And for this resource, by its name in paths.
    #[must_use]
    pub fn of(self, resource: &str) -> Self {
        Self { resource: Some(resource.to_owned()), ..self }
    }

    /// And for the object of this name.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..self }
    }

    /// And only so many.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { times: Some(times), ..self }
    }

    fn fits(&self, verb: Verb, resource: &str, name: &str) -> bool {
        (self.verbs.is_empty() || self.verbs.contains(&verb))
            && self.resource.as_deref().is_none_or(|only| only == resource)
            && self.name.as_deref().is_none_or(|only| only == name)
            && self.times != Some(0)
    }
}

/// A fault that is switched on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FaultId(u64);

/// The faults that are switched on, the latest first.
#[derive(Debug, Default)]
pub struct Faults(Vec<(FaultId, Only, Fault)>);

impl Faults {
    /// Switches a fault on.
    pub fn add(&mut self, only: Only, fault: Fault) -> FaultId {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = FaultId(NEXT.fetch_add(1, Ordering::Relaxed));
        self.0.insert(0, (id, only, fault));
        id
    }

    /// Switches it off.
    pub fn remove(&mut self, id: FaultId) {
        self.0.retain(|(it, ..)| *it != id);
    }

    /// Switches all off.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The fault for a request, if there is one, which counts as used.
    pub fn take(&mut self, verb: Verb, resource: &str, name: &str) -> Option<Fault> {
        let (_, only, fault) = self.0.iter_mut().find(|(_, only, _)| only.fits(verb, resource, name))?;
        if let Some(times) = &mut only.times {
            *times -= 1;
        }
        Some(fault.clone())
    }

    /// Whether requests like this hang.
    #[must_use]
    pub fn hangs(&self, verb: Verb, resource: &str, name: &str) -> bool {
        self.0.iter().any(|(_, only, fault)| matches!(fault, Fault::Hang) && only.fits(verb, resource, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_for_what_it_names_and_as_often_as_it_says() {
        let mut faults = Faults::default();
        faults.add(Only::default(), Fault::Garbage);
        faults.add(Only::verbs(&[Verb::Update]).of("leases").named("l").times(1), Fault::LostWrite);
        let mut taken = |verb, resource, name| faults.take(verb, resource, name);
        assert!(matches!(taken(Verb::Update, "leases", "other"), Some(Fault::Garbage)));
        assert!(matches!(taken(Verb::Update, "leases", "l"), Some(Fault::LostWrite)));
        assert!(matches!(taken(Verb::Update, "leases", "l"), Some(Fault::Garbage)));
        faults.clear();
        assert!(faults.take(Verb::Get, "nodes", "n").is_none());
    }
}

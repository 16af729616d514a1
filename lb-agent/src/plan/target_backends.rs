//! The backends of a service as they should be.

use std::{
    collections::BTreeMap,
    ops::{Deref, DerefMut},
};

use lb_common::addr::{Be16, IpAddr16};

use super::state::TargetBackend;
use crate::model::Shared;

/// Address and port of a backend.
type Identity = (IpAddr16, Be16);

/// Backends by identity. What one should be is the same for very many services, which share it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TargetBackends(BTreeMap<Identity, Shared<TargetBackend>>);

impl TargetBackends {
    /// Each with what it should be.
    pub fn iter(&self) -> impl Iterator<Item = (&Identity, &TargetBackend)> {
        self.0.iter().map(|(identity, backend)| (identity, &**backend))
    }
}

impl Deref for TargetBackends {
    type Target = BTreeMap<Identity, Shared<TargetBackend>>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for TargetBackends {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl<T: Into<Shared<TargetBackend>>> FromIterator<(Identity, T)> for TargetBackends {
    fn from_iter<I: IntoIterator<Item = (Identity, T)>>(backends: I) -> Self {
        Self(backends.into_iter().map(|(identity, backend)| (identity, backend.into())).collect())
    }
}

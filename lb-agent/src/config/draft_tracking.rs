//! What a service says of its flows: how long they are remembered, and whether clients stay with their backend.

use std::time::Duration;

use super::{
    error::Problems,
    read::{Fields, choice, duration},
};
use crate::model::{Affinity, Protocol};

/// Reads `flowTimeout`, with the protocol's default.
pub(super) fn flow_timeout(fields: &Fields<'_>, protocol: Protocol, problems: &mut Problems) -> Duration {
    let range = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
    let written = fields.optional("flowTimeout").and_then(|value| duration(value, "flowTimeout", &range, problems));
    written.map_or(protocol.flow_timeout(), |timeout| timeout.value)
}

/// Reads `sessionAffinity` and `affinityTimeout`.
pub(super) fn affinity(fields: &Fields<'_>, problems: &mut Problems) -> Option<Affinity> {
    let kinds = [("none", false), ("clientIP", true)];
    let kind = fields.optional("sessionAffinity").and_then(|value| choice(value, "sessionAffinity", &kinds, problems));
    let has_affinity = kind.is_some_and(|kind| kind.value);
    let range = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
    let written = fields.optional("affinityTimeout");
    if let Some(value) = written.filter(|_| !has_affinity) {
        let reason = "`affinityTimeout` has no meaning without `sessionAffinity: clientIP`; add that or leave it out";
        problems.refuse(value.place, reason);
    }
    let timeout = written.and_then(|value| duration(value, "affinityTimeout", &range, problems));
    has_affinity.then(|| Affinity { timeout: timeout.map_or(Affinity::TIMEOUT, |timeout| timeout.value) })
}

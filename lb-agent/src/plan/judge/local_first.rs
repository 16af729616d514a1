//! Services whose new flows stay on the node that they enter, as long as a server there answers.

use super::Verdict;
use crate::model::ProbeState;

/// Gives new flows to this node's own backends alone, if any of them is known to take flows: probed, if it is probed at
/// all, and such that the node holds the VIPs. The others keep the flows that they have. False if there is none.
pub(super) fn prefer_own(verdicts: &mut [Verdict]) -> bool {
    let is_own = |verdict: &Verdict| verdict.holds && verdict.takes_flows && verdict.is_known();
    if !verdicts.iter().any(is_own) {
        return false;
    }
    for other in verdicts.iter_mut().filter(|verdict| verdict.takes_flows && !is_own(verdict)) {
        other.takes_flows = false;
        other.reason =
            format!("`localFirst`: new flows that enter here go to this node's own backend; {}", other.reason);
    }
    true
}

impl Verdict {
    /// Whether the backend was heard, and answered.
    const fn is_known(&self) -> bool {
        matches!(self.health, ProbeState::Healthy | ProbeState::WantsCredentials { .. })
    }
}

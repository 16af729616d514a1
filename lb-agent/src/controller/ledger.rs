//! What was written and may not be shown yet.
//!
//! A write is based on a version of its object, and the server applies it to that version only. So as long as the watch
//! shows that version, or an earlier one, the write may have happened unseen; as soon as it shows a later one, what it
//! shows is the truth.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{desired::Desired, objects::ServiceItem};
use crate::model::inventory::{Ingress, ObjectName};

/// Writes to Services, by their names.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: BTreeMap<ObjectName, Entry>,
}

#[derive(Debug)]
struct Entry {
    uid: String,
    /// The version that the write was based on.
    base: String,
    desired: Desired,
    /// What the server made of it, if it said so.
    answer: Option<Answer>,
}

#[derive(Debug)]
struct Answer {
    version: String,
    ingress: Vec<Ingress>,
    conditions: Vec<Condition>,
}

impl Ledger {
    /// A write is about to begin.
    pub(super) fn begin(&mut self, name: &ObjectName, item: &ServiceItem, desired: &Desired) {
        let entry =
            Entry { uid: item.service.uid.clone(), base: item.version.clone(), desired: desired.clone(), answer: None };
        self.entries.insert(name.clone(), entry);
    }

    /// The server applied the write; this is the object now.
    pub(super) fn applied(&mut self, name: &ObjectName, now: &ServiceItem) {
        if let Some(entry) = self.entries.get_mut(name) {
            let answer = Answer {
                version: now.version.clone(),
                ingress: now.service.ingress.clone(),
                conditions: now.conditions.to_vec(),
            };
            entry.answer = Some(answer);
        }
    }

    /// The server certainly did not apply the write.
    pub(super) fn refused(&mut self, name: &ObjectName) {
        self.entries.remove(name);
    }

    /// Forgets Services that are gone.
    pub(super) fn retain(&mut self, services: &BTreeMap<ObjectName, ServiceItem>) {
        self.entries.retain(|name, entry| services.get(name).is_some_and(|item| item.service.uid == entry.uid));
    }

    /// Addresses that the Service may have beside those that are shown.
    pub(super) fn pending(&self, name: &ObjectName, item: &ServiceItem) -> Option<Vec<IpAddr>> {
        let entry = self.entries.get(name)?;
        let pending = match &entry.answer {
            Some(answer) => is_before(&item.version, &answer.version),
            None => item.version == entry.base || is_before(&item.version, &entry.base),
        };
        if pending { entry.desired.ingress.clone() } else { None }
    }

    /// Whether the same was written before and the server made of it what is shown: writing it again changes nothing.
    /// Servers drop fields that they do not know (`ipMode` before 1.29, conditions before 1.24).
    pub(super) fn is_settled(&self, name: &ObjectName, item: &ServiceItem, desired: &Desired) -> bool {
        let Some(Entry { desired: written, answer: Some(answer), .. }) = self.entries.get(name) else {
            return false;
        };
        let shown = item.service.ingress == answer.ingress && *item.conditions == answer.conditions;
        written == desired && (shown || is_before(&item.version, &answer.version))
    }

    /// What was written last, if the server applied it.
    pub(super) fn written(&self, name: &ObjectName) -> Option<&Desired> {
        self.entries.get(name).filter(|entry| entry.answer.is_some()).map(|entry| &entry.desired)
    }
}

/// Whether a version is earlier than another. Versions are numbers on every server that there is; what is no number is
/// earlier than nothing.
fn is_before(version: &str, other: &str) -> bool {
    match (version.parse::<u64>(), other.parse::<u64>()) {
        (Ok(version), Ok(other)) => version < other,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::inventory::ClusterService;

    fn item(version: &str, addresses: &[&str]) -> ServiceItem {
        let entry = |address: &&str| Ingress { ip: Some((*address).to_owned()), ..Ingress::default() };
        let service = ClusterService {
            uid: "u".to_owned(),
            ingress: addresses.iter().map(entry).collect(),
            ..ClusterService::default()
        };
        let (service, conditions) = (Arc::new(service), Arc::new(Vec::new()));
        ServiceItem { service, version: version.to_owned(), ours: true, conditions }
    }

    fn desired(address: &str) -> Desired {
        Desired { ingress: Some(vec![address.parse().unwrap()]), conditions: vec![] }
    }

    #[test]
    fn a_write_of_unknown_end_is_pending_until_a_later_version_is_shown() {
        let (name, mut ledger) = (ObjectName::new("a", "b"), Ledger::default());
        let wanted = desired("192.0.2.1");
        ledger.begin(&name, &item("10", &[]), &wanted);
        assert_eq!(ledger.pending(&name, &item("10", &[])), wanted.ingress);
        assert_eq!(ledger.pending(&name, &item("9", &[])), wanted.ingress, "a list can be older than what was seen");
        assert_eq!(ledger.pending(&name, &item("11", &[])), None);
    }

    #[test]
    fn a_write_that_was_applied_is_pending_until_its_own_version_is_shown() {
        let (name, mut ledger) = (ObjectName::new("a", "b"), Ledger::default());
        let wanted = desired("192.0.2.1");
        ledger.begin(&name, &item("10", &[]), &wanted);
        ledger.applied(&name, &item("15", &["192.0.2.1"]));
        assert_eq!(ledger.pending(&name, &item("14", &[])), wanted.ingress);
        assert_eq!(ledger.pending(&name, &item("15", &["192.0.2.1"])), None);
        assert!(ledger.is_settled(&name, &item("10", &[]), &wanted), "nobody writes twice what is only not shown yet");
    }

    #[test]
    fn what_the_server_drops_is_not_written_again() {
        let (name, mut ledger) = (ObjectName::new("a", "b"), Ledger::default());
        ledger.begin(&name, &item("10", &[]), &desired("192.0.2.1"));
        ledger.applied(&name, &item("11", &["192.0.2.1"]));
        assert!(ledger.is_settled(&name, &item("12", &["192.0.2.1"]), &desired("192.0.2.1")));
        assert!(!ledger.is_settled(&name, &item("12", &["192.0.2.1"]), &desired("192.0.2.2")));
        assert!(!ledger.is_settled(&name, &item("12", &["192.0.2.9"]), &desired("192.0.2.1")));
    }

    #[test]
    fn what_was_refused_and_what_is_gone_is_forgotten() {
        let (name, mut ledger) = (ObjectName::new("a", "b"), Ledger::default());
        ledger.begin(&name, &item("10", &[]), &desired("192.0.2.1"));
        ledger.refused(&name);
        assert_eq!(ledger.pending(&name, &item("10", &[])), None);
        ledger.begin(&name, &item("10", &[]), &desired("192.0.2.1"));
        ledger.retain(&BTreeMap::new());
        assert_eq!(ledger.pending(&name, &item("10", &[])), None);
    }
}

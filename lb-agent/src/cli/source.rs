//! The part of `lbctl status` about the reading of the cluster.

use super::console::{Style, counted, duration};
use crate::status::{FollowStatus, WatchStatus};

/// Objects that cannot be read and are named; `lbctl status -o json` has all of them.
const NAMED: usize = 5;

/// What answers, how old the lists are, and what is wrong.
pub(super) fn lines(source: &FollowStatus, now: u64, style: Style) -> Vec<String> {
    let ago = |at: u64| duration(now.saturating_sub(at));
    let mut lines = vec![match (&source.error, &source.server) {
        (Some(error), _) => style.bad(&format!("no API server answers, what was known stays in force: {error}")),
        (None, Some(server)) => format!("API server {server}; {}", listed(source, now)),
        (None, None) => style.bad("no API server has answered yet"),
    }];
    if source.error.is_some() {
        lines.push(listed(source, now));
    }
    lines.extend(source.kinds.iter().flat_map(|kind| troubles(kind, style)));
    if let Some(error) = source.saved.as_ref().and_then(|saved| saved.error.as_ref()) {
        lines.push(style.bad(&format!("inventory on disk: {error}")));
    }
    let lease = &source.lease;
    if let Some(error) = &lease.error {
        let last = lease.renewed.map_or_else(|| "never".to_owned(), |at| format!("{} ago", ago(at)));
        lines.push(style.bad(&format!("lease {}: renewed {last}: {error}", lease.name)));
    }
    lines
}

/// The age of what is known: that of the oldest of the latest complete lists, and when anything was heard last.
fn listed(source: &FollowStatus, now: u64) -> String {
    let ago = |at: u64| duration(now.saturating_sub(at));
    let missing: Vec<&str> =
        source.kinds.iter().filter(|kind| kind.listed.is_none()).map(|kind| kind.resource.as_str()).collect();
    let heard = source.kinds.iter().filter_map(|kind| kind.heard).max();
    let heard = heard.map_or_else(String::new, |at| format!(", the last word {} ago", ago(at)));
    let oldest = source.kinds.iter().filter_map(|kind| kind.listed).min().filter(|_| missing.is_empty());
    match oldest {
        Some(at) => format!("complete lists up to {} old{heard}", ago(at)),
        None if missing.is_empty() => "no complete list yet".to_owned(),
        None => format!("no complete list yet of {}{heard}", missing.join(", ")),
    }
}

/// What is wrong with one kind of object.
fn troubles(kind: &WatchStatus, style: Style) -> Vec<String> {
    let resource = &kind.resource;
    let failed = kind.error.iter().map(|error| {
        let failures = counted(usize::try_from(kind.failures).unwrap_or(usize::MAX), "failure");
        format!("{resource}: {error} ({failures} so far)")
    });
    let doubted = kind.doubted.iter().map(|doubted| {
        format!(
            "{resource}: a complete list has {} of {}: it is believed when {} say so ({} so far)",
            doubted.listed, doubted.held, doubted.needed, doubted.lists
        )
    });
    let unreadable = kind.unreadable.iter().take(NAMED);
    let unreadable = unreadable
        .map(|(name, why)| format!("{resource}/{name}: not readable, the version before stays in force: {why}"));
    let more = kind.unreadable.len().saturating_sub(NAMED);
    let more = (more > 0).then(|| format!("{resource}: {more} more are not readable: `lbctl status -o json`"));
    failed.chain(doubted).chain(unreadable).chain(more).map(|line| style.bad(&line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{examples, status::DoubtedStatus};

    const NOW: u64 = 1_795_003_700;

    #[test]
    fn a_source_that_is_well_is_one_line_with_its_server_and_the_age_of_its_lists() {
        let lines = lines(&examples::source(), NOW, Style::PLAIN);
        assert_eq!(lines, ["API server 10.0.1.2:6443; complete lists up to 1 h 1 min old, the last word 10 s ago"]);
    }

    #[test]
    fn everything_that_is_wrong_is_told() {
        let mut source = examples::source();
        source.error = Some("10.0.1.2:6443: connection refused".to_owned());
        source.kinds[1].listed = None;
        source.kinds[1].error = Some("403 forbidden".to_owned());
        source.kinds[1].failures = 1;
        source.kinds[0].doubted = Some(DoubtedStatus { listed: 1, held: 40, lists: 2, needed: 3 });
        source.kinds[3].unreadable = (0..7).map(|number| (format!("p{number}"), "no addresses".to_owned())).collect();
        source.saved.as_mut().unwrap().error = Some("disk full".to_owned());
        source.lease.error = Some("403 forbidden".to_owned());
        let expected = [
            "no API server answers, what was known stays in force: 10.0.1.2:6443: connection refused",
            "no complete list yet of services, the last word 10 s ago",
            "nodes: a complete list has 1 of 40: it is believed when 3 say so (2 so far)",
            "services: 403 forbidden (1 failure so far)",
            "vippools/p0: not readable, the version before stays in force: no addresses",
            "vippools/p1: not readable, the version before stays in force: no addresses",
            "vippools/p2: not readable, the version before stays in force: no addresses",
            "vippools/p3: not readable, the version before stays in force: no addresses",
            "vippools/p4: not readable, the version before stays in force: no addresses",
            "vippools: 2 more are not readable: `lbctl status -o json`",
            "inventory on disk: disk full",
            "lease levee-system/levee-node-node-1: renewed 5 s ago: 403 forbidden",
        ];
        assert_eq!(lines(&source, NOW, Style::PLAIN), expected);
    }
}

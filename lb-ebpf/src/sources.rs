//! Does the service admit this source?

use aya_ebpf::btf_maps::lpm_trie::Key;
use lb_common::{addr::IpAddr16, maps::sources::SourceKey};

use crate::maps::SOURCE_RANGES;

/// Whether a range of the service has this address. Asked only for services that have ranges.
#[inline(always)]
pub fn admits(service: u32, is_ipv4: bool, source: &IpAddr16) -> bool {
    lookup(&Key::new(SourceKey::WHOLE, SourceKey::new(service, is_ipv4, *source)))
}

#[inline(never)] // rare: its stack is its own
fn lookup(key: &Key<SourceKey>) -> bool {
    SOURCE_RANGES.get(key).is_some()
}

//! Offloads, above all those that merge packets before an XDP program in generic mode sees them.

use std::collections::BTreeSet;

use ethtool::{EthtoolAttr, EthtoolFeatureAttr};
use futures::TryStreamExt;

use super::NetlinkError;

/// Features by their names in the kernel: `gro` and `lro` of ethtool(8), and their variants in hardware.
const MERGING: [&str; 3] = ["rx-gro", "rx-lro", "rx-gro-hw"];

/// Which offloads of an interface merge received packets at present.
///
/// # Errors
/// [`NetlinkError`] if the kernel cannot be asked (ethtool over netlink came with Linux 5.6).
pub async fn merging_offloads(interface: &str) -> Result<BTreeSet<String>, NetlinkError> {
    let mut active = active_offloads(interface).await?;
    active.retain(|name| MERGING.contains(&name.as_str()));
    Ok(active)
}

/// Which offloads of an interface are on at present, by their names in the kernel.
///
/// # Errors
/// As [`merging_offloads`].
pub async fn active_offloads(interface: &str) -> Result<BTreeSet<String>, NetlinkError> {
    let failed = |error: &dyn std::error::Error| NetlinkError::Offloads {
        interface: interface.to_owned(),
        reason: error.to_string(),
    };
    let (connection, mut handle, _) = ethtool::new_connection().map_err(|error| failed(&error))?;
    let connection = tokio::spawn(connection);
    let answer = handle.feature().get(Some(interface)).execute().await.map_err(|error| failed(&error))?;
    let messages: Vec<_> = answer.try_collect().await.map_err(|error| failed(&error))?;
    connection.abort();
    let attributes = messages.into_iter().flat_map(|message| message.payload.nlas);
    let active = attributes.filter_map(|attribute| match attribute {
        EthtoolAttr::Feature(EthtoolFeatureAttr::Active(bits)) => Some(bits),
        _ => None,
    });
    Ok(active.flatten().filter(|bit| bit.value).map(|bit| bit.name).collect())
}

//! The program on the configured interfaces, as they come and go.

use std::path::Path;

use crate::{
    config::InterfaceSpec,
    dataplane::{Attachment, DataplaneError, GENERIC, Kernel, Present},
    model::Network,
    netlink,
    status::InterfaceStatus,
};

/// Puts the program on every configured interface that is there, takes it off all others, and says how it went. The
/// second value holds what was refused. `sends_on`: packets may be sent on to other nodes.
pub async fn attach(
    kernel: &mut Kernel,
    wanted: &[InterfaceSpec],
    network: &Network,
    sends_on: bool,
) -> (Vec<InterfaceStatus>, Vec<DataplaneError>) {
    let names: Vec<String> = wanted.iter().map(|spec| spec.name.clone()).collect();
    kernel.detach_others(&names);
    let (mut statuses, mut refused) = (Vec::new(), Vec::new());
    for spec in wanted {
        let not_attached = |reason| InterfaceStatus { name: spec.name.clone(), mode: "none".to_owned(), reason };
        let Some(interface) = network.interface_named(&spec.name) else {
            statuses.push(not_attached(Some("there is no such interface at present".to_owned())));
            continue;
        };
        let present = present(interface.index).await;
        let attached = kernel.attach(&spec.name, interface.index, spec.mode, present);
        match unmerged(kernel, attached, sends_on).await {
            Ok(attached) => statuses.push(InterfaceStatus {
                name: spec.name.clone(),
                mode: attached.mode.to_owned(),
                reason: attached.fallback,
            }),
            Err(error) => {
                statuses.push(not_attached(Some(error.to_string())));
                refused.push(error);
            }
        }
    }
    (statuses, refused)
}

/// Rewrites what leaves from VIPs on every configured interface that is there, if `wanted`, or on none. What goes wrong is
/// `said` once.
pub fn clamp(
    kernel: &mut Kernel,
    interfaces: &[InterfaceSpec],
    network: &Network,
    wanted: bool,
    said: &mut Vec<String>,
) {
    let present = interfaces.iter().filter(|_| wanted).filter_map(|spec| network.interface_named(&spec.name));
    let present: Vec<_> = present.map(|interface| (interface.name.clone(), interface.index)).collect();
    let errors: Vec<String> = kernel.clamp(&present).iter().map(ToString::to_string).collect();
    for error in errors.iter().filter(|error| !said.contains(error)) {
        tracing::warn!(error, "what leaves from VIPs is not rewritten there");
    }
    *said = errors;
}

/// Translates connections of this node's processes if `wanted`, or none. What goes wrong is `said` once.
pub fn translate(kernel: &mut Kernel, wanted: bool, cgroup: Option<&Path>, said: &mut Option<String>) {
    if !wanted {
        kernel.stop_translating();
        *said = None;
        return;
    }
    let error = kernel.translate(cgroup).err().map(|error| error.to_string());
    if let Some(error) = error.as_ref().filter(|error| said.as_ref() != Some(*error)) {
        tracing::error!(error, "connections of this node's processes are not translated");
    }
    *said = error;
}

/// Refuses generic mode behind offloads that merge packets: what they make of two packets can be sent on in none.
async fn unmerged(
    kernel: &mut Kernel,
    attached: Result<Attachment, DataplaneError>,
    sends_on: bool,
) -> Result<Attachment, DataplaneError> {
    let attached = attached?;
    if !sends_on || attached.mode != GENERIC {
        return Ok(attached);
    }
    match netlink::merging_offloads(&attached.interface).await {
        Ok(offloads) if offloads.is_empty() => Ok(attached),
        Ok(offloads) => {
            kernel.detach(&attached.interface);
            let offloads = offloads.into_iter().collect::<Vec<_>>().join(", ");
            Err(DataplaneError::MergedPackets { interface: attached.interface, offloads })
        }
        Err(error) => {
            tracing::warn!(interface = attached.interface, %error, "make sure that GRO and LRO are off there");
            Ok(attached)
        }
    }
}

/// The program that the kernel reports on an interface; none if it cannot be asked.
async fn present(index: u32) -> Option<Present> {
    let programs = netlink::xdp_on_link(index).await.unwrap_or_default();
    let program = programs.first()?;
    Some(Present { program_id: program.program_id, is_native: program.mode == netlink::XdpMode::Driver })
}

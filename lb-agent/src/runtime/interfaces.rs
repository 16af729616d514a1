//! The program on the configured interfaces, as they come and go.

use crate::{
    config::InterfaceSpec,
    dataplane::{DataplaneError, Kernel, Present},
    model::Network,
    netlink,
    status::InterfaceStatus,
};

/// Puts the program on every configured interface that is there, takes it off all others, and says how it went. The
/// second value holds what was refused.
pub async fn attach(
    kernel: &mut Kernel,
    wanted: &[InterfaceSpec],
    network: &Network,
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
        match kernel.attach(&spec.name, interface.index, spec.mode, present) {
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

/// The program that the kernel reports on an interface; none if it cannot be asked.
async fn present(index: u32) -> Option<Present> {
    let programs = netlink::xdp_on_link(index).await.unwrap_or_default();
    let program = programs.first()?;
    Some(Present { program_id: program.program_id, is_native: program.mode == netlink::XdpMode::Driver })
}

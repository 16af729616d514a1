//! The program that bounds segment sizes and renames servers' ports, on the egress of the uplinks: kept there by pinned links, as the XDP program is.

use std::collections::BTreeMap;

use aya::programs::{
    LinkOrder, SchedClassifier, TcAttachType,
    links::{FdLink, PinnedLink},
    tc::{SchedClassifierLink, TcAttachOptions},
};

use super::{
    error::{DataplaneError, chain},
    kernel::KernelVersion,
    object::Programs,
    pins::PinDirectory,
};

/// The program on all interfaces.
#[derive(Default)]
pub struct Clamps {
    /// Index of each interface that has it.
    by_interface: BTreeMap<String, u32>,
}

impl Clamps {
    /// Puts the program on an interface; if an earlier agent's is there, replaces it in one step.
    pub fn attach(
        &mut self,
        programs: &mut Programs,
        pins: &PinDirectory,
        interface: &str,
        index: u32,
    ) -> Result<(), DataplaneError> {
        if self.by_interface.get(interface) == Some(&index) {
            return Ok(());
        }
        let refused = |reason| DataplaneError::EgressRefused { interface: interface.to_owned(), reason };
        if KernelVersion::running() < KernelVersion::TCX {
            return Err(refused(format!("that takes Linux {}", KernelVersion::TCX)));
        }
        let program = programs.egress()?;
        if !adopt(program, pins, interface) {
            let path = pins.clamp(interface);
            let _ = std::fs::remove_file(&path);
            let options = TcAttachOptions::TcxOrder(LinkOrder::default());
            let id = program
                .attach_with_options(interface, TcAttachType::Egress, options)
                .map_err(|error| refused(chain(&error)))?;
            let link = program.take_link(id).map_err(|error| refused(chain(&error)))?;
            let link = FdLink::try_from(link).map_err(|error| refused(chain(&error)))?;
            pins.create_clamps()?;
            link.pin(&path).map_err(|error| refused(chain(&error)))?;
        }
        tracing::info!(interface, "what leaves from VIPs is rewritten there: segment sizes, servers' ports");
        self.by_interface.insert(interface.to_owned(), index);
        Ok(())
    }

    /// Takes the program off every interface that is not wanted.
    pub fn detach_others(&mut self, pins: &PinDirectory, wanted: &[String]) {
        for interface in pins.clamped_interfaces().iter().filter(|name| !wanted.contains(name)) {
            let _ = std::fs::remove_file(pins.clamp(interface));
            self.by_interface.remove(interface);
            tracing::info!(interface, "what leaves from VIPs is not rewritten there any more");
        }
    }
}

/// Replaces the program under the link that an earlier agent pinned; false if there is none for this interface.
fn adopt(program: &mut SchedClassifier, pins: &PinDirectory, interface: &str) -> bool {
    let Ok(pinned) = PinnedLink::from_pin(pins.clamp(interface)) else {
        return false;
    };
    let link: FdLink = pinned.into();
    if !is_on(interface, &link) {
        return false;
    }
    let replaced = SchedClassifierLink::try_from(link).ok().and_then(|link| program.attach_to_link(link).ok());
    // The pin alone is to keep the link, so that removing it takes the program off.
    replaced.is_some_and(|id| program.take_link(id).is_ok())
}

/// Whether the link's program is among those on the interface's egress: not if the interface that it was made for is
/// gone, whatever has its name now.
fn is_on(interface: &str, link: &FdLink) -> bool {
    let Ok(info) = link.info() else { return false };
    let Ok((_, programs)) = SchedClassifier::query_tcx(interface, TcAttachType::Egress) else { return false };
    programs.iter().any(|program| program.id() == info.program_id())
}

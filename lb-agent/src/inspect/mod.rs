//! Reads the pinned maps, whether an agent runs or not, and asks the dry entry.
//!
//! Nothing here changes a map. [`detach`] removes the pins, and only while no agent runs.
//!
//! Every value is read on its own while packets flow and the agent writes, so an inspection is no snapshot: a service
//! that comes or goes meanwhile may be seen or not. A ring is read whole or, if the agent replaces it again and again,
//! as it is found.

mod dump;
mod flows;
mod read;
mod redirects;
mod ring;
mod usage;
mod view;

use std::path::Path;

use lb_common::report::Report;

pub use dump::{Dump, Fields};
pub use flows::{FlowFilter, FlowView, Flows, TrackingView};
pub use read::{Inspector, Rings, interface_name};
pub use view::{
    AddressView, BackendView, ChangeView, Count, HopView, Inspection, MapUse, Presence, RingView, ServiceView,
    ShareView,
};

use crate::dataplane::{self, PinDirectory, PinLock};
pub use crate::dataplane::{DataplaneError, PinOwner};

/// Who keeps the maps under `pin_path`.
#[must_use]
pub fn presence(pin_path: &Path) -> Presence {
    presence_of(&PinDirectory::new(pin_path))
}

/// Id and name of the program that the pinned link of an interface keeps there. The kernel tells names to processes with
/// CAP_SYS_ADMIN only; others get an empty one.
///
/// # Errors
/// [`DataplaneError`] if there is no such link or the kernel does not tell.
pub fn linked_program(pin_path: &Path, interface: &str) -> Result<(u32, String), DataplaneError> {
    dataplane::linked_program(pin_path, interface)
}

/// Asks the dry entry under `pin_path` what would become of `frame`, an Ethernet frame of at least 64 bytes.
///
/// # Errors
/// [`DataplaneError`] if no agent ever ran here, or the kernel refuses to run the program.
pub fn lookup(pin_path: &Path, frame: &[u8]) -> Result<Report, DataplaneError> {
    dataplane::lookup(pin_path, frame)
}

/// The right to take away what is pinned: while it lives, no agent can start there.
pub struct Detachable(PinLock);

/// Locks the pin directory so that it can be detached. `None` if nothing is pinned there.
///
/// # Errors
/// [`DataplaneError::Locked`] with the name of the agent that runs there, or what the kernel says.
pub fn lock_to_detach(pin_path: &Path) -> Result<Option<Detachable>, DataplaneError> {
    match pin_path.try_exists() {
        Ok(true) => PinDirectory::new(pin_path).lock().map(Detachable).map(Some),
        Ok(false) => Ok(None),
        Err(source) => Err(DataplaneError::io("examining", pin_path, source)),
    }
}

/// Takes the program off every interface and removes all pins; returns the names of the interfaces.
///
/// # Errors
/// [`DataplaneError`] if a pin cannot be removed.
pub fn detach(detachable: Detachable) -> Result<Vec<String>, DataplaneError> {
    dataplane::detach(detachable.0)
}

fn presence_of(pins: &PinDirectory) -> Presence {
    Presence { running: pins.is_locked(), owner: pins.owner() }
}

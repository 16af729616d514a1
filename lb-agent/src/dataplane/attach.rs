//! The program on its interfaces: native where the driver can, generic where it cannot, and kept there by pinned links.

use std::collections::BTreeMap;

use aya::programs::{
    ProgramError, Xdp,
    links::{FdLink, PinnedLink},
    loaded_programs,
    xdp::XdpLink,
};
use serde::Serialize;

use super::{
    error::{DataplaneError, chain},
    object::Programs,
    pins::PinDirectory,
};
use crate::config::XdpMode;

/// The XDP program that the kernel reports on an interface.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Present {
    /// Its id.
    pub program_id: u32,
    /// Whether it runs in the driver.
    pub is_native: bool,
}

/// The program on an interface.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// Name of the interface.
    pub interface: String,
    /// Its index when the program was attached.
    pub index: u32,
    /// `native` or `generic`.
    pub mode: &'static str,
    /// Why it is generic though native was preferred.
    pub fallback: Option<String>,
}

/// The programs on all interfaces.
#[derive(Default)]
pub struct Attachments {
    by_interface: BTreeMap<String, Attachment>,
}

impl Attachments {
    /// Puts the program on an interface; if an earlier agent's is there, replaces it in one step.
    pub fn attach(
        &mut self,
        programs: &mut Programs,
        pins: &PinDirectory,
        interface: &str,
        index: u32,
        mode: XdpMode,
        present: Option<Present>,
    ) -> Result<Attachment, DataplaneError> {
        if let Some(known) = self.by_interface.get(interface).filter(|known| known.index == index && present.is_some())
        {
            return Ok(known.clone());
        }
        let attachment = if adopt(programs, pins, interface, present)? {
            let mode = if present.is_some_and(|present| present.is_native) { NATIVE } else { GENERIC };
            Attachment { interface: interface.to_owned(), index, mode, fallback: None }
        } else if let Some(foreign) = present {
            let program = format!(" (id {})", foreign.program_id);
            return Err(DataplaneError::ForeignProgram { interface: interface.to_owned(), program });
        } else {
            attach_anew(programs, pins, interface, index, mode)?
        };
        self.by_interface.insert(interface.to_owned(), attachment.clone());
        Ok(attachment)
    }

    /// Takes the program off interfaces that are not wanted (any more).
    pub fn detach_others(&mut self, pins: &PinDirectory, wanted: &[String]) {
        for pinned in pins.linked_interfaces() {
            let name = pinned.replace("%2e", ".");
            if !wanted.contains(&name) {
                self.detach(pins, &name);
            }
        }
    }

    /// Takes the program off an interface.
    pub fn detach(&mut self, pins: &PinDirectory, interface: &str) {
        let _ = std::fs::remove_file(pins.link(interface));
        self.by_interface.remove(interface);
        tracing::info!(interface, "detached");
    }
}

/// Value of [`Attachment::mode`]: in the driver.
pub const NATIVE: &str = "native";
/// Value of [`Attachment::mode`]: in the network stack, behind its offloads.
pub const GENERIC: &str = "generic";

/// Replaces the program under the link that an earlier agent pinned. False if there is no link, or if the interface that
/// it was made for is gone, whatever has its name now; then the link is let go of.
fn adopt(
    programs: &mut Programs,
    pins: &PinDirectory,
    interface: &str,
    present: Option<Present>,
) -> Result<bool, DataplaneError> {
    let path = pins.link(interface);
    let Ok(pinned) = PinnedLink::from_pin(&path) else {
        return Ok(false);
    };
    let refused =
        |reason| DataplaneError::AttachRefused { interface: interface.to_owned(), mode: "its present", reason };
    let link: FdLink = pinned.into();
    let program_id = link.info().map_err(|error| refused(chain(&error)))?.program_id();
    if present.is_none_or(|present| present.program_id != program_id) {
        std::fs::remove_file(&path).map_err(|source| DataplaneError::io("removing", &path, source))?;
        return Ok(false);
    }
    let link = XdpLink::try_from(link).map_err(|error| refused(chain(&error)))?;
    put(programs.in_force()?, link).map_err(|error| refused(chain(&error)))?;
    Ok(true)
}

/// Puts a program under every pinned link, each in one step.
pub fn put_everywhere(program: &mut Xdp, pins: &PinDirectory) -> Result<(), DataplaneError> {
    for interface in pins.linked_interfaces() {
        let refused =
            |reason| DataplaneError::AttachRefused { interface: interface.clone(), mode: "its present", reason };
        let pinned = PinnedLink::from_pin(pins.link(&interface)).map_err(|error| refused(chain(&error)))?;
        let link = XdpLink::try_from(FdLink::from(pinned)).map_err(|error| refused(chain(&error)))?;
        match put(program, link) {
            Err(error) if is_gone(&error) => {}
            put => put.map_err(|error| refused(chain(&error)))?,
        }
    }
    Ok(())
}

/// Id and name of the program under a pinned link.
pub fn linked_program(pins: &PinDirectory, interface: &str) -> Result<(u32, String), DataplaneError> {
    let refused =
        |reason| DataplaneError::AttachRefused { interface: interface.to_owned(), mode: "its present", reason };
    let pinned = PinnedLink::from_pin(pins.link(interface)).map_err(|error| refused(chain(&error)))?;
    let id = FdLink::from(pinned).info().map_err(|error| refused(chain(&error)))?.program_id();
    let program = loaded_programs().filter_map(Result::ok).find(|program| program.id() == id);
    let name = program.and_then(|program| program.name_as_str().map(str::to_owned));
    Ok((id, name.unwrap_or_default()))
}

/// Whether the interface of a link is gone: the pin is left, and is replaced when the interface comes back.
fn is_gone(error: &ProgramError) -> bool {
    matches!(error, ProgramError::SyscallError(error)
        if error.io_error.raw_os_error() == Some(nix::errno::Errno::ENOLINK as i32))
}

/// Puts a program under a link, which is pinned: our own handle of it is let go of.
fn put(program: &mut Xdp, link: XdpLink) -> Result<(), ProgramError> {
    let id = program.attach_to_link(link)?;
    program.take_link(id).map(drop)
}

fn attach_anew(
    programs: &mut Programs,
    pins: &PinDirectory,
    interface: &str,
    index: u32,
    mode: XdpMode,
) -> Result<Attachment, DataplaneError> {
    let attached = |mode, fallback| Attachment { interface: interface.to_owned(), index, mode, fallback };
    let native = match mode {
        XdpMode::Generic => None,
        XdpMode::Auto | XdpMode::Native => Some(attach_in(programs, pins, interface, index, NATIVE)),
    };
    match (native, mode) {
        (Some(Ok(())), _) => Ok(attached(NATIVE, None)),
        (Some(Err(DataplaneError::AttachRefused { reason, .. })), XdpMode::Auto) => {
            attach_in(programs, pins, interface, index, GENERIC)?;
            tracing::warn!(interface, reason, "no native XDP here: attached in generic mode, which is slower");
            Ok(attached(GENERIC, Some(reason)))
        }
        (Some(Err(error)), _) => Err(error),
        (None, _) => {
            attach_in(programs, pins, interface, index, GENERIC)?;
            Ok(attached(GENERIC, None))
        }
    }
}

/// Attaches in one mode and pins the link.
fn attach_in(
    programs: &mut Programs,
    pins: &PinDirectory,
    interface: &str,
    index: u32,
    mode: &'static str,
) -> Result<(), DataplaneError> {
    let refused = |reason| DataplaneError::AttachRefused { interface: interface.to_owned(), mode, reason };
    let flags = if mode == NATIVE { aya::programs::XdpMode::Driver } else { aya::programs::XdpMode::Skb };
    let program = programs.in_force()?;
    let id = program.attach_to_if_index(index, flags).map_err(|error| refuse(interface, mode, &error))?;
    let link = program.take_link(id).map_err(|error| refused(chain(&error)))?;
    let link = FdLink::try_from(link).map_err(|_| DataplaneError::NoLinks { interface: interface.to_owned() })?;
    link.pin(pins.link(interface)).map_err(|error| refused(chain(&error)))?;
    Ok(())
}

/// An interface that has a program already says "busy".
fn refuse(interface: &str, mode: &'static str, error: &ProgramError) -> DataplaneError {
    let is_busy = matches!(error, ProgramError::SyscallError(error)
        if error.io_error.kind() == std::io::ErrorKind::ResourceBusy);
    if is_busy {
        return DataplaneError::ForeignProgram { interface: interface.to_owned(), program: String::new() };
    }
    DataplaneError::AttachRefused { interface: interface.to_owned(), mode, reason: chain(error) }
}

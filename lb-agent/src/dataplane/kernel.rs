//! What the kernel and the process must be able to do.

use std::fmt;

use caps::{CapSet, Capability};

use super::error::DataplaneError;

/// A kernel's version.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct KernelVersion(pub u32, pub u32);

impl KernelVersion {
    /// The oldest kernel that is supported: BPF links for XDP, mmapable arrays, `CAP_BPF`.
    pub const FLOOR: Self = Self(5, 10);
    /// Multi-buffer XDP programs.
    pub const FRAGS: Self = Self(5, 18);
    /// Links for tc programs.
    pub const TCX: Self = Self(6, 6);
    /// The tracing program: kernels before count each function's stack in steps of 32 bytes, and it does not fit. Tried on
    /// 6.1 and 6.12; what lies between was not.
    pub const TRACING: Self = Self(6, 12);

    /// The version of the kernel that runs; 0.0 if its release is not understood.
    #[must_use]
    pub fn running() -> Self {
        Self::parse(&rustix::system::uname().release().to_string_lossy())
    }

    fn parse(release: &str) -> Self {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
        Self(numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// The capabilities that the agent needs: number and name.
pub const CAPABILITIES: [(u8, &str); 3] = [
    (Capability::CAP_NET_ADMIN as u8, "CAP_NET_ADMIN"),
    (Capability::CAP_PERFMON as u8, "CAP_PERFMON"),
    (Capability::CAP_BPF as u8, "CAP_BPF"),
];

/// Names of the capabilities that the agent needs and this process lacks.
#[must_use]
pub fn missing_capabilities() -> Vec<&'static str> {
    [
        (Capability::CAP_BPF, "CAP_BPF"),
        (Capability::CAP_NET_ADMIN, "CAP_NET_ADMIN"),
        (Capability::CAP_PERFMON, "CAP_PERFMON"),
    ]
    .into_iter()
    .filter(|(capability, _)| !caps::has_cap(None, CapSet::Effective, *capability).unwrap_or(false))
    .map(|(_, name)| name)
    .collect()
}

/// Refuses a kernel or a process that cannot run the data plane.
///
/// # Errors
/// [`DataplaneError::KernelTooOld`] or [`DataplaneError::Capabilities`].
pub(super) fn check() -> Result<(), DataplaneError> {
    let found = KernelVersion::running();
    if found < KernelVersion::FLOOR {
        return Err(DataplaneError::KernelTooOld { found });
    }
    let missing = missing_capabilities();
    if missing.is_empty() { Ok(()) } else { Err(DataplaneError::Capabilities { missing: missing.join(", ") }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_distributions_are_understood() {
        assert_eq!(KernelVersion::parse("6.1.0-32-cloud-amd64"), KernelVersion(6, 1));
        assert_eq!(KernelVersion::parse("5.10.0"), KernelVersion(5, 10));
        assert_eq!(KernelVersion::parse("6.18+custom"), KernelVersion(6, 18));
        assert!(KernelVersion::parse("4.19.0") < KernelVersion::FLOOR);
    }
}

//! Why a Service has not the addresses that it asks for, in words for its condition and Events.

use std::{fmt, net::IpAddr};

use crate::model::inventory::{IpFamily, ObjectName};

/// Why a Service lacks an address, or what is wrong with one that it has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Problem {
    /// `status.loadBalancer.ingress` holds what we did not write.
    ForeignStatus {
        /// What it holds.
        ingress: String,
    },
    /// A requested address that is none.
    Unreadable {
        /// The text.
        text: String,
    },
    /// A requested address of a family that the Service does not have.
    Family {
        /// The address.
        address: IpAddr,
    },
    /// Two requested addresses of one family.
    TwoOfAFamily {
        /// The one that counts.
        first: IpAddr,
        /// The one that does not.
        second: IpAddr,
    },
    /// A requested address is in no pool in force.
    NoPoolHas {
        /// The address.
        address: IpAddr,
    },
    /// A requested address is in a pool that does not admit the Service.
    NotAdmitted {
        /// The address.
        address: IpAddr,
        /// The pool.
        pool: String,
        /// What the pool demands, in words that follow "which".
        why: String,
    },
    /// A requested address is in a pool that is being deleted.
    PoolDeleting {
        /// The address.
        address: IpAddr,
        /// The pool.
        pool: String,
    },
    /// A requested address belongs to somebody else in the cluster.
    Forbidden {
        /// The address.
        address: IpAddr,
        /// Whose it is.
        owner: String,
    },
    /// Another Service has the address.
    Taken {
        /// The address.
        address: IpAddr,
        /// The Service that has it.
        by: ObjectName,
        /// Both have the same sharing key, but also a port in common.
        shares_key: bool,
    },
    /// No pool has an address to give.
    NoneFree {
        /// Of this family.
        family: IpFamily,
        /// Pools that admit the Service, but are used up.
        used_up: Vec<String>,
        /// Pools that admit it, but give addresses on request only.
        on_request: Vec<String>,
    },
    /// The address that the Service has is in no pool any more.
    PoolGone {
        /// The address.
        address: IpAddr,
    },
    /// Both families are required and one can't be had.
    NotBoth,
    /// The address that the Service has has become somebody else's in the cluster.
    NotServed {
        /// The address.
        address: IpAddr,
        /// Whose it is.
        owner: String,
    },
}

impl Problem {
    /// A word for a condition's or an Event's reason.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::ForeignStatus { .. } => "ForeignStatus",
            Self::Unreadable { .. } | Self::Family { .. } | Self::TwoOfAFamily { .. } => "InvalidRequest",
            Self::NoPoolHas { .. } | Self::NotAdmitted { .. } | Self::PoolDeleting { .. } | Self::Forbidden { .. } => {
                "RequestRefused"
            }
            Self::Taken { .. } => "AddressTaken",
            Self::NoneFree { .. } => "NoAddressFree",
            Self::PoolGone { .. } => "PoolGone",
            Self::NotBoth => "NotBothFamilies",
            Self::NotServed { .. } => "AddressInUse",
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ForeignStatus { ingress } => {
                write!(
                    f,
                    "status.loadBalancer.ingress holds {ingress}, which is of no pool; somebody else wrote it: it stays as it is"
                )
            }
            Self::Unreadable { text } => write!(f, "`{text}` is no IP address; write one without a prefix length"),
            Self::Family { address } => write!(f, "{address} is of a family that spec.ipFamilies lacks"),
            Self::TwoOfAFamily { first, second } => {
                write!(f, "both {first} and {second} are asked for; ask for one address of each family")
            }
            Self::NoPoolHas { address } => write!(f, "{address} is in no VipPool in force"),
            Self::NotAdmitted { address, pool, why } => write!(f, "{address} is in VipPool `{pool}`, which {why}"),
            Self::PoolDeleting { address, pool } => write!(f, "{address} is in pool `{pool}`, which is being deleted"),
            Self::Forbidden { address, owner } => write!(f, "{address} is {owner}"),
            Self::Taken { address, by, shares_key: false } => {
                write!(
                    f,
                    "{address} is the address of Service {by}; to share it, give both the same levee.dev/sharing-key"
                )
            }
            Self::Taken { address, by, shares_key: true } => {
                write!(f, "{address} is shared with Service {by}, which has a port in common")
            }
            Self::NoneFree { family, used_up, on_request } => none_free(f, *family, used_up, on_request),
            Self::PoolGone { address } => {
                write!(
                    f,
                    "{address} is in no VipPool any more; the Service keeps it, but nodes announce addresses of pools only"
                )
            }
            Self::NotServed { address, owner } => {
                write!(f, "{address} is {owner}; the Service keeps it, but nodes do not announce it")
            }
            Self::NotBoth => f.write_str("both families are required; nothing is given until both can be had"),
        }
    }
}

fn none_free(f: &mut fmt::Formatter<'_>, family: IpFamily, used_up: &[String], on_request: &[String]) -> fmt::Result {
    let family = if family == IpFamily::Ipv4 { "IPv4" } else { "IPv6" };
    match (used_up, on_request) {
        ([], []) => write!(f, "no VipPool with {family} addresses admits this namespace and these labels"),
        ([], names) => write!(f, "{family} addresses are given on request only (pools {})", names.join(", ")),
        (names, _) => write!(f, "no {family} address is free (pools {})", names.join(", ")),
    }
}

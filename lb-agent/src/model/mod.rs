//! What is wanted and what is known, as plain ordered values: no I/O, no clocks, no sockets.

pub mod desired;
pub mod health;
pub mod network;

pub use desired::{
    AnnounceWhen, Announcement, AnnouncerKind, Backend, Delivery, DesiredState, MssClamp, Node, Peer, Probe, Protocol,
    RingSize, Service,
};
pub use health::{BackendAddress, HealthReport, ProbeState, ProbeTarget};
pub use network::{Interface, InterfaceKind, MacAddr, Network, NextHop};

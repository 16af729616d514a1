//! What is wanted and what is known, as plain ordered values: no I/O, no clocks, no sockets.

pub mod cluster;
pub mod desired;
pub mod drain;
pub mod health;
pub mod interned;
pub mod inventory;
pub mod leadership;
pub mod members;
pub mod moment;
pub mod network;
pub mod owner;
pub mod pool;
pub mod probe;
pub mod shared;
pub mod source;

pub use cluster::{
    ClusterAccess, ControlPlaneSettings, Judgement, KubernetesSettings, Reason, ServersFrom, Severity, Subject,
};
pub use desired::{
    Affinity, AnnounceWhen, Announcement, AnnouncerKind, Backend, Delivery, DesiredState, HoldWhen, MssClamp, Node,
    Peer, Protocol, RingSize, Service,
};
pub use drain::{Drain, DrainAnswer, DrainError, DrainRequest, Drained, Drains, NamedBackend};
pub use health::{BackendAddress, Ended, Failing, HealthReport, ProbeState, ProbeTarget};
pub use interned::Interned;
pub use inventory::{ClusterNode, ClusterService, Inventory, IpFamily, ObjectName, Origin, Snapshot};
pub use leadership::Leadership;
pub use members::{Gate, Member, MemberState, Members};
pub use network::{Interface, InterfaceKind, MacAddr, Network, NextHop};
pub use pool::{AddressRange, AnnounceNodes, AnnouncePolicy, ClusterPool, Pool};
pub use probe::{ClientIdentity, Credentials, ExpectedStatus, HttpProbe, Probe, ProbeKind, TlsProbe, Trust};
pub use shared::Shared;
pub use source::{Doubted, Kind, KindStatus, LeaseStatus, SaveStatus, SourceStatus};

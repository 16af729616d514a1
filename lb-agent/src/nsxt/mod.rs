//! Static routes to VIPs on a Tier-1 gateway of NSX-T, with the ready nodes as next hops.
//!
//! `plan` decides and does no I/O; `keeper` reads, performs the plan and reads again where others wrote meanwhile; `worker`
//! says when. `client` speaks to several managers as one, `gateway` to a gateway in the words of either API.
//!
//! Invariants: only the leader writes; a route is never written without next hops, and never touched if it is not ours;
//! passwords, cookies and tokens reach neither logs nor errors.

mod cleanup;
mod client;
mod error;
mod gateway;
mod keeper;
mod pace;
mod plan;
mod route;
mod secrets;
mod status;
mod tls;
mod transport;
mod worker;

pub use cleanup::{Cleaned, cleanup};
pub use client::{Client, Counts, ManagerStatus};
pub use error::{ApiError, NsxtError};
pub use gateway::{Advertising, Gateway, Realization};
pub use plan::{Plan, Reason, Rules, Step, VipPlan, Wanted, plan};
pub use route::{CLUSTER_SCOPE, Content, Dialect, Found, Hop, route_id};
pub use status::{Metric, RouteStatus, Status};
pub use tls::thumbprint;
pub use transport::Request;
pub use worker::{Timing, spawn};

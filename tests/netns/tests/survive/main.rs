//! Connections survive what happens to backends, directors and agents while routers spread the flows over all directors.

#![expect(clippy::unwrap_used, reason = "a failing step is a failing test")]

mod bed;
mod changes;
mod directors;
mod failover;
mod growing;
mod upgrade;

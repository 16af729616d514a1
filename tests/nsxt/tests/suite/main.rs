//! The stand-in against what is known of real managers, and the client against the stand-in.

#![expect(clippy::unwrap_used, reason = "what is missing in a test ends it")]
mod advertising;
mod bed;
mod cleanup;
mod facts;
mod facts_manager;
mod faults;
mod finding;
mod logins;
mod ownership;
mod routes;
mod secrecy;

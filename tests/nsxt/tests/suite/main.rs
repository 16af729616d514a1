//! The stand-in against what is known of real managers, and the client against the stand-in.

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

#![no_std]
//! TBD

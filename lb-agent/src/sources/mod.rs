//! Where the desired state comes from. Each source yields whole, checked states, never a part of one.

pub mod file;
pub mod kubernetes;

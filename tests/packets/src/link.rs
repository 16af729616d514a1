//! A network namespace per test thread, with the interfaces that packets come in and leave by.

use std::{cell::Cell, process::Command};

use nix::sched::{CloneFlags, unshare};

/// Index of the interface that frames come in by.
pub const IN: u32 = 11;
/// Index of another interface, which packets can be redirected to.
pub const OUT: u32 = 12;

thread_local! {
    static ENTERED: Cell<bool> = const { Cell::new(false) };
}

/// Moves the calling thread into a namespace of its own that has the two interfaces. The namespace goes with the thread.
pub fn enter() {
    if ENTERED.get() {
        return;
    }
    unshare(CloneFlags::CLONE_NEWNET).unwrap_or_else(|error| {
        panic!("creating a network namespace: {error}; run as root, with `cargo xtask packets`")
    });
    let (within, without) = (IN.to_string(), OUT.to_string());
    let arguments = [
        "link",
        "add",
        "name",
        "levee-in",
        "index",
        &within,
        "type",
        "veth",
        "peer",
        "name",
        "levee-out",
        "index",
        &without,
    ];
    let created = Command::new("ip").args(arguments).output();
    let created = created.unwrap_or_else(|error| panic!("starting `ip`: {error}; install iproute2"));
    assert!(created.status.success(), "ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&created.stderr));
    ENTERED.set(true);
}

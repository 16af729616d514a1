//! A network namespace per test thread, with the interfaces that packets come in and leave by.

use std::{cell::Cell, process::Command};

use nix::sched::{CloneFlags, unshare};

/// Index of the interface that frames come in by: the loopback, which is where the kernel lets a frame come in that is
/// given to a program without a context.
pub const IN: u32 = 1;
/// Index of another interface that frames can come in by, where the kernel takes a context.
pub const BESIDE: u32 = 11;
/// Index of another interface, which packets can be redirected to.
pub const OUT: u32 = 12;

thread_local! {
    static ENTERED: Cell<bool> = const { Cell::new(false) };
}

/// Moves the calling thread into a namespace of its own that has these interfaces. The namespace goes with the
/// thread.
pub fn enter() {
    if ENTERED.get() {
        return;
    }
    unshare(CloneFlags::CLONE_NEWNET).unwrap_or_else(|error| {
        panic!("creating a network namespace: {error}; run as root, with `cargo xtask packets`")
    });
    let (within, without) = (BESIDE.to_string(), OUT.to_string());
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
    ip(&arguments);
    ENTERED.set(true);
}

/// Runs `ip` in the calling thread's namespace, which has to succeed.
pub fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("starting `ip`: {error}; install iproute2"));
    assert!(output.status.success(), "ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
}

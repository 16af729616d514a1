//! Installs Debian packages without starting the daemons in them.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::privilege::is_root;
use crate::process::run;
use crate::workspace::{Workspace, find_program};

/// Does the work, so that what has to be undone is undone even if xtask is killed.
const SCRIPT: &str = "xtask/install-packages.sh";

/// Installs `packages`.
///
/// # Errors
/// Where it cannot: no apt-get, not root, or apt-get failed; each with what to do by hand.
pub fn install(workspace: &Workspace, packages: &[String]) -> Result<()> {
    let by_hand = by_hand(packages);
    if find_program("apt-get").is_none() {
        bail!(
            "this machine has no apt-get, and these are missing: {}. Install what carries these names in your \
             distribution; instead of rustc-web, cargo-web and rust-web-src use \
             `rustup toolchain install nightly --component rust-src`. Then run `cargo xtask setup` again",
            packages.join(", ")
        );
    }
    if !is_root() {
        bail!("installing packages needs root. Run `{by_hand}` yourself, then `cargo xtask setup` again");
    }
    let mut command = Command::new("sh");
    command.arg(workspace.root().join(SCRIPT)).args(packages);
    let step = format!("installing packages: {}", packages.join(" "));
    run(&step, &mut command).with_context(|| {
        format!("could not install {}. Is the network there? By hand: `{by_hand}`", packages.join(", "))
    })
}

/// The command that does the same for a person.
pub fn by_hand(packages: &[String]) -> String {
    format!("sudo apt-get update && sudo apt-get install --no-install-recommends {}", packages.join(" "))
}

//! Installs Debian packages without starting the daemons in them.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::privilege::is_root;
use crate::process::run;
use crate::workspace::find_program;

/// Updates the lists, then installs the packages it is given.
///
/// While it runs, `policy-rc.d` forbids starting services: routing daemons that a test starts in namespaces of its own
/// must not run on the machine. The file goes away however this ends; one that is there already is left alone.
/// `--no-remove`: nothing that the user has is removed for us.
const SCRIPT: &str = r#"
set -eu
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' HUP INT PIPE TERM
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update
apt-get install --yes --no-install-recommends --no-remove -o DPkg::Lock::Timeout=120 "$@"
"#;

/// Installs `packages`.
///
/// # Errors
/// Where it cannot: no apt-get, not root, or apt-get failed; each with what to do by hand.
pub fn install(packages: &[String]) -> Result<()> {
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
    command.args(["-c", SCRIPT, "install-packages"]).args(packages);
    let step = format!("installing packages: {}", packages.join(" "));
    run(&step, &mut command).with_context(|| {
        format!(
            "could not install {}. Is the network there? By hand: `{by_hand}`",
            packages.join(", ")
        )
    })
}

/// The command that does the same for a person.
pub fn by_hand(packages: &[String]) -> String {
    format!(
        "sudo apt-get update && sudo apt-get install --no-install-recommends {}",
        packages.join(" ")
    )
}

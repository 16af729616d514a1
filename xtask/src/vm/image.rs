//! The guest's initial memory disk: a shell, the tools that tests call, modules, the tests, and a script that runs them.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::process::ask;
use crate::workspace::find_program;

use super::binaries::Binary;
use super::kernels::Unpacked;
use super::{modules, report};

/// Debian's shell and small tools in one static program.
const BUSYBOX: &str = "/bin/busybox";
/// What of it the script and the tests call.
const APPLETS: [&str; 10] = ["sh", "mount", "insmod", "poweroff", "echo", "uname", "cat", "mkdir", "sync", "date"];
/// Programs of the machine that the tests call, with their libraries.
const TOOLS: [&str; 3] = ["ip", "ethtool", "nsenter"];
/// Where tests and what they start lie in the guest.
const PROGRAMS: &str = "levee";

/// Builds the disk in `directory`; returns its file.
///
/// # Errors
/// If a tool or module is missing, or a file cannot be written.
pub fn build(directory: &Path, kernel: &Unpacked, binaries: &[Binary]) -> Result<PathBuf> {
    let root = directory.join("root");
    let _ = fs::remove_dir_all(&root);
    for path in ["bin", "dev", "proc", "sys", "run/netns", "tmp", "var", "etc", "modules", PROGRAMS] {
        create(&root.join(path))?;
    }
    symlink("/run", root.join("var/run")).context("linking /var/run")?;
    copy(Path::new(BUSYBOX), &root.join("bin/busybox"))?;
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).with_context(|| format!("linking {applet}"))?;
    }
    for tool in TOOLS {
        copy_tool(tool, &root)?;
    }
    let mut script = PROLOGUE.to_owned();
    for module in modules::wanted(&kernel.modules)? {
        let path = format!("modules/{}.ko", module.name);
        fs::write(root.join(&path), &module.object).with_context(|| format!("writing {path}"))?;
        script += &format!("insmod /{path} || echo '{} insmod {}'\n", report::BROKEN, module.name);
    }
    for binary in binaries {
        strip(&binary.path, &root.join(PROGRAMS).join(&binary.name))?;
    }
    for test in binaries.iter().filter(|binary| binary.tests.is_some()) {
        script += &format!("run {}\n", test.name);
    }
    script += EPILOGUE;
    let init = root.join("init");
    fs::write(&init, script).context("writing /init")?;
    fs::set_permissions(&init, Permissions::from_mode(0o755)).context("making /init executable")?;
    pack(&root, directory.join("initrd"))
}

/// Mounts what tests expect. Of their many rounds, tests do every eleventh: a number that has nothing in common with what
/// the rounds alternate by. Fallback tunnel devices would appear in each namespace; tests make their own.
const PROLOGUE: &str = "#!/bin/sh
export PATH=/bin LEVEE_BIN_DIR=/levee LEVEE_EVERY=11 RUST_BACKTRACE=0
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mkdir -p /run/netns
echo 1 > /proc/sys/net/core/fb_tunnels_only_for_init_net
/bin/ip link set lo up
run() {
    echo \"levee-vm: begin $1\"
    /levee/$1 --test-threads=2 --nocapture < /dev/null 2>&1
    echo \"levee-vm: end $1 $?\"
}
echo \"levee-vm: booted $(uname -r)\"
";
const EPILOGUE: &str = "echo 'levee-vm: done'\nsync\npoweroff -f\n";

fn create(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("creating {}", path.display()))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// Copies a program of the machine to /bin and its libraries to where they are here.
fn copy_tool(name: &str, root: &Path) -> Result<()> {
    let path = find_program(name).with_context(|| format!("{name} is not installed; `cargo xtask setup` does that"))?;
    copy(&path, &root.join("bin").join(name))?;
    let listed = ask(Command::new("ldd").arg(&path)).unwrap_or_default();
    for library in listed.split_whitespace().filter(|word| word.starts_with('/')) {
        let to = root.join(library.trim_start_matches('/'));
        create(to.parent().context("a library lies in a folder")?)?;
        copy(Path::new(library), &to)?;
    }
    Ok(())
}

/// Copies a program without its symbols, which would fill the guest's memory.
fn strip(from: &Path, to: &Path) -> Result<()> {
    let output =
        Command::new("strip").arg("-o").arg(to).arg(from).output().context("starting strip; install binutils")?;
    ensure!(output.status.success(), "strip {}: {}", from.display(), String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// Packs a folder; not compressed, for an emulated processor takes longer to unpack it than to read it.
fn pack(root: &Path, image: PathBuf) -> Result<PathBuf> {
    let output = File::create(&image).with_context(|| format!("creating {}", image.display()))?;
    let script = "find . | cpio --quiet --create --format=newc --owner=0:0";
    let mut command = Command::new("sh");
    command.args(["-c", script]).current_dir(root).stdin(Stdio::null()).stdout(output);
    let status = command.status().context("starting cpio")?;
    if !status.success() {
        bail!("`{script}` in {} failed ({status})", root.display());
    }
    Ok(image)
}

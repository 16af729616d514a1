//! One guest from power-on to its end.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::process::say;

use super::binaries::Binary;
use super::report::{Event, Reader, Report};

/// The emulator. TCG needs no help of the machine's processor; a test's time says nothing then.
const EMULATOR: &str = "qemu-system-x86_64";
/// Memory of a guest, MiB: the disk takes some hundred.
const MEMORY: &str = "2048";
/// Lines of the console that are shown when a guest failed.
const TAIL: usize = 40;

/// A running emulator; dropping it ends it.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        // It has ended by itself, as a rule.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Boots a kernel with a disk, follows its console to the end, and judges what it said.
///
/// # Errors
/// If the emulator cannot be started or the console's log not be written.
pub fn run(
    version: &'static str,
    kernel: &Path,
    image: &Path,
    log: &Path,
    binaries: &[Binary],
    limit: Duration,
) -> Result<Report> {
    let started = Instant::now();
    let mut console = File::create(log).with_context(|| format!("creating {}", log.display()))?;
    let mut guest = start(kernel, image)?;
    let stdout = guest.0.stdout.take().context("the guest's console is not piped")?;
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                return;
            }
        }
    });
    let (mut reader, mut all, mut expired) = (Reader::default(), Vec::new(), false);
    loop {
        match lines.recv_timeout(limit.saturating_sub(started.elapsed())) {
            Ok(line) => {
                writeln!(console, "{line}").context("writing the console's log")?;
                show(version, reader.line(&line), started);
                all.push(line);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                expired = true;
                break;
            }
        }
    }
    drop(guest);
    let expected = binaries.iter().filter_map(|binary| Some((binary.name.clone(), binary.tests?))).collect::<Vec<_>>();
    let mut report = reader.judge(version, &expected, started.elapsed());
    if expired {
        report.failures.push(format!("the guest was not done after {} s and was ended", limit.as_secs()));
    }
    if !report.failures.is_empty() {
        println!("{}", all[all.len().saturating_sub(TAIL)..].join("\n"));
        say(format!("Linux {version}: the whole console is in {}", log.display()));
    }
    Ok(report)
}

fn start(kernel: &Path, image: &Path) -> Result<Guest> {
    // However we end, the kernel ends the emulator with us.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", EMULATOR]);
    command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", MEMORY]);
    command.args(["-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"]);
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(image);
    // An oops is a panic and a panic ends the guest.
    command.args(["-append", "console=ttyS0 quiet oops=panic panic=-1"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    Ok(Guest(command.spawn().with_context(|| format!("starting {EMULATOR}"))?))
}

/// A line of progress.
fn show(version: &str, event: Option<Event>, started: Instant) {
    let seconds = started.elapsed().as_secs();
    match event {
        Some(Event::Booted(release)) => println!("    {version}: {release} is up after {seconds} s"),
        Some(Event::Ended { name, passed, failed }) => {
            println!("    {version}: {name}: {passed} passed, {failed} failed, after {seconds} s");
        }
        Some(Event::Failed(line)) => println!("    {version}: {line}"),
        None => {}
    }
}

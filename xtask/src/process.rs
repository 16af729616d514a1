//! Runs other programs: says what runs, passes their output on as it comes, and shows life while they are silent.
//!
//! The environment of `cargo run` (`CARGO_*`, `RUSTUP_TOOLCHAIN`, ...) is kept away from what runs: it would make build
//! scripts run again for nothing, and turn another toolchain's cargo into a mixture of two.

use std::ffi::OsStr;
use std::io::{self, IsTerminal, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, str};

use anyhow::{Context, Result, bail};

use crate::promises::FILE_VARIABLE;
use crate::tally::Tally;
use crate::workspace::Workspace;

/// How long a program may be silent before a dot is printed for it.
const BEAT: Duration = Duration::from_secs(2);
/// After so many dots in a row the elapsed time is printed.
const BEATS_PER_TIME: usize = 15;

/// Prints one line about what xtask does.
pub fn say(text: impl AsRef<str>) {
    println!("==> {}", text.as_ref());
}

/// How a program ended, and the tests it reported.
#[derive(Debug)]
pub struct Finished {
    /// Its exit status.
    pub status: ExitStatus,
    /// Sum of its `test result:` lines.
    pub tally: Tally,
}

/// Runs `command`; a status other than success is an error that names `step`.
pub fn run(step: &str, command: &mut Command) -> Result<()> {
    let finished = observe(step, command)?;
    if !finished.status.success() {
        bail!("{step}: `{}` failed ({}); its output above says why", shown(command), finished.status);
    }
    Ok(())
}

/// Runs `command` and hands back how it ended.
pub fn observe(step: &str, command: &mut Command) -> Result<Finished> {
    say(step);
    println!("    $ {}", shown(command));
    if io::stderr().is_terminal() && env::var_os("CARGO_TERM_COLOR").is_none() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().with_context(|| format!("{step}: starting `{}`", shown(command)))?;
    forward(child).with_context(|| format!("{step}: following `{}`", shown(command)))
}

/// Runs a short question such as `rustc -vV` and hands back its output; `None` if it cannot be run or fails.
pub fn ask(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The cargo that runs this xtask, in the repository's root.
pub fn host_cargo(workspace: &Workspace) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    remove_variables(&mut command, is_set_by_cargo_run);
    command.current_dir(workspace.root()).env("CARGO_TARGET_DIR", workspace.target());
    command.env(FILE_VARIABLE, workspace.promises());
    command
}

/// `cargo install` into the folder of xtask's own tools; what it compiles goes to a temporary folder.
pub fn cargo_install(workspace: &Workspace, crate_name: &str, version: &str) -> Command {
    let mut command = host_cargo(workspace);
    command.env_remove("CARGO_TARGET_DIR").args(["install", crate_name, "--locked", "--force", "--version", version]);
    command.arg("--root").arg(workspace.tools());
    command
}

/// A program of another toolchain, in the repository's root: nothing that selects a compiler or its flags reaches it.
pub fn foreign(workspace: &Workspace, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    remove_variables(&mut command, selects_a_toolchain);
    command.current_dir(workspace.root());
    command
}

/// The command line as a person would type it; for display only.
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

fn remove_variables(command: &mut Command, unwanted: fn(&str) -> bool) {
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(unwanted) {
            command.env_remove(name);
        }
    }
}

/// Whether `cargo run` sets the variable for the program it starts.
fn is_set_by_cargo_run(name: &str) -> bool {
    const PREFIXES: [&str; 4] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];
    matches!(name, "CARGO" | "CARGO_PRIMARY_PACKAGE" | "OUT_DIR")
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether the variable names a compiler, its flags or its folders. What says how to reach the registry stays.
fn selects_a_toolchain(name: &str) -> bool {
    const KEPT: [&str; 7] =
        ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_", "CARGO_TERM_", "RUST_BACKTRACE"];
    if KEPT.iter().any(|prefix| name.starts_with(prefix)) {
        return false;
    }
    let of_rustup = name.starts_with("RUSTUP_") && name != "RUSTUP_TOOLCHAIN";
    // `cargo run` puts its own toolchain's libraries into LD_LIBRARY_PATH.
    !of_rustup
        && (name.starts_with("CARGO") || name.starts_with("RUST") || name == "LD_LIBRARY_PATH" || name == "OUT_DIR")
}

/// What comes out of a program: where from, and the bytes.
type Chunk = (Stream, Vec<u8>);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stream {
    Out,
    Err,
}

/// Passes the child's output on until it ends, with a sign of life every two silent seconds.
fn forward(mut child: Child) -> Result<Finished> {
    let (sender, chunks) = mpsc::channel();
    let stdout = child.stdout.take().context("the program's output is not piped")?;
    let stderr = child.stderr.take().context("the program's errors are not piped")?;
    let err_sender = sender.clone();
    thread::spawn(move || pump(stdout, Stream::Out, &sender));
    thread::spawn(move || pump(stderr, Stream::Err, &err_sender));
    let tally = relay(&mut child, &chunks)?;
    Ok(Finished { status: child.wait().context("waiting for the program")?, tally })
}

fn pump(mut source: impl Read, stream: Stream, sink: &Sender<Chunk>) {
    let mut buffer = [0; 8192];
    while let Ok(length @ 1..) = source.read(&mut buffer) {
        if sink.send((stream, buffer[..length].to_vec())).is_err() {
            return;
        }
    }
}

/// Copies chunks until both streams are closed, or the child has ended and something it left behind keeps them open.
fn relay(child: &mut Child, chunks: &Receiver<Chunk>) -> Result<Tally> {
    let started = Instant::now();
    let (mut heartbeat, mut tally, mut line) = (Heartbeat::default(), Tally::default(), Vec::new());
    loop {
        match chunks.recv_timeout(BEAT) {
            Ok((stream, bytes)) => {
                emit(Stream::Err, heartbeat.interrupted_by(&bytes).as_bytes())?;
                emit(stream, &bytes)?;
                if stream == Stream::Out {
                    tally_lines(&mut tally, &mut line, &bytes);
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) if child.try_wait().context("asking for the program's state")?.is_some() => {
                break;
            }
            Err(RecvTimeoutError::Timeout) => emit(Stream::Err, heartbeat.beat(started.elapsed()).as_bytes())?,
        }
    }
    emit(Stream::Err, heartbeat.finish().as_bytes())?;
    Ok(tally)
}

fn emit(stream: Stream, bytes: &[u8]) -> Result<()> {
    let written = match stream {
        Stream::Out => io::stdout().write_all(bytes).and_then(|()| io::stdout().flush()),
        Stream::Err => io::stderr().write_all(bytes),
    };
    written.context("passing on a program's output")
}

/// Adds the complete lines of `bytes` to the tally and keeps the rest in `line`.
fn tally_lines(tally: &mut Tally, line: &mut Vec<u8>, bytes: &[u8]) {
    for &byte in bytes {
        if byte == b'\n' {
            tally.add_line(str::from_utf8(line).unwrap_or_default());
            line.clear();
        } else {
            line.push(byte);
        }
    }
}

/// Dots for a silent program, which never run into its output.
#[derive(Debug)]
struct Heartbeat {
    at_line_start: bool,
    dots: usize,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self { at_line_start: true, dots: 0 }
    }
}

impl Heartbeat {
    /// The sign of life to print.
    fn beat(&mut self, elapsed: Duration) -> String {
        self.dots += 1;
        if self.dots.is_multiple_of(BEATS_PER_TIME) { format!(" {} s ", elapsed.as_secs()) } else { ".".to_owned() }
    }

    /// What to print before `bytes`: a line break if there are dots on a line of their own.
    fn interrupted_by(&mut self, bytes: &[u8]) -> &'static str {
        let before = self.finish();
        if let Some(last) = bytes.last() {
            self.at_line_start = *last == b'\n';
        }
        before
    }

    /// What to print when nothing more comes.
    fn finish(&mut self) -> &'static str {
        let dots = std::mem::take(&mut self.dots);
        if dots > 0 && self.at_line_start { "\n" } else { "" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_on_their_own_line_end_before_the_next_output() {
        let mut heartbeat = Heartbeat::default();
        assert_eq!(heartbeat.interrupted_by(b"Compiling\n"), "");
        assert_eq!(heartbeat.beat(BEAT), ".");
        assert_eq!(heartbeat.interrupted_by(b"Finished\n"), "\n");
        assert_eq!(heartbeat.finish(), "");
    }

    #[test]
    fn dots_within_a_line_leave_the_line_whole() {
        let mut heartbeat = Heartbeat::default();
        heartbeat.interrupted_by(b"test slow ... ");
        heartbeat.beat(BEAT);
        assert_eq!(heartbeat.interrupted_by(b"ok\n"), "");
    }

    #[test]
    fn the_elapsed_time_shows_after_fifteen_dots() {
        let mut heartbeat = Heartbeat::default();
        let shown: String = (1..=15).map(|beat| heartbeat.beat(BEAT * beat)).collect();
        assert_eq!(shown, ".............. 30 s ");
    }

    #[test]
    fn a_foreign_cargo_gets_the_registry_but_no_toolchain() {
        let names = ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTC", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_TARGET_DIR"];
        assert!(names.into_iter().all(selects_a_toolchain));
        let kept = ["CARGO_HOME", "CARGO_REGISTRIES_X_TOKEN", "CARGO_NET_OFFLINE", "RUSTUP_HOME", "PATH", "HOME"];
        assert!(!kept.into_iter().any(selects_a_toolchain));
    }

    #[test]
    fn host_cargo_keeps_the_users_choices() {
        assert!(["CARGO_PKG_NAME", "CARGO_MANIFEST_DIR", "CARGO"].into_iter().all(is_set_by_cargo_run));
        assert!(!["RUSTUP_TOOLCHAIN", "RUSTFLAGS", "CARGO_HOME"].into_iter().any(is_set_by_cargo_run));
    }

    #[test]
    fn a_failing_program_is_an_error_with_its_command_line() {
        let error = run("trying", Command::new("sh").args(["-c", "exit 3"])).unwrap_err();
        assert!(error.to_string().contains("`sh -c exit 3` failed (exit status: 3)"), "{error}");
    }

    #[test]
    fn test_results_are_summed_across_chunks() {
        let (mut tally, mut line) = (Tally::default(), Vec::new());
        tally_lines(&mut tally, &mut line, b"test result: ok. 2 pas");
        tally_lines(&mut tally, &mut line, b"sed; 0 failed; 1 ignored\ntest");
        assert_eq!((tally, line.as_slice()), (Tally { passed: 2, failed: 0, ignored: 1 }, b"test".as_slice()));
    }

    #[test]
    fn a_daemon_that_keeps_the_pipe_does_not_hold_us_up() {
        let started = Instant::now();
        let finished = observe("leaving a child", Command::new("sh").args(["-c", "sleep 20 & echo $!"])).unwrap();
        assert!(finished.status.success());
        assert!(started.elapsed() < Duration::from_secs(15));
    }
}

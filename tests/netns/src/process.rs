//! Child processes with a log file: signalled by id, always reaped.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::os::unix::process::CommandExt;

use crate::scope::{MARK, Scope};

/// How long a process may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(3);

/// A child process; dropping it ends it, with SIGKILL if SIGTERM is not enough.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` under `name`, with its output in a log file of the scope. A second process of the same name
    /// goes on in the same log.
    ///
    /// It gets a process group of its own, so that Ctrl-C reaches the testbed only, which then ends things in order.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn(scope: &Scope, name: &str, command: &mut Command) -> Result<Self> {
        let log = scope.file(&format!("{name}.log"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("opening {}", log.display()))?;
        let errors = file.try_clone().with_context(|| format!("opening {} twice", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .env(MARK, scope.prefix())
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {name}: {command:?}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// The name it was started under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its log file.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last `lines` of its log, under a heading.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let all: Vec<_> = text.lines().collect();
        let tail = all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n");
        format!("--- last lines of {}:\n{tail}", self.name)
    }

    /// Its exit status, once it has ended.
    ///
    /// # Errors
    /// If the system refuses to tell.
    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("asking for the end of {}", self.name))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If the process has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.exit_status()? {
            anyhow::bail!("cannot send {signal} to {}: it ended with {status}", self.name);
        }
        let id = i32::try_from(self.child.id()).context("process id")?;
        kill(Pid::from_raw(id), signal).with_context(|| format!("sending {signal} to {}", self.name))
    }

    /// Kills it at once (SIGKILL) and reaps it.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().and_then(|()| self.child.wait()).with_context(|| format!("killing {}", self.name))?;
        Ok(())
    }

    /// Ends it: SIGTERM (and SIGCONT, if it was stopped), after 3 s SIGKILL.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn terminate(&mut self) -> Result<()> {
        if self.signal(Signal::SIGTERM).is_ok() && self.signal(Signal::SIGCONT).is_ok() {
            let start = Instant::now();
            while start.elapsed() < GRACE {
                if self.exit_status()?.is_some() {
                    return Ok(());
                }
                sleep(Duration::from_millis(5));
            }
        }
        self.kill()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it has ended and was reaped.
        let _ = self.terminate();
    }
}

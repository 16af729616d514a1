//! Named network namespaces: made, entered, and removed with everything that still runs in them.

use std::{
    ffi::OsStr,
    fs::{self, File},
    future::Future,
    ops::Deref,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, anyhow, bail};
use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
    task::JoinHandle,
};

use crate::scope::Scope;

/// A named network namespace with its loopback up; dropping it kills what runs in it and deletes it.
#[derive(Debug)]
pub struct Netns(NetnsRef);

/// A namespace by its name, which it does not keep alive.
#[derive(Clone, Debug)]
pub struct NetnsRef {
    name: String,
}

impl Deref for Netns {
    type Target = NetnsRef;

    fn deref(&self) -> &NetnsRef {
        &self.0
    }
}

impl Netns {
    /// Makes the namespace `<prefix>-<role>`.
    ///
    /// # Errors
    /// If `ip netns add` fails: no root, or no iproute2.
    pub fn create(scope: &Scope, role: &str) -> Result<Self> {
        let name = format!("{}-{role}", scope.prefix());
        run(Command::new("ip").args(["netns", "add", &name]))?;
        let netns = Self(NetnsRef { name });
        // Addresses are usable at once, and replies may leave by another way than the request came.
        netns.sysctl("net/ipv6/conf/all/disable_ipv6", "0")?;
        for interfaces in ["all", "default"] {
            netns.sysctl(&format!("net/ipv6/conf/{interfaces}/accept_dad"), "0")?;
            netns.sysctl(&format!("net/ipv4/conf/{interfaces}/rp_filter"), "0")?;
        }
        netns.ip("link set lo up")?;
        Ok(netns)
    }
}

impl NetnsRef {
    /// Its full name, as `ip netns` shows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/var/run/netns").join(&self.name)
    }

    /// A command that runs `program` inside. Mounts stay as they are, which `ip netns exec` would not do: it hides bpffs.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// Runs `program` inside to its end and returns what it wrote.
    ///
    /// # Errors
    /// If it cannot be started or fails; the text holds its error output.
    pub fn run(&self, program: impl AsRef<OsStr>, arguments: &[&str]) -> Result<String> {
        run(self.command(program).args(arguments))
    }

    /// Runs `ip` inside with arguments separated by spaces.
    ///
    /// # Errors
    /// As [`NetnsRef::run`].
    pub fn ip(&self, arguments: &str) -> Result<String> {
        run(self.command("ip").args(arguments.split_whitespace()))
    }

    /// Writes a sysctl, named by its path under `/proc/sys`.
    ///
    /// # Errors
    /// If there is no such sysctl or it refuses the value.
    pub fn sysctl(&self, path: &str, value: &str) -> Result<()> {
        self.enter(|| fs::write(format!("/proc/sys/{path}"), value))?
            .with_context(|| format!("setting {path} to {value} in {}", self.name))
    }

    /// Runs `work` on a thread of its own inside the namespace and returns its result.
    ///
    /// # Errors
    /// If the namespace cannot be entered.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let worker = scope.spawn(|| self.handle()?.join().map(|()| work()));
            worker.join().map_err(|_| anyhow!("the thread in {} panicked", self.name))?
        })
    }

    /// A handle by which a thread can move inside.
    ///
    /// # Errors
    /// If the namespace is gone.
    pub fn handle(&self) -> Result<NetnsHandle> {
        let file = File::open(self.path()).with_context(|| format!("opening {}", self.path().display()))?;
        Ok(NetnsHandle { file, name: self.name.clone() })
    }

    /// Ids of the processes inside. A process whose first thread is elsewhere does not count.
    fn processes(&self) -> Vec<i32> {
        let listed = run(Command::new("ip").args(["netns", "pids", &self.name])).unwrap_or_default();
        listed.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        for pid in self.processes() {
            // It may have ended since it was listed.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = run(Command::new("ip").args(["netns", "del", &self.name]));
    }
}

/// An open namespace.
#[derive(Debug)]
pub struct NetnsHandle {
    file: File,
    name: String,
}

impl NetnsHandle {
    /// Moves the calling thread inside, for good: call it on a thread of its own.
    ///
    /// # Errors
    /// Without `CAP_SYS_ADMIN`.
    pub fn join(self) -> Result<()> {
        setns(self.file, CloneFlags::CLONE_NEWNET).with_context(|| format!("entering {}", self.name))
    }
}

/// An async runtime whose sockets live in a namespace; dropping it cancels its tasks.
#[derive(Debug)]
pub struct NetnsRuntime {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl NetnsRuntime {
    /// Starts the runtime on one thread inside `netns`.
    ///
    /// # Errors
    /// If the namespace cannot be entered.
    pub fn start(netns: &Netns) -> Result<Self> {
        let inside = netns.handle()?;
        let runtime = Builder::new_current_thread().enable_all().build().context("starting a runtime")?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let (entered, entering) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            let joined = inside.join();
            let is_inside = joined.is_ok();
            if entered.send(joined).is_ok() && is_inside {
                // An error means that the owner is gone, which ends the runtime as well.
                let _ = runtime.block_on(stopped);
            }
        });
        entering.recv().context("the runtime's thread ended")??;
        Ok(Self { handle, stop: Some(stop), thread: Some(thread) })
    }

    /// Starts a task inside; its handle can be awaited anywhere.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.handle.spawn(task)
    }
}

impl Drop for NetnsRuntime {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs `command` to its end and returns what it wrote.
///
/// # Errors
/// If it cannot be started or fails; the text holds its error output.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} failed with {}: {}", output.status, complaint.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

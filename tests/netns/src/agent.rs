//! A node's agent as a process in its namespace, with its own configuration, pin directory and socket.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use crate::{
    config::AgentConfig,
    netns::{Netns, NetnsRef, run},
    process::Process,
    scope::{Scope, binary},
    wait,
};

/// Port of the agent's HTTP endpoint, on 127.0.0.1 of its namespace.
pub const HTTP_PORT: u16 = 9090;
/// Lines of an agent's log that go with an error.
const LOG_LINES: usize = 25;

/// An agent; dropping it ends the process, detaches the data plane and removes the pin directory.
#[derive(Debug)]
pub struct Agent {
    netns: NetnsRef,
    name: String,
    file: PathBuf,
    pin_path: PathBuf,
    socket: PathBuf,
    /// The program and its arguments that start it, if it is not started directly.
    by: Vec<String>,
    process: Process,
}

impl Agent {
    /// Writes the configuration and starts `lb-agent run` in `netns`. It may not be ready yet.
    ///
    /// # Errors
    /// If the binary `lb-agent` is missing or does not start.
    pub fn start(scope: &Scope, netns: &Netns, config: &AgentConfig) -> Result<Self> {
        Self::start_by(scope, netns, config, &[])
    }

    /// As [`Self::start`], by way of another program: `["setpriv", "--bounding-set=..."]`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_by(scope: &Scope, netns: &Netns, config: &AgentConfig, by: &[&str]) -> Result<Self> {
        let name = config.node.0.clone();
        let file = scope.file(&format!("levee-{name}.yaml"));
        write_whole(&file, config)?;
        let by: Vec<String> = by.iter().map(|&word| word.to_owned()).collect();
        let process = spawn(scope, netns, &by, &name, &file)?;
        let (pin_path, socket) = (config.pin_path.clone(), config.socket.clone());
        Ok(Self { netns: NetnsRef::clone(netns), name, file, pin_path, socket, by, process })
    }

    /// Starts the agent again, after it was killed or terminated. What it pinned is still there.
    ///
    /// # Errors
    /// If the old process still runs or the new one does not start.
    pub fn start_again(&mut self, scope: &Scope) -> Result<()> {
        ensure!(self.process.exit_status()?.is_some(), "the agent on {} still runs", self.name);
        self.process = spawn(scope, &self.netns, &self.by, &self.name, &self.file)?;
        Ok(())
    }

    /// Waits until the agent has applied its first plan (`/readyz` says 200), and returns how long that took.
    ///
    /// # Errors
    /// After `limit`, or when the process ends; with the end of its log.
    pub async fn wait_ready(&mut self, limit: Duration) -> Result<Duration> {
        let (netns, process, name) = (&self.netns, &mut self.process, &self.name);
        let mut ended = None;
        let what = format!("the agent on {name} to be ready");
        let waited = wait::until(&what, limit, || {
            ended = process.exit_status().ok().flatten();
            let seen = if ended.is_some() { Ok((0, String::new())) } else { http(netns, "/readyz") };
            async {
                let (status, body) = seen?;
                ensure!(status == 200 || status == 0, "/readyz says {status}: {}", body.trim());
                Ok(())
            }
        });
        let waited = waited.await.with_context(|| process.log_tail(LOG_LINES))?;
        if let Some(status) = ended {
            bail!("the agent on {name} ended with {status}\n{}", process.log_tail(LOG_LINES));
        }
        Ok(waited.1)
    }

    /// Replaces the configuration file in one step, as a careful editor would; the agent notices by itself.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn reconfigure(&self, config: &AgentConfig) -> Result<()> {
        write_whole(&self.file, config)
    }

    /// Its process, for signals and its log.
    pub const fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Stops the process where it stands, as a hang would.
    ///
    /// # Errors
    /// If it has ended.
    pub fn freeze(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGSTOP)
    }

    /// The end of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.process.log_tail(LOG_LINES)
    }

    /// Lets a stopped process go on.
    ///
    /// # Errors
    /// If it has ended.
    pub fn thaw(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGCONT)
    }

    /// The configuration file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The pin directory.
    #[must_use]
    pub fn pin_path(&self) -> &Path {
        &self.pin_path
    }

    /// The agent's socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Status and body that the HTTP endpoint answers to a GET of `path`.
    ///
    /// # Errors
    /// If there is no answer.
    pub fn http(&self, path: &str) -> Result<(u16, String)> {
        http(&self.netns, path)
    }

    /// The value of a metric, named as `/metrics` shows it, with its labels. `None` if there is no such line.
    ///
    /// # Errors
    /// If `/metrics` cannot be read.
    pub fn metric(&self, series: &str) -> Result<Option<f64>> {
        let (status, text) = self.http("/metrics")?;
        ensure!(status == 200, "/metrics says {status}: {text}");
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map(|value| value.trim().parse().with_context(|| format!("reading {series} {value}"))).transpose()
    }

    /// Runs `lbctl` on this agent's pins and socket and returns what it wrote.
    ///
    /// # Errors
    /// If it fails; the text holds its error output.
    pub fn lbctl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.netns.command(binary("lbctl")?);
        command.arg("--pin-path").arg(&self.pin_path).arg("--socket").arg(&self.socket);
        run(command.args(arguments))
    }

    /// Runs `lbctl` with `--output json` and returns the document.
    ///
    /// # Errors
    /// If it fails or writes something else.
    pub fn lbctl_json(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let text = self.lbctl(&[&["--output", "json"], arguments].concat())?;
        serde_json::from_str(&text).with_context(|| format!("reading the output of lbctl {arguments:?}: {text}"))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.terminate();
        // Detaching is the program's own, better way; the removal is for when that fails.
        let _ = self.lbctl(&["detach"]);
        let _ = remove_pins(&self.pin_path);
    }
}

fn spawn(scope: &Scope, netns: &NetnsRef, by: &[String], name: &str, file: &Path) -> Result<Process> {
    let agent = binary("lb-agent")?;
    let mut command = match by.split_first() {
        Some((program, arguments)) => {
            let mut command = netns.command(program);
            command.args(arguments).arg(&agent);
            command
        }
        None => netns.command(&agent),
    };
    command.arg("run").arg("--config").arg(file).env_remove("NOTIFY_SOCKET");
    Process::spawn(scope, &format!("agent-{name}"), &mut command)
}

/// Writes beside the file and renames, so that nobody reads half of it. The file holds a secret: the owner's only.
fn write_whole(file: &Path, config: &AgentConfig) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let beside = file.with_extension("new");
    fs::write(&beside, config.to_string()).with_context(|| format!("writing {}", beside.display()))?;
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o600)).context("closing the file to others")?;
    fs::rename(&beside, file).with_context(|| format!("replacing {}", file.display()))
}

fn remove_pins(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", directory.display()))
        }
        _ => Ok(()),
    }
}

/// Status and body of a GET from the agent's endpoint in `netns`.
fn http(netns: &NetnsRef, path: &str) -> Result<(u16, String)> {
    let answer = netns.enter(|| -> Result<String> {
        let limit = Duration::from_secs(1);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, HTTP_PORT));
        let mut stream = TcpStream::connect_timeout(&address, limit).with_context(|| format!("asking {address}"))?;
        stream.set_read_timeout(Some(limit))?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).with_context(|| format!("hearing from {address}"))?;
        Ok(answer)
    })??;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("no HTTP answer: {answer}"))?;
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    Ok((status.with_context(|| format!("no HTTP status: {head}"))?, body.to_owned()))
}

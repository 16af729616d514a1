//! The real controller as a process: `lb-agent controller` with a configuration of its own.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result};
use netns_tests::{
    netns::NetnsRef,
    process::Process,
    scope::{Scope, binary},
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::access::{Access, User};

/// Lines of its log that a failure shows.
const TAIL: usize = 40;

/// One controller, whose log goes on when it is started again; dropping it kills it.
#[derive(Debug)]
pub struct Controller {
    name: String,
    program: PathBuf,
    config: PathBuf,
    log: PathBuf,
    netns: Option<NetnsRef>,
    process: Option<Process>,
}

impl Controller {
    /// A controller `name` that acts as `user`, not started. Services without a class are its own, since not every server
    /// knows classes. `settings` are further keys of its configuration; a later one wins.
    ///
    /// # Errors
    /// If there is no such program or a file cannot be written.
    pub fn new(scope: &Scope, name: &str, access: &Access, user: &User, settings: &Value) -> Result<Self> {
        let name = format!("controller-{name}");
        let kubeconfig = access.kubeconfig(scope, &format!("{name}.kubeconfig"), user)?;
        let mut config = json!({
            "kubeconfig": kubeconfig.display().to_string(),
            "identity": name,
            "defaultClass": true,
            "http": "off",
        });
        for (key, value) in settings.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        let path = scope.file(&format!("{name}.yaml"));
        fs::write(&path, config.to_string()).with_context(|| format!("writing {}", path.display()))?;
        let (program, log) = (binary("lb-agent")?, scope.file(&format!("{name}.log")));
        Ok(Self { name, program, config: path, log, netns: None, process: None })
    }

    /// The same in a namespace.
    #[must_use]
    pub fn inside(mut self, netns: &NetnsRef) -> Self {
        self.netns = Some(netns.clone());
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(&mut self, scope: &Scope) -> Result<()> {
        let mut command = match &self.netns {
            Some(netns) => netns.command(&self.program),
            None => Command::new(&self.program),
        };
        command.arg("controller").arg("--config").arg(&self.config);
        self.process = Some(Process::spawn(scope, &self.name, &mut command)?);
        Ok(())
    }

    /// Its name, which is the beginning of its identity in the election.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All of its log.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The lines of its log whose message begins like this; its `log.format` has to be `json`.
    #[must_use]
    pub fn logged(&self, message: &str) -> Vec<Value> {
        let log = self.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["message"].as_str().is_some_and(|text| text.starts_with(message))).collect()
    }

    /// The end of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.process.as_ref().map_or_else(|| format!("{} does not run", self.name), |process| process.log_tail(TAIL))
    }

    /// Whether it runs.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn runs(&mut self) -> Result<bool> {
        self.process.as_mut().map_or(Ok(false), |process| Ok(process.exit_status()?.is_none()))
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn stop(&mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), |mut process| process.terminate())
    }

    /// Kills it (SIGKILL).
    ///
    /// # Errors
    /// If the system refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), |mut process| process.kill())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If it does not run.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.process.as_mut().with_context(|| format!("{} does not run", self.name))?.signal(signal)
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        // It has ended, or its process does so when dropped.
        let _ = self.kill();
    }
}

//! etcd: one member, or a cluster of several.

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use netns_tests::{netns::run, process::Process, scope::Scope, wait};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::{assets::Assets, place::Place};

/// The usual ports, for clients and for the other members.
const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;
/// Lines of its log that a failure shows.
const TAIL: usize = 30;

/// One member; dropping it kills it.
#[derive(Debug)]
pub struct Etcd {
    name: String,
    place: Place,
    program: PathBuf,
    data: PathBuf,
    client_port: u16,
    peer: SocketAddr,
    initial_cluster: String,
    /// Whether it joins a cluster that is there.
    joins: bool,
    process: Option<Process>,
}

impl Etcd {
    /// A cluster of one member `name`, not started.
    #[must_use]
    pub fn single(scope: &Scope, assets: &Assets, name: &str, place: Place) -> Self {
        let mut member = Self::member(scope, assets, name, place);
        member.initial_cluster = member.as_initial();
        member
    }

    /// A cluster of members by name and place, not started. Most of them have to run before any answers.
    #[must_use]
    pub fn cluster(scope: &Scope, assets: &Assets, members: &[(String, Place)]) -> Vec<Self> {
        let make = |(name, place): &(String, Place)| Self::member(scope, assets, name, place.clone());
        let mut made: Vec<_> = members.iter().map(make).collect();
        let initial = made.iter().map(Self::as_initial).collect::<Vec<_>>().join(",");
        for member in &mut made {
            member.initial_cluster.clone_from(&initial);
        }
        made
    }

    /// A member `name` that joins those of a cluster that runs, not started; the cluster expects it from now on.
    ///
    /// # Errors
    /// If the cluster refuses it.
    pub fn joining(scope: &Scope, assets: &Assets, name: &str, place: Place, members: &[Self]) -> Result<Self> {
        let mut member = Self::member(scope, assets, name, place);
        member.joins = true;
        let all = members.iter().map(Self::as_initial).chain([member.as_initial()]);
        member.initial_cluster = all.collect::<Vec<_>>().join(",");
        let first = members.first().context("no member to join")?;
        let body = json!({ "peerURLs": [format!("http://{}", member.peer)] }).to_string();
        let url = format!("{}/v3/cluster/member/add", first.url());
        let arguments = ["--silent", "--show-error", "--fail", "--max-time", "5", "--data", &body, &url];
        run(first.place.command("curl").args(arguments))
            .with_context(|| format!("adding {} to its cluster", member.name))?;
        Ok(member)
    }

    /// Forgets all that it knew, as if its disk were new: the beginning of a cluster of its own.
    ///
    /// # Errors
    /// If it runs, or its data cannot be removed.
    pub fn forget(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "{} runs", self.name);
        fs::remove_dir_all(&self.data).with_context(|| format!("removing {}", self.data.display()))?;
        self.initial_cluster = self.as_initial();
        Ok(())
    }

    fn member(scope: &Scope, assets: &Assets, name: &str, place: Place) -> Self {
        let client_port = place.port(CLIENT_PORT);
        let peer = SocketAddr::new(place.address(), place.port(PEER_PORT));
        Self {
            name: format!("etcd-{name}"),
            program: assets.etcd.clone(),
            data: scope.file(&format!("etcd-{name}")),
            client_port,
            peer,
            initial_cluster: String::new(),
            joins: false,
            place,
            process: None,
        }
    }

    fn as_initial(&self) -> String {
        format!("{}=http://{}", self.name, self.peer)
    }

    /// Where clients in the same place reach it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", SocketAddr::new(self.place.own_address(), self.client_port))
    }

    /// Starts it, on the data that it left when it ran before.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(&mut self, scope: &Scope) -> Result<()> {
        let mut command = self.place.command(&self.program);
        let peer = format!("http://{}", self.peer);
        command.arg("--data-dir").arg(&self.data);
        for (flag, value) in [
            ("--name", self.name.as_str()),
            ("--listen-client-urls", &self.url()),
            ("--advertise-client-urls", &self.url()),
            ("--listen-peer-urls", &peer),
            ("--initial-advertise-peer-urls", &peer),
            ("--initial-cluster", &self.initial_cluster),
            ("--initial-cluster-state", if self.joins { "existing" } else { "new" }),
            ("--log-outputs", "stderr"),
        ] {
            command.args([flag, value]);
        }
        if self.initial_cluster.contains(',') {
            // A busy machine is no reason for another leader.
            command.args(["--heartbeat-interval", "300", "--election-timeout", "3000"]);
        }
        self.process = Some(Process::spawn(scope, &self.name, &mut command)?);
        Ok(())
    }

    /// Waits until it answers, which means that most members of its cluster run.
    ///
    /// # Errors
    /// After `limit`, or when it has ended; with the end of its log.
    pub async fn ready(&mut self, limit: Duration) -> Result<()> {
        let url = format!("{}/health", self.url());
        let what = format!("an answer of {}", self.name);
        let place = self.place.clone();
        let look = || async {
            let answer = run(place.command("curl").args(["--silent", "--max-time", "2", &url]))?;
            ensure!(answer.contains(r#""health":"true""#), "{answer}");
            Ok(())
        };
        match wait::until(&what, limit, look).await {
            Ok(_) => Ok(()),
            Err(error) => Err(error.context(self.log_tail())),
        }
    }

    /// The end of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.process.as_ref().map_or_else(|| format!("{} was not started", self.name), |process| process.log_tail(TAIL))
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

    /// Sends a signal: SIGSTOP and SIGCONT, say.
    ///
    /// # Errors
    /// If it does not run.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.process.as_mut().with_context(|| format!("{} does not run", self.name))?.signal(signal)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It has ended, or its process does so when dropped.
        let _ = self.kill();
    }
}

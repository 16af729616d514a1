//! kube-apiserver: RBAC on, certificates of its own, an etcd to keep its objects.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use kube::Client;
use netns_tests::{netns::run, process::Process, scope::Scope};
use nix::sys::signal::Signal;
use tokio::time::sleep;

use crate::{
    ability::Ability,
    access::{Access, Keys, User},
    assets::Assets,
    place::Place,
};

/// The usual port.
const PORT: u16 = 6443;
/// What a server on loopback says that it is reached by (RFC 5737): it does not put up with a loopback address.
const ADVERTISED: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));
/// Pause between two looks at a server that starts.
const PAUSE: Duration = Duration::from_millis(100);
/// Lines of its log that a failure shows.
const TAIL: usize = 40;

/// A token that a server knows from its file.
#[derive(Clone, Debug)]
pub struct Token {
    /// The secret.
    pub token: String,
    /// The user.
    pub user: String,
    /// Its groups.
    pub groups: Vec<String>,
}

/// What can differ between servers.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The range of cluster addresses.
    pub service_range: String,
    /// Addresses that its certificate has besides its own: VIPs.
    pub names: Vec<IpAddr>,
    /// Tokens from a file.
    pub tokens: Vec<Token>,
    /// Whether it answers `/readyz` and the like to everybody.
    pub anonymous: bool,
    /// Further flags; a later one wins.
    pub flags: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            service_range: "10.96.0.0/16".to_owned(),
            names: Vec::new(),
            tokens: Vec::new(),
            anonymous: true,
            flags: Vec::new(),
        }
    }
}

/// One server; dropping it kills it.
#[derive(Debug)]
pub struct ApiServer {
    name: String,
    place: Place,
    port: u16,
    program: PathBuf,
    arguments: Vec<String>,
    access: Access,
    certificate: PathBuf,
    admin: User,
    probe: Vec<String>,
    process: Option<Process>,
}

impl ApiServer {
    /// A server `name` whose objects are kept in the etcd at `etcd`, not started.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn new(
        scope: &Scope,
        assets: &Assets,
        keys: &Keys,
        (name, place): (&str, Place),
        etcd: &[String],
        settings: &Settings,
    ) -> Result<Self> {
        let name = format!("apiserver-{name}");
        let port = place.port(PORT);
        let addresses = [&[place.address(), place.own_address()], settings.names.as_slice()].concat();
        let identity = keys.server(scope, &name, &addresses)?;
        let mut flags = vec![
            ("etcd-servers", etcd.join(",")),
            ("bind-address", place.bind_address().to_string()),
            ("secure-port", port.to_string()),
            ("advertise-address", if place.is_netns() { place.address() } else { ADVERTISED }.to_string()),
            ("tls-cert-file", identity.certificate.display().to_string()),
            ("tls-private-key-file", identity.key.display().to_string()),
            ("client-ca-file", keys.ca.display().to_string()),
            ("service-account-issuer", "https://kubernetes.default.svc".to_owned()),
            ("service-account-key-file", keys.token_public_key.display().to_string()),
            ("service-account-signing-key-file", keys.token_key.display().to_string()),
            ("authorization-mode", "RBAC".to_owned()),
            ("service-cluster-ip-range", settings.service_range.clone()),
            ("anonymous-auth", settings.anonymous.to_string()),
            ("allow-privileged", "true".to_owned()),
        ];
        if !assets.can(Ability::Slices) {
            // What it has of slices makes way for a custom resource of the version that is asked for.
            flags.push(("runtime-config", "discovery.k8s.io/v1beta1=false".to_owned()));
        }
        if !settings.tokens.is_empty() {
            let file = scope.file(&format!("{name}.tokens"));
            fs::write(&file, token_file(&settings.tokens)).with_context(|| format!("writing {}", file.display()))?;
            flags.push(("token-auth-file", file.display().to_string()));
        }
        let own = flags.into_iter().map(|(flag, value)| format!("--{flag}={value}"));
        Ok(Self {
            arguments: own.chain(settings.flags.iter().cloned()).collect(),
            program: assets.server.clone(),
            access: Access::new(SocketAddr::new(place.address(), port), keys),
            admin: keys.admin.clone(),
            certificate: identity.certificate,
            probe: probe(keys, &place, port),
            process: None,
            name,
            place,
            port,
        })
    }

    /// Starts it.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(&mut self, scope: &Scope) -> Result<()> {
        let mut command = self.place.command(&self.program);
        command.args(&self.arguments);
        self.process = Some(Process::spawn(scope, &self.name, &mut command)?);
        Ok(())
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// After `limit`, or as soon as it has ended; with the end of its log.
    pub async fn ready(&mut self, limit: Duration) -> Result<()> {
        let start = Instant::now();
        loop {
            let process = self.process.as_mut().with_context(|| format!("{} was not started", self.name))?;
            if let Some(status) = process.exit_status()? {
                bail!("{} ended with {status}\n{}", self.name, process.log_tail(TAIL));
            }
            let answer = run(self.place.command("curl").args(&self.probe)).unwrap_or_else(|error| format!("{error:#}"));
            if answer == "ok" {
                return Ok(());
            }
            if start.elapsed() >= limit {
                bail!("{} is not ready after {limit:?}: {answer}\n{}", self.name, process.log_tail(TAIL));
            }
            sleep(PAUSE).await;
        }
    }

    /// How to get in.
    #[must_use]
    pub const fn access(&self) -> &Access {
        &self.access
    }

    /// Its certificate, PEM.
    #[must_use]
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// Where it is reached.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.access.address
    }

    /// Its port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The administrator's client.
    ///
    /// # Errors
    /// As [`Access::client`].
    pub async fn admin(&self) -> Result<Client> {
        self.access.client(&self.admin).await
    }

    /// The end of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.process.as_ref().map_or_else(|| format!("{} was not started", self.name), |process| process.log_tail(TAIL))
    }

    /// Ends it in order; SIGKILL if it takes longer than 3 s, as it does while watches are open.
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

    /// Sends a signal: SIGTERM, whose end is not awaited, or SIGSTOP and SIGCONT.
    ///
    /// # Errors
    /// If it does not run.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.process.as_mut().with_context(|| format!("{} does not run", self.name))?.signal(signal)
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        // It has ended, or its process does so when dropped.
        let _ = self.kill();
    }
}

/// Arguments of `curl` that asks a server whether it is ready.
fn probe(keys: &Keys, place: &Place, port: u16) -> Vec<String> {
    let path = |path: &PathBuf| path.display().to_string();
    let url = format!("https://{}/readyz", SocketAddr::new(place.own_address(), port));
    let identity = &keys.admin_identity;
    let (certificate, key) = (path(&identity.certificate), path(&identity.key));
    let ca = path(&keys.ca);
    let words = ["--silent", "--show-error", "--max-time", "2", "--cacert", &ca, "--cert", &certificate, "--key", &key];
    words.into_iter().chain([url.as_str()]).map(str::to_owned).collect()
}

/// Lines of token, user, id and groups.
fn token_file(tokens: &[Token]) -> String {
    let line =
        |Token { token, user, groups }: &Token| format!("\"{token}\",\"{user}\",\"{user}\",\"{}\"\n", groups.join(","));
    tokens.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_a_line_with_its_groups_in_one_field() {
        let token = Token { token: "t".into(), user: "u".into(), groups: vec!["a".into(), "b".into()] };
        assert_eq!(token_file(&[token]), "\"t\",\"u\",\"u\",\"a,b\"\n");
    }
}

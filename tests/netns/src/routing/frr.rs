//! FRR without its service manager: `zebra` and `bgpd` per namespace, told apart by their pathspace.

use std::{
    collections::BTreeSet,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::unistd::{User, chown};

use super::{Neighbor, Role, RoutingDaemon, Speaker};
use crate::{process::Process, scope::Scope};

/// Where distributions put the daemons.
const DAEMONS: [&str; 3] = ["/usr/lib/frr", "/usr/libexec/frr", "/usr/sbin"];

/// How long zebra may take to start.
const ZEBRA_LIMIT: Duration = Duration::from_secs(10);

/// How neighbours are named.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Sessions {
    /// By address, a session per family.
    Numbered,
    /// By interface, one session for both families. Router advertisements tell the neighbour's link-local address.
    Unnumbered,
}

/// A neighbour as `bgpd` is told of it.
struct Peer {
    /// Address or interface.
    name: String,
    /// How it is introduced.
    remote: String,
    description: String,
    ipv4: bool,
    ipv6: bool,
}

/// Starts both daemons in the foreground, as children.
pub(super) fn start(scope: &Scope, speaker: &Speaker<'_>, sessions: Sessions) -> Result<RoutingDaemon> {
    let pathspace = speaker.netns.name();
    let directories: Vec<PathBuf> = ["/etc/frr", "/var/run/frr"].map(|root| Path::new(root).join(pathspace)).into();
    // The guard comes first, so that the directories go even if a daemon does not start.
    let mut daemon = RoutingDaemon { processes: Vec::new(), directories };
    for directory in &daemon.directories {
        fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
        give_to_frr(directory)?;
    }
    launch(scope, speaker, "zebra", &zebra_configuration(speaker, sessions), &mut daemon)?;
    // A bgpd that finds no zebra tries again after 10 s, and refuses IPv6 routes in the meantime.
    wait_for_file(&daemon.directories[1].join("zserv.api"))?;
    launch(scope, speaker, "bgpd", &bgpd_configuration(speaker, sessions), &mut daemon)?;
    Ok(daemon)
}

/// Starts one of the daemons in the foreground.
fn launch(scope: &Scope, speaker: &Speaker<'_>, program: &str, text: &str, daemon: &mut RoutingDaemon) -> Result<()> {
    let file = daemon.directories[0].join(format!("{program}.conf"));
    fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    give_to_frr(&file)?;
    let mut command = speaker.netns.command(find(program)?);
    command.args(["-N", speaker.netns.name(), "-A", "127.0.0.1", "-P", "0", "--log", "stdout", "-f"]).arg(&file);
    daemon.processes.push(Process::spawn(scope, &format!("{program}-{}", speaker.name), &mut command)?);
    Ok(())
}

fn wait_for_file(path: &Path) -> Result<()> {
    let start = Instant::now();
    while !path.exists() {
        ensure!(start.elapsed() < ZEBRA_LIMIT, "zebra made no {} within {ZEBRA_LIMIT:?}", path.display());
        sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn find(program: &str) -> Result<PathBuf> {
    let candidates = DAEMONS.iter().map(|directory| Path::new(directory).join(program));
    candidates
        .into_iter()
        .find(|path| path.is_file())
        .with_context(|| format!("no {program} in {DAEMONS:?}; install the package `frr`"))
}

/// The daemons give up root and then have to read and write here.
fn give_to_frr(path: &Path) -> Result<()> {
    let user = User::from_name("frr").context("looking up the user frr")?.context("no user frr; install `frr`")?;
    chown(path, Some(user.uid), Some(user.gid)).with_context(|| format!("giving {} to frr", path.display()))
}

fn zebra_configuration(speaker: &Speaker<'_>, sessions: Sessions) -> String {
    let mut text = format!("hostname {}\n", speaker.name);
    if sessions == Sessions::Numbered {
        // Kernel next hop groups lose a member for good when its link flaps (FRR issue 14481).
        text.push_str("no zebra nexthop kernel enable\n");
    } else {
        // Ten seconds apart otherwise, and a session waits for the first.
        for interface in speaker.neighbors.iter().map(|neighbor| &neighbor.interface).collect::<BTreeSet<_>>() {
            writeln!(text, "interface {interface}\n ipv6 nd ra-interval 1\n no ipv6 nd suppress-ra\nexit")
                .expect("writing to a string");
        }
    }
    text
}

fn peers(speaker: &Speaker<'_>, sessions: Sessions) -> Vec<Peer> {
    let mut peers: Vec<_> = speaker
        .neighbors
        .iter()
        .map(|Neighbor { name, number, address, interface }| match sessions {
            Sessions::Numbered => Peer {
                name: address.to_string(),
                remote: format!("remote-as {number}"),
                description: name.clone(),
                ipv4: address.is_ipv4(),
                ipv6: address.is_ipv6(),
            },
            Sessions::Unnumbered => Peer {
                name: interface.clone(),
                remote: "interface remote-as external".to_owned(),
                description: interface.clone(),
                ipv4: true,
                ipv6: true,
            },
        })
        .collect();
    // Both families of a neighbour are behind the same interface.
    peers.dedup_by(|a, b| a.name == b.name);
    peers
}

fn bgpd_configuration(speaker: &Speaker<'_>, sessions: Sessions) -> String {
    let mut text = format!(
        "hostname {}\n\
         ip prefix-list HOSTS permit 0.0.0.0/0 ge 32\n\
         ipv6 prefix-list HOSTS permit ::/0 ge 128\n\
         route-map HOSTS-ipv4 permit 10\n match ip address prefix-list HOSTS\n set origin igp\n\
         route-map HOSTS-ipv6 permit 10\n match ipv6 address prefix-list HOSTS\n set origin igp\n\
         route-map NONE deny 10\n\
         router bgp {}\n bgp router-id {}\n no bgp ebgp-requires-policy\n no bgp default ipv4-unicast\n \
         no bgp network import-check\n bgp graceful-restart-disable\n bgp bestpath as-path multipath-relax\n",
        speaker.name, speaker.number, speaker.router_id,
    );
    let peers = peers(speaker, sessions);
    for Peer { name, remote, description, .. } in &peers {
        for setting in [
            remote.as_str(),
            &format!("description {description}"),
            "timers 3 9",
            "timers connect 1",
            "advertisement-interval 0",
        ] {
            writeln!(text, " neighbor {name} {setting}").expect("writing to a string");
        }
    }
    for (family, is_wanted) in [("ipv4", (|peer| peer.ipv4) as fn(&Peer) -> bool), ("ipv6", |peer| peer.ipv6)] {
        write!(text, " address-family {family} unicast\n  maximum-paths 8\n").expect("writing to a string");
        let source = match speaker.role {
            Role::Router => None,
            Role::Node => Some("connected"),
            Role::Gateway => Some("kernel"),
        };
        if let Some(source) = source {
            writeln!(text, "  redistribute {source} route-map HOSTS-{family}").expect("writing to a string");
        }
        for Peer { name, .. } in peers.iter().filter(|peer| is_wanted(peer)) {
            // The router announces nothing, a node takes nothing.
            let refused = if speaker.role == Role::Router { "out" } else { "in" };
            write!(text, "  neighbor {name} activate\n  neighbor {name} route-map NONE {refused}\n")
                .expect("writing to a string");
        }
        text.push_str(" exit-address-family\n");
    }
    text
}

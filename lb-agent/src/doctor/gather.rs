//! Reads the facts. Nothing is changed: no neighbour is asked for, no program is run, no file is made.

use std::{
    collections::BTreeSet,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::facts::{AgentFacts, Facts, InterfaceFacts, Read, Routed, Sysctls, System};
use crate::{
    api,
    config::ControllerConfig,
    dataplane::KernelVersion,
    inspect::{self, DataplaneError, Inspection, Inspector, Rings},
    model::Network,
    netlink::{self, NetlinkError},
    status::AgentStatus,
};

/// Reads everything about the node of the calling process. `socket` is the agent's, `pin_path` where it pins, and
/// `controller` the controller's file, if there is one.
pub async fn gather(pin_path: &Path, socket: &Path, controller: Option<&Path>) -> Facts {
    let status = api::status(socket).await.map_err(|error| error.to_string());
    let maps = Inspector::open(pin_path).and_then(|maps| maps.read(Rings::Skip)).map_err(|error| said(&error));
    let network = netlink::snapshot_once(&wanted(&maps)).await.map_err(|error| said(&error));
    Facts {
        system: system(),
        interfaces: interfaces(pin_path, &status, &maps, &network).await,
        announced: announced().await.map_err(|error| said(&error)),
        agent: agent(pin_path, status),
        bpffs: (pin_path.to_owned(), is_bpffs(pin_path)),
        maps,
        network,
        sysctls: sysctls("all"),
        routed: controller.map(routed),
    }
}

/// What the controller's file says of routes.
fn routed(file: &Path) -> Read<Routed> {
    let config = ControllerConfig::load(file).map_err(|errors| errors.to_string())?;
    let routes = config
        .routes
        .map(|routes| Routed { tier1: routes.nsxt.tier1, vips: routes.control_plane.vips.into_iter().collect() });
    Ok(routes.unwrap_or_default())
}

/// The driver of an interface, as sysfs has it.
fn driver(interface: &str) -> Option<String> {
    let link = fs::read_link(format!("/sys/class/net/{interface}/device/driver")).ok()?;
    Some(link.file_name()?.to_string_lossy().into_owned())
}

fn said(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |cause| cause.source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn system() -> System {
    let KernelVersion(major, minor) = KernelVersion::running();
    System {
        version: (major, minor),
        has_btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
        jit: number(Path::new("/proc/sys/net/core/bpf_jit_enable")),
    }
}

/// A number in a file.
fn number(path: &Path) -> Read<u32> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    text.trim().parse().map_err(|_| format!("{} holds `{}`", path.display(), text.trim()))
}

fn sysctls(interface: &str) -> Sysctls {
    let read = |family: &str, name: &str| {
        number(&PathBuf::from("/proc/sys/net").join(family).join("conf").join(interface).join(name))
    };
    Sysctls {
        rp_filter: read("ipv4", "rp_filter"),
        arp_announce: read("ipv4", "arp_announce"),
        arp_ignore: read("ipv4", "arp_ignore"),
        forwarding4: read("ipv4", "forwarding"),
        forwarding6: read("ipv6", "forwarding"),
    }
}

/// Whether the nearest directory that exists is on a BPF filesystem.
fn is_bpffs(pin_path: &Path) -> Read<bool> {
    let existing = pin_path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let info = statfs(existing).map_err(|error| format!("{}: {error}", existing.display()))?;
    Ok(info.filesystem_type() == BPF_FS_MAGIC)
}

fn agent(pin_path: &Path, status: Read<AgentStatus>) -> AgentFacts {
    let presence = inspect::presence(pin_path);
    let pid = status.as_ref().ok().map(|status| status.pid);
    let pid = pid.or_else(|| presence.owner.as_ref().filter(|_| presence.running).map(|owner| owner.pid));
    let (capabilities_of, file) = match pid {
        Some(pid) => (format!("the agent (process {pid})"), format!("/proc/{pid}/status")),
        None => ("this process".to_owned(), "/proc/self/status".to_owned()),
    };
    AgentFacts { presence, status, capabilities_of, capabilities: capabilities(&file, pid.is_some()) }
}

/// The effective capabilities in a `/proc/PID/status`. An agent in another PID namespace has another number here.
fn capabilities(file: &str, is_agent: bool) -> Read<u64> {
    let text = fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    if is_agent && field(&text, "Name:") != Some("lb-agent") {
        return Err(format!("{file} is another program's: the agent runs in another PID namespace"));
    }
    let bits = field(&text, "CapEff:").and_then(|bits| u64::from_str_radix(bits, 16).ok());
    bits.ok_or_else(|| format!("{file} has no CapEff"))
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// Addresses whose way is judged.
fn wanted(maps: &Read<Inspection>) -> BTreeSet<IpAddr> {
    let Ok(maps) = maps else { return BTreeSet::new() };
    let backends = maps.services.iter().flat_map(|service| &service.backends).map(|backend| backend.address);
    backends.chain(maps.peers.iter().copied()).collect()
}

/// The interfaces that the agent was told of, and those that have a link of it.
async fn interfaces(
    pin_path: &Path,
    status: &Read<AgentStatus>,
    maps: &Read<Inspection>,
    network: &Read<Network>,
) -> Vec<InterfaceFacts> {
    let told = status.iter().flat_map(|status| &status.interfaces).map(|interface| interface.name.clone());
    let pinned = maps.iter().flat_map(|maps| maps.interfaces.iter().cloned());
    let names: BTreeSet<String> = told.chain(pinned).collect();
    let veths = netlink::veth_links().await.unwrap_or_default();
    let mut interfaces = Vec::new();
    for name in names {
        let index = network.as_ref().ok().and_then(|network| network.interface_named(&name)).map(|link| link.index);
        let programs = match index {
            Some(index) => netlink::xdp_on_link(index).await.map_err(|error: NetlinkError| said(&error)),
            None => Err("there is no such interface".to_owned()),
        };
        interfaces.push(InterfaceFacts {
            programs,
            linked: inspect::linked_program(pin_path, &name)
                .map(|(id, _)| id)
                .map_err(|error: DataplaneError| said(&error)),
            offloads: netlink::active_offloads(&name).await.map_err(|error| said(&error)),
            driver: driver(&name),
            is_veth: index.is_some_and(|index| veths.contains(&index)),
            sysctls: sysctls(&name),
            name,
        });
    }
    interfaces
}

/// What the agent announces on `lo`, with the seconds until it expires.
async fn announced() -> Result<Vec<(IpAddr, u32)>, NetlinkError> {
    let addresses = netlink::addresses(&netlink::Client::open()?).await?;
    let ours = addresses.into_iter().filter(netlink::KernelAddress::is_announcement);
    Ok(ours.map(|address| (address.address, address.valid_seconds)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_readable_capabilities() {
        assert!(capabilities("/proc/self/status", false).is_ok());
        let error = capabilities("/proc/self/status", true).unwrap_err();
        assert!(error.contains("another program's"), "{error}");
        assert!(capabilities("/proc/none/status", false).is_err());
    }

    #[test]
    fn a_field_is_the_rest_of_its_line() {
        let text = "Name:\tlb-agent\nCapEff:\t000000c000001000\n";
        assert_eq!((field(text, "Name:"), field(text, "CapEff:")), (Some("lb-agent"), Some("000000c000001000")));
        assert_eq!(field(text, "CapPrm:"), None);
    }

    #[test]
    fn a_directory_that_is_not_there_is_judged_by_its_parent() {
        assert_eq!(is_bpffs(Path::new("/proc/none/levee")), Ok(false));
    }

    #[tokio::test]
    async fn without_an_agent_and_maps_the_rest_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let facts = gather(&folder.path().join("pins"), &folder.path().join("agent.sock"), None).await;
        assert!(facts.maps.unwrap_err().contains("nothing of Levee is pinned"));
        assert!(facts.agent.status.is_err() && !facts.agent.presence.running);
        assert_eq!(facts.bpffs.1, Ok(false));
        assert!(facts.network.is_ok() && facts.system.version > (0, 0));
    }
}

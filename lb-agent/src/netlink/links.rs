//! Links, and the XDP programs that sit on them.

use std::collections::{BTreeMap, BTreeSet};

use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        InfoData, InfoKind, InfoVlan, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
        LinkXdp, VlanProtocol, XdpAttached,
    },
};

use super::{Client, LOOPBACK_INDEX, NetlinkError};
use crate::model::{Interface, InterfaceKind, MacAddr};

/// An XDP program on a link.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct XdpOnLink {
    /// Where it runs.
    pub mode: XdpMode,
    /// The kernel's id of the program, as `bpftool prog` shows it.
    pub program_id: u32,
}

/// Where an XDP program runs.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum XdpMode {
    /// In the driver (native).
    Driver,
    /// In the stack, behind the driver: slower.
    Generic,
    /// On the network card.
    Offload,
}

/// The XDP programs of every link that has one, by interface index. A link can have one of each mode.
///
/// # Errors
/// If the kernel cannot be asked.
pub async fn xdp_on_links() -> Result<BTreeMap<u32, Vec<XdpOnLink>>, NetlinkError> {
    let messages = link_messages(&Client::open()?).await?;
    Ok(messages
        .iter()
        .map(|message| (message.header.index, xdp_programs(message)))
        .filter(|(_, programs)| !programs.is_empty())
        .collect())
}

/// The XDP programs of one link; empty when it has none.
///
/// # Errors
/// If the kernel cannot be asked or there is no such interface.
pub async fn xdp_on_link(interface: u32) -> Result<Vec<XdpOnLink>, NetlinkError> {
    let answer = link_message(&Client::open()?, interface).await?;
    Ok(answer.as_ref().map(xdp_programs).unwrap_or_default())
}

/// Indices of the links that are one end of a veth pair.
///
/// # Errors
/// If the kernel cannot be asked.
pub async fn veth_links() -> Result<BTreeSet<u32>, NetlinkError> {
    let messages = link_messages(&Client::open()?).await?;
    Ok(messages.iter().filter(|message| is_veth(message)).map(|message| message.header.index).collect())
}

fn is_veth(message: &LinkMessage) -> bool {
    message.attributes.iter().any(|attribute| {
        matches!(attribute, LinkAttribute::LinkInfo(info) if info.contains(&LinkInfo::Kind(InfoKind::Veth)))
    })
}

/// Every link as the model has it, by index.
pub(super) async fn interfaces(client: &Client) -> Result<BTreeMap<u32, Interface>, NetlinkError> {
    let messages = link_messages(client).await?;
    Ok(messages.iter().map(|message| (message.header.index, interface(message))).collect())
}

/// Whether `lo` is up; while it is down, no VIP can be delivered to this node.
pub(crate) async fn loopback_is_up(client: &Client) -> Result<bool, NetlinkError> {
    let answer = link_message(client, LOOPBACK_INDEX).await?;
    Ok(answer.is_some_and(|message| message.header.flags.contains(LinkFlags::Up)))
}

async fn link_messages(client: &Client) -> Result<Vec<LinkMessage>, NetlinkError> {
    let answers = client.dump("list the links", RouteNetlinkMessage::GetLink(link_request())).await?;
    Ok(answers.into_iter().filter_map(new_link).collect())
}

async fn link_message(client: &Client, interface: u32) -> Result<Option<LinkMessage>, NetlinkError> {
    let mut request = link_request();
    request.header.index = interface;
    let action = format!("show the link with index {interface}");
    Ok(client.get(&action, RouteNetlinkMessage::GetLink(request)).await?.and_then(new_link))
}

/// A request for links without their counters, which are most of an answer.
fn link_request() -> LinkMessage {
    let mut request = LinkMessage::default();
    request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    request
}

fn new_link(answer: RouteNetlinkMessage) -> Option<LinkMessage> {
    match answer {
        RouteNetlinkMessage::NewLink(message) => Some(message),
        _ => None,
    }
}

fn interface(message: &LinkMessage) -> Interface {
    let mut interface = Interface {
        index: message.header.index,
        name: String::new(),
        mac: MacAddr::default(),
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up | LinkFlags::Running),
        kind: kind(message),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
            LinkAttribute::Address(bytes) => interface.mac = mac(bytes).unwrap_or_default(),
            _ => {}
        }
    }
    interface
}

/// Six bytes as an address; `None` for link layers other than Ethernet.
pub(super) fn mac(bytes: &[u8]) -> Option<MacAddr> {
    bytes.try_into().ok().map(MacAddr)
}

fn kind(message: &LinkMessage) -> InterfaceKind {
    if message.header.flags.contains(LinkFlags::Loopback) {
        return InterfaceKind::Loopback;
    }
    if message.header.link_layer_type != LinkLayerType::Ether {
        return InterfaceKind::Other;
    }
    let info = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(info) => Some(info.as_slice()),
        _ => None,
    });
    let info = info.unwrap_or_default();
    if info.contains(&LinkInfo::Kind(InfoKind::Vlan)) { vlan(message, info) } else { InterfaceKind::Ethernet }
}

/// The tag and the interface beneath. `Other` where frames can't leave by the parent with an 802.1Q tag: an 802.1ad
/// device, or a parent in another network namespace.
fn vlan(message: &LinkMessage, info: &[LinkInfo]) -> InterfaceKind {
    let (mut id, mut parent, mut usable) = (None, None, true);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Link(index) => parent = Some(*index),
            LinkAttribute::LinkNetNsId(_) => usable = false,
            _ => {}
        }
    }
    for item in info {
        let LinkInfo::Data(InfoData::Vlan(data)) = item else {
            continue;
        };
        for value in data {
            match value {
                InfoVlan::Id(value) => id = Some(*value),
                InfoVlan::Protocol(protocol) => usable &= *protocol == VlanProtocol::Ieee8021Q,
                _ => {}
            }
        }
    }
    match (id, parent) {
        (Some(id), Some(parent)) if usable => InterfaceKind::Vlan { parent, id },
        _ => InterfaceKind::Other,
    }
}

fn xdp_programs(message: &LinkMessage) -> Vec<XdpOnLink> {
    let (mut attached, mut only, mut programs) = (None, None, Vec::new());
    for attribute in &message.attributes {
        let LinkAttribute::Xdp(values) = attribute else {
            continue;
        };
        for value in values {
            match value {
                LinkXdp::Attached(value) => attached = mode(*value),
                LinkXdp::ProgId(id) => only = Some(*id),
                LinkXdp::DrvProgId(id) => programs.push(XdpOnLink { mode: XdpMode::Driver, program_id: *id }),
                LinkXdp::SkbProgId(id) => programs.push(XdpOnLink { mode: XdpMode::Generic, program_id: *id }),
                LinkXdp::HwProgId(id) => programs.push(XdpOnLink { mode: XdpMode::Offload, program_id: *id }),
                _ => {}
            }
        }
    }
    if let (true, Some(mode), Some(program_id)) = (programs.is_empty(), attached, only) {
        programs.push(XdpOnLink { mode, program_id });
    }
    programs.sort_unstable();
    programs
}

fn mode(attached: XdpAttached) -> Option<XdpMode> {
    match attached {
        XdpAttached::Driver => Some(XdpMode::Driver),
        XdpAttached::SocketBuffer => Some(XdpMode::Generic),
        XdpAttached::Hardware => Some(XdpMode::Offload),
        _ => None, // none, or several: each has an attribute of its own then
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(layer: LinkLayerType, flags: LinkFlags, attributes: Vec<LinkAttribute>) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.header.link_layer_type = layer;
        message.header.flags = flags;
        message.attributes = attributes;
        message
    }

    fn vlan_link(data: Vec<InfoVlan>, extra: Vec<LinkAttribute>) -> LinkMessage {
        let info = vec![LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(InfoData::Vlan(data))];
        let attributes = [vec![LinkAttribute::Link(2), LinkAttribute::LinkInfo(info)], extra].concat();
        link(LinkLayerType::Ether, LinkFlags::Up, attributes)
    }

    #[test]
    fn the_kind_says_how_frames_leave() {
        let veth = vec![LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)])];
        let q = InfoVlan::Protocol(VlanProtocol::Ieee8021Q);
        let ad = InfoVlan::Protocol(VlanProtocol::Ieee8021Ad);
        let tagged = InterfaceKind::Vlan { parent: 2, id: 10 };
        let cases = [
            (link(LinkLayerType::Ether, LinkFlags::Up, vec![]), InterfaceKind::Ethernet),
            (link(LinkLayerType::Ether, LinkFlags::Up, veth), InterfaceKind::Ethernet),
            (link(LinkLayerType::Loopback, LinkFlags::Loopback, vec![]), InterfaceKind::Loopback),
            (link(LinkLayerType::None, LinkFlags::Up, vec![]), InterfaceKind::Other),
            (vlan_link(vec![InfoVlan::Id(10), q.clone()], vec![]), tagged),
            (vlan_link(vec![InfoVlan::Id(10), ad], vec![]), InterfaceKind::Other),
            (vlan_link(vec![InfoVlan::Id(10), q], vec![LinkAttribute::LinkNetNsId(0)]), InterfaceKind::Other),
            (vlan_link(vec![], vec![]), InterfaceKind::Other),
        ];
        for (message, expected) in cases {
            assert_eq!(kind(&message), expected, "{message:?}");
        }
    }

    #[test]
    fn a_link_is_up_when_it_is_so_wanted_and_runs() {
        for (flags, up) in
            [(LinkFlags::Up | LinkFlags::Running, true), (LinkFlags::Up, false), (LinkFlags::Running, false)]
        {
            assert_eq!(interface(&link(LinkLayerType::Ether, flags, vec![])).up, up, "{flags}");
        }
    }

    #[test]
    fn every_xdp_program_of_a_link_is_listed_once() {
        let on = |mode, program_id| XdpOnLink { mode, program_id };
        let cases = [
            (vec![LinkXdp::Attached(XdpAttached::None)], vec![]),
            (vec![LinkXdp::Attached(XdpAttached::Driver), LinkXdp::ProgId(5)], vec![on(XdpMode::Driver, 5)]),
            (
                vec![LinkXdp::Attached(XdpAttached::SocketBuffer), LinkXdp::ProgId(5), LinkXdp::SkbProgId(5)],
                vec![on(XdpMode::Generic, 5)],
            ),
            (
                vec![LinkXdp::Attached(XdpAttached::Multiple), LinkXdp::HwProgId(6), LinkXdp::DrvProgId(5)],
                vec![on(XdpMode::Driver, 5), on(XdpMode::Offload, 6)],
            ),
        ];
        for (values, expected) in cases {
            let message = link(LinkLayerType::Ether, LinkFlags::Up, vec![LinkAttribute::Xdp(values.clone())]);
            assert_eq!(xdp_programs(&message), expected, "{values:?}");
        }
    }
}

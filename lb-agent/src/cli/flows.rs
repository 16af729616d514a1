//! `lbctl flows`.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, bail};
use ipnet::IpNet;
use serde::Serialize;

use super::{
    args::Options,
    console::{Report, Style, Table, counted, duration, endpoint, notice},
};
use crate::inspect::{FlowFilter, FlowView, Flows, Inspector, Presence, Rings, ServiceView, TrackingView};

/// Which flows to show, and how many.
#[derive(clap::Args, Clone, Debug, Eq, PartialEq)]
pub(super) struct Wanted {
    /// Only those of this service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only those of this backend: its address, or address and port
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = backend)]
    backend: Option<(IpAddr, Option<u16>)>,
    /// Only those of clients in this network: a prefix, or an address
    #[arg(long, value_name = "PREFIX", value_parser = network)]
    client: Option<IpNet>,
    /// Only count them
    #[arg(long)]
    count: bool,
    /// Show at most so many
    #[arg(long, default_value_t = 100)]
    limit: usize,
}

fn backend(text: &str) -> Result<(IpAddr, Option<u16>), String> {
    if let Ok(address) = text.parse() {
        return Ok((address, None));
    }
    let socket: SocketAddr = text.parse().map_err(|_| "write an address, or address:port ([...]:port for IPv6)")?;
    Ok((socket.ip(), Some(socket.port())))
}

fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse().or_else(|_| address()).map_err(|_| "write a prefix, 198.51.100.0/24, or an address".to_owned())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FlowReport {
    pin_path: String,
    agent: Presence,
    /// How many flows are recorded of each service entry, expired ones that the agent has not removed yet among them.
    services: Vec<Counts>,
    /// Whether they are not listed.
    only_counted: bool,
    #[serde(flatten)]
    flows: Flows,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Counts {
    service: String,
    vip: IpAddr,
    port: u16,
    protocol: String,
    #[serde(flatten)]
    tracking: TrackingView,
}

pub(super) fn gather(options: &Options, wanted: &Wanted) -> Result<FlowReport> {
    let inspector = Inspector::open(&options.pin_path)?;
    let inspection = inspector.read(Rings::Skip)?;
    let services = inspection.services;
    if let Some(name) = wanted.service.as_ref().filter(|name| !services.iter().any(|one| one.name == **name)) {
        let mut names: Vec<_> = services.iter().map(|service| service.name.as_str()).collect();
        names.dedup();
        let there = if names.is_empty() { "no services".to_owned() } else { names.join(", ") };
        bail!("there is no service {name}; there are {there}");
    }
    let filter = FlowFilter {
        service: wanted.service.clone(),
        backend: wanted.backend,
        client: wanted.client,
        limit: if wanted.count { 0 } else { wanted.limit },
    };
    let flows = inspector.flows(&services, &filter)?;
    let services = services.into_iter().filter(|one| wanted.service.as_ref().is_none_or(|name| *name == one.name));
    Ok(FlowReport {
        pin_path: inspection.pin_path,
        agent: inspection.agent,
        services: services.map(Counts::from).collect(),
        only_counted: wanted.count,
        flows,
    })
}

impl From<ServiceView> for Counts {
    fn from(service: ServiceView) -> Self {
        let ServiceView { name, vip, port, protocol, tracking, .. } = service;
        Self { service: name, vip, port, protocol, tracking }
    }
}

impl Report for FlowReport {
    fn text(&self, style: Style) -> String {
        let mut table =
            Table::new(&["SERVICE", "VIP", ">NEW", ">OLD", ">LIMIT", ">SYNS DROPPED", ">OLD NOT RECORDED", ">WINDOW"]);
        for counts in &self.services {
            let tracking = &counts.tracking;
            let cells = [
                counts.service.clone(),
                format!("{}/{}", endpoint(counts.vip, counts.port), counts.protocol),
                tracking.new.to_string(),
                tracking.old.to_string(),
                tracking.limit.to_string(),
                tracking.new_refused.to_string(),
                tracking.old_refused.to_string(),
                duration(tracking.window_ms / 1_000),
            ];
            table.row(cells, tracking.new_refused > 0 || tracking.old_refused > 0);
        }
        let counts = table.render("There is no service.", style);
        let matching = usize::try_from(self.flows.matching).unwrap_or(usize::MAX);
        let mut text = notice(&self.agent, style) + &counts + &format!("\n{} recorded", counted(matching, "flow"));
        let shown = self.flows.flows.len();
        text += &match (self.only_counted || matching == 0, matching - shown) {
            (true, _) => "\n".to_owned(),
            (false, 0) => ":\n".to_owned(),
            (false, more) => format!(", the first {shown} of them ({more} more, see --limit):\n"),
        };
        if shown > 0 {
            text += &self.list(style);
        }
        text
    }
}

impl FlowReport {
    fn list(&self, style: Style) -> String {
        let mut table = Table::new(&["CLIENT", "TO", "SERVICE", "BACKEND", "STAGE", "TABLE", ">EXPIRES IN", ">SLOT"]);
        for flow in &self.flows.flows {
            let cells = [
                client(flow),
                format!("{}/{}", endpoint(flow.vip, flow.port), flow.protocol),
                flow.service.clone(),
                flow.backend.map_or_else(|| "gone".to_owned(), |of| endpoint(of, flow.backend_port.unwrap_or(0))),
                flow.stage.to_owned(),
                flow.table.to_owned(),
                duration(flow.expires_in_ms / 1_000),
                flow.slot.map_or_else(|| "-".to_owned(), |slot| slot.to_string()),
            ];
            table.row(cells, flow.backend.is_none());
        }
        table.render("", style)
    }
}

fn client(flow: &FlowView) -> String {
    match flow.client_port {
        Some(port) => endpoint(flow.client, port),
        None => format!("{} (all ports)", flow.client),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::console::json, examples};

    fn report(flows: Flows) -> FlowReport {
        let service = examples::service();
        FlowReport {
            pin_path: "/sys/fs/bpf/levee".to_owned(),
            agent: examples::presence(true),
            services: vec![Counts::from(service)],
            only_counted: false,
            flows,
        }
    }

    fn flow(client: &str, client_port: Option<u16>, backend: Option<&str>) -> FlowView {
        FlowView {
            service: "kubernetes".to_owned(),
            protocol: "tcp".to_owned(),
            client: client.parse().unwrap(),
            client_port,
            vip: "192.0.2.10".parse().unwrap(),
            port: 6443,
            backend: backend.map(|backend| backend.parse().unwrap()),
            backend_port: backend.map(|_| 6443),
            table: "old",
            stage: "open",
            expires_in_ms: 7_500_000,
            slot: Some(2_048),
        }
    }

    fn flows() -> Flows {
        let first = flow("198.51.100.7", Some(40_000), Some("10.0.2.2"));
        Flows { matching: 5, flows: vec![first, flow("198.51.100.8", None, None)] }
    }

    #[test]
    fn people_see_counts_and_flows() {
        insta::assert_snapshot!(report(flows()).text(Style::PLAIN));
    }

    #[test]
    fn the_document_is_stable() {
        insta::assert_snapshot!(json(&report(flows())).unwrap());
    }

    #[test]
    fn counting_lists_nothing() {
        let text =
            FlowReport { only_counted: true, ..report(Flows { matching: 1, flows: Vec::new() }) }.text(Style::PLAIN);
        assert!(text.ends_with("\n\n1 flow recorded\n"), "{text}");
        assert!(report(Flows::default()).text(Style::PLAIN).ends_with("\n\n0 flows recorded\n"));
    }

    #[test]
    fn filters_are_addresses_and_prefixes() {
        assert_eq!(backend("10.0.2.2"), Ok(([10, 0, 2, 2].into(), None)));
        assert_eq!(backend("[2001:db8::1]:53"), Ok(("2001:db8::1".parse().unwrap(), Some(53))));
        assert_eq!(network("198.51.100.7").unwrap().to_string(), "198.51.100.7/32");
        assert_eq!(network("2001:db8::/32").unwrap().to_string(), "2001:db8::/32");
        assert!(backend("node-2").is_err() && network("198.51.100.0/33").is_err());
    }
}

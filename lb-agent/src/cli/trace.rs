//! `lbctl trace`.

use std::{
    io::{self, IsTerminal, Write},
    net::IpAddr,
    num::NonZero,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use ipnet::IpNet;
use lb_common::{
    addr::BackendId,
    maps::backends::Mode,
    verdict::{DropReason, Verdict},
    wire::protocol,
};
use serde::Serialize;

use super::{
    args::{Options, Output},
    block_on,
    console::{Style, endpoint, utc},
};
use crate::{
    api::{self, Listening},
    inspect::{DataplaneError, Inspector, ServiceView},
    model::Protocol,
    trace::{self, DEFAULT_RATE, Ends, Line, PacketEvent, Selection},
};

/// How often names that are not known are looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Which packets, and how many.
#[derive(clap::Args, Clone, Debug, Eq, PartialEq)]
pub(super) struct Args {
    /// Only packets for this service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only packets for this backend, by its address
    #[arg(long, value_name = "ADDRESS")]
    backend: Option<IpAddr>,
    /// Only packets from this address or network, `10.0.0.0/8`
    #[arg(long, value_name = "NET", value_parser = network)]
    client: Option<IpNet>,
    /// Only packets with this source or destination port
    #[arg(long, value_name = "PORT")]
    port: Option<NonZero<u16>>,
    /// Only packets of this protocol
    #[arg(long, value_parser = protocols())]
    protocol: Option<Protocol>,
    /// Only packets that are dropped
    #[arg(long, conflicts_with = "end")]
    drops: bool,
    /// Only packets that end so: a verdict or drop reason, as `lbctl counters` names them
    #[arg(long, value_name = "LABEL")]
    end: Option<String>,
    /// Ends after so many packets
    #[arg(long, short = 'n', value_name = "NUMBER")]
    count: Option<NonZero<u64>>,
    /// Packets per second and CPU that are told at most, 0 for no limit; others are counted as lost
    #[arg(long, value_name = "NUMBER", default_value_t = DEFAULT_RATE)]
    rate: u32,
}

/// A network, or a single address.
fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse().or_else(|_| address()).map_err(|_| "no address and no network such as 10.0.0.0/8".to_owned())
}

fn protocols() -> impl TypedValueParser<Value = Protocol> {
    PossibleValuesParser::new(["tcp", "udp"]).map(|name| if name == "udp" { Protocol::Udp } else { Protocol::Tcp })
}

/// Writes a line per packet until enough were told, the agent ends or the reader goes away.
pub(super) fn run(options: &Options, args: &Args, style: Style) -> Result<()> {
    block_on(follow(options, args, style))?
}

async fn follow(options: &Options, args: &Args, style: Style) -> Result<()> {
    let mut names = Names::open(options)?;
    let selection = args.selection(&names.services)?;
    let mut listening = api::listen(&options.socket, &selection).await?;
    if options.output == Output::Text && io::stdout().is_terminal() {
        writeln!(io::stderr(), "{}", style.dim("listening; Ctrl-C ends"))?;
    }
    let mut tally = Tally { wanted: args.count.map(NonZero::get), told: 0, lost: 0 };
    let outcome = tally.pass_on(&mut listening, options.output, &mut names, style).await;
    if options.output == Output::Text {
        writeln!(io::stderr(), "{}", style.dim(&tally.text()))?;
    }
    outcome
}

impl Args {
    /// The same in the terms of the agent, for these services.
    fn selection(&self, services: &[ServiceView]) -> Result<Selection> {
        let of_service: Vec<_> =
            services.iter().filter(|service| self.service.as_ref().is_none_or(|name| *name == service.name)).collect();
        if let Some(name) = &self.service {
            ensure!(!of_service.is_empty(), "there is no service {name}; there are {}", service_names(services));
        }
        let backends = of_service.iter().flat_map(|service| &service.backends);
        let of_address = backends.filter(|backend| Some(backend.address) == self.backend);
        let backends: Vec<_> =
            of_address.map(|backend| BackendId::new(backend.index, backend.generation).bits()).collect();
        if let Some(address) = self.backend {
            ensure!(!backends.is_empty(), "there is no backend {address}; `lbctl backends` lists those that are there");
        }
        Ok(Selection {
            services: if self.service.is_some() {
                of_service.iter().map(|service| service.index).collect()
            } else {
                Vec::new()
            },
            backends,
            client: self.client,
            port: self.port.map(NonZero::get),
            protocol: self.protocol.map(Protocol::number),
            ends: self.ends()?,
            rate: self.rate,
        })
    }

    fn ends(&self) -> Result<Ends> {
        match &self.end {
            None if self.drops => Ok(Ends::Drops),
            None => Ok(Ends::All),
            Some(label) => match Ends::labelled(label) {
                Some(ends) => Ok(ends),
                None => {
                    let verdicts = Verdict::ALL.iter().skip(1).map(|verdict| verdict.label());
                    let labels: Vec<_> = verdicts.chain(DropReason::ALL.iter().map(|reason| reason.label())).collect();
                    bail!("no packet ends with {label}; there are {}", labels.join(", "))
                }
            },
        }
    }
}

fn service_names(services: &[ServiceView]) -> String {
    let mut names: Vec<_> = services.iter().map(|service| service.name.as_str()).collect();
    names.dedup();
    if names.is_empty() { "no services".to_owned() } else { names.join(", ") }
}

/// How many packets were told.
struct Tally {
    wanted: Option<u64>,
    told: u64,
    lost: u64,
}

impl Tally {
    async fn pass_on(
        &mut self,
        listening: &mut Listening,
        output: Output,
        names: &mut Names,
        style: Style,
    ) -> Result<()> {
        while self.wanted.is_none_or(|wanted| self.told < wanted) {
            let line = match listening.next().await? {
                Some(Line::Packet(packet)) => {
                    self.told += 1;
                    let shown = names.shown(&packet);
                    if output == Output::Json { document(&shown)? } else { shown.text(style) }
                }
                Some(Line::Lost { events }) => {
                    self.lost += events;
                    if output == Output::Json {
                        document(&Lost { lost: events })?
                    } else {
                        style
                            .bad(&format!("{events} packets were not told: more than the rate, or too fast to be read"))
                    }
                }
                Some(Line::Alive) => continue,
                None => bail!("the agent ended the trace"),
            };
            let mut stdout = io::stdout().lock();
            writeln!(stdout, "{line}")?;
            stdout.flush()?;
        }
        Ok(())
    }

    fn text(&self) -> String {
        format!("{} packets told, {} lost", self.told, self.lost)
    }
}

fn document<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).context("making JSON of an event")
}

/// A line of the JSON output that is no packet.
#[derive(Serialize)]
struct Lost {
    lost: u64,
}

/// A packet with names. What was not reached is `null`.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    /// RFC 3339, UTC.
    time: String,
    interface: String,
    protocol: String,
    source: IpAddr,
    source_port: Option<u16>,
    destination: IpAddr,
    destination_port: Option<u16>,
    length: u32,
    fragment: bool,
    tunnel_source: Option<IpAddr>,
    dropped: bool,
    /// Label of the verdict or the drop reason.
    result: &'static str,
    service: Option<String>,
    backend: Option<Backend>,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Backend {
    index: u32,
    generation: u16,
    /// `null`, like the port, if that backend is gone.
    address: Option<IpAddr>,
    port: Option<u16>,
    mode: &'static str,
    slot: u32,
    slots: u32,
    ring_generation: u32,
    /// Sixteen hexadecimal digits.
    hash: String,
}

impl Shown {
    fn text(&self, style: Style) -> String {
        let end =
            |address, port: Option<u16>| port.map_or_else(|| format!("{address}"), |port| endpoint(address, port));
        let flow = format!(
            "{} {} -> {}",
            self.protocol,
            end(self.source, self.source_port),
            end(self.destination, self.destination_port)
        );
        let tunnel = self.tunnel_source.map(|director| format!(", in a tunnel from {director}")).unwrap_or_default();
        let fragment = if self.fragment { ", a fragment" } else { "" };
        let result = if self.dropped { style.bad(&format!("dropped {}", self.result)) } else { self.result.to_owned() };
        let service = self.service.as_ref().map(|service| format!("  {service}")).unwrap_or_default();
        let backend = self.backend.as_ref().map(Backend::text).unwrap_or_default();
        let (time, interface, length) = (&self.time, &self.interface, self.length);
        format!("{time}  {interface}  {flow}  {length} B{tunnel}{fragment}  {result}{service}{backend}")
    }
}

impl Backend {
    fn text(&self) -> String {
        let name = match (self.address, self.port) {
            (Some(address), Some(port)) => endpoint(address, port),
            _ => format!("a backend that is gone (index {})", self.index),
        };
        format!(" -> {name} by slot {}", self.slot)
    }
}

/// The names of what events number.
struct Names {
    inspector: Inspector,
    services: Vec<ServiceView>,
    looked: Instant,
}

impl Names {
    fn open(options: &Options) -> Result<Self, DataplaneError> {
        let inspector = Inspector::open(&options.pin_path)?;
        Ok(Self { services: inspector.read_services()?, inspector, looked: Instant::now() })
    }

    /// The event with names. If one is not known, the maps are read again, but not all the time.
    fn shown(&mut self, packet: &PacketEvent) -> Shown {
        let found = shown(packet, &self.services);
        let is_unknown = found.service.is_none() && packet.service.is_some()
            || found.backend.as_ref().is_some_and(|backend| backend.address.is_none());
        if !is_unknown || self.looked.elapsed() < LOOK_AGAIN {
            return found;
        }
        self.looked = Instant::now();
        if let Ok(services) = self.inspector.read_services() {
            self.services = services;
        }
        shown(packet, &self.services)
    }
}

fn shown(packet: &PacketEvent, services: &[ServiceView]) -> Shown {
    let service = packet.service.and_then(|index| services.iter().find(|service| service.index == index));
    let port = |port: u16| (port != 0).then_some(port);
    let (result, dropped) = trace::label(packet.ended());
    let backend = packet.choice.map(|choice| {
        let id = BackendId::from_bits(choice.backend);
        let backends = service.into_iter().flat_map(|service| &service.backends);
        let view = backends.into_iter().find(|view| (view.index, view.generation) == (id.index(), id.generation()));
        Backend {
            index: id.index(),
            generation: id.generation(),
            address: view.map(|view| view.address),
            port: view.map(|view| view.port),
            mode: Mode::from_value(choice.mode).label(),
            slot: choice.slot,
            slots: choice.slots,
            ring_generation: choice.generation,
            hash: format!("{:016x}", choice.hash),
        }
    });
    Shown {
        time: utc(packet.time),
        interface: crate::inspect::interface_name(packet.interface)
            .unwrap_or_else(|| format!("interface {}", packet.interface)),
        protocol: protocol_name(packet),
        source: packet.source,
        source_port: port(packet.source_port),
        destination: packet.destination,
        destination_port: port(packet.destination_port),
        length: packet.length,
        fragment: packet.fragment,
        tunnel_source: packet.tunnel_source,
        dropped,
        result,
        service: service.map(|service| service.name.clone()),
        backend,
    }
}

fn protocol_name(packet: &PacketEvent) -> String {
    let name = match packet.protocol {
        _ if packet.arp => "arp",
        protocol::TCP => "tcp",
        protocol::UDP => "udp",
        protocol::ICMP => "icmp",
        protocol::ICMPV6 => "icmpv6",
        other => return format!("protocol {other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use lb_common::report::End;

    use super::*;
    use crate::{examples, trace::Choice};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &str) -> Args {
        Line::try_parse_from(std::iter::once("trace").chain(line.split_whitespace())).unwrap().args
    }

    fn selection(line: &str) -> Result<Selection> {
        args(line).selection(&[examples::service()])
    }

    fn packet(end: End) -> PacketEvent {
        let (dropped, end) = match end {
            End::Verdict(value) => (false, value),
            End::Drop(value) => (true, value),
        };
        PacketEvent {
            time: 1_795_000_000_123_456_789,
            interface: 0xffff_ffff,
            source: "203.0.113.7".parse().unwrap(),
            source_port: 40_000,
            destination: "192.0.2.10".parse().unwrap(),
            destination_port: 6443,
            protocol: 6,
            length: 60,
            arp: false,
            fragment: false,
            tunnel_source: None,
            dropped,
            end,
            service: Some(0),
            choice: Some(Choice {
                hash: 0x4d20_0000_0000_0001,
                slot: 1234,
                slots: 4096,
                generation: 12,
                backend: BackendId::new(1, 1).bits(),
                mode: Mode::L2 as u8,
            }),
        }
    }

    fn seen(packet: &PacketEvent) -> Shown {
        shown(packet, &[examples::service()])
    }

    #[test]
    fn names_become_what_the_program_numbers() {
        assert_eq!(selection("").unwrap(), Selection { rate: 1_000, ..Selection::default() });
        let by_service = selection("--service kubernetes --rate 5 --port 443 --protocol udp").unwrap();
        let expected =
            Selection { services: vec![0], rate: 5, port: Some(443), protocol: Some(17), ..Selection::default() };
        assert_eq!(by_service, expected);
        let by_backend = selection("--backend 10.0.2.2 --client 203.0.113.7 --drops").unwrap();
        assert_eq!(by_backend.backends, [BackendId::new(1, 1).bits()]);
        assert_eq!(by_backend.client, Some("203.0.113.7/32".parse().unwrap()));
        assert_eq!(by_backend.ends, Ends::Drops);
        assert_eq!(selection("--end too_big").unwrap().ends, Ends::Drop(DropReason::TooBig as u32));
    }

    #[test]
    fn what_is_not_there_is_answered_with_what_is() {
        let error = |line| selection(line).unwrap_err().to_string();
        assert_eq!(error("--service web"), "there is no service web; there are kubernetes");
        assert!(error("--backend 10.9.9.9").contains("no backend 10.9.9.9"));
        assert!(error("--end lost").starts_with("no packet ends with lost; there are local, directed"));
    }

    #[test]
    fn a_packet_is_a_line_with_names() {
        let passed = packet(End::Verdict(Verdict::L2 as u32));
        assert_eq!(
            seen(&passed).text(Style::PLAIN),
            "2026-11-18T11:06:40.123456Z  interface 4294967295  tcp 203.0.113.7:40000 -> 192.0.2.10:6443  60 B  l2  \
             kubernetes -> 10.0.2.2:6443 by slot 1234"
        );
        insta::assert_snapshot!(document(&seen(&passed)).unwrap());
    }

    #[test]
    fn a_drop_says_how_far_the_packet_came() {
        let nobody = PacketEvent { service: None, choice: None, ..packet(End::Drop(DropReason::NoService as u32)) };
        assert!(seen(&nobody).text(Style::PLAIN).ends_with("  60 B  dropped no_service"));
        let mut stale = packet(End::Drop(DropReason::StaleBackend as u32));
        stale.choice.as_mut().unwrap().backend = BackendId::new(1, 9).bits();
        let text = seen(&stale).text(Style::PLAIN);
        assert!(
            text.ends_with("dropped stale_backend  kubernetes -> a backend that is gone (index 1) by slot 1234"),
            "{text}"
        );
    }

    #[test]
    fn packets_without_ports_and_from_tunnels_are_told_apart() {
        let ping = PacketEvent {
            protocol: 1,
            source_port: 0,
            destination_port: 0,
            service: None,
            choice: None,
            tunnel_source: Some("10.0.3.2".parse().unwrap()),
            ..packet(End::Verdict(Verdict::Icmp as u32))
        };
        let text = seen(&ping).text(Style::PLAIN);
        assert!(text.ends_with("icmp 203.0.113.7 -> 192.0.2.10  60 B, in a tunnel from 10.0.3.2  icmp"), "{text}");
        let arp = PacketEvent { arp: true, protocol: 0, ..ping };
        assert_eq!(seen(&arp).protocol, "arp");
    }
}

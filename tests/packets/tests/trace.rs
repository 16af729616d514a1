//! The tracing program does to every packet what the plain one does, and tells of each what the dry entry says of it.

use std::net::IpAddr;

use lb_agent::dataplane::EventReader;
use lb_common::{
    addr::{BackendId, Be16, IpAddr16},
    maps::trace::{Event, Filter},
    report::{End, Report},
    verdict::{DropReason, Verdict},
    wire::protocol,
};
use packets_tests::{
    Ability, Bed, Counts, Frame, IN, Outcome, Way, World, addresses::*, arp, echo_request, gue, ipip, raw, run_program,
    service, tcp, udp, world,
};

/// Services that end packets in every way.
fn serving() -> World {
    world()
        .with(service(VIP4, 80).held().backend(A4, Way::l2()))
        .with(service(VIP4, 81).held().backend(NODE4, Way::local()))
        .with(service(VIP4, 82).backend(B4, Way::gue(B4)))
        .with(service(VIP4, 83).backend(B4, Way::unknown()))
        .with(service(VIP4, 84))
        .with(service(VIP6, 443).held().backend(A6, Way::ipip(A6)))
        .with(service(VIP6, 0).udp().held().backend(B6, Way::l2()))
}

/// What is to be told of a frame, the report and the time apart.
struct Told {
    what: &'static str,
    frame: Frame,
    end: End,
    from: (IpAddr, u16),
    to: (IpAddr, u16),
    protocol: u8,
    tunnel: Option<IpAddr>,
    flags: u8,
}

impl Told {
    fn new(what: &'static str, frame: impl Into<Frame>, end: End, protocol: u8) -> Self {
        let frame = frame.into();
        Self { what, frame, end, from: (CLIENT4, 40_000), to: (VIP4, 80), protocol, tunnel: None, flags: 0 }
    }

    fn from(self, address: IpAddr, port: u16) -> Self {
        Self { from: (address, port), ..self }
    }

    fn to(self, address: IpAddr, port: u16) -> Self {
        Self { to: (address, port), ..self }
    }

    fn through(self, director: IpAddr) -> Self {
        Self { tunnel: Some(director), flags: self.flags | Event::TUNNEL, ..self }
    }

    fn flagged(self, flags: u8) -> Self {
        Self { flags: self.flags | flags, ..self }
    }
}

const fn passed(verdict: Verdict) -> End {
    End::Verdict(verdict as u32)
}

const fn dropped(reason: DropReason) -> End {
    End::Drop(reason as u32)
}

fn told() -> Vec<Told> {
    const TCP: u8 = protocol::TCP;
    let to = |port| tcp(CLIENT4, 40_000, VIP4, port);
    let inner = to(81);
    vec![
        Told::new("sent on by its MAC", to(80), passed(Verdict::L2), TCP),
        Told::new("for this node", to(81).syn(), passed(Verdict::Local), TCP).to(VIP4, 81),
        Told::new("sent on by GUE", to(82), passed(Verdict::Gue), TCP).to(VIP4, 82),
        Told::new("no way to the backend", to(83), dropped(DropReason::NextHopUnknown), TCP).to(VIP4, 83),
        Told::new("no backend", to(84), dropped(DropReason::NoBackend), TCP).to(VIP4, 84),
        Told::new("no service", to(99), dropped(DropReason::NoService), TCP).to(VIP4, 99),
        Told::new("too old", to(80).ttl(1), passed(Verdict::TimeExceededTold), TCP),
        Told::new("sent on by IP-in-IP", tcp(CLIENT6, 1, VIP6, 443), passed(Verdict::Ipip), TCP)
            .from(CLIENT6, 1)
            .to(VIP6, 443),
        Told::new("UDP on any port", udp(CLIENT6, 2, VIP6, 53), passed(Verdict::L2), protocol::UDP)
            .from(CLIENT6, 2)
            .to(VIP6, 53),
        Told::new("ICMP", echo_request(CLIENT4, VIP4), passed(Verdict::Icmp), protocol::ICMP)
            .from(CLIENT4, 0)
            .to(VIP4, 0),
        Told::new("another protocol", raw(CLIENT4, VIP4, 47, &[0; 64]), dropped(DropReason::NoService), 47)
            .from(CLIENT4, 0)
            .to(VIP4, 0),
        Told::new("a fragment", to(80).fragment(9, true), dropped(DropReason::UnknownFragment), TCP)
            .from(CLIENT4, 0)
            .to(VIP4, 0)
            .flagged(Event::FRAGMENT),
        Told::new("from a peer's GUE tunnel", gue(PEER4, NODE4, 50_000, &inner), passed(Verdict::Terminated), TCP)
            .to(VIP4, 81)
            .through(PEER4),
        Told::new("from a stranger's tunnel", ipip(STRANGER4, NODE4, &inner), dropped(DropReason::UnknownPeer), TCP)
            .to(VIP4, 81)
            .through(STRANGER4),
    ]
}

fn frames_for_nobody() -> Vec<Frame> {
    let inner = tcp(CLIENT4, 40_000, STRANGER4, 80);
    vec![inner.frame(), echo_request(CLIENT4, NODE4).frame(), ipip(PEER4, NODE4, &inner).frame()]
}

/// The only event that a frame led to, and what the program did to it.
fn send(bed: &mut Bed, reader: &mut EventReader, frame: &Frame) -> (Outcome, Vec<Event>) {
    let program = bed.kernel().tracing_program().expect("it is in the object").expect("tracing was started");
    let outcome = run_program(program, &frame.bytes(), IN);
    (outcome, std::iter::from_fn(|| reader.next_event()).collect())
}

fn tracing(bed: &mut Bed) -> EventReader {
    let loaded = bed.kernel().tracing_loader().load();
    let loaded = loaded.unwrap_or_else(|error| panic!("{error}"));
    bed.kernel().start_tracing(loaded).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_packet_for_a_vip_is_told_as_the_dry_entry_decides_on_it() {
    if !Ability::Tracing.is_there("every_packet_for_a_vip_is_told_as_the_dry_entry_decides_on_it") {
        return;
    }
    let mut bed = Bed::holding(&serving());
    let mut reader = tracing(&mut bed);
    let mut last = 0;
    for told in told() {
        let what = told.what;
        let dry = bed.lookup(&told.frame.bytes());
        let (_, events) = send(&mut bed, &mut reader, &told.frame);
        let [event] = events[..] else { panic!("{what}: {events:?}") };
        assert_eq!(event.report(), dry, "{what}");
        assert_eq!(dry.end, told.end, "{what}");
        let ends = (IpAddr::from(event.source), event.source_port.get());
        assert_eq!(ends, told.from, "{what}");
        let ends = (IpAddr::from(event.destination), event.destination_port.get());
        assert_eq!(ends, told.to, "{what}");
        assert_eq!((event.protocol, event.flags), (told.protocol, told.flags), "{what}");
        let tunnel = told.tunnel.map_or_else(IpAddr16::default, IpAddr16::from);
        assert_eq!((event.tunnel_source, event.interface), (tunnel, IN), "{what}");
        assert!(event.time > last, "{what}: {} after {last}", event.time);
        last = event.time;
    }
    assert_eq!(reader.lost().unwrap(), 0);
}

#[test]
fn an_arp_request_for_a_vip_is_told_with_both_addresses() {
    if !Ability::Tracing.is_there("an_arp_request_for_a_vip_is_told_with_both_addresses") {
        return;
    }
    let mut bed = Bed::holding(&serving());
    let mut reader = tracing(&mut bed);
    let (_, events) = send(&mut bed, &mut reader, &arp(1, [198, 51, 100, 10].into()));
    let [event] = events[..] else { panic!("{events:?}") };
    assert_eq!(event.report(), Report { end: dropped(DropReason::Arp), ..Report::START });
    assert_eq!((IpAddr::from(event.source), IpAddr::from(event.destination)), ([192, 0, 2, 254].into(), VIP4));
    assert_eq!((event.flags, event.protocol), (Event::ARP, 0));
    let (_, events) = send(&mut bed, &mut reader, &arp(1, [192, 0, 2, 99].into()));
    assert_eq!(events, []);
}

#[test]
fn nothing_is_told_of_packets_for_nobody() {
    if !Ability::Tracing.is_there("nothing_is_told_of_packets_for_nobody") {
        return;
    }
    let mut bed = Bed::holding(&serving());
    let mut reader = tracing(&mut bed);
    for frame in frames_for_nobody() {
        let (outcome, events) = send(&mut bed, &mut reader, &frame);
        assert_eq!((outcome.frame, events), (frame.bytes(), Vec::new()));
    }
}

#[test]
fn tracing_changes_neither_packets_nor_counters() {
    if !Ability::Tracing.is_there("tracing_changes_neither_packets_nor_counters") {
        return;
    }
    let frames = || told().into_iter().map(|told| told.frame).chain(frames_for_nobody());
    let through = |send: &mut dyn FnMut(&mut Bed, &Frame) -> Outcome, bed: &mut Bed| -> (Vec<Outcome>, Counts) {
        let before = bed.counts();
        let outcomes = frames().map(|frame| send(bed, &frame)).collect();
        (outcomes, bed.counts().since(&before))
    };
    let mut bed = Bed::holding(&serving());
    let plain = through(&mut |bed, frame| bed.send(&frame.bytes(), IN), &mut bed);
    let mut reader = tracing(&mut bed);
    let traced = through(&mut |bed, frame| send(bed, &mut reader, frame).0, &mut bed);
    assert_eq!(plain, traced);
}

#[test]
fn the_filter_is_asked_in_the_kernel() {
    if !Ability::Tracing.is_there("the_filter_is_asked_in_the_kernel") {
        return;
    }
    let mut bed = Bed::holding(&serving());
    let mut reader = tracing(&mut bed);
    let frames: Vec<_> = told().into_iter().map(|told| told.frame).collect();
    let all: Vec<Event> = frames.iter().flat_map(|frame| send(&mut bed, &mut reader, frame).1).collect();
    assert_eq!(all.len(), frames.len());
    let id = all[0].report().backend;
    assert_ne!(BackendId::from_bits(id), BackendId::NONE);
    let filters = [
        (Filter { service: all[0].report().service, ..Filter::default() }, 2),
        (Filter { backend: id, ..Filter::default() }, 2),
        (Filter { ends: Filter::DROPS, ..Filter::default() }, 6),
        (Filter { ends: Filter::VERDICT, end: Verdict::Terminated as u32, ..Filter::default() }, 1),
        (Filter { ends: Filter::DROP, end: DropReason::UnknownFragment as u32, ..Filter::default() }, 1),
        (Filter { port: Be16::new(81), ..Filter::default() }, 3),
        (Filter { protocol: protocol::UDP, ..Filter::default() }, 1),
        (Filter { source: CLIENT6.into(), mask: [u32::MAX; 4], ..Filter::default() }, 2),
    ];
    for (filter, count) in filters {
        bed.kernel().filter_trace(&filter).unwrap();
        let wanted: Vec<_> = all.iter().filter(|event| filter.wants(event)).collect();
        let told: Vec<_> = frames.iter().flat_map(|frame| send(&mut bed, &mut reader, frame).1).collect();
        let reports = |events: &[&Event]| events.iter().map(|event| event.report()).collect::<Vec<_>>();
        assert_eq!(reports(&told.iter().collect::<Vec<_>>()), reports(&wanted), "{filter:?}");
        assert_eq!(told.len(), count, "{filter:?}");
    }
    assert_eq!(reader.lost().unwrap(), 0, "what is not wanted is not lost");
}

#[test]
fn what_exceeds_the_rate_or_the_buffer_is_counted_as_lost() {
    if !Ability::Tracing.is_there("what_exceeds_the_rate_or_the_buffer_is_counted_as_lost") {
        return;
    }
    let mut bed = Bed::holding(&serving());
    let mut reader = tracing(&mut bed);
    let frame = tcp(CLIENT4, 40_000, VIP4, 80).frame().bytes();
    let send_many = |bed: &mut Bed, count: u64| {
        let program = bed.kernel().tracing_program().unwrap().unwrap();
        for _ in 0..count {
            let _ = run_program(program, &frame, IN);
        }
    };
    let told = |reader: &mut EventReader| std::iter::from_fn(|| reader.next_event()).count() as u64;
    bed.kernel().filter_trace(&Filter { rate: 1, ..Filter::default() }).unwrap();
    send_many(&mut bed, 1_000);
    let (first, lost) = (told(&mut reader), reader.lost().unwrap());
    assert_eq!(first + lost, 1_000);
    assert!(first >= 1 && lost > 900, "{first} told, {lost} lost");

    bed.kernel().filter_trace(&Filter::default()).unwrap();
    send_many(&mut bed, 10_000);
    let (second, all_lost) = (told(&mut reader), reader.lost().unwrap());
    assert_eq!(second + all_lost - lost, 10_000);
    assert!((5_000..9_000).contains(&second), "a mebibyte holds {second} events");
}

#[test]
fn the_tracing_program_goes_with_the_last_listener() {
    if !Ability::Tracing.is_there("the_tracing_program_goes_with_the_last_listener") {
        return;
    }
    let mut bed = Bed::holding(&serving());
    assert!(bed.kernel().tracing_program().unwrap().is_none());
    drop(tracing(&mut bed));
    bed.kernel().stop_tracing().unwrap();
    bed.kernel().stop_tracing().unwrap();
    assert!(bed.kernel().tracing_program().unwrap().is_none());
    let _again = tracing(&mut bed);
}

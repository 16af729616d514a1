//! The network watcher and the announcers on a real kernel. Each test has a network namespace of its own, so it needs
//! root: `cargo test -p netns-tests --test netlink`.

#![allow(clippy::unwrap_used, reason = "in a test that fails, a panic is the answer")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    fs,
    io::{Read, Write},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    process::Command,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use lb_agent::{
    announce::{self, AnnounceStatus, Announcer, DesiredAnnouncements, Holder, Loopback},
    model::{MacAddr, Network, NextHop},
    netlink::{self, CancellationToken},
};
use nix::{
    sched::{CloneFlags, unshare},
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket},
    unistd::{getpid, gettid},
};
use tokio::sync::watch;

const VIP4: &str = "192.0.2.10";
const VIP6: &str = "2001:db8:ffff::10";

/// Runs `test` in a network namespace of its own, with `lo` up.
fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let run = move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace, which needs root");
        ip("link set lo up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
    };
    if let Err(panic) = thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` in the calling thread's namespace and returns what it says.
fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("iproute2");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn sysctl(name: &str, value: &str) {
    fs::write(format!("/proc/sys/net/{name}"), value).unwrap_or_else(|error| panic!("{name}: {error}"));
}

/// Panics with the reason on a kernel before `major`.`minor`, which lacks `what`.
fn require_kernel(major: u32, minor: u32, what: &str) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse().unwrap_or(0));
    let kernel: (u32, u32) = (numbers.next().unwrap(), numbers.next().unwrap());
    assert!(kernel >= (major, minor), "{what} needs kernel {major}.{minor}, this is {release}");
}

/// Another host: a thread in a namespace of its own that does what it is told.
struct Host {
    jobs: mpsc::Sender<Box<dyn FnOnce() + Send>>,
    namespace: String,
}

impl Host {
    fn new() -> Self {
        let (jobs, queue) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            ip("link set lo up");
            sender.send(format!("/proc/{}/task/{}/ns/net", getpid(), gettid())).unwrap();
            queue.into_iter().for_each(|job| job());
        });
        Self { jobs, namespace: receiver.recv().unwrap() }
    }

    /// Does `job` on the host.
    fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = mpsc::channel();
        self.jobs.send(Box::new(move || drop(sender.send(job())))).unwrap();
        receiver.recv().expect("the job ended without a panic")
    }

    fn ip(&self, arguments: &str) -> String {
        let arguments = arguments.to_owned();
        self.run(move || ip(&arguments))
    }

    /// A cable from interface `name` here to `name` there: 10.0.`subnet`.1 and 2001:db8:0:`subnet`::1 here, 2 there.
    fn connect(&self, name: &str, subnet: u8) {
        ip(&format!("link add {name} type veth peer name {name} netns {}", self.namespace));
        let setup = [
            format!("link set {name} up"),
            format!("address add 10.0.{subnet}.HOST/24 dev {name}"),
            format!("address add 2001:db8:0:{subnet}::HOST/64 dev {name} nodad"),
        ];
        for line in setup {
            ip(&line.replace("HOST", "1"));
            self.ip(&line.replace("HOST", "2"));
        }
    }

    fn mac(&self, name: &str) -> MacAddr {
        let path = format!("link show {name}");
        let text = self.ip(&path);
        let digits = text.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
        let bytes: Vec<u8> = digits.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        MacAddr(bytes.try_into().unwrap())
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn addresses<const N: usize>(texts: [&str; N]) -> BTreeSet<IpAddr> {
    texts.into_iter().map(address).collect()
}

/// Waits until `condition` holds for the watched value.
async fn until<T: Debug + Clone>(
    what: &str,
    seconds: u64,
    receiver: &mut watch::Receiver<T>,
    condition: impl Fn(&T) -> bool,
) -> T {
    let waiting = receiver.wait_for(|value| condition(value));
    let found = tokio::time::timeout(Duration::from_secs(seconds), waiting).await.ok();
    if let Some(value) = found.map(|value| value.unwrap().clone()) {
        return value;
    }
    panic!("not within {seconds} s: {what}; last: {:#?}", receiver.borrow().clone())
}

/// Waits until `condition` holds, looking often; returns how long it took.
async fn soon(what: &str, limit: Duration, condition: impl Fn() -> bool) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    start.elapsed()
}

async fn watch_network<const N: usize>(wanted: [&str; N]) -> watch::Receiver<Network> {
    let (sender, wanted) = watch::channel(addresses(wanted));
    let network = netlink::start(wanted, CancellationToken::new()).await.unwrap();
    drop(sender); // the last set stays wanted
    network
}

fn hop(network: &Network, to: &str) -> Option<NextHop> {
    network.next_hops.get(&address(to)).copied()
}

fn index(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).unwrap()
}

// The watcher

#[test]
fn the_first_snapshot_has_links_addresses_and_ways() {
    in_namespace(|| async {
        let host = Host::new();
        host.connect("left", 1);
        ip("route add 198.51.100.0/24 via 10.0.1.2");
        ip("address add 10.0.9.1/32 dev lo");
        let mut network = watch_network(["10.0.1.2", "198.51.100.7", "10.0.1.1", "203.0.113.1"]).await;
        let network = network.borrow_and_update().clone();
        let left = network.interface_named("left").unwrap();
        assert_eq!((left.index, left.mtu, left.up), (index("left"), 1500, true));
        assert_eq!(left.kind, lb_agent::model::InterfaceKind::Ethernet);
        assert_eq!(network.interface_named("lo").unwrap().kind, lb_agent::model::InterfaceKind::Loopback);

        let nets: Vec<_> =
            network.addresses.iter().map(|address| (address.interface, address.net.to_string())).collect();
        assert!(nets.contains(&(left.index, "10.0.1.1/24".to_owned())), "{nets:?}");
        assert!(nets.contains(&(left.index, "2001:db8:0:1::1/64".to_owned())), "{nets:?}");
        assert!(nets.contains(&(1, "10.0.9.1/32".to_owned())), "{nets:?}");

        assert_eq!(hop(&network, "10.0.1.2").unwrap().gateway, None);
        assert_eq!(hop(&network, "198.51.100.7").unwrap().gateway, Some(address("10.0.1.2")));
        assert_eq!(hop(&network, "10.0.1.1"), None, "this node's own address");
        assert_eq!(hop(&network, "203.0.113.1"), None, "no route");
        assert_eq!(netlink::xdp_on_link(left.index).await.unwrap(), []);
        assert_eq!(netlink::xdp_on_links().await.unwrap(), BTreeMap::new());
    });
}

#[test]
fn a_missing_neighbour_is_resolved() {
    in_namespace(|| async {
        let host = Host::new();
        host.connect("left", 1);
        let mac = Some(host.mac("left"));
        let mut network = watch_network(["10.0.1.2", "2001:db8:0:1::2"]).await;
        for to in ["10.0.1.2", "2001:db8:0:1::2"] {
            until(to, 3, &mut network, |network| hop(network, to).is_some_and(|hop| hop.mac == mac)).await;
        }
    });
}

#[test]
fn a_neighbour_that_comes_late_is_resolved() {
    in_namespace(|| async {
        let host = Host::new();
        host.connect("left", 1);
        sysctl("ipv4/neigh/left/retrans_time_ms", "100");
        sysctl("ipv6/neigh/left/retrans_time_ms", "100");
        let (sender, wanted) = watch::channel(BTreeSet::new());
        let mut network = netlink::start(wanted, CancellationToken::new()).await.unwrap();
        let late = ["10.0.1.3", "2001:db8:0:1::3"];
        sender.send(addresses(late)).unwrap();
        for to in late {
            until("the way", 1, &mut network, |network| hop(network, to).is_some()).await;
        }
        soon("given up once", Duration::from_secs(5), || ip("neighbour show to 10.0.1.3").contains("FAILED")).await;
        host.ip("address add 10.0.1.3/24 dev left");
        host.ip("address add 2001:db8:0:1::3/64 dev left nodad");
        let mac = Some(host.mac("left"));
        for to in late {
            until(to, 4, &mut network, |network| hop(network, to).is_some_and(|hop| hop.mac == mac)).await;
        }
    });
}

#[test]
fn a_new_mac_is_followed_whether_told_or_silent() {
    in_namespace(|| async {
        let host = Host::new();
        host.connect("left", 1);
        for family in ["ipv4", "ipv6"] {
            for (name, value) in [("base_reachable_time_ms", "500"), ("retrans_time_ms", "100")] {
                sysctl(&format!("{family}/neigh/left/{name}"), value);
            }
            sysctl(&format!("{family}/neigh/left/delay_first_probe_time"), "1");
        }
        let neighbours = ["10.0.1.2", "2001:db8:0:1::2"];
        let mut network = watch_network(neighbours).await;
        for to in neighbours {
            until("the first MAC", 3, &mut network, |network| hop(network, to).is_some_and(|hop| hop.mac.is_some()))
                .await;
        }

        let told = MacAddr([2, 0, 0, 0, 0, 0x77]);
        for to in neighbours {
            ip(&format!("neighbour replace {to} dev left lladdr {told} nud permanent"));
            let found =
                until("told", 1, &mut network, |network| hop(network, to).is_some_and(|hop| hop.mac == Some(told)));
            found.await;
        }
        for to in neighbours {
            ip(&format!("neighbour change {to} dev left lladdr {told} nud stale"));
        }

        let silent = MacAddr([2, 0, 0, 0, 0, 0x99]);
        host.ip(&format!("link set left address {silent}"));
        for to in neighbours {
            let found = |network: &Network| hop(network, to).is_some_and(|hop| hop.mac == Some(silent));
            until(to, 20, &mut network, found).await;
        }
    });
}

#[test]
fn a_route_that_moves_is_followed() {
    in_namespace(|| async {
        let host = Host::new();
        host.connect("left", 1);
        host.connect("right", 2);
        let target = "198.51.100.7";
        let mut network = watch_network([target]).await;
        let (left, right) = (index("left"), index("right"));
        let steps = [
            ("route add 198.51.100.0/24 via 10.0.1.2", Some((left, Some("10.0.1.2")))),
            ("route replace 198.51.100.0/24 via 10.0.2.2", Some((right, Some("10.0.2.2")))),
            ("route add 198.51.100.7/32 via inet6 2001:db8:0:1::2", Some((left, Some("2001:db8:0:1::2")))),
            ("route replace unreachable 198.51.100.7/32", None),
            ("route replace blackhole 198.51.100.7/32", None),
            ("route replace 198.51.100.7/32 dev left", Some((left, None))),
            ("address add 198.51.100.7/32 dev lo", None),
            ("address del 198.51.100.7/32 dev lo", Some((left, None))),
            ("route del 198.51.100.7/32", Some((right, Some("10.0.2.2")))),
            ("link set right down", None),
        ];
        for (command, expected) in steps {
            ip(command);
            let expected = expected.map(|(interface, gateway)| (interface, gateway.map(address)));
            let way = |network: &Network| hop(network, target).map(|hop| (hop.interface, hop.gateway));
            until(command, 1, &mut network, |network| way(network) == expected).await;
        }
    });
}

#[test]
fn a_rule_that_moves_the_way_is_followed() {
    in_namespace(|| async {
        let host = Host::new();
        host.connect("left", 1);
        host.connect("right", 2);
        ip("route add 198.51.100.0/24 via 10.0.1.2");
        ip("route add 198.51.100.0/24 via 10.0.2.2 table 100");
        let mut network = watch_network(["198.51.100.7"]).await;
        ip("rule add to 198.51.100.0/24 lookup 100");
        let right = index("right");
        let moved = |network: &Network| hop(network, "198.51.100.7").is_some_and(|hop| hop.interface == right);
        until("the rule", 1, &mut network, moved).await;
    });
}

#[test]
fn an_interface_that_goes_and_returns_is_followed() {
    in_namespace(|| async {
        let host = Host::new();
        host.connect("left", 1);
        let mut network = watch_network(["10.0.1.2"]).await;
        let resolved = |network: &Network| hop(network, "10.0.1.2").is_some_and(|hop| hop.mac.is_some());
        let before = until("resolved", 3, &mut network, resolved).await;

        ip("link del left");
        until("gone", 1, &mut network, |network| {
            network.interface_named("left").is_none() && hop(network, "10.0.1.2").is_none()
        })
        .await;

        host.connect("left", 1);
        let after = until("resolved again", 3, &mut network, resolved).await;
        assert_ne!(hop(&before, "10.0.1.2").unwrap().interface, hop(&after, "10.0.1.2").unwrap().interface);
        assert_eq!(hop(&after, "10.0.1.2").unwrap().mac, Some(host.mac("left")));
    });
}

#[test]
fn lost_events_are_made_good() {
    in_namespace(|| async {
        let host = Host::new();
        host.connect("left", 1);
        let mut network = watch_network(["10.0.1.2", "198.51.100.7"]).await;
        until("resolved", 3, &mut network, |network| hop(network, "10.0.1.2").is_some_and(|hop| hop.mac.is_some()))
            .await;
        // More events than the socket holds, while this thread, which also runs the watcher, reads none.
        let routes = |action: &str| -> String {
            (0..16_384).map(|n| format!("route {action} 172.16.{}.{}/32 dev left\n", n / 256, n % 256)).collect()
        };
        let batch = tempfile::NamedTempFile::new().unwrap();
        let told = MacAddr([2, 0, 0, 0, 0, 0x77]);
        let last = format!(
            "route add 198.51.100.7/32 dev left\nneighbour replace 10.0.1.2 dev left lladdr {told} nud permanent\n"
        );
        fs::write(batch.path(), routes("add") + &routes("del") + &last).unwrap();
        ip(&format!("-batch {}", batch.path().display()));
        until("the last changes", 3, &mut network, |network| {
            hop(network, "198.51.100.7").is_some() && hop(network, "10.0.1.2").is_some_and(|hop| hop.mac == Some(told))
        })
        .await;
    });
}

#[test]
fn ten_thousand_ways_are_followed_without_pegging_a_core() {
    in_namespace(|| async {
        let host = Host::new();
        host.connect("left", 1);
        ip("address add 172.16.0.1/12 dev left");
        let backend = |n: u32| IpAddr::from((0xac10_1000 + n).to_be_bytes());
        let (_sender, wanted) = watch::channel((0..10_000).map(backend).collect());
        let mut network = netlink::start(wanted, CancellationToken::new()).await.unwrap();
        assert_eq!(network.borrow().next_hops.len(), 10_000);

        // Permanent entries, since the kernel keeps as many of those as one likes.
        let line = |n: u32| {
            format!(
                "neighbour replace {} dev left lladdr 02:00:00:00:{:02x}:{:02x} nud permanent\n",
                backend(n),
                n / 256,
                n % 256
            )
        };
        let batch = tempfile::NamedTempFile::new().unwrap();
        fs::write(batch.path(), (0..10_000).map(line).collect::<String>()).unwrap();
        let (start, before) = (Instant::now(), cpu_time());
        let writer = thread::spawn(move || ip(&format!("-batch {}", batch.path().display())));
        until("all known", 20, &mut network, |network| network.next_hops.values().all(|hop| hop.mac.is_some())).await;
        writer.join().unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (spent, passed) = (cpu_time() - before, start.elapsed());
        println!("{spent:?} of CPU in {passed:?}");
        assert!(spent < passed / 2, "{spent:?} of CPU in {passed:?}");
    });
}

/// CPU time of the calling thread.
fn cpu_time() -> Duration {
    let statistics = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(statistics.split(' ').next().unwrap().parse().unwrap())
}

// The announcers

fn vips() -> BTreeSet<IpAddr> {
    addresses([VIP4, VIP6])
}

fn desired(lifetime: u64) -> DesiredAnnouncements {
    let announced = vips().into_iter().map(|vip| (vip, Duration::from_secs(lifetime))).collect();
    DesiredAnnouncements { held: vips(), announced }
}

fn has_address(vip: &str) -> bool {
    ip(&format!("address show dev lo to {vip}")).contains(vip)
}

fn has_held_route(vip: &str) -> bool {
    let family = if vip.contains(':') { "-6" } else { "-4" };
    let route = ip(&format!("{family} route show table local proto 76 {vip}"));
    route.contains(&format!("local {vip} dev lo")) && route.contains("metric 7600")
}

fn all_there() -> bool {
    [VIP4, VIP6].iter().all(|vip| has_address(vip) && has_held_route(vip))
}

fn none_there() -> bool {
    ![VIP4, VIP6].iter().any(|vip| has_address(vip) || has_held_route(vip))
}

/// A running driver, and what tells it what to do.
fn drive(
    first: Option<DesiredAnnouncements>,
) -> (watch::Sender<Option<DesiredAnnouncements>>, watch::Receiver<AnnounceStatus>, CancellationToken) {
    let (sender, receiver) = watch::channel(first);
    let cancel = CancellationToken::new();
    let status = announce::spawn(receiver, cancel.clone()).unwrap();
    (sender, status, cancel)
}

async fn driven(lifetime: u64) -> (watch::Sender<Option<DesiredAnnouncements>>, watch::Receiver<AnnounceStatus>) {
    let (sender, mut status, _) = drive(Some(desired(lifetime)));
    let complete = |status: &AnnounceStatus| status.held == vips() && status.announced == vips();
    let status_now = until("announced", 2, &mut status, complete).await;
    assert_eq!(status_now.errors, BTreeMap::new());
    assert!(all_there());
    (sender, status)
}

#[test]
fn an_announced_vip_has_the_form_that_keeps_it_out_of_the_way() {
    let _kept = promises::keeps(&["F16"], "the kernel");
    in_namespace(|| async {
        let _driver = driven(30).await;
        for vip in [VIP4, VIP6] {
            let shown = ip(&format!("address show dev lo to {vip}"));
            for part in ["deprecated", "noprefixroute", "preferred_lft 0sec"] {
                assert!(shown.contains(part), "{part}: {shown}");
            }
        }
        let network = netlink::snapshot_once(&vips()).await.unwrap();
        assert!(!network.addresses.iter().any(|address| vips().contains(&address.net.addr())), "{network:?}");
        assert_eq!(network.next_hops, BTreeMap::new());
    });
}

#[test]
fn an_announcement_is_renewed_expires_when_the_agent_stops_and_comes_back_with_it() {
    let _kept = promises::keeps(&["F05"], "the kernel");
    in_namespace(|| async {
        let _driver = driven(3).await;
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(5) {
            assert!(all_there(), "gone after {:?}", start.elapsed());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // Stops this thread, which runs the driver.
        let start = Instant::now();
        while has_address(VIP4) || has_address(VIP6) {
            assert!(start.elapsed() < Duration::from_secs(5), "still there after {:?}", start.elapsed());
            thread::sleep(Duration::from_millis(50));
        }
        assert!(has_held_route(VIP4) && has_held_route(VIP6), "held without end");
        soon("announced again", Duration::from_secs(1), all_there).await;
    });
}

#[test]
fn what_is_removed_by_hand_comes_back_within_a_second() {
    in_namespace(|| async {
        let _driver = driven(30).await;
        let removals = [
            vec![format!("address del {VIP4}/32 dev lo"), format!("address del {VIP6}/128 dev lo")],
            vec![
                format!("route del local {VIP4} dev lo table local proto 76 metric 7600"),
                format!("-6 route del local {VIP6} dev lo table local proto 76 metric 7600"),
            ],
            vec!["address flush dev lo".to_owned()],
            vec!["route flush table local proto 76".to_owned(), "-6 route flush table local proto 76".to_owned()],
            vec!["link set lo down".to_owned(), "link set lo up".to_owned()],
        ];
        for commands in removals {
            for command in &commands {
                ip(command);
            }
            assert!(!all_there(), "{commands:?}");
            let took = soon(&format!("{commands:?}"), Duration::from_secs(1), all_there).await;
            println!("{took:?} after {commands:?}");
        }
    });
}

/// How many addresses carry the agent's mark (`IFA_PROTO`, attribute 11, one byte of 76), in the kernel's own words.
fn marked_addresses() -> usize {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::empty(), SockProtocol::NetlinkRoute).unwrap();
    const RTM_GETADDR: u8 = 22;
    const NLM_F_REQUEST_DUMP: [u8; 2] = [0x01, 0x03];
    let mut request = [0; 24]; // header of 16 bytes, then `struct ifaddrmsg` with every field zero
    request[0] = 24;
    request[4] = RTM_GETADDR;
    request[6..8].copy_from_slice(&NLM_F_REQUEST_DUMP);
    send(socket.as_raw_fd(), &request, MsgFlags::empty()).unwrap();
    let (mut count, mut buffer) = (0, vec![0; 65_536]);
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap();
        let done = buffer[4] == 3; // NLMSG_DONE comes in a datagram of its own
        count += buffer[..length].windows(5).filter(|bytes| **bytes == [5, 0, 11, 0, 76]).count();
        if done {
            return count;
        }
    }
}

#[test]
fn an_announcement_is_marked_until_somebody_else_changes_it() {
    require_kernel(5, 18, "IFA_PROTO");
    in_namespace(|| async {
        let (_sender, mut status, cancel) = drive(Some(desired(60)));
        until("announced", 2, &mut status, |status| status.announced == vips()).await;
        cancel.cancel();
        assert_eq!(marked_addresses(), 2);
        for vip in [format!("{VIP4}/32"), format!("{VIP6}/128")] {
            ip(&format!("address change {vip} dev lo valid_lft forever preferred_lft forever"));
        }
        let changed = ip("address show dev lo");
        let applied = Loopback::open().unwrap().apply(&desired(60).announced).await.unwrap();
        assert_eq!((applied.kept, applied.foreign), (BTreeSet::new(), vips()));
        assert_eq!(ip("address show dev lo"), changed);
    });
}

#[test]
fn a_loopback_that_is_down_is_reported_and_used_when_it_is_up() {
    in_namespace(|| async {
        ip("link set lo down");
        let (_sender, mut status, _) = drive(Some(desired(30)));
        let reported = until("reported", 1, &mut status, |status| status.errors.len() == 2).await;
        assert!(reported.errors.values().all(|error| error.contains("ip link set lo up")), "{reported:?}");
        ip("link set lo up");
        soon("announced", Duration::from_secs(1), all_there).await;
        until("no more errors", 1, &mut status, |status| status.errors.is_empty() && status.announced == vips()).await;
    });
}

#[test]
fn somebody_elses_address_stays_as_it_is() {
    in_namespace(|| async {
        ip(&format!("address add {VIP4}/32 dev lo"));
        ip(&format!("address add {VIP6}/128 dev lo nodad"));
        let before = ip("address show dev lo");
        let (sender, mut status, _) = drive(Some(desired(3)));
        until("reported", 2, &mut status, |status| status.foreign == vips() && status.held == vips()).await;
        tokio::time::sleep(Duration::from_millis(1500)).await; // past a renewal
        assert_eq!(ip("address show dev lo"), before);
        sender.send(Some(DesiredAnnouncements::default())).unwrap();
        until("withdrawn", 2, &mut status, |status| status.foreign.is_empty()).await;
        assert_eq!(ip("address show dev lo"), before);

        sender.send(Some(desired(3))).unwrap();
        until("reported again", 2, &mut status, |status| status.foreign == vips()).await;
        ip(&format!("address del {VIP4}/32 dev lo"));
        ip(&format!("address del {VIP6}/128 dev lo"));
        until("announced once they went", 1, &mut status, |status| status.announced == vips()).await;
        assert!(all_there());
    });
}

#[test]
fn stale_vips_go_when_the_first_set_is_known_and_not_before() {
    in_namespace(|| async {
        let lifetimes = vips().into_iter().map(|vip| (vip, Duration::from_secs(60))).collect();
        assert_eq!(Holder::open().unwrap().apply(&vips()).await.unwrap().added, vips());
        assert_eq!(Loopback::open().unwrap().apply(&lifetimes).await.unwrap().added, vips());
        let own = "10.9.9.9";
        ip(&format!("address add {own}/32 dev lo"));
        ip("route add local 10.8.8.8 dev lo table local proto 76 metric 7601");

        let (sender, _status, _) = drive(None);
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(all_there(), "nothing is removed before the first set");
        sender.send(Some(DesiredAnnouncements::default())).unwrap();
        soon("removed", Duration::from_secs(1), none_there).await;
        assert!(has_address(own));
        assert!(ip("route show table local proto 76").contains("10.8.8.8"), "another metric, so not the agent's");
    });
}

#[test]
fn a_cancelled_driver_leaves_everything_and_others_can_clean_up() {
    in_namespace(|| async {
        let (_sender, mut status, cancel) = drive(Some(desired(60)));
        until("announced", 2, &mut status, |status| status.announced == vips()).await;
        cancel.cancel();
        assert!(tokio::time::timeout(Duration::from_secs(1), status.changed()).await.unwrap().is_err(), "it has ended");
        assert!(all_there());
        assert_eq!(announce::withdraw_all().await.unwrap().removed, vips());
        assert!(!has_address(VIP4) && !has_address(VIP6) && has_held_route(VIP4) && has_held_route(VIP6));
        assert_eq!(announce::release_all().await.unwrap().removed, vips());
        assert!(none_there());
        assert!(announce::withdraw_all().await.unwrap().removed.is_empty(), "again: nothing to do");
        assert!(announce::release_all().await.unwrap().removed.is_empty(), "again: nothing to do");
    });
}

/// Answers each byte with the same byte, on every connection.
fn echo(listener: TcpListener) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut byte = [0];
                while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
            });
        }
    });
}

fn connect(vip: &str, port: u16) -> TcpStream {
    let address = SocketAddr::new(vip.parse().unwrap(), port);
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).expect(vip);
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    stream
}

fn exchange(stream: &mut TcpStream) {
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
}

#[test]
fn a_held_vip_keeps_its_connections_and_takes_new_ones_without_an_address() {
    in_namespace(|| async {
        let client = Host::new();
        client.connect("left", 1);
        client.ip(&format!("route add {VIP4} via 10.0.1.1"));
        client.ip(&format!("-6 route add {VIP6} via 2001:db8:0:1::1"));
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        echo(listener);

        let (sender, mut status) = driven(3).await;
        let (vip4_server, vip6_server) = (TcpListener::bind((VIP4, 0)).unwrap(), TcpListener::bind((VIP6, 0)).unwrap());
        let ports = [&vip4_server, &vip6_server].map(|listener| listener.local_addr().unwrap().port());
        echo(vip4_server);
        echo(vip6_server);
        let open = move || {
            let mut streams =
                [connect(VIP4, port), connect(VIP6, port), connect(VIP4, ports[0]), connect(VIP6, ports[1])];
            streams.iter_mut().for_each(exchange);
            streams
        };
        let mut streams = client.run(open);

        sender.send(Some(DesiredAnnouncements { held: vips(), ..DesiredAnnouncements::default() })).unwrap();
        until("withdrawn", 2, &mut status, |status| status.announced.is_empty()).await;
        assert!(!has_address(VIP4) && !has_address(VIP6));
        let mut streams = client.run(move || {
            streams.iter_mut().for_each(exchange);
            streams
        });
        let mut later = client.run(open);

        sender.send(Some(desired(3))).unwrap();
        until("announced again", 2, &mut status, |status| status.announced == vips()).await;
        client.run(move || streams.iter_mut().chain(&mut later).for_each(exchange));
    });
}

#[test]
fn binding_to_a_held_vip_needs_an_address_for_ipv6_only() {
    in_namespace(|| async {
        Holder::open().unwrap().apply(&vips()).await.unwrap();
        TcpListener::bind((VIP4, 0)).expect("the local route is enough for IPv4");
        let error = TcpListener::bind((VIP6, 0)).expect_err("IPv6 asks for the address");
        assert_eq!(error.kind(), std::io::ErrorKind::AddrNotAvailable);
    });
}

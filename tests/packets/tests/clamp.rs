//! The maximum segment size in SYN segments that leave from a VIP is lowered to the bound that is set for it.

use std::net::IpAddr;

use packets_tests::{Bed, Packet, Way, World, addresses::*, service, tcp, udp, world};

const BOUND: u16 = 1408;
/// `TC_ACT_UNSPEC`: the next program, or the stack, decides.
const GO_ON: u32 = u32::MAX;

/// Both VIPs are held; only what leaves from port 80's VIPs has a bound.
fn bounded() -> World {
    [(VIP4, A4), (VIP6, A6)].into_iter().fold(world(), |world, (vip, backend)| {
        world.with(service(vip, 80).held().mss(BOUND).backend(backend, Way::local()))
    })
}

fn option(mss: u16) -> [u8; 4] {
    let [high, low] = mss.to_be_bytes();
    [2, 4, high, low]
}

/// What a server answers to a SYN, with these options.
fn syn_ack(vip: IpAddr, options: &[u8]) -> Packet {
    let client = if vip.is_ipv4() { CLIENT4 } else { CLIENT6 };
    tcp(vip, 80, client, 40_000).data(&[]).syn_ack().tcp_options(options)
}

fn leaves_as(bed: &mut Bed, name: &str, packet: &Packet, expected: &Packet) {
    for tags in [&[][..], &[100], &[100, 200]] {
        let outcome = bed.leave(&packet.tagged(tags).bytes());
        assert_eq!(outcome.action, GO_ON, "{name}, tags {tags:?}");
        assert_eq!(outcome.frame, expected.tagged(tags).bytes(), "{name}, tags {tags:?}");
    }
}

#[test]
fn a_larger_size_is_lowered_wherever_the_option_stands() {
    let mut bed = Bed::holding(&bounded());
    let (timestamps, scale) = ([8, 10, 1, 2, 3, 4, 5, 6, 7, 8], [3, 3, 7]);
    for vip in [VIP4, VIP6] {
        for mss in [BOUND + 1, 1460, 8960, u16::MAX] {
            let of = |mss| {
                [
                    ("alone", option(mss).to_vec()),
                    ("first", [&option(mss)[..], &[1, 1], &timestamps].concat()),
                    ("last", [&[1, 1][..], &timestamps, &option(mss)].concat()),
                    ("at an odd offset", [&scale[..], &option(mss), &[0]].concat()),
                    ("behind seven others", [&[1; 7][..], &option(mss), &[0]].concat()),
                ]
            };
            for ((name, large), (_, bounded)) in of(mss).into_iter().zip(of(BOUND)) {
                leaves_as(&mut bed, name, &syn_ack(vip, &large), &syn_ack(vip, &bounded));
                leaves_as(&mut bed, name, &syn_ack(vip, &large).syn(), &syn_ack(vip, &bounded).syn());
            }
        }
    }
}

#[test]
fn everything_else_leaves_as_it_is() {
    let mut bed = Bed::holding(&bounded().with(service("198.51.100.99".parse().unwrap(), 80).held()));
    let large = option(1460);
    let packets = [
        ("a size at the bound", syn_ack(VIP4, &option(BOUND))),
        ("a size below", syn_ack(VIP6, &option(536))),
        ("behind eight others", syn_ack(VIP4, &[&[1; 8][..], &large].concat())),
        ("no option", syn_ack(VIP4, &[])),
        ("behind the end of the options", syn_ack(VIP4, &[&[0, 0, 0, 0][..], &large].concat())),
        ("an option without length", syn_ack(VIP4, &[&[5, 0, 1, 1][..], &large].concat())),
        ("an option that is cut off", syn_ack(VIP4, &[1, 1, 2, 4])),
        ("a size of another length", syn_ack(VIP4, &[2, 6, 0xff, 0xff, 0, 0, 0, 0])),
        ("a segment that is no SYN", tcp(VIP4, 80, CLIENT4, 40_000).tcp_options(&large)),
        ("another address", tcp(STRANGER4, 80, CLIENT4, 40_000).syn().tcp_options(&large)),
        ("a VIP without a bound", tcp("198.51.100.99".parse().unwrap(), 80, CLIENT4, 40_000).syn().tcp_options(&large)),
        ("to a VIP", tcp(CLIENT4, 40_000, VIP4, 80).syn().tcp_options(&large)),
        ("UDP", udp(VIP6, 80, CLIENT6, 40_000)),
    ];
    for (name, packet) in packets {
        leaves_as(&mut bed, name, &packet, &packet);
    }
    let short = syn_ack(VIP4, &large).frame().bytes();
    // The kernel makes no shorter packet.
    for length in 34..short.len() {
        let outcome = bed.leave(&short[..length]);
        assert_eq!((outcome.action, &outcome.frame[..]), (GO_ON, &short[..length]), "{length} bytes");
    }
}

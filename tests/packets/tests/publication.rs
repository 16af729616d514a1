//! Rings are replaced under packets: each packet sees the ring before or the ring after, of its own service.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
};

use aya::programs::Xdp;
use lb_agent::dataplane::Kernel;
use lb_common::verdict::Action;
use packets_tests::{Bed, IN, SIZES, Service, Way, World, addresses::*, run_program, service, tcp, world};

/// Rings that are published one after the other.
const GENERATIONS: u8 = 200;
/// Backends of each service in each generation.
const BACKENDS: u8 = 3;

/// A service on the backends of a generation. The next hop tells service and generation.
fn on(service: Service, number: u8, generation: u8) -> Service {
    (0..BACKENDS).fold(service.ring(8), |service, backend| {
        // Neighbouring generations share a backend by its address: its hop changes in place.
        let address = IpAddr::from([10, number, 0, generation.wrapping_mul(2).wrapping_add(backend)]);
        service.backend(address, Way::l2().next([2, 0, 0, number, generation, backend]))
    })
}

fn generation(generation: u8) -> World {
    world().with(on(service(VIP4, 80), 1, generation)).with(on(service(VIP6, 443), 2, generation))
}

/// Tells the senders to stop, also when the publisher fails: or the test would wait for them for ever.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Sends flows of both services until told to stop; returns how many.
fn hammer(program: &Xdp, reached: &AtomicU32, stop: &AtomicBool) -> u64 {
    let mut sent = 0;
    let mut port = 1;
    while !stop.load(Ordering::Acquire) {
        port = if port == u16::MAX { 1 } else { port + 1 };
        let flows = [tcp(CLIENT4, port, VIP4, 80), tcp(CLIENT6, port, VIP6, 443)];
        for (number, flow) in (1..).zip(flows) {
            let before = reached.load(Ordering::Acquire);
            let outcome = run_program(program, &flow.frame().bytes(), IN);
            let after = reached.load(Ordering::Acquire) + 1; // it may be in force already
            assert_eq!(outcome.action, Action::Transmit as u32, "{flow:?} at generation {before}..={after}");
            let [.., service, generation, backend] = outcome.frame[..6] else { unreachable!("six bytes") };
            assert_eq!(service, number, "{flow:?} went through another service's ring");
            assert!(backend < BACKENDS, "{flow:?} went to {backend}");
            assert!(
                (before..=after).contains(&u32::from(generation)),
                "{flow:?} went to a backend of generation {generation} at {before}..={after}"
            );
            sent += 1;
        }
    }
    sent
}

#[test]
fn packets_see_the_ring_before_or_the_ring_after() {
    let mut bed = Bed::holding(&generation(0));
    // The same program once more, over the same maps: packets and plans run side by side.
    let mut other = Kernel::open(bed.lock(), SIZES).unwrap();
    let program: &Xdp = other.program().unwrap();
    let (reached, stop) = (AtomicU32::new(0), AtomicBool::new(false));
    let before = bed.counts();
    let sent = thread::scope(|scope| {
        let hammers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    packets_tests::enter_link();
                    hammer(program, &reached, &stop)
                })
            })
            .collect();
        let stop = StopOnDrop(&stop);
        for number in 1..GENERATIONS {
            if hammers.iter().any(thread::ScopedJoinHandle::is_finished) {
                break; // it failed, and says why when it is joined
            }
            bed.apply(&generation(number));
            reached.store(u32::from(number), Ordering::Release);
        }
        drop(stop);
        hammers.into_iter().map(|hammer| hammer.join().unwrap()).sum::<u64>()
    });
    assert_eq!(bed.counts().since(&before).drops(), 0);
    println!("{sent} packets while {GENERATIONS} generations were published");
    assert!(sent > u64::from(GENERATIONS) * 10, "only {sent} packets were sent");
}

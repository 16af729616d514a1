//! What the harness makes of the frame before each run of the program under test. Compiled into the harness and into the
//! benchmark, which has to know the frames that come out.

/// Value of the harness's map `TEMPLATE`: the bytes to restore, and how flows differ.
///
/// Bytes are restored by stores of eight or four bytes that begin where the program's loads begin: a load that needs
/// bytes of two stores would wait until both have left the store buffer, which no frame from a driver makes it do.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct Template {
    /// Bytes of the frame.
    pub length: u64,
    /// Flows to vary over, 1..=2^32; 2^32 stands for ever new ones.
    pub flows: u64,
    /// VIPs to vary over, 1..=2^32: addresses that follow the template's.
    pub vips: u64,
    /// Bytes 0..8 of the frame.
    pub link: u64,
    /// Bytes 6..14 of the frame.
    pub link_end: u64,
    /// The eight bytes that hold the TTL: 22..30 of an IPv4 frame, 14..22 of an IPv6 frame.
    pub hop: u64,
    /// Last four bytes of the source address.
    pub source: u32,
    /// Last four bytes of the destination address.
    pub destination: u32,
    /// Source and destination port.
    pub ports: u32,
    /// Zero.
    pub pad: u32,
}

/// Where flows differ, as words that are on the wire.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Flow {
    /// Last four bytes of the source address.
    pub source: u32,
    /// Last four bytes of the destination address.
    pub destination: u32,
    /// Source and destination port.
    pub ports: u32,
}

/// 2^32 divided by the golden ratio, odd: its multiples fall evenly into an interval, and never twice on one number.
const GOLDEN: u32 = 0x9e37_79b1;
/// Another odd number, so that addresses and ports look as different as those of clients do.
const SPREAD: u32 = 0x85eb_ca6b;

impl Template {
    /// The flow of the run with this number; number 0 is the template itself.
    #[must_use]
    #[inline(always)]
    pub const fn flow(&self, run: u64) -> Flow {
        let number = scale((run as u32).wrapping_mul(GOLDEN), self.flows);
        let mixed = number.wrapping_mul(SPREAD);
        let vip = scale(mixed.rotate_left(16), self.vips);
        Flow {
            source: self.source ^ mixed,
            destination: u32::from_be(self.destination).wrapping_add(vip).to_be(),
            // The ports' first two bytes on the wire are the source port; its two highest bits stay.
            ports: self.ports ^ ((mixed >> 18) & 0x3fff).to_be().rotate_left(16),
        }
    }
}

/// Maps 0..2^32 evenly to 0..`count`.
#[inline(always)]
const fn scale(number: u32, count: u64) -> u32 {
    ((number as u64).wrapping_mul(count) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn template(flows: u64, vips: u64) -> Template {
        let destination = u32::from_ne_bytes([198, 18, 0, 1]);
        let ports = u32::from_ne_bytes([0x9c, 0x40, 0, 80]);
        Template { flows, vips, source: 0x0700_71cb, destination, ports, ..Template::default() }
    }

    fn flows_of(template: &Template, runs: u64) -> BTreeSet<(u32, u32, u32)> {
        let flows = (0..runs).map(|run| template.flow(run));
        flows.map(|flow| (flow.source, flow.destination, flow.ports)).collect()
    }

    #[test]
    fn the_first_run_is_the_template_itself() {
        let template = template(1_000_000, 10_000);
        let Template { source, destination, ports, .. } = template;
        assert_eq!(template.flow(0), Flow { source, destination, ports });
    }

    #[test]
    fn as_many_flows_come_as_were_asked_for() {
        assert_eq!(flows_of(&template(1, 1), 1_000).len(), 1);
        assert_eq!(flows_of(&template(1_000, 1), 2_000).len(), 1_000); // two rounds, as the warming up makes
        assert_eq!(flows_of(&template(1_000, 1), 100_000).len(), 1_000);
        assert_eq!(flows_of(&template(1 << 32, 1), 100_000).len(), 100_000);
    }

    #[test]
    fn a_flow_has_one_vip_and_all_vips_have_flows() {
        let flows = flows_of(&template(100_000, 100), 200_000);
        let sources: BTreeSet<_> = flows.iter().map(|flow| flow.0).collect();
        assert_eq!(sources.len(), flows.len());
        let vips: BTreeSet<_> = flows.iter().map(|flow| u32::from_be(flow.1)).collect();
        let first = u32::from_be_bytes([198, 18, 0, 1]);
        assert_eq!(vips, (first..first + 100).collect());
    }

    #[test]
    fn only_the_source_port_varies_and_keeps_clear_of_the_low_ones() {
        for (_, _, ports) in flows_of(&template(1 << 32, 1), 10_000) {
            let [s0, s1, d0, d1] = ports.to_ne_bytes();
            assert_eq!([d0, d1], [0, 80]);
            assert!(u16::from_be_bytes([s0, s1]) >= 0x8000);
        }
    }
}

//! What composed services are called.

use std::hash::Hasher;

use siphasher::sip::SipHasher24;

use crate::model::{ObjectName, Protocol};

/// The service of the control plane's VIP.
pub const CONTROL_PLANE: &str = "control-plane";

/// Longest name that the maps keep, bytes.
const MAX: usize = 63;

/// The service of one port of a Service, for VIPs of one family: `namespace/name:port/protocol`, `tcp6` for IPv6. What
/// is too long for the maps is cut and made unique by a hash of the whole.
pub fn of_port(name: &ObjectName, port: u16, protocol: Protocol, is_ipv6: bool) -> String {
    let family = if is_ipv6 { "6" } else { "" };
    let whole = format!("{name}:{port}/{protocol}{family}");
    if whole.len() <= MAX {
        return whole;
    }
    let mut hasher = SipHasher24::new();
    hasher.write(whole.as_bytes());
    let end = format!("~{:08x}:{port}/{protocol}{family}", hasher.finish() & 0xffff_ffff);
    let mut kept = MAX - end.len();
    while !whole.is_char_boundary(kept) {
        kept -= 1;
    }
    format!("{}{end}", &whole[..kept])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_they_are_for() {
        let name = ObjectName::new("shop", "web");
        assert_eq!(of_port(&name, 80, Protocol::Tcp, false), "shop/web:80/tcp");
        assert_eq!(of_port(&name, 53, Protocol::Udp, true), "shop/web:53/udp6");
    }

    #[test]
    fn long_names_are_cut_and_stay_different() {
        let of = |last: &str| {
            let name = ObjectName::new("n".repeat(63), format!("{}{last}", "s".repeat(62)));
            of_port(&name, 65535, Protocol::Sctp, true)
        };
        let [a, b] = ["a", "b"].map(of);
        assert_eq!((a.len(), b.len()), (63, 63));
        assert!(a != b && a.ends_with(":65535/sctp6"), "{a} {b}");
        let exact = ObjectName::new("n", "s".repeat(53));
        assert_eq!(of_port(&exact, 80, Protocol::Tcp, false).len(), 62);
        assert!(!of_port(&exact, 443, Protocol::Tcp, false).contains('~'));
        assert!(of_port(&exact, 8443, Protocol::Tcp, false).contains('~'));
    }
}

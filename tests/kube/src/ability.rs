//! What an API server can do, by its version.
//!
//! A test that needs one of these is marked `#[cfg_attr(lacks_<name>, ignore = "needs Kubernetes <version>")]`; the build
//! script sets `lacks_<name>` after the server in `KUBEBUILDER_ASSETS`. The harness then lists the test as ignored, with
//! the reason, and `cargo xtask` counts it apart from those that passed.

/// Something that not every API server can do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ability {
    /// Serves `discovery.k8s.io/v1` itself, writes the slice `default/kubernetes`: Kubernetes 1.21.
    Slices,
    /// `spec.loadBalancerClass`: on by default since Kubernetes 1.22.
    LoadBalancerClass,
    /// Validation rules (CEL) of custom resources: on by default since Kubernetes 1.25.
    Rules,
    /// `status.loadBalancer.ingress.ipMode`: on by default since Kubernetes 1.30.
    IpMode,
    /// Watches that begin with the whole list: on by default in Kubernetes 1.32, off in 1.33, on since 1.34; with an etcd of
    /// 3.5 or later.
    StreamingLists,
}

impl Ability {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Slices, Self::LoadBalancerClass, Self::Rules, Self::IpMode, Self::StreamingLists];

    /// Its name after `lacks_`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Slices => "slices",
            Self::LoadBalancerClass => "load_balancer_class",
            Self::Rules => "rules",
            Self::IpMode => "ip_mode",
            Self::StreamingLists => "streaming_lists",
        }
    }

    /// Whether servers of these versions have it.
    #[must_use]
    pub fn is_in(self, versions: Versions) -> bool {
        let Versions { server, etcd } = versions;
        match self {
            Self::Slices => server >= (1, 21),
            Self::LoadBalancerClass => server >= (1, 22),
            Self::Rules => server >= (1, 25),
            Self::IpMode => server >= (1, 30),
            Self::StreamingLists => (server == (1, 32) || server >= (1, 34)) && etcd >= (3, 5),
        }
    }
}

/// Versions of an API server and its etcd, major and minor.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Versions {
    /// kube-apiserver.
    pub server: (u32, u32),
    /// etcd.
    pub etcd: (u32, u32),
}

impl Versions {
    /// Reads what the programs say to `--version`: `Kubernetes v1.20.2` and `etcd Version: 3.4.23`.
    #[must_use]
    pub fn parse(server: &str, etcd: &str) -> Option<Self> {
        let etcd = etcd.lines().next()?.strip_prefix("etcd Version:")?;
        Some(Self { server: numbers(server.strip_prefix("Kubernetes v")?)?, etcd: numbers(etcd)? })
    }
}

/// `1.20.2-rc.0` -> (1, 20).
fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim().split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_programs_write_them() {
        let etcd =
            "etcd Version: 3.4.23\nGit SHA: Not provided (use ./build instead of go build)\nGo Version: go1.19.8\n";
        let expected = Versions { server: (1, 20), etcd: (3, 4) };
        assert_eq!(Versions::parse("Kubernetes v1.20.2\n", etcd), Some(expected));
        let expected = Versions { server: (1, 34), etcd: (3, 6) };
        assert_eq!(Versions::parse("Kubernetes v1.34.0-rc.1\n", "etcd Version: 3.6.4"), Some(expected));
        assert_eq!(Versions::parse("", etcd), None);
    }

    #[test]
    fn abilities_follow_the_versions() {
        let of = |server, etcd| -> Vec<_> {
            Ability::ALL
                .into_iter()
                .filter(|ability| ability.is_in(Versions { server, etcd }))
                .map(Ability::name)
                .collect()
        };
        assert_eq!(of((1, 20), (3, 4)), Vec::<&str>::new());
        assert_eq!(of((1, 25), (3, 5)), ["slices", "load_balancer_class", "rules"]);
        assert!(of((1, 32), (3, 5)).contains(&"streaming_lists"));
        assert!(!of((1, 33), (3, 5)).contains(&"streaming_lists"));
        assert!(!of((1, 34), (3, 4)).contains(&"streaming_lists"));
        assert_eq!(of((1, 36), (3, 6)).len(), Ability::ALL.len());
    }
}

//! The resources that the stand-in serves, and how paths name them.

/// A resource and the rules of its writes.
#[derive(Debug, Eq, PartialEq)]
pub struct Resource {
    /// API group; empty for the core.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// Its name in paths.
    pub plural: &'static str,
    /// `kind` of its objects.
    pub kind: &'static str,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Whether its status is written by `/status` alone.
    pub status: bool,
    /// Whether an update makes an object that is not there.
    pub create_on_update: bool,
    /// Whether an update may lack the version that it is for.
    pub unconditional_update: bool,
    /// Whether it is a custom resource: its objects count generations and carry their kind in lists.
    pub custom: bool,
}

/// A resource of the core and its usual rules.
const CORE: Resource = Resource {
    group: "",
    version: "v1",
    plural: "services",
    kind: "Service",
    namespaced: true,
    status: true,
    create_on_update: true,
    unconditional_update: true,
    custom: false,
};

/// All of them.
pub const RESOURCES: [Resource; 8] = [
    CORE,
    Resource { plural: "nodes", kind: "Node", namespaced: false, create_on_update: false, ..CORE },
    Resource { plural: "namespaces", kind: "Namespace", namespaced: false, create_on_update: false, ..CORE },
    Resource { plural: "events", kind: "Event", status: false, ..CORE },
    Resource { group: "events.k8s.io", plural: "events", kind: "Event", status: false, ..CORE },
    Resource {
        group: "discovery.k8s.io",
        plural: "endpointslices",
        kind: "EndpointSlice",
        status: false,
        create_on_update: false,
        ..CORE
    },
    Resource {
        group: "coordination.k8s.io",
        plural: "leases",
        kind: "Lease",
        status: false,
        unconditional_update: false,
        ..CORE
    },
    Resource {
        group: "levee.dev",
        version: "v1alpha1",
        plural: "vippools",
        kind: "VipPool",
        namespaced: false,
        create_on_update: false,
        unconditional_update: false,
        custom: true,
        ..CORE
    },
];

impl Resource {
    /// The resource of this name in paths.
    #[must_use]
    pub fn named(plural: &str) -> Option<&'static Self> {
        RESOURCES.iter().find(|resource| resource.plural == plural)
    }

    /// `apiVersion` of its objects.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Its name in messages: `leases.coordination.k8s.io`.
    #[must_use]
    pub fn full_name(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }
}

/// What a path is about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Target {
    /// The resource.
    pub resource: &'static Resource,
    /// The namespace, unless all are meant.
    pub namespace: Option<String>,
    /// The object, unless all are meant.
    pub name: Option<String>,
    /// Whether it ends in `/status`.
    pub status: bool,
}

impl Target {
    /// Reads a path such as `/apis/levee.dev/v1alpha1/vippools/x/status`.
    #[must_use]
    pub fn parse(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            // `namespaces/x` and `namespaces/x/status` are the namespace itself.
            ["namespaces", namespace, rest @ ..] if !matches!(rest, [] | ["status"]) => (Some(*namespace), rest),
            rest => (None, rest),
        };
        let (plural, name, status) = match rest {
            [plural] => (*plural, None, false),
            [plural, name] => (*plural, Some(*name), false),
            [plural, name, "status"] => (*plural, Some(*name), true),
            _ => return None,
        };
        let fits = |it: &&Resource| it.group == group && it.version == version && it.plural == plural;
        let resource = RESOURCES.iter().find(fits)?;
        let belongs = match namespace {
            Some(_) => resource.namespaced,
            None => !resource.namespaced || name.is_none(),
        };
        (belongs && (resource.status || !status)).then(|| Self {
            resource,
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
            status,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_lists_objects_and_their_status() {
        let read = |path: &str| {
            let target = Target::parse(path)?;
            let part = |part: Option<String>| part.unwrap_or_default();
            Some((target.resource.kind, part(target.namespace), part(target.name), target.status))
        };
        let expected = |kind, namespace: &str, name: &str, status| Some((kind, namespace.into(), name.into(), status));
        for (path, target) in [
            ("/api/v1/services", expected("Service", "", "", false)),
            ("/api/v1/namespaces/a/services", expected("Service", "a", "", false)),
            ("/api/v1/namespaces/a/services/s/status", expected("Service", "a", "s", true)),
            ("/api/v1/namespaces/a", expected("Namespace", "", "a", false)),
            ("/api/v1/nodes/n/status", expected("Node", "", "n", true)),
            ("/apis/levee.dev/v1alpha1/vippools/p", expected("VipPool", "", "p", false)),
            ("/apis/coordination.k8s.io/v1/namespaces/a/leases/l", expected("Lease", "a", "l", false)),
            ("/apis/coordination.k8s.io/v1/namespaces/a/leases/l/status", None),
            ("/apis/coordination.k8s.io/v1/leases/l", None),
            ("/api/v1/namespaces/a/nodes/n", None),
            ("/api/v1/pods", None),
            ("/readyz", None),
        ] {
            assert_eq!(read(path), target, "{path}");
        }
    }
}

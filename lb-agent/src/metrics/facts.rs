//! Name, kind and help of every metric. The text adds the usual suffixes: `_total` to counters, `_info` to infos,
//! `_sum` and `_count` to durations.

/// What kind of metric it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Only grows, until the entry or the maps are made anew.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Always 1; the labels say it.
    Info,
    /// Durations in seconds: their sum and number (a histogram whose only bucket is `+Inf`).
    Durations,
}

/// One metric.
#[derive(Debug, Eq, PartialEq)]
pub struct Fact {
    /// Name without the suffix of its kind.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// One sentence for people, without the full stop.
    pub help: &'static str,
}

macro_rules! facts {
    ($($constant:ident = $kind:ident $name:literal $help:literal;)+) => {
        $(pub(super) const $constant: &Fact = &Fact { name: $name, kind: Kind::$kind, help: $help };)+
        /// Every metric, in the order of the text.
        pub(super) const ALL: &[Fact] = &[$(Fact { name: $name, kind: Kind::$kind, help: $help }),+];
    };
}

facts! {
    BUILD = Info "levee_build" "Version of the agent";
    READY = Gauge "levee_ready" "Whether the first complete plan was applied";
    SECRET = Info "levee_secret" "Fingerprint of the secret, which has to be the same on all directors";
    CONFIG_GENERATION = Gauge "levee_config_generation" "Configurations that came into force since the agent started";
    CONFIG_STALE = Gauge "levee_config_stale" "Whether the latest edit of the configuration was refused and an earlier one is in force";
    PLAN_DURATION = Durations "levee_plan_duration_seconds" "Time taken to decide and plan, seconds";
    APPLY_DURATION = Durations "levee_apply_duration_seconds" "Time taken to apply plans without waiting for grace periods, seconds";
    PLANS_FAILED = Counter "levee_plans_failed" "Plans that could not be applied whole";
    INTERFACE_NATIVE = Gauge "levee_interface_native" "Whether the program runs in the driver of the interface: 0 is generic or not attached";
    VIP_HELD = Gauge "levee_vip_held" "Whether this node terminates flows to the VIP";
    VIP_ANNOUNCED = Gauge "levee_vip_announced" "Whether this node draws the traffic of the VIP";
    BACKEND_TAKES_FLOWS = Gauge "levee_backend_takes_flows" "Whether the backend takes new flows";
    PROBES_BELIEVED = Gauge "levee_service_probes_believed" "Whether the probes of the service are believed: 0 while they fail every backend, which all take flows then";
    SLOTS_NOT_SETTLED = Gauge "levee_service_slots" "Slots of the ring that are not settled, by state; only of services that have some";
    SCAN_DURATION = Durations "levee_flow_scan_duration_seconds" "Time taken to scan the tables of flows, seconds";
    FLOWS_EXPIRED = Counter "levee_flows_expired" "Recorded flows that had expired and were removed";
    PEER_HEARD = Gauge "levee_peer_heard" "Whether the agent of the peer is heard";
    PEER_SILENT = Gauge "levee_peer_silent" "Whether the agent of the peer was heard and is not any more: its backends take no new flows, unless most peers are silent";
    PEER_STRANGER = Gauge "levee_peer_secret_differs" "Whether the agent of the peer has another secret";
    PEER_REFUSES = Gauge "levee_peer_refuses" "Whether the peer does not know this node as a director and drops what it sends there";
    MOST_SILENT = Gauge "levee_peers_most_silent" "Whether most peers are silent, so that none is believed to be: this node may be cut off";
    GATE_SHUT = Gauge "levee_announce_gate_shut" "Whether this node announces nothing on account of what its peers say";
    WANTS_CREDENTIALS = Gauge "levee_backend_wants_credentials" "Backends that answer their probe with 401 or 403 and are taken for healthy: the probe needs credentials";
    KUBERNETES_LIVE = Gauge "levee_kubernetes_live" "Whether the inventory of the cluster is from an API server: 0 is saved on disk, or none";
    KUBERNETES_SAVED = Gauge "levee_kubernetes_saved_timestamp_seconds" "When the saved inventory in force was written, seconds of Unix time; absent while it is live";
    KUBERNETES_OBJECTS = Gauge "levee_kubernetes_objects" "Objects of the inventory, by kind";
    KUBERNETES_SERVED = Gauge "levee_kubernetes_services_served" "Services of the cluster of which at least one port is served";
    KUBERNETES_JUDGEMENTS = Gauge "levee_kubernetes_judgements" "Remarks on objects of the cluster, by severity and reason; lbctl status lists them";
    KUBERNETES_WITHHELD = Gauge "levee_kubernetes_vips_withheld" "VIPs of Services that are served and not announced by this node: its inventory is too old, it is excluded, not selected, or on a link with them";
    KUBERNETES_COMPOSE = Durations "levee_kubernetes_compose_duration_seconds" "Time taken to make services of configuration and inventory, seconds";
    KUBERNETES_SERVER = Info "levee_kubernetes_server" "API server that answered last; absent while none answers";
    KUBERNETES_LISTED = Gauge "levee_kubernetes_listed_timestamp_seconds" "When the last complete list of the resource was there, seconds of Unix time";
    KUBERNETES_HEARD = Gauge "levee_kubernetes_heard_timestamp_seconds" "When an API server last said anything about the resource, seconds of Unix time: bookmarks come every minute";
    KUBERNETES_LISTS = Counter "levee_kubernetes_lists" "Complete lists of the resource";
    KUBERNETES_FAILURES = Counter "levee_kubernetes_failures" "Failures to list or watch the resource";
    KUBERNETES_DOUBTED = Gauge "levee_kubernetes_list_doubted" "Whether a complete list of the resource lost most of what was known and is not believed yet";
    KUBERNETES_UNREADABLE = Gauge "levee_kubernetes_objects_unreadable" "Objects of the resource that cannot be read: the version before stays in force";
    KUBERNETES_SAVE_FAILED = Gauge "levee_kubernetes_save_failed" "Whether the inventory on disk could not be read or written";
    KUBERNETES_LEASE = Gauge "levee_kubernetes_lease_renewed_timestamp_seconds" "When the Lease of this node was renewed last, seconds of Unix time";
    MAPS_READABLE = Gauge "levee_maps_readable" "Whether the maps could be read for this answer: the metrics below are absent otherwise";
    SERVICE_PACKETS = Counter "levee_service_packets" "Packets of the service that were handed on or up";
    SERVICE_BYTES = Counter "levee_service_bytes" "Bytes of these packets from the IP header on, without tunnel headers";
    BACKEND_PACKETS = Counter "levee_backend_packets" "Packets of the service that were handed on or up to the backend";
    BACKEND_BYTES = Counter "levee_backend_bytes" "Bytes of these packets from the IP header on, without tunnel headers";
    FLOWS = Gauge "levee_flows_recorded" "Recorded flows by table: new ones began on a slot whose owner had changed, old ones before that";
    FLOWS_LIMIT = Gauge "levee_flows_limit" "The most flows of the service in either table";
    FLOWS_REFUSED = Counter "levee_flows_refused" "Found no room in their table: new, SYNs that were dropped; old, packets that were sent on without being recorded";
    VERDICTS = Counter "levee_verdicts" "Packets by the verdict that they ended in; those that are not for a VIP are not counted";
    DROPS = Counter "levee_drops" "Packets for a VIP that were dropped, by reason";
    MAP_ENTRIES = Gauge "levee_map_entries" "Entries of the map in use";
    MAP_CAPACITY = Gauge "levee_map_capacity" "Entries that the map has room for";
    MAP_MEMORY = Gauge "levee_map_memory_bytes" "Memory that the map takes";
}

//! `lbctl sample`: files to begin with.

/// A configuration with every key.
pub(super) const CONFIG: &str = crate::config::SAMPLE;

/// A configuration of the controller with every key.
pub(super) const CONTROLLER: &str = crate::config::CONTROLLER_SAMPLE;

/// A systemd unit for the agent.
pub(super) const SYSTEMD: &str = include_str!("../../../deploy/levee.service");

/// A static pod with the agent, for control-plane nodes.
pub(super) const STATIC_POD: &str = include_str!("../../../deploy/static-pod.yaml");

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const MANIFESTS: &str = include_str!("../../../deploy/manifests/levee.yaml");

    fn daemon_set() -> Value {
        let documents = MANIFESTS.split("\n---\n").map(|text| serde_saphyr::from_str::<Value>(text).unwrap());
        documents.into_iter().find(|document| document["kind"] == "DaemonSet").unwrap()["spec"]["template"]["spec"]
            .take()
    }

    #[test]
    fn the_static_pod_has_the_rights_of_the_daemon_set_and_no_more() {
        let pod = &serde_saphyr::from_str::<Value>(STATIC_POD).unwrap()["spec"];
        let daemon_set = daemon_set();
        for key in
            ["hostNetwork", "priorityClassName", "terminationGracePeriodSeconds", "securityContext", "tolerations"]
        {
            assert!(!pod[key].is_null(), "the static pod has no {key}");
            assert_eq!(pod[key], daemon_set[key], "{key}");
        }
        assert_eq!(pod["containers"][0]["securityContext"], daemon_set["containers"][0]["securityContext"]);
        assert_eq!(pod["containers"][0]["image"], daemon_set["containers"][0]["image"]);
        let capabilities = &pod["containers"][0]["securityContext"]["capabilities"];
        assert_eq!(*capabilities, serde_json::json!({"drop": ["ALL"], "add": ["BPF", "NET_ADMIN", "PERFMON"]}));
    }

    #[test]
    fn the_static_pod_needs_no_api_server() {
        let pod = serde_saphyr::from_str::<Value>(STATIC_POD).unwrap();
        // The kubelet refuses static pods that refer to other objects.
        for volume in pod["spec"]["volumes"].as_array().unwrap() {
            assert!(volume["hostPath"].is_object(), "{volume} is no path of the host");
        }
        assert!(pod["spec"]["serviceAccountName"].is_null());
    }

    #[test]
    fn the_unit_has_the_rights_of_the_daemon_set() {
        let daemon_set = daemon_set();
        let added = daemon_set["containers"][0]["securityContext"]["capabilities"]["add"].as_array().unwrap();
        let mut wanted: Vec<_> = added.iter().map(|name| format!("CAP_{}", name.as_str().unwrap())).collect();
        wanted.sort();
        for key in ["AmbientCapabilities=", "CapabilityBoundingSet="] {
            let line = SYSTEMD.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            let mut names: Vec<_> = line.split_whitespace().collect();
            names.sort_unstable();
            assert_eq!(names, wanted, "{key}");
        }
        assert!(SYSTEMD.contains("\nNoNewPrivileges=yes\n"));
    }
}

//! The container image under the security settings of the shipped DaemonSet: an agent in runc on every node, as a
//! container runtime would start it, with what the manifest allows and no more.

#![expect(clippy::unwrap_used, reason = "a failing step is a failing test")]

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lb_agent::model::Protocol;
use netns_tests::{
    client::Client,
    cluster::{Cluster, PORT},
    config::{AgentConfig, ServiceConfig},
    netns::{NetnsRef, run},
    process::Process,
    routing::Suite,
    scope::{Scope, binary},
    topology::{Fabric, VIPS},
    traffic::{Tally, burst},
    wait,
};
use serde_json::{Value, json};

/// Names the folder of the image's OCI layout.
const IMAGE: &str = "LEVEE_IMAGE_DIR";
const MANIFESTS: &str = include_str!("../../../deploy/manifests/levee.yaml");
const SECCOMP: &str = include_str!("../../../deploy/seccomp/levee.json");
const PATIENCE: Duration = Duration::from_secs(30);
/// Limit of a request.
const LIMIT: Duration = Duration::from_secs(3);
/// CAP_NET_ADMIN 12, CAP_PERFMON 38, CAP_BPF 39 (linux/capability.h).
const CAPABILITIES: u64 = 1 << 12 | 1 << 38 | 1 << 39;

/// The agent's DaemonSet, as JSON.
fn daemon_set() -> Value {
    let documents = MANIFESTS.split("\n---\n").map(|text| serde_saphyr::from_str::<Value>(text).unwrap());
    documents.into_iter().find(|document| document["kind"] == "DaemonSet").unwrap()
}

/// Unpacks the image's only layer into `folder`; returns its configuration.
fn unpack(layout: &Path, folder: &Path) -> Result<Value> {
    let json = |path: PathBuf| -> Result<Value> {
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(serde_json::from_str(&text)?)
    };
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap_or_default().replace(':', "/");
        layout.join("blobs").join(digest)
    };
    let manifest = json(blob(&json(layout.join("index.json"))?["manifests"][0]))?;
    let layers = manifest["layers"].as_array().context("the manifest has no layers")?;
    ensure!(layers.len() == 1, "{} layers instead of one", layers.len());
    fs::create_dir_all(folder)?;
    run(Command::new("tar").arg("-xf").arg(blob(&layers[0])).arg("-C").arg(folder))?;
    json(blob(&manifest["config"]))
}

/// What a container runtime makes of the pod: the settings come from the manifest, the rest are its usual defaults.
fn runtime_config(pod: &Value, netns: &NetnsRef, node: (&str, &str), host: &BTreeMap<&str, PathBuf>) -> Value {
    let container = &pod["containers"][0];
    let security = &container["securityContext"];
    assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
    let added = security["capabilities"]["add"].as_array().unwrap();
    let capabilities: Vec<_> = added.iter().map(|name| format!("CAP_{}", name.as_str().unwrap())).collect();
    let fields = container["env"].as_array().unwrap().iter().map(|variable| {
        let value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str().unwrap() {
            "spec.nodeName" => node.0,
            "status.podIPs" => node.1,
            other => panic!("the test does not know the field {other}"),
        };
        format!("{}={value}", variable["name"].as_str().unwrap())
    });
    let seccomp: Value = serde_json::from_str(SECCOMP).unwrap();
    json!({
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs", "readonly": security["readOnlyRootFilesystem"]},
        "process": {
            "user": {"uid": pod["securityContext"]["runAsUser"], "gid": pod["securityContext"]["runAsGroup"]},
            "args": container["command"],
            "env": fields.chain(["PATH=/".to_owned()]).collect::<Vec<_>>(),
            "cwd": "/",
            "noNewPrivileges": security["allowPrivilegeEscalation"] == false,
            // No inheritable and no ambient ones, as Kubernetes has it.
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        },
        "mounts": mounts(pod, host),
        "linux": {
            "namespaces": [
                {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                {"type": "network", "path": netns.path()},
            ],
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
            "seccomp": seccomp,
        },
    })
}

fn mounts(pod: &Value, host: &BTreeMap<&str, PathBuf>) -> Vec<Value> {
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]}),
    ];
    for mount in pod["containers"][0]["volumeMounts"].as_array().unwrap() {
        let name = mount["name"].as_str().unwrap();
        let access = if mount["readOnly"] == true { "ro" } else { "rw" };
        let propagation = if mount["mountPropagation"] == "HostToContainer" { "rslave" } else { "rprivate" };
        let source = host.get(name).unwrap_or_else(|| panic!("the test has nothing to mount as {name}"));
        mounts.push(json!({
            "destination": mount["mountPath"], "type": "bind", "source": source, "options": ["rbind", access, propagation],
        }));
    }
    mounts
}

/// An agent in a container; dropping it ends and deletes that, and takes the program off the node.
struct Container {
    id: String,
    state: PathBuf,
    config: AgentConfig,
    run: PathBuf,
    netns: NetnsRef,
    process: Process,
}

impl Container {
    /// Starts the agent of `config` as the DaemonSet would on that node.
    fn start(scope: &Scope, netns: &NetnsRef, rootfs: &Path, config: AgentConfig) -> Result<Self> {
        let (name, addresses) = config.node.clone();
        let bundle = scope.file(&format!("{name}-bundle"));
        let folder = |part: &str| {
            let path = bundle.join(part);
            fs::create_dir_all(&path).map(|()| path).unwrap()
        };
        run(Command::new("cp").arg("-a").arg(rootfs).arg(folder("").join("rootfs")))?;
        // The file as the ConfigMap has it: without what differs from node to node, the secret beside it.
        let text = config.to_string();
        let own = ["node:", "secret:", "socket:"];
        let kept =
            text.lines().filter(|line| !own.iter().any(|key| line.starts_with(key))).map(|line| format!("{line}\n"));
        let text = kept.collect::<String>() + "secretFile: /etc/levee/secret/secret\n";
        fs::write(folder("config").join("levee.yaml"), text)?;
        fs::write(folder("secret").join("secret"), &config.secret)?;
        run(Command::new("chmod").arg("0400").arg(folder("secret").join("secret")))?;
        let host = BTreeMap::from([
            ("config", folder("config")),
            ("secret", folder("secret")),
            ("bpffs", PathBuf::from("/sys/fs/bpf")),
            ("run", folder("run")),
            ("state", folder("state")),
        ]);
        let addresses = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let pod = &daemon_set()["spec"]["template"]["spec"];
        let settings = runtime_config(pod, netns, (&name, &addresses), &host);
        fs::write(bundle.join("config.json"), settings.to_string())?;
        let (id, state) = (format!("{}-{name}", scope.prefix()), scope.file("runc"));
        let mut command = Command::new("runc");
        command.arg("--root").arg(&state).arg("run").arg("--bundle").arg(&bundle).arg(&id);
        let process = Process::spawn(scope, &format!("container-{name}"), &mut command)?;
        Ok(Self { id, state, config, run: folder("run"), netns: netns.clone(), process })
    }

    /// The id of the agent's process, as the host counts.
    fn agent(&self) -> Result<u32> {
        let output = Command::new("runc").arg("--root").arg(&self.state).args(["state", &self.id]).output()?;
        let state: Value = serde_json::from_slice(&output.stdout)?;
        Ok(u32::try_from(state["pid"].as_u64().context("no process")?)?)
    }

    /// Runs `lbctl` inside, as `kubectl exec` would.
    fn lbctl(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new("runc");
        command.arg("--root").arg(&self.state).args(["exec", &self.id, "/lbctl", "--pin-path"]);
        let output = command.arg(&self.config.pin_path).args(args).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        Ok(text)
    }

    fn log(&self) -> String {
        self.process.log_tail(40)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Errors mean that it has gone already.
        let _ = self.process.terminate();
        let _ = Command::new("runc").arg("--root").arg(&self.state).args(["delete", "--force", &self.id]).output();
        let Ok(lbctl) = binary("lbctl") else { return };
        let mut command = self.netns.command(lbctl);
        command.arg("--pin-path").arg(&self.config.pin_path).arg("--socket").arg(self.run.join("agent.sock"));
        let _ = command.arg("detach").output();
        let _ = fs::remove_dir_all(&self.config.pin_path);
    }
}

/// Three nodes with servers and BIRD, and an agent in a container on each.
async fn build() -> (Vec<Container>, Cluster, Client) {
    let layout = env::var_os(IMAGE).map(PathBuf::from);
    let layout = layout.expect("LEVEE_IMAGE_DIR names no image; run `cargo xtask image --test`");
    let mut bed = Cluster::build(Scope::new().unwrap(), Fabric::Routed, 3, &VIPS).unwrap();
    let rootfs = bed.scope.file("image");
    let image = unpack(&layout, &rootfs).unwrap();
    assert_eq!(image["config"]["Entrypoint"], json!(["/lb-agent"]));
    bed.start_servers().unwrap();
    bed.start_routing(Suite::Bird, Suite::Bird).unwrap();
    let mut containers = Vec::new();
    for (index, node) in bed.topology.nodes.iter().enumerate() {
        let service = ServiceConfig::on_all_nodes(&bed.topology, "api", &VIPS, Protocol::Tcp, PORT);
        let config = AgentConfig::for_node(&bed.scope, &bed.topology, index).unwrap().with_service(service);
        containers.push(Container::start(&bed.scope, &node.netns, &rootfs, config).unwrap());
    }
    let logs = |containers: &[Container]| containers.iter().map(Container::log).collect::<Vec<_>>().join("\n");
    bed.wait_for_routes(3, PATIENCE).await.map_err(|error| format!("{error:#}\n{}", logs(&containers))).unwrap();
    let client = bed.client(VIPS[0], LIMIT).unwrap();
    (containers, bed, client)
}

/// A line of `/proc/PID/status`.
fn status(agent: u32, key: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{agent}/status")).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    value.unwrap().trim().to_owned()
}

/// Whether what is mounted at `path` inside is read-only.
fn is_read_only(agent: u32, path: &str) -> bool {
    let mounts = fs::read_to_string(format!("/proc/{agent}/mountinfo")).unwrap();
    let mount = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some(path)).unwrap();
    mount.split(' ').nth(5).unwrap().split(',').any(|option| option == "ro")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_serves_the_vip_with_what_the_manifest_allows() {
    let (containers, bed, client) = build().await;

    for container in &containers {
        let agent = container.agent().unwrap();
        for set in ["CapEff", "CapPrm", "CapBnd"] {
            assert_eq!(u64::from_str_radix(&status(agent, set), 16).unwrap(), CAPABILITIES, "{set}");
        }
        for set in ["CapInh", "CapAmb"] {
            assert_eq!(u64::from_str_radix(&status(agent, set), 16).unwrap(), 0, "{set}");
        }
        assert_eq!(status(agent, "NoNewPrivs"), "1");
        assert_eq!(status(agent, "Seccomp"), "2", "no filter"); // SECCOMP_MODE_FILTER
        for path in ["/", "/proc/sys", "/sys", "/etc/levee/config", "/etc/levee/secret"] {
            assert!(is_read_only(agent, path), "{path} can be written to");
        }
        assert!(!is_read_only(agent, "/sys/fs/bpf"));
    }

    // Every server takes flows, so that directors and terminators are in use.
    let served = wait::until("every server to answer", PATIENCE, || async {
        let tally = Tally::of(&burst(&bed.runtime, &client, 60, 10).await);
        ensure!(tally.failed() == 0 && tally.answers.len() == 3, "{tally:?}");
        Ok(())
    });
    served.await.unwrap();
    let tally = Tally::of(&burst(&bed.runtime, &client, 300, 20).await);
    assert_eq!(tally.failed(), 0, "{tally:?}");

    let status = containers[0].lbctl(&["status"]).unwrap();
    assert!(status.contains("node-1"), "{status}");
}

//! Judges the kernel and the agent.

use super::{Check, Facts, Finding, Severity};
use crate::dataplane::{CAPABILITIES, KernelVersion};

const KERNEL: Check = Check::new("kernel", "Links for XDP, mapped arrays and CAP_BPF came with Linux 5.10");
const BTF: Check =
    Check::new("btf", "The maps of the program are described by BTF, which the kernel has to understand");
const JIT: Check = Check::new("jit", "Without the compiler in the kernel every packet runs through an interpreter");
const CAPABILITIES_CHECK: Check = Check::new("capabilities", "The agent loads and attaches programs and sets routes");
const BPFFS: Check = Check::new("bpffs", "Maps and links are pinned there, so that they outlive the agent");
const AGENT: Check = Check::new("agent", "Without it nothing follows failures and changes, and announcements expire");
const CONFIG: Check = Check::new("config", "What the file says and what is in force should be the same");
const PLAN: Check = Check::new("plan", "A plan that fails leaves the data plane behind what is wanted");
const ANNOUNCING: Check = Check::new("announcing", "The network sends no traffic for a VIP that is not announced");

pub(super) fn examine(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![kernel(facts), btf(facts), jit(facts), capabilities(facts), bpffs(facts), agent(facts)];
    findings.extend(configuration(facts));
    findings.extend(announcing(facts));
    findings
}

fn kernel(facts: &Facts) -> Finding {
    let version = KernelVersion(facts.system.version.0, facts.system.version.1);
    if version < KernelVersion::FLOOR {
        return KERNEL.error(format!("Linux {version}"), "run Linux 5.10 or newer");
    }
    let frames = if version < KernelVersion::FRAGS { ", too old for frames in several buffers (5.18)" } else { "" };
    KERNEL.ok(format!("Linux {version}{frames}"))
}

fn btf(facts: &Facts) -> Finding {
    if facts.system.has_btf {
        return BTF.ok("the kernel describes its types");
    }
    BTF.warning(
        "no /sys/kernel/btf/vmlinux",
        "use a kernel that is built with CONFIG_DEBUG_INFO_BTF, as distributions' are",
    )
}

fn jit(facts: &Facts) -> Finding {
    match &facts.system.jit {
        Ok(0) => JIT.warning("net.core.bpf_jit_enable = 0", "run `sysctl -w net.core.bpf_jit_enable=1`"),
        Ok(value) => JIT.ok(format!("net.core.bpf_jit_enable = {value}")),
        Err(reason) => {
            let seen = format!("net.core.bpf_jit_enable cannot be read: {reason}");
            let advice =
                "look at it as root in the host's first network namespace (`nsenter -t 1 -n`), which alone has it";
            JIT.found(Severity::Unknown, seen, Some(advice.to_owned()))
        }
    }
}

fn capabilities(facts: &Facts) -> Finding {
    let of = &facts.agent.capabilities_of;
    let held = match &facts.agent.capabilities {
        Ok(held) => held,
        Err(reason) => return CAPABILITIES_CHECK.unknown(&format!("the capabilities of {of}"), reason),
    };
    let missing: Vec<_> = CAPABILITIES.iter().filter(|(bit, _)| held >> bit & 1 == 0).map(|(_, name)| *name).collect();
    if missing.is_empty() {
        return CAPABILITIES_CHECK.ok(format!("{of} has all that are needed"));
    }
    let advice = "run it as root, or give it CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (AmbientCapabilities= of systemd)";
    CAPABILITIES_CHECK.error(format!("{of} lacks {}", missing.join(", ")), advice)
}

fn bpffs(facts: &Facts) -> Finding {
    let (path, mounted) = &facts.bpffs;
    match mounted {
        Ok(true) => BPFFS.ok(format!("{} is on a BPF filesystem", path.display())),
        Ok(false) => {
            let mount = path.parent().unwrap_or(path).display();
            let advice = format!("run `mount -t bpf bpf {mount}`; in a container mount the host's /sys/fs/bpf there");
            BPFFS.error(format!("{} is on no BPF filesystem", path.display()), advice)
        }
        Err(reason) => BPFFS.unknown(&path.display().to_string(), reason),
    }
}

fn agent(facts: &Facts) -> Finding {
    let presence = &facts.agent.presence;
    let owner = presence.owner.as_ref().map_or_else(|| "not known by name".to_owned(), ToString::to_string);
    match (presence.running, &facts.agent.status) {
        (false, _) => AGENT.error(
            format!("no agent holds the lock (the last one: {owner}); forwarding goes on from the pinned maps"),
            "start it (`systemctl start levee`), and look into its log if it ends again",
        ),
        (true, Err(reason)) => AGENT.error(
            format!("the agent ({owner}) runs and does not answer: {reason}"),
            "compare `--socket` with `socket` in its configuration; if it hangs, restart it: no packet is lost",
        ),
        (true, Ok(status)) if !status.ready => AGENT.error(
            format!("the agent ({owner}) has not applied its first plan"),
            "its log says what it waits for; `lbctl status` shows the error of the last plan",
        ),
        (true, Ok(_)) => AGENT.ok(format!("{owner}, ready")),
    }
}

fn configuration(facts: &Facts) -> Vec<Finding> {
    let Ok(status) = &facts.agent.status else { return Vec::new() };
    let mut findings = Vec::new();
    match &status.config.refused {
        Some(reason) => findings.push(CONFIG.warning(
            format!("the latest edit of {} was refused: {reason}", status.config.path),
            "correct the file; `lbctl validate` tells all that is wrong. The one before stays in force",
        )),
        None => findings.push(CONFIG.ok(format!("{}, generation {}", status.config.path, status.config.generation))),
    }
    if !status.config.pending_restart.is_empty() {
        let keys = status.config.pending_restart.join(", ");
        findings.push(CONFIG.warning(format!("{keys} changed, in force after a restart"), "restart the agent"));
    }
    if let Some(error) = &status.dataplane.error {
        findings.push(PLAN.error(
            format!("the last plan failed and is tried again: {error}"),
            "if a map is full, raise its capacity under `capacities` and restart the agent",
        ));
    }
    findings
}

fn announcing(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Ok(status) = &facts.agent.status {
        let error =
            |error: &String| ANNOUNCING.error(error.clone(), "do what it says; the agent tries again by itself");
        findings.extend(status.announce_errors.iter().map(error));
    }
    let addresses = match &facts.announced {
        Ok(addresses) => addresses,
        Err(reason) => {
            findings.push(ANNOUNCING.unknown("the addresses on lo", reason));
            return findings;
        }
    };
    let is_renewed = facts.agent.presence.running && facts.agent.status.is_ok();
    for (vip, seconds) in addresses {
        findings.push(if is_renewed {
            ANNOUNCING.ok(format!("{vip} is on lo, {seconds} s until it would expire"))
        } else {
            let seen = format!("{vip} expires in {seconds} s, and nobody renews it");
            ANNOUNCING.warning(seen, "start the agent, or restart it if it hangs")
        });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::{super::samples, *};

    fn severities(change: impl FnOnce(&mut Facts)) -> Vec<(&'static str, Severity)> {
        let mut facts = samples::healthy();
        change(&mut facts);
        let findings = examine(&facts).into_iter().filter(|finding| finding.severity != Severity::Ok);
        findings.map(|finding| (finding.check, finding.severity)).collect()
    }

    #[test]
    fn a_healthy_node_has_nothing_but_good_findings() {
        assert_eq!(severities(|_| {}), []);
    }

    #[test]
    fn every_fault_of_the_kernel_is_found() {
        assert_eq!(severities(|facts| facts.system.version = (5, 9)), [("kernel", Severity::Error)]);
        assert_eq!(severities(|facts| facts.system.version = (5, 10)), []);
        assert_eq!(severities(|facts| facts.system.has_btf = false), [("btf", Severity::Warning)]);
        assert_eq!(severities(|facts| facts.system.jit = Ok(0)), [("jit", Severity::Warning)]);
        let unreadable = |facts: &mut Facts| facts.system.jit = Err("permission denied".to_owned());
        assert_eq!(severities(unreadable), [("jit", Severity::Unknown)]);
    }

    #[test]
    fn missing_capabilities_are_named() {
        let mut facts = samples::healthy();
        facts.agent.capabilities = Ok(1 << 12);
        let finding = capabilities(&facts);
        assert_eq!(finding.seen, "the agent (process 4711) lacks CAP_PERFMON, CAP_BPF");
        assert_eq!(finding.severity, Severity::Error);
    }

    #[test]
    fn an_agent_that_is_gone_hangs_or_is_not_ready_is_an_error() {
        let gone = severities(|facts| {
            facts.agent.presence.running = false;
            facts.agent.status = Err("no agent".to_owned());
        });
        assert_eq!(gone, [("agent", Severity::Error), ("announcing", Severity::Warning)]);
        let hung = severities(|facts| facts.agent.status = Err("no answer".to_owned()));
        assert_eq!(hung, [("agent", Severity::Error), ("announcing", Severity::Warning)]);
        let waits = severities(|facts| facts.agent.status.as_mut().unwrap().ready = false);
        assert_eq!(waits, [("agent", Severity::Error)]);
    }

    #[test]
    fn what_the_agent_complains_of_is_passed_on() {
        let complaints = severities(|facts| {
            let status = facts.agent.status.as_mut().unwrap();
            status.config.refused = Some("levee.yaml:3:1: unknown key".to_owned());
            status.config.pending_restart = vec!["http".to_owned()];
            status.dataplane.error = Some("map SERVICES is full".to_owned());
            status.announce_errors = vec!["192.0.2.10 is on lo already".to_owned()];
        });
        let (warning, error) = (Severity::Warning, Severity::Error);
        assert_eq!(complaints, [("config", warning), ("config", warning), ("plan", error), ("announcing", error)]);
    }

    #[test]
    fn no_bpf_filesystem_is_an_error() {
        assert_eq!(severities(|facts| facts.bpffs.1 = Ok(false)), [("bpffs", Severity::Error)]);
    }
}

//! Plain manifests and the Kustomize base, made from the Helm chart.
//!
//! The chart is the one home of what is deployed. `xtask/chart` renders it with the libraries that Helm is made of, so that
//! no Helm has to be installed. What comes out is committed, and `lint` fails when it no longer fits the chart.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{run, say};
use crate::setup::{Group, ensure};
use crate::workspace::Workspace;

/// Go as Debian packages it; its libraries are under [`GO_PATH`].
const GO: &str = "/usr/lib/go-1.19/bin/go";
const GO_PATH: &str = "/usr/share/gocode";
const CHART: &str = "deploy/chart";
const RELEASE: &str = "levee";
const NAMESPACE: &str = "levee-system";
const CRD: &str = "deploy/chart/crds/vippools.yaml";
const RULES: &str = "deploy/prometheus/rules.yaml";

/// Values that the chart has to refuse on top of those of the plain manifests, and a part of what it says.
const REFUSED: [(&str, &str); 7] = [
    ("secret: {existingName: ''}", "secret.existingName"),
    ("agent: {interfaces: []}", "agent.interfaces"),
    ("agent: {config: {controlPlane: {vips: [192.0.2.10]}}}", "agent.nodes: workers"),
    ("agent: {config: {secret: 000102030405060708090a0b0c0d0e0f}}", "agent.config"),
    ("agent: {http: {address: localhost, port: 1}}", "agent.http.address"),
    ("monitoring: {podMonitor: true}", "agent.http.address"),
    ("agnet: {}", "agnet"),
];

/// A generated file.
struct Generated {
    path: &'static str,
    text: String,
}

/// Writes every generated file, or with `check` only compares and fails on a difference.
pub fn manifests(workspace: &Workspace, check: bool) -> Result<()> {
    build_renderer(workspace)?;
    let rules = read(&workspace.root().join(RULES))?;
    // Part of what is rendered, so it has to be right before.
    settle(workspace, check, &[Generated { path: "deploy/chart/files/rules.yaml", text: headed(RULES, &rules) }])?;
    let objects = without_helm(&render(workspace, &[&workspace.root().join("deploy/chart/ci/example.yaml")])?);
    let crd = read(&workspace.root().join(CRD))?;
    let generated = [
        Generated { path: "deploy/manifests/levee.yaml", text: headed(CHART, &format!("---\n{crd}{objects}")) },
        Generated { path: "deploy/kustomize/base/objects.yaml", text: headed(CHART, &objects) },
        Generated { path: "deploy/kustomize/base/vippools.yaml", text: headed(CRD, &crd) },
    ];
    settle(workspace, check, &generated)?;
    judge(workspace)
}

/// Renders what the committed files do not show: everything switched on, and what has to be refused.
fn judge(workspace: &Workspace) -> Result<()> {
    let values = |name: &str| workspace.root().join("deploy/chart/ci").join(name);
    let full = render(workspace, &[&values("full.yaml")]).context("rendering with everything switched on")?;
    for kind in ["PodMonitor", "PrometheusRule", "ValidatingAdmissionPolicyBinding", "VipPool"] {
        if !full.contains(&format!("kind: {kind}\n")) {
            bail!("the chart makes no {kind} where it is switched on");
        }
    }
    let overlay = workspace.target().join("refused-values.yaml");
    for (text, said) in REFUSED {
        fs::write(&overlay, text).with_context(|| format!("writing {}", overlay.display()))?;
        match render(workspace, &[&values("example.yaml"), &overlay]) {
            Ok(_) => bail!("the chart takes `{text}`, which it has to refuse"),
            Err(error) if !format!("{error:#}").contains(said) => {
                return Err(error.context(format!("the chart refuses `{text}` without saying `{said}`")));
            }
            Err(_) => {}
        }
    }
    say(format!("the chart renders, and refuses {} mistakes", REFUSED.len()));
    Ok(())
}

/// What the chart makes of its own values with `overlays` on top; [`build_renderer`] has to come first.
fn render(workspace: &Workspace, overlays: &[&Path]) -> Result<String> {
    let mut command = Command::new(program(workspace));
    command.arg(workspace.root().join(CHART)).args([RELEASE, NAMESPACE]).args(overlays);
    let output = command.output().context("starting the renderer of the chart")?;
    if !output.status.success() {
        bail!("the chart does not render: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).context("the chart renders to something that is not UTF-8")
}

/// Builds the program that renders charts.
fn build_renderer(workspace: &Workspace) -> Result<()> {
    ensure(workspace, &[Group::Deploy])?;
    let mut command = Command::new(GO);
    command.current_dir(workspace.root()).args(["build", "-o"]).arg(program(workspace)).arg("./xtask/chart");
    // Only what is packaged: no modules, nothing from the network.
    command.env("GO111MODULE", "off").env("GOPATH", GO_PATH).env("GOFLAGS", "").env("CGO_ENABLED", "0");
    command.env("GOCACHE", workspace.tools().join("go-cache"));
    run("building the renderer of the chart", &mut command)
}

fn program(workspace: &Workspace) -> PathBuf {
    workspace.tools_bin().join("levee-chart")
}

fn settle(workspace: &Workspace, check: bool, generated: &[Generated]) -> Result<()> {
    for Generated { path, text } in generated {
        let file = workspace.root().join(path);
        if fs::read_to_string(&file).is_ok_and(|present| present == *text) {
            continue;
        }
        if check {
            bail!("{path} is not what the chart makes now; run `cargo xtask manifests` and commit it");
        }
        let folder = file.parent().unwrap_or(workspace.root());
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        say(format!("wrote {path}"));
    }
    Ok(())
}

/// `text` with a first line that says where it comes from.
fn headed(source: &str, text: &str) -> String {
    format!("# Made from {source} by `cargo xtask manifests`; edit that.\n{text}")
}

/// Plain manifests are managed by whoever applies them.
fn without_helm(text: &str) -> String {
    let kept = text.lines().filter(|line| line.trim() != "app.kubernetes.io/managed-by: Helm");
    kept.flat_map(|line| [line, "\n"]).collect()
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_manifest_does_not_say_that_helm_manages_it() {
        let text = "labels:\n    app.kubernetes.io/managed-by: Helm\n    a: b\n";
        assert_eq!(without_helm(text), "labels:\n    a: b\n");
    }
}

//! The bill of materials of what is released: CycloneDX 1.5, made from what cargo resolved.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::image::{TARGET, date};
use crate::process::{ask, host_cargo};
use crate::workspace::Workspace;

/// What is linked into the programs of `package` and, for the BPF object, `lb-ebpf`; made `seconds` after 1970.
///
/// # Errors
/// If cargo does not tell.
pub fn bill(workspace: &Workspace, seconds: u64) -> Result<String> {
    let mut command = host_cargo(workspace);
    command.args(["metadata", "--format-version", "1", "--locked", "--filter-platform", TARGET]);
    let metadata = ask(&mut command).context("cargo metadata failed; is Cargo.lock up to date?")?;
    let metadata = serde_json::from_str(&metadata).context("reading cargo's metadata")?;
    Ok(format!("{:#}\n", document(&metadata, &["lb-agent", "lb-ebpf"], seconds)?))
}

fn document(metadata: &Value, roots: &[&str], seconds: u64) -> Result<Value> {
    let packages: BTreeMap<&str, &Value> =
        list(metadata, "packages")?.iter().filter_map(|package| Some((package["id"].as_str()?, package))).collect();
    let nodes: BTreeMap<&str, &Value> =
        list(&metadata["resolve"], "nodes")?.iter().filter_map(|node| Some((node["id"].as_str()?, node))).collect();
    let mut open: Vec<&str> = packages
        .iter()
        .filter(|(_, package)| roots.iter().any(|root| package["name"] == *root))
        .map(|(&id, _)| id)
        .collect();
    let mut reached = BTreeSet::new();
    while let Some(id) = open.pop() {
        if reached.insert(id) {
            open.extend(nodes.get(id).map_or_else(Vec::new, |node| linked(node)));
        }
    }
    let mut components: Vec<_> = reached.iter().filter_map(|id| component(packages.get(id)?)).collect();
    components.sort_by_key(|component| component["bom-ref"].to_string());
    let reference = |id: &str| packages.get(id).and_then(|package| purl(package));
    let mut dependencies: Vec<_> = reached
        .iter()
        .filter_map(|&id| {
            let mut on: Vec<_> = linked(nodes.get(id)?).into_iter().filter_map(reference).collect();
            on.sort();
            on.dedup();
            Some(json!({"ref": reference(id)?, "dependsOn": on}))
        })
        .collect();
    dependencies.sort_by_key(|one| one["ref"].to_string());
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": date(seconds),
            "component": {"type": "application", "name": "levee", "version": env!("CARGO_PKG_VERSION")},
        },
        "components": components,
        "dependencies": dependencies,
    }))
}

/// What a package brings into programs: neither what only its tests nor what only its build needs.
fn linked(node: &Value) -> Vec<&str> {
    let dependencies = node["deps"].as_array().map_or(&[][..], Vec::as_slice);
    let is_normal = |dependency: &&Value| {
        dependency["dep_kinds"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()))
    };
    dependencies.iter().filter(is_normal).filter_map(|dependency| dependency["pkg"].as_str()).collect()
}

fn component(package: &Value) -> Option<Value> {
    let purl = purl(package)?;
    let mut component = json!({
        "type": "library",
        "bom-ref": purl,
        "name": package["name"],
        "version": package["version"],
        "purl": purl,
    });
    if let Some(license) = package["license"].as_str() {
        // Older crates write `/` for OR, which is no SPDX expression.
        component["licenses"] = json!([{"expression": license.replace('/', " OR ")}]);
    }
    Some(component)
}

/// Package URL of a crate.
fn purl(package: &Value) -> Option<String> {
    Some(format!("pkg:cargo/{}@{}", package["name"].as_str()?, package["version"].as_str()?))
}

fn list<'v>(value: &'v Value, key: &str) -> Result<&'v Vec<Value>> {
    value[key].as_array().with_context(|| format!("cargo's metadata has no list `{key}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_linked_is_listed() {
        let package = |name: &str| json!({"id": name, "name": name, "version": "1.0.0", "license": "MIT/Apache-2.0"});
        let metadata = json!({
            "packages": [package("root"), package("linked"), package("tested"), package("other")],
            "resolve": {"nodes": [
                {"id": "root", "deps": [
                    {"pkg": "linked", "dep_kinds": [{"kind": null}]},
                    {"pkg": "tested", "dep_kinds": [{"kind": "dev"}]},
                ]},
                {"id": "linked", "deps": []},
            ]},
        });
        let bill = document(&metadata, &["root"], 0).unwrap();
        let names: Vec<_> = bill["components"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
        assert_eq!(names, ["linked", "root"]);
        assert_eq!(bill["components"][0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(
            bill["dependencies"][1],
            json!({"ref": "pkg:cargo/root@1.0.0", "dependsOn": ["pkg:cargo/linked@1.0.0"]})
        );
    }
}

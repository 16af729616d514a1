//! Keeps the layout true: who imports what, where `unsafe` stands, how long files are. The rules are tables in `rules`.

mod rules;
mod scan;

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::process::say;
use crate::workspace::Workspace;
use rules::{CRATES, IMPORT_RULES, ImportRule, MAX_LINES, UNSAFE_FILES};
use scan::{Source, Token};

/// A place where a rule is not kept.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Breach {
    file: String,
    line: usize,
    text: String,
}

impl Display for Breach {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.text)
    }
}

/// Checks every Rust file of the repository.
pub fn check(workspace: &Workspace) -> Result<()> {
    say("checking imports, `unsafe` and the length of files");
    let files = read_sources(workspace)?;
    let breaches = breaches(&files);
    for breach in &breaches {
        println!("{breach}");
    }
    if breaches.is_empty() {
        say(format!("tidy: {} files keep {} import rules", files.len(), IMPORT_RULES.len()));
        return Ok(());
    }
    bail!(
        "tidy: {} breach(es), listed above; the rules and their reasons are in xtask/src/tidy/rules.rs",
        breaches.len()
    )
}

/// Path from the root, with slashes, and text of every Rust file.
fn read_sources(workspace: &Workspace) -> Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for (folder, _) in CRATES {
        collect(&workspace.root().join(folder), &mut files)?;
    }
    files.sort();
    let relative = |path: &Path| path.strip_prefix(workspace.root()).unwrap_or(path).to_string_lossy().into_owned();
    files
        .iter()
        .map(|path| {
            let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
            Ok((relative(path), text))
        })
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))? {
        let path = entry.with_context(|| format!("listing {}", folder.display()))?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if path.is_dir() && !hidden && !path.ends_with("target") {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// Every breach in `files`, in their order.
fn breaches(files: &[(String, String)]) -> Vec<Breach> {
    let sources: Vec<_> = files.iter().map(|(file, text)| (file, text, Source::read(text))).collect();
    let test_files: Vec<_> = sources.iter().flat_map(|(file, _, source)| test_files(file, source)).collect();
    let is_test = |file: &str| {
        test_files.iter().any(|tests| file == format!("{tests}.rs") || file.starts_with(&format!("{tests}/")))
    };
    let mut found = Vec::new();
    for (file, text, source) in sources.iter().filter(|(file, ..)| !is_test(file)) {
        found.extend(import_breaches(file, source));
        found.extend(unsafe_breach(file, source));
        found.extend(length_breach(file, text, source));
    }
    found
}

/// Path, without extension, of the modules that `file` declares under `cfg(test)`.
fn test_files(file: &str, source: &Source) -> Vec<String> {
    let stem = file.trim_end_matches(".rs");
    let folder = match stem.rsplit_once('/') {
        Some((folder, "mod" | "lib" | "main")) => folder,
        _ => stem,
    };
    source.test_modules.iter().map(|module| format!("{folder}/{module}")).collect()
}

/// `lb-agent/src/plan/ops.rs` -> `lb_agent::plan::ops`; nothing for build scripts and integration tests.
fn module_of(file: &str) -> Option<Vec<&str>> {
    let (inside, name) = CRATES.iter().find_map(|(folder, name)| {
        Some((file.strip_prefix(folder)?.strip_prefix("/src/")?.strip_suffix(".rs")?, *name))
    })?;
    let segments = inside.split('/').filter(|segment| !matches!(*segment, "mod" | "lib" | "main"));
    Some([name].into_iter().chain(segments).collect())
}

fn import_breaches(file: &str, source: &Source) -> Vec<Breach> {
    let Some(module) = module_of(file) else {
        return Vec::new();
    };
    let rules: Vec<_> = IMPORT_RULES.iter().filter(|rule| applies(rule, &module)).collect();
    let mut found: Vec<Breach> = Vec::new();
    for path in source.paths() {
        let absolute = absolute(&module, &path.segments);
        for rule in &rules {
            if let Some(pattern) = rule.never.iter().find(|pattern| names(&absolute, path.imported, pattern)) {
                let text = format!("`{}` must not name `{pattern}`: {}", module.join("::"), rule.why);
                found.push(Breach { file: file.to_owned(), line: path.line, text });
            }
        }
    }
    found.dedup();
    found
}

fn applies(rule: &ImportRule, module: &[&str]) -> bool {
    let within = |patterns: &[&str]| patterns.iter().any(|pattern| starts_with(module, pattern));
    within(rule.modules) && !within(rule.except)
}

/// The path as seen from outside, its `crate`, `self` and `super` resolved.
fn absolute<'a>(module: &[&'a str], segments: &[&'a str]) -> Vec<&'a str> {
    match segments {
        ["crate", rest @ ..] => [&module[..1], rest].concat(),
        ["self", rest @ ..] => [module, rest].concat(),
        ["super", ..] => {
            let ups = segments.iter().take_while(|segment| **segment == "super").count();
            let kept = module.len().saturating_sub(ups).max(1);
            [&module[..kept], &segments[ups..]].concat()
        }
        other => other.to_vec(),
    }
}

/// Whether a path is forbidden by `pattern`. A lone word is a crate only where it is imported: it may be a variable.
fn names(path: &[&str], imported: bool, pattern: &str) -> bool {
    match pattern.strip_prefix("*::") {
        Some(inner) => {
            let inner: Vec<_> = inner.split("::").collect();
            path.windows(inner.len()).any(|window| window == inner)
        }
        None => (imported || path.len() > 1) && starts_with(path, pattern),
    }
}

fn starts_with(path: &[&str], pattern: &str) -> bool {
    let pattern: Vec<_> = pattern.split("::").collect();
    path.starts_with(&pattern)
}

/// The first `unsafe` outside the files that may have it; `#[unsafe(..)]` names a symbol or section and touches no memory.
fn unsafe_breach(file: &str, source: &Source) -> Option<Breach> {
    if UNSAFE_FILES.iter().any(|allowed| file == *allowed || (allowed.ends_with('/') && file.starts_with(allowed))) {
        return None;
    }
    let is_attribute = |at: usize| at > 0 && source.tokens[at - 1].text == "[";
    let found = |(at, token): &(usize, &Token)| token.text == "unsafe" && !is_attribute(*at);
    let (_, token) = source.tokens.iter().enumerate().find(found)?;
    let text = "`unsafe` stands only in the files of UNSAFE_FILES; move it behind a safe function there".to_owned();
    Some(Breach { file: file.to_owned(), line: token.line, text })
}

/// A file that is too long, tests aside; the crates under `tests/` are tests.
fn length_breach(file: &str, text: &str, source: &Source) -> Option<Breach> {
    let lines = source.tests_begin.map_or_else(|| text.lines().count(), |begin| begin - 1);
    let is_long = lines > MAX_LINES && !file.starts_with("tests/");
    let text = format!("{lines} lines without the tests, at most {MAX_LINES}; one file, one idea: split it");
    is_long.then(|| Breach { file: file.to_owned(), line: lines, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_one(file: &str, text: &str) -> Vec<String> {
        breaches(&[(file.to_owned(), text.to_owned())]).iter().map(Breach::to_string).collect()
    }

    #[test]
    fn every_kind_of_import_rule_is_enforced() {
        for (file, text) in [
            ("lb-agent/src/plan.rs", "use tokio::sync::watch;"),
            ("lb-agent/src/model/desired.rs", "fn f() { let t = std::time::Instant::now(); }"),
            ("lb-agent/src/model/desired.rs", "use std::time::Instant; fn f() { Instant::now(); }"),
            ("lb-agent/src/plan/ops.rs", "use std::net::{IpAddr, TcpStream};"),
            ("lb-agent/src/plan/mod.rs", "use super::dataplane::Map;"),
            ("lb-agent/src/plan/ops.rs", "use super::super::dataplane::Map;"),
            ("lb-agent/src/health/probe.rs", "fn f(map: aya::maps::Map) {}"),
            ("lb-agent/src/bin/lb-agent.rs", "use aya;"),
            ("lb-agent/src/dataplane/bpf.rs", "use rtnetlink::Handle;"),
            ("lb-agent/src/sources/file.rs", "use kube::Client;"),
            ("lb-agent/src/health.rs", "fn f() { crate::runtime::stop(); }"),
            ("lb-agent/src/cli/status.rs", "use crate::{api, dataplane::Dataplane};"),
            ("lb-agent/src/sources/file.rs", "use crate::announce::Announcer;"),
            ("lb-agent/src/dataplane/bpf.rs", "use crate::health;"),
            ("lb-agent/src/announce/loopback.rs", "use crate::dataplane;"),
            ("lb-agent/src/announce/loopback.rs", "use crate::election;"),
            ("lb-agent/src/election/lease.rs", "use crate::announce;"),
            ("lb-common/src/parse.rs", "use std::vec::Vec;"),
            ("lb-ebpf/src/stats.rs", "fn f(ctx: &XdpContext) {}"),
            ("lb-ebpf/src/vip.rs", "use crate::packet::read;"),
            ("lb-ebpf/src/encap.rs", "use crate::maps::VIPS;"),
        ] {
            let found = check_one(file, text);
            assert_eq!(found.len(), 1, "{file}: {text} gave {found:?}");
        }
    }

    #[test]
    fn what_the_rules_allow_passes() {
        for (file, text) in [
            ("lb-agent/src/plan.rs", "use crate::model::Service; use std::{net::IpAddr, time::{Duration, Instant}};"),
            ("lb-agent/src/plan.rs", "// use tokio\nconst HELP: &str = \"tokio::spawn\"; let kube = nix;"),
            ("lb-agent/src/plan.rs", "#[cfg(test)]\nmod tests { use tokio::test; fn f() { Instant::now(); } }"),
            ("lb-agent/src/dataplane/bpf.rs", "use aya::maps::Array; use crate::plan::MapOp;"),
            ("lb-agent/src/bin/lbctl.rs", "fn main() { lb_agent::runtime::run() }"),
            ("lb-agent/src/cli/status.rs", "use crate::{api, inspect, model};"),
            ("lb-common/src/addr.rs", "use core::net::IpAddr; #[cfg(test)] extern crate std;"),
            ("lb-ebpf/src/vip.rs", "use crate::maps::SERVICES;"),
            ("xtask/src/main.rs", "use std::process::Command;"),
        ] {
            assert_eq!(check_one(file, text), [""; 0], "{file}: {text}");
        }
    }

    #[test]
    fn a_breach_tells_place_rule_and_reason() {
        let found = check_one("lb-agent/src/plan.rs", "//! Plan.\n\nuse tokio::sync::watch;\n");
        assert_eq!(
            found,
            [
                "lb-agent/src/plan.rs:3: `lb_agent::plan` must not name `tokio`: pure code: no I/O, no clock, no randomness; \
              pass the result or the time in as a value"
            ]
        );
    }

    #[test]
    fn unsafe_stands_only_in_the_listed_files() {
        let text = "fn f() {\n    unsafe { g() }\n}\n";
        for file in ["lb-agent/src/plan.rs", "lb-ebpf/src/vip.rs", "tests/netns/src/lib.rs", "lb-agent/build.rs"] {
            assert_eq!(check_one(file, text).len(), 1, "{file}");
        }
        for file in ["lb-ebpf/src/packet.rs", "lb-common/src/maps/service.rs", "lb-agent/src/dataplane/arena.rs"] {
            assert_eq!(check_one(file, text), [""; 0], "{file}");
        }
        assert_eq!(check_one("lb-ebpf/src/main.rs", "#[unsafe(no_mangle)]\nstatic LICENSE: u8 = 0;"), [""; 0]);
    }

    #[test]
    fn a_file_may_be_long_by_its_tests_only() {
        let code = "const A: u8 = 0;\n".repeat(MAX_LINES);
        let tests = format!("#[cfg(test)]\nmod tests {{\n{code}}}\n");
        assert_eq!(check_one("lb-agent/src/plan.rs", &(code.clone() + &tests)), [""; 0]);
        let found = check_one("lb-agent/src/plan.rs", &(code.clone() + "const B: u8 = 0;\n" + &tests));
        assert!(found[0].starts_with("lb-agent/src/plan.rs:401: 401 lines"), "{found:?}");
        assert_eq!(check_one("tests/packets/src/cases.rs", &(code.clone() + &code)), [""; 0]);
    }

    #[test]
    fn files_of_a_test_module_are_tests() {
        let files = [
            ("lb-agent/src/plan.rs", "#[cfg(test)]\nmod histories;"),
            ("lb-agent/src/plan/histories.rs", "use tokio::time;"),
            ("lb-agent/src/model/mod.rs", "#[cfg(test)] mod proofs;"),
            ("lb-agent/src/model/proofs.rs", "use aya::maps;"),
        ];
        assert_eq!(breaches(&files.map(|(file, text)| (file.to_owned(), text.to_owned()))), []);
    }
}

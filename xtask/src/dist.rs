//! What a release consists of, in `target/dist`: the archive of programs and papers, the image, the bill of materials, and
//! the checksums of all. The same sources and compiler make the same bytes.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::image::{TARGET, image, sha256, source_time, static_programs, stripped};
use crate::process::{ask, say};
use crate::tar::{Entry, archive, gzip};
use crate::workspace::{Profile, Workspace};
use crate::{manifests, sbom};

/// Files of the repository that go into the archive, and their names there.
const PAPERS: [(&str, &str); 9] = [
    ("LICENSE", "LICENSE"),
    ("README.md", "README.md"),
    ("CHANGELOG.md", "CHANGELOG.md"),
    ("deploy/levee.yaml", "levee.yaml"),
    ("deploy/levee.service", "levee.service"),
    ("deploy/seccomp/levee.json", "seccomp/levee.json"),
    ("deploy/manifests/levee.yaml", "manifests/levee.yaml"),
    ("deploy/prometheus/rules.yaml", "prometheus/rules.yaml"),
    ("deploy/grafana/levee.json", "grafana/levee.json"),
];

/// Builds everything.
///
/// # Errors
/// If something does not build, or a generated file is out of date.
pub fn dist(workspace: &Workspace, profile: Profile) -> Result<()> {
    manifests::manifests(workspace, true)?;
    let folder = workspace.target().join("dist");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("removing the release before, {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let seconds = source_time(workspace);
    let programs = static_programs(workspace, profile)?;
    let name = format!("levee-{}-{TARGET}", env!("CARGO_PKG_VERSION"));
    let entries = entries(workspace, &programs)?;
    let under = |entry: Entry| match entry {
        Entry::Folder { path, mode } => Entry::Folder { path: format!("{name}/{path}"), mode },
        Entry::File { path, mode, bytes } => Entry::File { path: format!("{name}/{path}"), mode, bytes },
    };
    let entries: Vec<_> = entries.into_iter().map(under).collect();
    gzip(&archive(&entries, seconds)?, &folder.join(format!("{name}.tar.gz")))?;
    let chart: Vec<_> = files_under(workspace, "deploy/chart", "levee")?;
    gzip(&archive(&chart, seconds)?, &folder.join(format!("levee-{}.tgz", env!("CARGO_PKG_VERSION"))))?;
    let layout = image(workspace, profile)?;
    copy_images(layout.parent().unwrap_or(&layout), &folder)?;
    let bill = folder.join(format!("{name}.cdx.json"));
    fs::write(&bill, sbom::bill(workspace, seconds)?).with_context(|| format!("writing {}", bill.display()))?;
    let sums = checksums(&folder)?;
    fs::write(folder.join("SHA256SUMS"), &sums).context("writing SHA256SUMS")?;
    say(format!("release: {}", folder.display()));
    print!("{sums}");
    Ok(())
}

fn entries(workspace: &Workspace, programs: &Path) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for (from, path) in PAPERS {
        entries.push(Entry::copy(path, 0o644, &workspace.root().join(from))?);
    }
    for program in ["lb-agent", "lbctl"] {
        entries.push(stripped(program, programs)?);
    }
    let lbctl = programs.join("lbctl");
    for (shell, path) in
        [("bash", "completions/lbctl.bash"), ("zsh", "completions/_lbctl"), ("fish", "completions/lbctl.fish")]
    {
        let text = ask(Command::new(&lbctl).args(["completions", shell]));
        let bytes = text.with_context(|| format!("lbctl makes no completions for {shell}"))?.into_bytes();
        entries.push(Entry::File { path: path.to_owned(), mode: 0o644, bytes });
    }
    let pages = workspace.target().join("man");
    fs::create_dir_all(&pages).with_context(|| format!("creating {}", pages.display()))?;
    if ask(Command::new(&lbctl).args(["man", "--dir"]).arg(&pages)).is_none() {
        bail!("lbctl does not write its manual pages to {}", pages.display());
    }
    for page in sorted(&pages)? {
        entries.push(Entry::copy(&format!("man/{page}"), 0o644, &pages.join(&page))?);
    }
    Ok(entries)
}

/// Every file under a folder of the repository, under another name.
fn files_under(workspace: &Workspace, folder: &str, name: &str) -> Result<Vec<Entry>> {
    let mut found = Vec::new();
    let path = workspace.root().join(folder);
    for file in sorted(&path)? {
        let (from, to) = (format!("{folder}/{file}"), format!("{name}/{file}"));
        if workspace.root().join(&from).is_dir() {
            found.extend(files_under(workspace, &from, &to)?);
        } else {
            found.push(Entry::copy(&to, 0o644, &workspace.root().join(&from))?);
        }
    }
    Ok(found)
}

fn copy_images(from: &Path, to: &Path) -> Result<()> {
    for file in sorted(from)? {
        if file.ends_with(".tar") && file.contains(env!("CARGO_PKG_VERSION")) {
            fs::copy(from.join(&file), to.join(&file)).with_context(|| format!("copying {file}"))?;
        }
    }
    Ok(())
}

/// Lines as `sha256sum --check` reads them.
fn checksums(folder: &Path) -> Result<String> {
    let mut lines = String::new();
    for file in sorted(folder)? {
        lines += &format!("{}  {file}\n", sha256(&folder.join(&file))?);
    }
    Ok(lines)
}

/// Names in a folder, in order.
fn sorted(folder: &Path) -> Result<Vec<String>> {
    let listed = fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in listed {
        let name = entry.with_context(|| format!("listing {}", folder.display()))?.file_name();
        names.push(name.into_string().map_err(|name| anyhow::anyhow!("{name:?} is not UTF-8"))?);
    }
    names.sort();
    Ok(names)
}

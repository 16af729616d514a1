//! `lbctl man`: manual pages made of the command lines.

use std::{fs, path::Path};

use anyhow::{Context, Result};

/// The page of `lbctl`.
pub(super) fn page() -> Result<String> {
    let mut text = Vec::new();
    clap_mangen::Man::new(super::command()).render(&mut text).context("making the manual page")?;
    String::from_utf8(text).context("the manual page is not UTF-8")
}

/// Writes the pages of `lbctl`, `lb-agent` and their verbs; returns what to tell.
pub(super) fn write(dir: &Path) -> Result<String> {
    fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    for command in [super::command(), super::agent::command()] {
        clap_mangen::generate_to(command, dir).with_context(|| format!("writing to {}", dir.display()))?;
    }
    Ok(format!("Manual pages written to {}.\n", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_the_name_and_every_verb() {
        let page = page().unwrap();
        assert!(page.contains(".TH lbctl 1"), "{page}");
        for verb in super::super::command().get_subcommands() {
            assert!(page.contains(&format!("lbctl\\-{}(1)", verb.get_name())), "{}", verb.get_name());
        }
    }

    #[test]
    fn every_verb_gets_a_page_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("man1");
        write(&dir).unwrap();
        for name in ["lbctl.1", "lbctl-lookup.1", "lbctl-detach.1", "lb-agent.1", "lb-agent-run.1"] {
            assert!(dir.join(name).exists(), "{name}");
        }
    }
}

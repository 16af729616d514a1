//! The configuration file: raw YAML in, a checked [`Config`] out; every default and range lives here.
//!
//! Reading goes in steps that each report all they find: `yaml` (text to a tree with places), `draft` (values within
//! their ranges), `check` and `capacity_check` (values that do not go together), `build` (the result). What depends on
//! the host is asked later by [`check_against`]. [`Reader`] takes the same steps and spares those for services that it
//! read before.
//!
//! Invariant: a `Config` exists only if nothing was refused, so nobody checks again.

mod authorities;
mod build;
mod capacity_check;
mod check;
mod cluster_check;
mod controller;
mod controller_routes;
mod draft;
mod draft_cluster;
mod draft_credentials;
mod draft_membership;
mod draft_node;
mod draft_probe;
mod draft_service;
mod draft_tracking;
mod error;
mod network_check;
mod nsxt;
mod nsxt_values;
mod read;
mod reader;
mod sample;
mod secret;
mod source_range;
mod split;
mod target_port;
mod types;
mod yaml;

#[cfg(test)]
mod tests;

use std::{fs::File, io::Read, path::Path};

pub use authorities::NamedFile;
pub use controller::{ControllerConfig, LeaderElection, SAMPLE as CONTROLLER_SAMPLE};
pub use controller_routes::RouteConfig;
pub use error::{ConfigErrors, Place, Problem};
pub use network_check::check_against;
pub use nsxt::{NsxtApi, NsxtAuth, NsxtConfig, NsxtLogin, NsxtTrust, PasswordSource, load_nsxt, parse_nsxt};
pub use read::parse_duration;
pub use reader::Reader;
pub use sample::SAMPLE;
pub use secret::Secret;
pub use target_port::check_rewrites;
pub use types::{
    AgentConfig, Capacities, InterfaceSpec, LogConfig, LogFormat, LogLevel, MembershipConfig, OnTerminate, XdpMode,
};

use crate::model::{ControlPlaneSettings, DesiredState, KubernetesSettings};

/// Largest configuration file, in bytes: a hundred thousand backends take about half of it.
pub const MAX_FILE_BYTES: u64 = 16_000_000;

/// A configuration that passed every check that needs nothing but the file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// Settings of the agent.
    pub agent: AgentConfig,
    /// What the file asks of this node.
    pub desired: DesiredState,
    /// The cluster that adds to it, if there is one.
    pub kubernetes: Option<KubernetesSettings>,
    /// The VIP of the API servers, if it is balanced here.
    pub control_plane: Option<ControlPlaneSettings>,
    /// What was accepted but is hardly meant, in the order of the file.
    pub warnings: Vec<Problem>,
    /// Other files whose content is part of this, so that a change of theirs is one of the configuration.
    pub files: Vec<NamedFile>,
    places: build::Places,
}

/// Reads and checks a file. Relative paths in it (`secretFile`, `caFile`) start from its folder.
///
/// # Errors
/// Everything that is wrong with the file; one problem if it can't be read at all.
pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
    let name = path.display().to_string();
    let text = text_of(&name, read_bytes(path)?)?;
    parse(&name, &text, base_dir(path))
}

/// Checks a configuration given as text. `file_name` stands in front of every problem; relative paths in it
/// (`secretFile`, `caFile`) start from `base_dir`.
///
/// # Errors
/// Everything that is wrong with the text.
pub fn parse(file_name: &str, text: &str, base_dir: &Path) -> Result<Config, ConfigErrors> {
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(too_large(file_name));
    }
    if text.trim().is_empty() {
        return Err(empty(file_name));
    }
    let root = yaml::read(file_name, text).map_err(|problem| ConfigErrors { problems: vec![problem] })?;
    if matches!(root.value, yaml::Value::Null) {
        return Err(empty(file_name));
    }
    let mut problems = error::Problems::of(file_name);
    let draft = draft::draft(&root, base_dir, &mut problems);
    if let Some(draft) = &draft {
        check::check(draft, &mut problems);
        cluster_check::check(draft, &mut problems);
        capacity_check::check(draft, &mut problems);
    }
    let config = draft.and_then(|draft| build::build(file_name, draft));
    let (config, warnings) = problems.finish(config)?;
    let config = config.ok_or_else(|| ConfigErrors::whole_file(file_name, "the file is incomplete"))?;
    Ok(Config { warnings, ..config })
}

/// The bytes of a file, at most [`MAX_FILE_BYTES`].
pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>, ConfigErrors> {
    let name = path.display().to_string();
    let unreadable =
        |error| ConfigErrors::whole_file(&name, format!("can't be read: {error}; check the path and its mode"));
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(too_large(&name));
    }
    Ok(bytes)
}

/// The text of a file's bytes, which have to be UTF-8.
pub(crate) fn text_of(file_name: &str, bytes: Vec<u8>) -> Result<String, ConfigErrors> {
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..valid].iter().filter(|byte| **byte == b'\n').count() + 1;
        let reason = format!("line {line} is not UTF-8 (byte {valid} of the file); save the file as UTF-8");
        ConfigErrors::whole_file(file_name, reason)
    })
}

/// The folder that relative paths in a file start from.
pub(crate) fn base_dir(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn empty(file_name: &str) -> ConfigErrors {
    ConfigErrors::whole_file(file_name, "the file is empty; `lbctl sample config` shows one to begin with")
}

fn too_large(file_name: &str) -> ConfigErrors {
    ConfigErrors::whole_file(
        file_name,
        format!("the file has more than {MAX_FILE_BYTES} bytes; split the services among nodes"),
    )
}

//! Tells the tests, as `lacks_...`, what the API server that they will run with cannot do, so that the harness lists those
//! that need it as not run. Without a server nothing is lacked: the tests run, and fail for want of one.

#[path = "src/ability.rs"]
mod ability;

use std::{env, path::PathBuf, process::Command};

use ability::{Ability, Versions};

fn main() {
    println!("cargo::rerun-if-env-changed=KUBEBUILDER_ASSETS");
    println!("cargo::rerun-if-changed=src/ability.rs");
    for ability in Ability::ALL {
        println!("cargo::rustc-check-cfg=cfg(lacks_{})", ability.name());
    }
    let Some(folder) = env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from) else {
        return;
    };
    let said = |program: &str| {
        let path = folder.join(program);
        println!("cargo::rerun-if-changed={}", path.display());
        let output = Command::new(path).arg("--version").output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (Some(server), Some(etcd)) = (said("kube-apiserver"), said("etcd")) else {
        return;
    };
    if let Some(versions) = Versions::parse(&server, &etcd) {
        for ability in Ability::ALL.into_iter().filter(|ability| !ability.is_in(versions)) {
            println!("cargo::rustc-cfg=lacks_{}", ability.name());
        }
    }
}

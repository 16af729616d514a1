//! `lbctl migrate`: the configuration that equals another system's flags.

use std::{convert::Infallible, net::IpAddr, path::Path, str::FromStr};

use anyhow::{Context, Result};
use clap::{ArgAction, Args, Subcommand};

use crate::config::ControllerConfig;

/// Where from.
#[derive(Debug, Eq, PartialEq, Subcommand)]
pub(super) enum Former {
    /// The controller of a static route in NSX-T, by its own flags
    ///
    /// Prints the file of `lb-agent controller`, or with --agent what goes into each node's file beside node, interfaces and
    /// secret. The password is not printed: write it to the file that `passwordFile` names.
    NsxtLiteLb(NsxtLiteLb),
}

/// The flags of nsxt-lite-lb, by their names there.
#[derive(Args, Debug, Eq, PartialEq)]
pub(super) struct NsxtLiteLb {
    /// Its kubeconfig; inside a cluster there was none
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<String>,
    /// NSX-T manager, with its scheme
    #[arg(long, value_name = "URL")]
    nsxhost: String,
    /// Its user
    #[arg(long, value_name = "NAME")]
    nsxuser: String,
    /// Its password, which goes nowhere
    #[arg(long, value_name = "PASSWORD")]
    nsxpassword: Option<Forgotten>,
    /// VIP of the API servers
    #[arg(long, value_name = "ADDRESS")]
    clustervip: IpAddr,
    /// The cluster's Tier-1 gateway
    #[arg(long, value_name = "ID")]
    clusterrouterid: String,
    /// Whether nodes have the VIP on `lo`
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, default_value_t = true, default_missing_value = "true",
          num_args = 0..=1, require_equals = true)]
    setvipenabled: bool,
    /// Port of the API servers, which nsxt-lite-lb did not have to know
    #[arg(long, default_value_t = 6443)]
    port: u16,
    /// Print what goes into the agents' files
    #[arg(long)]
    agent: bool,
}

/// A value that is not kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Forgotten;

impl FromStr for Forgotten {
    type Err = Infallible;

    fn from_str(_: &str) -> Result<Self, Infallible> {
        Ok(Self)
    }
}

/// The text of the configuration.
pub(super) fn configuration(former: &Former) -> Result<String> {
    let Former::NsxtLiteLb(flags) = former;
    let controller = flags.controller();
    ControllerConfig::parse("the controller's file", &controller, Path::new("/"))
        .context("these flags make no configuration")?;
    Ok(if flags.agent { flags.agents() } else { controller })
}

impl NsxtLiteLb {
    fn controller(&self) -> String {
        let kubeconfig = self.kubeconfig.as_ref().map(|path| format!("kubeconfig: {}\n", quoted(path)));
        format!(
            "# lb-agent controller, as nsxt-lite-lb was told. It verified no certificate; better give a caFile in both places.\n\
             {}{}\
             nsxt:\n  \
             cluster: {}\n  \
             managers: [{}]\n  \
             tier1: {}\n  \
             username: {}\n  \
             passwordFile: nsxt-password # beside this file, mode 0600\n  \
             insecureSkipVerify: true\n  \
             adopt: true # for the first start: the route that is there becomes ours\n",
            kubeconfig.unwrap_or_default(),
            self.control_plane(),
            quoted(&self.clusterrouterid),
            quoted(&self.nsxhost),
            quoted(&self.clusterrouterid),
            quoted(&self.nsxuser),
        )
    }

    fn agents(&self) -> String {
        let kubeconfig = self.kubeconfig.as_ref().map(|path| format!("kubeconfig: {}", quoted(path)));
        let announcer = if self.setvipenabled { "loopback" } else { "none" };
        format!(
            "# For each node's file, beside node, interfaces and secret (`lbctl sample config`).\n\
             kubernetes: {{{}}}\n{}  announcer: {announcer}\n",
            kubeconfig.unwrap_or_default(),
            self.control_plane()
        )
    }

    /// What both files say of the VIP; more keys may follow.
    fn control_plane(&self) -> String {
        format!(
            "controlPlane:\n  vips: [\"{}\"]\n  port: {}\n  probe: {{https: {{insecureSkipVerify: true}}}}\n",
            self.clustervip, self.port
        )
    }
}

/// A text as YAML has it in double quotes, which is as JSON does.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{
        super::args::{Args, Verb},
        *,
    };
    use crate::{
        config::{Config, NsxtAuth, NsxtTrust, parse},
        model::ServersFrom,
    };

    const FLAGS: &str = "--kubeconfig=/etc/admin.conf --nsxhost=https://nsx.example.com --nsxuser=admin --nsxpassword=s3cret \
                         --clustervip=192.168.160.249 --clusterrouterid=pks-1-cluster-router";
    const NODE: &str = "node: {name: n1, addresses: [10.0.1.2]}\ninterfaces: [{name: eth0}]\n\
                        secret: 000102030405060708090a0b0c0d0e0f\n";

    fn migrated(flags: &str) -> Result<String> {
        let words = ["lbctl", "migrate", "nsxt-lite-lb"].into_iter().chain(flags.split_whitespace());
        let args = Args::try_parse_from(words)?;
        assert!(!format!("{args:?}").contains("s3cret"));
        let Verb::Migrate { former } = args.verb else { panic!("another verb") };
        configuration(&former)
    }

    fn agents(more: &str) -> Config {
        let text = migrated(&format!("{FLAGS} --agent {more}")).unwrap();
        parse("levee.yaml", &format!("{NODE}{text}"), Path::new("/etc/levee")).unwrap()
    }

    #[test]
    fn every_flag_has_its_equal() {
        let text = migrated(FLAGS).unwrap();
        assert!(!text.contains("s3cret"), "{text}");
        let config = ControllerConfig::parse("c.yaml", &text, Path::new("/etc/levee")).unwrap();
        assert_eq!(config.kubeconfig.as_deref(), Some(Path::new("/etc/admin.conf")));
        let routes = config.routes.unwrap();
        assert_eq!(routes.control_plane.vips, ["192.168.160.249".parse::<IpAddr>().unwrap()]);
        assert_eq!((routes.nsxt.tier1.as_str(), routes.nsxt.adopt), ("pks-1-cluster-router", true));
        assert_eq!(
            (routes.nsxt.managers, routes.nsxt.trust),
            (vec!["https://nsx.example.com".to_owned()], NsxtTrust::Anybody)
        );
        let NsxtAuth::Basic(login) = routes.nsxt.auth else { panic!("another login") };
        assert_eq!(login.username, "admin");
        let own = agents("").control_plane.unwrap();
        assert_eq!((own.vips, own.from), (routes.control_plane.vips, ServersFrom::Endpoints));
        assert_eq!(own.announced_for.map(|lifetime| lifetime.as_secs()), Some(30));
    }

    #[test]
    fn the_vip_on_lo_is_switched_as_before() {
        for (flag, expected) in
            [("", true), ("--setvipenabled", true), ("--setvipenabled=true", true), ("--setvipenabled=false", false)]
        {
            assert_eq!(agents(flag).control_plane.unwrap().announced_for.is_some(), expected, "{flag}");
        }
        assert_eq!(agents("--port 8443").control_plane.unwrap().server_port, 8443);
    }

    #[test]
    fn flags_that_make_no_configuration_are_refused() {
        let error = migrated(&FLAGS.replace("https://", "http://")).unwrap_err();
        assert!(format!("{error:#}").contains("http://nsx.example.com"), "{error:#}");
        assert!(migrated("--nsxhost=https://nsx").is_err());
    }
}

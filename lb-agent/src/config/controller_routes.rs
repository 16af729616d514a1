//! `controlPlane` and `nsxt` of the controller's file: to which addresses routes are kept, and where.

use std::{net::IpAddr, path::Path};

use super::{
    authorities::CaFiles,
    cluster_check, draft_cluster,
    error::Problems,
    nsxt::{self, NsxtConfig},
    read::Fields,
};
use crate::model::ControlPlaneSettings;

/// The routes to the VIPs of the API servers, whose next hops are the servers that answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RouteConfig {
    /// The VIPs, and how their servers are found and probed. How nodes announce them does not matter here.
    pub control_plane: ControlPlaneSettings,
    /// Where the routes are kept.
    pub nsxt: NsxtConfig,
}

/// The VIPs of the API servers, which no Service gets, and what the file says of routes to them. The controller always
/// has a cluster to learn servers from.
pub(super) fn routes(
    fields: &Fields<'_>,
    base_dir: &Path,
    problems: &mut Problems,
) -> (Vec<IpAddr>, Option<RouteConfig>) {
    let (control_plane, nsxt) = (fields.optional("controlPlane"), fields.optional("nsxt"));
    if let (None, Some(nsxt)) = (control_plane, nsxt) {
        let reason =
            "`nsxt` keeps routes to the VIPs of `controlPlane`, which is not there; add it, with `vips` and `probe`";
        problems.refuse(nsxt.place, reason);
    }
    let mut ca_files = CaFiles::new(base_dir);
    let control_plane = control_plane.and_then(|value| draft_cluster::control_plane(value, &mut ca_files, problems));
    if let Some(control_plane) = &control_plane {
        cluster_check::check_alone(control_plane, problems);
    }
    let nsxt = nsxt.and_then(|value| nsxt::nsxt(value, base_dir, problems));
    let Some(control_plane) = control_plane.map(|draft| draft.build(true)) else { return (Vec::new(), None) };
    (control_plane.vips.clone(), nsxt.map(|nsxt| RouteConfig { control_plane, nsxt }))
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, path::Path};

    use super::super::{CONTROLLER_SAMPLE, ControllerConfig};
    use crate::model::ServersFrom;

    const NSXT: &str =
        "nsxt: {cluster: c1, managers: [nsx], tier1: t1, username: u, passwordFile: p, insecureSkipVerify: true}\n";

    fn parse(text: &str) -> Result<ControllerConfig, String> {
        ControllerConfig::parse("c.yaml", text, Path::new("/etc/levee")).map_err(|errors| errors.to_string())
    }

    #[test]
    fn routes_have_vips_a_probe_and_a_gateway() {
        let plane =
            "controlPlane: {vips: [192.0.2.1], port: 443, serverPort: 6443, backends: [10.0.0.1], probe: {tcp: {}}}\n";
        let config = parse(&format!("{NSXT}{plane}")).unwrap();
        let routes = config.routes.unwrap();
        assert_eq!(routes.nsxt.cluster, "c1");
        assert_eq!(routes.control_plane.vips, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        assert_eq!((routes.control_plane.port, routes.control_plane.server_port), (443, 6443));
        assert_eq!(routes.control_plane.from, ServersFrom::Endpoints);
        assert_eq!(routes.control_plane.probe.unwrap().port, 6443);
        assert_eq!(config.warnings, []);
        assert_eq!(parse("http: off").unwrap().routes, None);
    }

    #[test]
    fn halves_and_contradictions_are_told() {
        let plane = "controlPlane: {vips: [192.0.2.1], probe: none}\n";
        let alone = parse(&format!("reserved: [10.0.0.0/8]\n{plane}")).unwrap();
        let reserved = ["10.0.0.0/8", "192.0.2.1/32"].map(|network| network.parse().unwrap());
        assert_eq!((alone.routes, alone.reserved, alone.warnings), (None, reserved.to_vec(), Vec::new()));
        let cases = [
            (NSXT.to_owned(), "c.yaml:1:7: `nsxt` keeps routes to the VIPs of `controlPlane`, which is not there"),
            (
                format!("{NSXT}controlPlane: {{vips: [192.0.2.1], from: static, probe: none}}"),
                "`from: static` has no API server",
            ),
            (
                format!("{NSXT}controlPlane: {{vips: [192.0.2.1, 192.0.2.1], probe: none}}"),
                "VIP 192.0.2.1 is there twice",
            ),
            (
                format!("{NSXT}controlPlane: {{vips: [192.0.2.1], backends: [192.0.2.1], probe: none}}"),
                "is itself the VIP",
            ),
            (format!("{NSXT}controlPlane: {{vips: [192.0.2.1]}}"), "controlPlane has no `probe`"),
        ];
        for (text, reason) in cases {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    /// The part of the sample that is commented out is one that parses, beside the file that it names.
    #[test]
    fn the_sample_shows_routes_that_parse() {
        let (_, part) = CONTROLLER_SAMPLE.split_once("#controlPlane:").unwrap();
        let text: String = format!("#controlPlane:{part}").lines().fold(String::new(), |text, line| {
            let line = line.strip_prefix('#').filter(|line| !line.starts_with(' ') || line.starts_with("  "));
            text + line.unwrap_or_default() + "\n"
        });
        let routes = parse(&text).unwrap().routes.unwrap();
        let defaults = parse(&format!(
            "{NSXT}controlPlane: {{vips: [192.0.2.1], probe: {{https: {{insecureSkipVerify: true}}}}}}\n"
        ));
        let defaults = defaults.unwrap().routes.unwrap();
        let plane = &routes.control_plane;
        assert_eq!(plane.probe.as_ref().unwrap().interval, defaults.control_plane.probe.as_ref().unwrap().interval);
        assert_eq!((plane.port, plane.server_port, plane.from), (6443, 6443, ServersFrom::Endpoints));
        let (shown, expected) = (&routes.nsxt, &defaults.nsxt);
        assert_eq!(
            (
                shown.api,
                shown.max_next_hops,
                shown.admin_distance,
                shown.resync,
                shown.timeout,
                shown.requests_per_second
            ),
            (
                expected.api,
                expected.max_next_hops,
                expected.admin_distance,
                expected.resync,
                expected.timeout,
                expected.requests_per_second
            )
        );
        assert_eq!(
            (shown.allow_overwrite, shown.adopt, shown.fix_advertisement),
            (expected.allow_overwrite, expected.adopt, expected.fix_advertisement)
        );
    }
}

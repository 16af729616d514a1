//! This node: the file's `node`, or what the environment of the process says where the file is the same on all nodes.
//!
//! A DaemonSet has one file for all its nodes; Kubernetes tells each pod where it runs.

use std::env;

use super::{
    draft::{DraftNode, nameless, node},
    error::{Place, Problems},
    read::{Fields, address, name},
    yaml::{Node, Value},
};

/// Name of this node, where the file has no `node`.
const NAME_VARIABLE: &str = "LEVEE_NODE_NAME";
/// Its addresses, separated by commas, the first of a family being the source of tunnels.
const ADDRESSES_VARIABLE: &str = "LEVEE_NODE_ADDRESSES";

/// What the environment says of this node.
#[derive(Clone, Debug, Default)]
pub(super) struct Environment {
    name: Option<String>,
    addresses: Option<String>,
}

impl Environment {
    /// The variables of this process.
    pub(super) fn of_process() -> Self {
        let read = |variable| env::var(variable).ok().filter(|value| !value.is_empty());
        Self { name: read(NAME_VARIABLE), addresses: read(ADDRESSES_VARIABLE) }
    }
}

/// The file's `node`; without it, that of the environment.
pub(super) fn this_node(fields: &Fields<'_>, environment: &Environment, problems: &mut Problems) -> Option<DraftNode> {
    let Environment { name: Some(own_name), addresses } = environment else {
        return fields.required("node", problems).and_then(|value| node(value, "node", problems));
    };
    if let Some(value) = fields.optional("node") {
        return node(value, "node", problems);
    }
    let Some(addresses) = addresses else {
        let reason = format!("the file has no `node` and {NAME_VARIABLE} comes without {ADDRESSES_VARIABLE}; set both");
        problems.refuse(fields.place, reason);
        return None;
    };
    let place = fields.place;
    let name = name(&scalar(place, own_name), NAME_VARIABLE, problems).unwrap_or_else(|| nameless(place));
    let items = addresses.split(',').map(str::trim).filter(|item| !item.is_empty());
    let addresses = items.filter_map(|item| address(&scalar(place, item), ADDRESSES_VARIABLE, problems)).collect();
    Some(DraftNode { name, addresses })
}

fn scalar(place: Place, text: &str) -> Node {
    Node { place, value: Value::Scalar(text.to_owned()) }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn read(environment: (&str, &str), entries: Vec<(super::super::yaml::Key, Node)>) -> (Option<DraftNode>, usize) {
        let said = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let environment = Environment { name: said(environment.0), addresses: said(environment.1) };
        let root = Node { place: Place::default(), value: Value::Map(entries) };
        let mut problems = Problems::of("levee.yaml");
        let fields = Fields::of(&root, "the file", &["node"], &mut problems).unwrap();
        let node = this_node(&fields, &environment, &mut problems);
        (node, problems.count())
    }

    fn addresses(node: &DraftNode) -> Vec<IpAddr> {
        node.addresses.iter().map(|address| address.value).collect()
    }

    #[test]
    fn the_environment_names_the_node_where_the_file_does_not() {
        let (node, problems) = read(("worker-1", "10.0.0.1,fd00::1"), Vec::new());
        let node = node.unwrap();
        assert_eq!((node.name.value.as_str(), problems), ("worker-1", 0));
        assert_eq!(addresses(&node), ["10.0.0.1".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]);
    }

    #[test]
    fn the_file_goes_before_the_environment() {
        let place = Place::default();
        let key = |name: &str| super::super::yaml::Key { place, name: name.to_owned() };
        let addresses_node = Node { place, value: Value::List(vec![scalar(place, "10.0.0.7")]) };
        let value = Value::Map(vec![(key("name"), scalar(place, "file")), (key("addresses"), addresses_node)]);
        let (node, problems) = read(("env", "10.0.0.1"), vec![(key("node"), Node { place, value })]);
        let node = node.unwrap();
        assert_eq!((node.name.value.as_str(), problems), ("file", 0));
        assert_eq!(addresses(&node), ["10.0.0.7".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn half_an_environment_is_refused() {
        assert_eq!(read(("", "10.0.0.1"), Vec::new()).1, 1);
        assert_eq!(read(("worker-1", ""), Vec::new()).1, 1);
        assert_eq!(read(("worker-1", "10.0.0.300"), Vec::new()).1, 1);
    }
}

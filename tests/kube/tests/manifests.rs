//! The plain manifests as a real API server takes them.

use kube::{ResourceExt, api::PostParams};
use kube_tests::{
    ability::Ability,
    bed::Bed,
    deployed::{api_of, objects, title},
};
use serde_json::Value;

/// What servers before Kubernetes 1.25 do not know: rules of custom resources (1.25), and DaemonSets whose new pods can be
/// there before the old are gone (1.22), which is what 0 forbids.
const LATER: [&str; 2] = [".x-kubernetes-validations", ".updateStrategy.rollingUpdate.maxSurge: sent 0"];

/// What of `sent` is missing in `kept`, by its path.
fn missing(path: &str, sent: &Value, kept: &Value, lost: &mut Vec<String>) {
    match (sent, kept) {
        (Value::Object(sent), Value::Object(kept)) => {
            for (key, value) in sent {
                missing(&format!("{path}.{key}"), value, kept.get(key).unwrap_or(&Value::Null), lost);
            }
        }
        (Value::Array(sent), Value::Array(kept)) if sent.len() == kept.len() => {
            for (index, (sent, kept)) in sent.iter().zip(kept).enumerate() {
                missing(&format!("{path}[{index}]"), sent, kept, lost);
            }
        }
        _ if sent == kept => {}
        _ => lost.push(format!("{path}: sent {sent}, kept {kept}")),
    }
}

/// Whether the API means the same by leaving it out.
fn is_empty(lost: &str) -> bool {
    lost.ends_with("kept null") && ["sent {}", "sent []", "sent false", "sent \"\""].iter().any(|it| lost.contains(it))
}

#[tokio::test]
async fn the_server_takes_every_object_as_it_is() {
    let bed = Bed::start().await.unwrap();
    let client = bed.admin().await.unwrap();
    let objects = objects().unwrap();
    let (namespaces, rest): (Vec<_>, Vec<_>) = objects.iter().partition(|object| object["kind"] == "Namespace");
    assert_eq!((namespaces.len(), rest.len() > 10), (1, true), "{} objects", objects.len());
    for (object, dry_run) in namespaces.into_iter().map(|it| (it, false)).chain(rest.into_iter().map(|it| (it, true))) {
        let api = api_of(&client, object);
        let parameters = PostParams { dry_run, ..PostParams::default() };
        let made = api.create(&parameters, &serde_json::from_value(object.clone()).unwrap()).await;
        let made = made.unwrap_or_else(|error| panic!("{}: {error}", title(object)));
        let mut lost = Vec::new();
        missing("", object, &serde_json::to_value(&made).unwrap(), &mut lost);
        lost.retain(|lost| !is_empty(lost));
        if !bed.assets.can(Ability::Rules) {
            lost.retain(|lost| !LATER.iter().any(|part| lost.contains(part)));
        }
        assert_eq!(lost, Vec::<String>::new(), "the server drops or changes parts of {}", title(object));
        assert_eq!(api.get_opt(&made.name_any()).await.unwrap().is_some(), !dry_run, "{}", title(object));
    }
}

//! Custom resources: made, and awaited until the server serves them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, PostParams},
};
use netns_tests::wait;
use serde_json::{Value, json};

use crate::{ability::Ability, assets::Assets};

/// How long a server may take to serve a resource.
const PATIENCE: Duration = Duration::from_secs(30);

/// Makes a custom resource and waits until its objects can be listed.
///
/// # Errors
/// If the server refuses it, or does not serve it in time.
pub async fn install(client: &Client, definition: CustomResourceDefinition) -> Result<()> {
    let name = definition.metadata.name.clone().unwrap_or_default();
    let spec = &definition.spec;
    let version = spec.versions.first().with_context(|| format!("{name} has no version"))?.name.clone();
    let kind = GroupVersionKind::gvk(&spec.group, &version, &spec.names.kind);
    let resource = ApiResource::from_gvk_with_plural(&kind, &spec.names.plural);
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    definitions.create(&PostParams::default(), &definition).await.with_context(|| format!("making {name}"))?;
    let objects: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let look = || async {
        let found = definitions.get(&name).await.context("reading the definition")?;
        let conditions = found.status.and_then(|status| status.conditions).unwrap_or_default();
        let established = conditions.iter().any(|it| it.type_ == "Established" && it.status == "True");
        ensure!(established, "conditions {conditions:?}");
        objects.list(&ListParams::default()).await.context("listing")?;
        Ok(())
    };
    wait::until(&format!("the resource {name}"), PATIENCE, look).await?;
    Ok(())
}

/// Sees to it that the server has `EndpointSlice` of `discovery.k8s.io/v1`: one that does not know it gets a custom
/// resource of that name. Lists, watches, patches and rights are then real; validation of the fields is not.
///
/// # Errors
/// As [`install`].
pub async fn install_slices(client: &Client, assets: &Assets) -> Result<()> {
    if assets.can(Ability::Slices) {
        return Ok(());
    }
    let mut document = open_definition("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", "Namespaced");
    document["metadata"]["annotations"] = json!({ "api-approved.kubernetes.io": "unapproved, test only" });
    install(client, serde_json::from_value(document).context("the definition of EndpointSlice")?).await
}

/// A definition of a resource whose objects may hold anything.
#[must_use]
pub fn open_definition(group: &str, version: &str, kind: &str, plural: &str, scope: &str) -> Value {
    let schema = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.{group}") },
        "spec": {
            "group": group,
            "names": { "kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List") },
            "scope": scope,
            "versions": [{
                "name": version, "served": true, "storage": true, "schema": { "openAPIV3Schema": schema },
            }],
        },
    })
}

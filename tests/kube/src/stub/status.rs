//! Failures as the API server words them: objects of kind `Status`.

use serde_json::{Value, json};

use super::resources::Resource;

/// A failure: code of HTTP, and a `Status` that says why.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    /// Code of HTTP.
    pub code: u16,
    /// One word for programs; a server that does not know better says none.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// What it is about.
    pub details: Value,
}

impl Failure {
    /// A failure that is about no object.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: Value::Null }
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 404 of an object.
    #[must_use]
    pub fn not_found(resource: &Resource, name: &str) -> Self {
        Self::of(404, "NotFound", resource, name, &format!("{} {name:?} not found", resource.full_name()))
    }

    /// 409 of an object that is there.
    #[must_use]
    pub fn already_exists(resource: &Resource, name: &str) -> Self {
        Self::of(409, "AlreadyExists", resource, name, &format!("{} {name:?} already exists", resource.full_name()))
    }

    /// 409 of a write that is for another version.
    #[must_use]
    pub fn conflict(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", resource.full_name());
        Self::of(409, "Conflict", resource, name, &message)
    }

    /// 422 of an object with a wrong field.
    #[must_use]
    pub fn invalid(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!("{} {name:?} is invalid: {why}", resource.full_name());
        Self::of(422, "Invalid", resource, name, &message)
    }

    /// 410: the version is forgotten.
    #[must_use]
    pub fn expired(asked: u64, oldest: u64) -> Self {
        Self::new(410, "Expired", format!("too old resource version: {asked} ({oldest})"))
    }

    fn of(code: u16, reason: &'static str, resource: &Resource, name: &str, message: &str) -> Self {
        let mut details = json!({ "kind": resource.plural });
        if !name.is_empty() {
            details["name"] = name.into();
        }
        if !resource.group.is_empty() {
            details["group"] = resource.group.into();
        }
        Self { code, reason, message: message.to_owned(), details }
    }

    /// The object.
    #[must_use]
    pub fn document(&self) -> Value {
        let mut document = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "code": self.code,
        });
        if !self.reason.is_empty() {
            document["reason"] = self.reason.into();
        }
        if !self.details.is_null() {
            document["details"] = self.details.clone();
        }
        document
    }
}

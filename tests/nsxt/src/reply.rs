//! What managers answer.

use serde_json::{Map, Value, json};

/// An answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Headers beside those that every answer has.
    pub headers: Vec<(&'static str, String)>,
    /// Body.
    pub body: Vec<u8>,
    /// `Content-Type`.
    pub content_type: &'static str,
}

impl Reply {
    /// 200 with JSON.
    #[must_use]
    pub fn json(body: &Value) -> Self {
        Self { status: 200, body: body.to_string().into_bytes(), content_type: "application/json", ..Self::default() }
    }

    /// 200 without a body.
    #[must_use]
    pub fn empty() -> Self {
        Self { status: 200, content_type: "application/json", ..Self::default() }
    }

    /// Some other text.
    #[must_use]
    pub fn text(status: u16, content_type: &'static str, body: &str) -> Self {
        Self { status, headers: Vec::new(), body: body.as_bytes().to_vec(), content_type }
    }

    /// The usual body of a refusal.
    #[must_use]
    pub fn error(status: u16, code: i64, module: &str, message: &str) -> Self {
        let name = match status {
            400 => "BAD_REQUEST",
            403 => "FORBIDDEN",
            404 => "NOT_FOUND",
            409 => "CONFLICT",
            412 => "PRECONDITION_FAILED",
            _ => "INTERNAL_SERVER_ERROR",
        };
        let body = json!({"httpStatus": name, "error_code": code, "module_name": module, "error_message": message});
        Self { status, ..Self::json(&body) }
    }

    /// 429 as it was seen: the code is a string, and `httpStatus` is absent.
    #[must_use]
    pub fn too_many() -> Self {
        let message = "Client 'admin' exceeded request rate of 100 per second";
        let body = json!({"module_name": "common-services", "error_message": message, "error_code": "102"});
        Self { status: 429, ..Self::json(&body) }
    }

    /// 404 of an object.
    #[must_use]
    pub fn not_found(path: &str) -> Self {
        let message =
            format!("The requested object : {path} could not be found. Object identifiers are case sensitive.");
        Self::error(404, 600, "common-services", &message)
    }

    /// 404 of a path that no API serves.
    #[must_use]
    pub fn no_such_api() -> Self {
        Self::text(404, "text/html", "<html><body><h1>404 Not Found</h1></body></html>")
    }

    /// 403 of a wrong password, or of a locked account: they look the same.
    #[must_use]
    pub fn bad_credentials() -> Self {
        let message = "The credentials were incorrect or the account specified has been locked.";
        let body = json!({"module_name": "common-services", "error_message": message, "error_code": 403});
        Self { status: 403, ..Self::json(&body) }
    }

    /// 412 of an old revision.
    #[must_use]
    pub fn stale(kind: &str, id: &str) -> Self {
        let message = format!(
            "The object {kind}/{id} is present in the system with another revision. Fetch the latest copy of the object and retry."
        );
        Self::error(412, 206, "common-services", &message)
    }

    /// 400 of an object that belongs to another principal.
    #[must_use]
    pub fn not_owner(user: &str, kind: &str, owner: &str) -> Self {
        let message = format!(
            "Principal '{user}' with role '[enterprise_admin]' attempts to delete or modify an object of type {kind} it doesn't own. \
             (createUser={owner}, allowOverwrite=null)"
        );
        Self::error(400, 289, "common-services", &message)
    }

    /// With one header more.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The body as JSON, `null` if it is none.
    #[must_use]
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// How the cursor of a list looks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Cursor {
    /// Absent at the end; opaque before.
    Manager,
    /// An offset, which is there at the end, too.
    Offset,
}

/// A page of a list. `result_count` is that of all pages, on the first page only.
pub(crate) fn page(items: &[Value], query: &Map<String, Value>, largest: usize, kind: Cursor) -> Reply {
    let text = |key: &str| query.get(key).and_then(Value::as_str);
    let size = text("page_size").and_then(|size| size.parse().ok()).unwrap_or(1000_usize).clamp(1, largest.max(1));
    let cursor = text("cursor").unwrap_or("0");
    let offset = cursor.trim_start_matches("next-").parse::<usize>().unwrap_or(0).min(items.len());
    let end = (offset + size).min(items.len());
    let mut body = json!({"results": items[offset..end], "sort_by": "displayName", "sort_ascending": true});
    if offset == 0 {
        body["result_count"] = json!(items.len());
    }
    match kind {
        Cursor::Offset => body["cursor"] = json!(end.to_string()),
        Cursor::Manager if end < items.len() => body["cursor"] = json!(format!("next-{end}")),
        Cursor::Manager => {}
    }
    Reply::json(&body)
}

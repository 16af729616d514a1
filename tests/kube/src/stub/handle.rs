//! One request: who asks for what, which fault is on, and the answer.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http_body_util::BodyExt;
use hyper::{
    Method, Request, Response,
    body::{Bytes, Incoming},
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    answer::{Answer, Body, Content},
    faults::{Fault, Verb},
    query::Query,
    record::Record,
    resources::Target,
    selector::Selector,
    shared::Shared,
    status::Failure,
    store::Key,
    watch::{self, Watch},
    write::{Draft, Written, write},
};

/// Between two looks whether a request still has to wait.
const PAUSE: Duration = Duration::from_millis(10);
/// What is no JSON.
const GARBAGE: &[u8] = b"<html><body>502 Bad Gateway</body></html>\n";

/// The connection is to be reset instead of an answer.
#[derive(Debug)]
pub struct Reset;

/// Answers a request.
///
/// # Errors
/// If a fault says to reset the connection.
pub async fn handle(
    shared: Arc<Shared>,
    certificate: Option<Vec<u8>>,
    address: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Body>, Reset> {
    let (head, body) = request.into_parts();
    let bytes = body.collect().await.map_err(|_| Reset)?.to_bytes();
    let (path, text) = (head.uri.path(), head.uri.query().unwrap_or_default());
    let target = Target::parse(path);
    let query = Query::parse(text);
    let verb = verb(&head.method, target.as_ref(), query.as_ref().is_ok_and(|query| query.watch));
    let user = user(&shared, certificate.as_deref(), head.headers.get(AUTHORIZATION));
    let record = Record {
        at: Instant::now(),
        verb,
        path: path.to_owned(),
        query: text.to_owned(),
        resource: target.as_ref().map(|target| target.resource.plural.to_owned()).unwrap_or_default(),
        name: target.as_ref().and_then(|target| target.name.clone()).unwrap_or_default(),
        user: user.clone().unwrap_or_else(|| "unknown".to_owned()),
        received: bytes.len() as u64,
        code: Arc::new(AtomicU64::new(0)),
        sent: Arc::new(AtomicU64::new(0)),
    };
    shared.records().push(record.clone());
    let (fault, early) = fault(&shared, &record).await?;
    let pace = if let Some(Fault::Slow(bytes, pause)) = fault { Some((bytes, pause)) } else { None };
    let answer = match (early, user, query) {
        (Some(answer), ..) => answer,
        (_, None, _) => Answer::failed(&Failure::new(401, "Unauthorized", "Unauthorized"), None),
        (.., Err(failure)) => Answer::failed(&failure, None),
        (_, Some(_), Ok(query)) => {
            let call = Call { shared: &shared, target, query, verb, bytes: &bytes, headers: &head.headers, address };
            call.answer(path, fault.as_ref()).unwrap_or_else(|failure| Answer::failed(&failure, None))
        }
    };
    if matches!(fault, Some(Fault::LostWrite)) && verb.writes() {
        return Err(Reset);
    }
    record.code.store(answer.code.into(), Ordering::Relaxed);
    Ok(answer.into_response(record.sent, pace))
}

/// The fault that is on for a request, once it no longer hangs and is late enough; and the answer, if that is the fault's.
async fn fault(shared: &Shared, record: &Record) -> Result<(Option<Fault>, Option<Answer>), Reset> {
    let (verb, resource, name) = (record.verb, record.resource.as_str(), record.name.as_str());
    while shared.faults().hangs(verb, resource, name) {
        sleep(PAUSE).await;
    }
    let fault = shared.faults().take(verb, resource, name);
    let early = match &fault {
        Some(Fault::Reset) => return Err(Reset),
        Some(Fault::Late(delay)) => {
            sleep(*delay).await;
            None
        }
        Some(Fault::Fails(failure, retry_after)) => Some(Answer::failed(failure, *retry_after)),
        Some(Fault::Garbage) => Some(Answer::of(200, Bytes::from_static(GARBAGE))),
        _ => None,
    };
    Ok((fault, early))
}

fn verb(method: &Method, target: Option<&Target>, watch: bool) -> Verb {
    let many = target.is_some_and(|target| target.name.is_none());
    match *method {
        Method::POST => Verb::Create,
        Method::PUT => Verb::Update,
        Method::PATCH => Verb::Patch,
        Method::DELETE => Verb::Delete,
        _ if many && watch => Verb::Watch,
        _ if many => Verb::List,
        _ => Verb::Get,
    }
}

/// Who asks; none if the token is not known.
fn user(shared: &Shared, certificate: Option<&[u8]>, authorization: Option<&HeaderValue>) -> Option<String> {
    let users = shared.users();
    if let Some(name) = certificate.and_then(|certificate| users.get(certificate)) {
        return Some(name.clone());
    }
    match authorization {
        Some(header) => users.get(header.as_bytes().strip_prefix(b"Bearer ")?).cloned(),
        None if certificate.is_some() => Some("certificate".to_owned()),
        None => Some("system:anonymous".to_owned()),
    }
}

/// A request that nothing keeps from its answer.
struct Call<'a> {
    shared: &'a Arc<Shared>,
    target: Option<Target>,
    query: Query,
    verb: Verb,
    bytes: &'a Bytes,
    headers: &'a HeaderMap,
    address: SocketAddr,
}

impl Call<'_> {
    fn answer(&self, path: &str, fault: Option<&Fault>) -> Result<Answer, Failure> {
        let Some(target) = &self.target else {
            return self.other(path);
        };
        match self.verb {
            Verb::Watch => self.watch(target, fault),
            Verb::List => self.list(target, matches!(fault, Some(Fault::EmptyLists))),
            Verb::Get => {
                let name = target.name.clone().unwrap_or_default();
                let key: Key = (target.namespace.clone().unwrap_or_default(), name);
                let found = self.shared.store().get(target.resource, &key);
                let object = found.ok_or_else(|| Failure::not_found(target.resource, &key.1))?;
                let mut bytes = Vec::new();
                object.write(Some(target.resource), &mut bytes);
                Ok(Answer::of(200, bytes))
            }
            _ => self.write(target),
        }
    }

    fn header(&self, name: &HeaderName) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Paths that are no resource.
    fn other(&self, path: &str) -> Result<Answer, Failure> {
        match path {
            "/readyz" | "/livez" | "/healthz" => Ok(Answer::of(200, "ok")),
            "/version" => {
                let version =
                    json!({ "major": "1", "minor": "33", "gitVersion": "v1.33.0", "platform": "linux/amd64" });
                Ok(Answer::of(200, version.to_string()))
            }
            _ => Ok(Answer::of(404, "404 page not found\n")),
        }
    }

    fn watch(&self, target: &Target, fault: Option<&Fault>) -> Result<Answer, Failure> {
        let oldest = self.shared.store().version();
        match fault {
            Some(Fault::Gone) if self.query.version.is_some() => {
                return Err(Failure::expired(self.query.version.unwrap_or_default(), oldest));
            }
            Some(Fault::GoneEvent) => {
                let gone = Failure::expired(self.query.version.unwrap_or_default(), oldest);
                return Ok(Answer::of(200, watch::error(&gone)));
            }
            _ => {}
        }
        let selector = Selector::parse(&self.query.labels, &self.query.fields)?;
        let watch = Watch::begin(self.shared, target, &self.query, selector)?;
        Ok(Answer { code: 200, content: Content::Watch(Box::new(watch)), retry_after: None })
    }

    fn list(&self, target: &Target, empty: bool) -> Result<Answer, Failure> {
        let resource = target.resource;
        let selector = Selector::parse(&self.query.labels, &self.query.fields)?;
        let store = self.shared.store();
        let (version, after) = match &self.query.continuation {
            None => (store.version(), None),
            Some(token) => continued(token)?,
        };
        let limit = if empty { 0 } else { self.query.limit.unwrap_or(usize::MAX) };
        let mut items = Vec::new();
        let (mut count, mut last, mut more) = (0, None, false);
        for (key, object) in store.list(resource, target.namespace.as_deref(), after.as_ref()) {
            if !selector.fits(&object.value) {
                continue;
            }
            if count == limit {
                more = !empty;
                break;
            }
            if count > 0 {
                items.push(b',');
            }
            object.write(resource.custom.then_some(resource), &mut items);
            (count, last) = (count + 1, Some(key.clone()));
        }
        drop(store);
        let mut metadata = json!({ "resourceVersion": version.to_string() });
        if let (true, Some((namespace, name))) = (more, last) {
            metadata["continue"] = format!("{version}/{namespace}/{name}").into();
        }
        let (kind, group) = (resource.kind, resource.api_version());
        let mut bytes =
            format!(r#"{{"kind":"{kind}List","apiVersion":"{group}","metadata":{metadata},"items":["#).into_bytes();
        bytes.append(&mut items);
        bytes.extend_from_slice(b"]}");
        Ok(Answer::of(200, bytes))
    }

    fn write(&self, target: &Target) -> Result<Answer, Failure> {
        let draft = self.draft(target)?;
        let manager = self.query.manager.clone().unwrap_or_else(|| {
            let agent = self.header(&USER_AGENT).split('/').next().unwrap_or_default();
            if agent.is_empty() { self.address.ip().to_string() } else { agent.to_owned() }
        });
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let written = self.shared.change(|store| write(store, target, draft, &manager, &now))?;
        let typed = Some(target.resource);
        let mut bytes = Vec::new();
        let code = match written {
            Written::Created(object) => {
                object.write(typed, &mut bytes);
                201
            }
            Written::Updated(object) => {
                object.write(typed, &mut bytes);
                200
            }
            Written::Deleted(object) => {
                bytes = deleted(target, &object.value).to_string().into_bytes();
                200
            }
        };
        Ok(Answer::of(code, bytes))
    }

    fn draft(&self, target: &Target) -> Result<Draft, Failure> {
        let body = || {
            serde_json::from_slice::<Value>(self.bytes).map_err(|error| {
                Failure::bad_request(format!("the object provided is unrecognized (must be of type JSON): {error}"))
            })
        };
        match self.verb {
            Verb::Create if target.name.is_none() => Ok(Draft::Create(body()?)),
            Verb::Update => Ok(Draft::Update(body()?)),
            Verb::Patch => match self.header(&CONTENT_TYPE) {
                "application/merge-patch+json" => Ok(Draft::Merge(body()?)),
                "application/strategic-merge-patch+json" if !target.resource.custom => Ok(Draft::Merge(body()?)),
                "application/apply-patch+yaml" if self.query.manager.is_none() => Err(unmanaged()),
                "application/apply-patch+yaml" => Ok(Draft::Apply(body()?, self.query.force)),
                other => Err(Failure::new(
                    415,
                    "UnsupportedMediaType",
                    format!("the body of the request was in an unknown format: {other}"),
                )),
            },
            Verb::Delete => {
                let options = if self.bytes.is_empty() { Value::Null } else { body()? };
                let of = |field: &str| options["preconditions"][field].as_str().map(str::to_owned);
                Ok(Draft::Delete { uid: of("uid"), version: of("resourceVersion") })
            }
            _ => Err(Failure::new(
                405,
                "MethodNotAllowed",
                "the server does not allow this method on the requested resource",
            )),
        }
    }
}

/// What the token of a further page says: the version of the first, and the last object told.
fn continued(token: &str) -> Result<(u64, Option<Key>), Failure> {
    let mut parts = token.splitn(3, '/');
    let mut part = || parts.next();
    match (part().and_then(|version| version.parse().ok()), part(), part()) {
        (Some(version), Some(namespace), Some(name)) => Ok((version, Some((namespace.to_owned(), name.to_owned())))),
        _ => Err(Failure::bad_request(format!("continue key is not valid: {token}"))),
    }
}

/// 422 of an apply that does not say by whom.
fn unmanaged() -> Failure {
    let message = "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch";
    let mut failure = Failure::new(422, "Invalid", message);
    failure.details = json!({ "group": "meta.k8s.io", "kind": "PatchOptions" });
    failure
}

fn deleted(target: &Target, object: &Value) -> Value {
    let resource = target.resource;
    let mut details =
        json!({ "name": object["metadata"]["name"], "kind": resource.plural, "uid": object["metadata"]["uid"] });
    if !resource.group.is_empty() {
        details["group"] = resource.group.into();
    }
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details })
}

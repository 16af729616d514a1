//! One request: who asks for what, which fault is on, and the answer.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response,
    body::{Bytes, Frame, Incoming},
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    faults::{Fault, Verb},
    record::Record,
    resources::Target,
    selector::Selector,
    shared::Shared,
    status::Failure,
    store::Key,
    watch::{self, Watch},
    write::{Draft, Written, write},
};

/// Body of an answer.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Between two looks whether a request still has to wait.
const PAUSE: Duration = Duration::from_millis(10);
/// What is no JSON.
const GARBAGE: &[u8] = b"<html><body>502 Bad Gateway</body></html>\n";

/// The connection is to be reset instead of an answer.
#[derive(Debug)]
pub struct Reset;

/// Parameters of a request.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// `watch`.
    pub watch: bool,
    /// `resourceVersion`, unless it is empty or 0.
    pub version: Option<u64>,
    /// `allowWatchBookmarks`.
    pub bookmarks: bool,
    /// `sendInitialEvents`.
    pub initial_events: bool,
    /// `timeoutSeconds`.
    pub timeout: Option<Duration>,
    limit: Option<usize>,
    continuation: Option<String>,
    labels: String,
    fields: String,
    manager: Option<String>,
    force: bool,
}

impl Query {
    fn parse(text: &str) -> Result<Self, Failure> {
        let mut query = Self::default();
        for (name, value) in text.split('&').filter_map(|pair| pair.split_once('=')) {
            let value = unescape(value);
            let truth = matches!(value.as_str(), "true" | "1");
            let wrong = || Failure::bad_request(format!("{name}: {value:?} is no number"));
            match name {
                "watch" => query.watch = truth,
                "resourceVersion" if value.is_empty() => {}
                "resourceVersion" => {
                    query.version = Some(value.parse().map_err(|_| wrong())?).filter(|&version| version > 0);
                }
                "allowWatchBookmarks" => query.bookmarks = truth,
                "sendInitialEvents" => query.initial_events = truth,
                "timeoutSeconds" => query.timeout = Some(Duration::from_secs(value.parse().map_err(|_| wrong())?)),
                "limit" => query.limit = Some(value.parse().map_err(|_| wrong())?).filter(|&limit| limit > 0),
                "continue" => query.continuation = Some(value).filter(|value| !value.is_empty()),
                "labelSelector" => query.labels = value,
                "fieldSelector" => query.fields = value,
                "fieldManager" => query.manager = Some(value),
                "force" => query.force = truth,
                "dryRun" => return Err(Failure::bad_request("dryRun is not supported here")),
                _ => {} // resourceVersionMatch, fieldValidation, pretty: all the same here
            }
        }
        Ok(query)
    }
}

/// `%2C` -> `,`.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
        (rest, _) = match (first, after) {
            (b'%', [a, b, after @ ..]) if hex(&[*a, *b]).is_some() => {
                (after, bytes.push(hex(&[*a, *b]).unwrap_or_default()))
            }
            (b'+', after) => (after, bytes.push(b' ')),
            (&byte, after) => (after, bytes.push(byte)),
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

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
    let path = head.uri.path().to_owned();
    let target = Target::parse(&path);
    let query = head.uri.query().unwrap_or_default();
    let parsed = Query::parse(query);
    let is_watch = parsed.as_ref().is_ok_and(|query| query.watch);
    let verb = verb(&head.method, target.as_ref(), is_watch);
    let user = user(&shared, certificate.as_deref(), head.headers.get(AUTHORIZATION));
    let record = Record {
        at: Instant::now(),
        verb,
        path: path.clone(),
        query: query.to_owned(),
        resource: target.as_ref().map(|target| target.resource.plural.to_owned()).unwrap_or_default(),
        name: target.as_ref().and_then(|target| target.name.clone()).unwrap_or_default(),
        user: user.clone().unwrap_or_else(|| "unknown".to_owned()),
        received: bytes.len() as u64,
        code: Arc::new(AtomicU64::new(0)),
        sent: Arc::new(AtomicU64::new(0)),
    };
    shared.records().push(record.clone());
    while shared.faults().hangs(verb, &record.resource, &record.name) {
        sleep(PAUSE).await;
    }
    let fault = shared.faults().take(verb, &record.resource, &record.name);
    let pace = if let Some(Fault::Slow(bytes, pause)) = fault { Some((bytes, pause)) } else { None };
    let early = match &fault {
        Some(Fault::Reset) => return Err(Reset),
        Some(Fault::Late(delay)) => {
            sleep(*delay).await;
            None
        }
        Some(Fault::Fails(failure, retry_after)) => Some(failed(failure, *retry_after)),
        Some(Fault::Garbage) => Some(Answer::of(200, Bytes::from_static(GARBAGE))),
        _ => None,
    };
    let content_type = head.headers.get(CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let manager = head.headers.get("user-agent").and_then(|it| it.to_str().ok()).unwrap_or_default();
    let answer = match (early, user, parsed) {
        (Some(answer), ..) => answer,
        (_, None, _) => failed(&Failure::new(401, "Unauthorized", "Unauthorized"), None),
        (.., Err(failure)) => failed(&failure, None),
        (_, Some(_), Ok(query)) => {
            let call = Call { shared: &shared, target, query, verb, bytes: &bytes, content_type, manager, address };
            call.answer(&path, fault.as_ref()).unwrap_or_else(|failure| failed(&failure, None))
        }
    };
    if matches!(fault, Some(Fault::LostWrite)) && verb.writes() {
        return Err(Reset);
    }
    record.code.store(answer.code.into(), Ordering::Relaxed);
    Ok(answer.into_response(record.sent, pace))
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

/// An answer before it is sent.
struct Answer {
    code: u16,
    content: Content,
    retry_after: Option<u64>,
}

enum Content {
    Whole(Bytes),
    Watch(Box<Watch>),
}

impl Answer {
    fn of(code: u16, bytes: impl Into<Bytes>) -> Self {
        Self { code, content: Content::Whole(bytes.into()), retry_after: None }
    }

    fn into_response(self, sent: Arc<AtomicU64>, pace: Option<(usize, Duration)>) -> Response<Body> {
        let body = match (self.content, pace) {
            (Content::Whole(bytes), None) => {
                sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                Full::new(bytes).boxed_unsync()
            }
            (Content::Whole(bytes), Some((piece, pause))) => slow(bytes, piece.max(1), pause, sent),
            (Content::Watch(watch), pace) => lines(watch, pace.map(|(_, pause)| pause), sent),
        };
        let mut response = Response::new(body);
        *response.status_mut() = hyper::StatusCode::from_u16(self.code).unwrap_or_default();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}

fn failed(failure: &Failure, retry_after: Option<u64>) -> Answer {
    Answer { retry_after, ..Answer::of(failure.code, failure.document().to_string()) }
}

/// A body in pieces.
fn slow(bytes: Bytes, piece: usize, pause: Duration, sent: Arc<AtomicU64>) -> Body {
    let pieces = stream::unfold((bytes, sent), move |(mut bytes, sent)| async move {
        if bytes.is_empty() {
            return None;
        }
        let part = bytes.split_to(piece.min(bytes.len()));
        sleep(pause).await;
        sent.fetch_add(part.len() as u64, Ordering::Relaxed);
        Some((Ok::<_, Infallible>(Frame::data(part)), (bytes, sent)))
    });
    StreamBody::new(pieces).boxed_unsync()
}

/// A body that goes on as long as its watch.
fn lines(watch: Box<Watch>, pause: Option<Duration>, sent: Arc<AtomicU64>) -> Body {
    let lines = stream::unfold((watch, sent), move |(mut watch, sent)| async move {
        let line = watch.next().await?;
        sleep(pause.unwrap_or_default()).await;
        sent.fetch_add(line.len() as u64, Ordering::Relaxed);
        Some((Ok::<_, Infallible>(Frame::data(line)), (watch, sent)))
    });
    StreamBody::new(lines).boxed_unsync()
}

/// A request that nothing keeps from its answer.
struct Call<'a> {
    shared: &'a Arc<Shared>,
    target: Option<Target>,
    query: Query,
    verb: Verb,
    bytes: &'a Bytes,
    content_type: &'a str,
    manager: &'a str,
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

    /// Paths that are no resource.
    fn other(&self, path: &str) -> Result<Answer, Failure> {
        match path {
            "/readyz" | "/livez" | "/healthz" => Ok(Answer::of(200, "ok")),
            "/version" => {
                let version = json!({ "major": "1", "minor": "33", "gitVersion": "v1.33.0", "platform": "linux/amd64" });
                Ok(Answer::of(200, version.to_string()))
            }
            _ => Err(Failure::new(404, "NotFound", "the server could not find the requested resource")),
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
            let agent = self.manager.split('/').next().unwrap_or_default();
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
            Verb::Patch => match self.content_type {
                "application/merge-patch+json" => Ok(Draft::Merge(body()?)),
                "application/strategic-merge-patch+json" if !target.resource.custom => Ok(Draft::Merge(body()?)),
                "application/apply-patch+yaml" if self.query.manager.is_none() => Err(Failure::new(
                    422,
                    "Invalid",
                    "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
                )),
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
            _ => Err(Failure::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")),
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

fn deleted(target: &Target, object: &Value) -> Value {
    let resource = target.resource;
    let mut details =
        json!({ "name": object["metadata"]["name"], "kind": resource.plural, "uid": object["metadata"]["uid"] });
    if !resource.group.is_empty() {
        details["group"] = resource.group.into();
    }
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_unescaped() {
        let query = Query::parse("labelSelector=a%3Db%2Cc&resourceVersion=7&watch=true&limit=0").unwrap();
        assert_eq!((query.labels.as_str(), query.version, query.watch, query.limit), ("a=b,c", Some(7), true, None));
        assert_eq!(Query::parse("resourceVersion=x").unwrap_err().code, 400);
        assert_eq!(unescape("100%+a%zz"), "100% a%zz");
    }
}

//! A client of several managers: who is asked, when it is asked again, and when it is left alone.
//!
//! Invariants: credentials go to configured managers only; refused credentials are not sent again; a session is made anew
//! once for a request, never in a loop.

mod ask;

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{
    error::{ApiError, NsxtError},
    pace::Pace,
    secrets::{Guard, PAUSE},
    transport::{Answer, Credentials, Http, Request, Session, encode},
};
use crate::config::{NsxtAuth, NsxtConfig};

/// How long a manager that failed comes after the others.
const DOWN: Duration = Duration::from_secs(30);
/// A pause longer than this is left to the caller.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often one request is sent to managers that ask for less.
const BUSY_TRIES: u32 = 3;
/// The most pages of a list.
const MAX_PAGES: usize = 100;

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Requests that were sent, logins among them.
    pub requests: u64,
    /// Those without an answer, or with one that refuses.
    pub failures: u64,
    /// Logins.
    pub logins: u64,
}

/// What is known of a manager.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ManagerStatus {
    /// Its URL.
    pub url: String,
    /// Why it was left out last, while it is.
    pub down: Option<String>,
}

struct Manager {
    url: String,
    down: Option<(Instant, String)>,
    session: Option<Session>,
    /// Until then a refusal is not the session's fault: a new one was refused as well.
    login_helps_not_before: Option<Instant>,
}

enum Auth {
    Basic(Guard),
    Session(Guard),
    Certificate,
}

/// The client. It sends one request at a time.
pub struct Client {
    http: Http,
    auth: Auth,
    managers: Vec<Manager>,
    /// The manager that answered last.
    current: usize,
    pace: Pace,
    overwrite: bool,
    counts: Counts,
}

/// What to do after a manager was asked.
enum Outcome {
    Done(Answer),
    /// Ask another, for this reason.
    Next(NsxtError),
    /// Ask again after a pause.
    Again(String, Duration),
    /// Ask this one.
    There(usize),
}

impl Client {
    /// A client that has asked nobody yet.
    ///
    /// # Errors
    /// Certificates or keys can't be used.
    pub fn new(config: &NsxtConfig) -> Result<Self, NsxtError> {
        let manager =
            |url: &String| Manager { url: url.clone(), down: None, session: None, login_helps_not_before: None };
        Ok(Self {
            http: Http::new(config)?,
            auth: match &config.auth {
                NsxtAuth::Basic(login) => Auth::Basic(Guard::new(login.clone(), PAUSE)),
                NsxtAuth::Session(login) => Auth::Session(Guard::new(login.clone(), PAUSE)),
                NsxtAuth::Certificate { .. } => Auth::Certificate,
            },
            managers: config.managers.iter().map(manager).collect(),
            current: 0,
            pace: Pace::new(config.requests_per_second, Instant::now()),
            overwrite: config.allow_overwrite,
            counts: Counts::default(),
        })
    }

    /// Counts since the start.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// The managers and how they are.
    #[must_use]
    pub fn managers(&self) -> Vec<ManagerStatus> {
        let status = |manager: &Manager| {
            let down = manager.down.as_ref().map(|(_, cause)| cause.clone());
            ManagerStatus { url: manager.url.clone(), down }
        };
        self.managers.iter().map(status).collect()
    }

    /// Sends a request until a manager answers it; the body of a 2xx, `null` if that is empty.
    ///
    /// # Errors
    /// None answered, or one refused.
    pub async fn send(&mut self, request: &Request) -> Result<Value, NsxtError> {
        let mut tried = vec![0u32; self.managers.len()];
        let mut last = None;
        let (mut busy, mut hops) = (0, 0);
        let mut at = self.pick(&tried);
        while let Some(index) = at {
            match self.ask(index, request).await? {
                Outcome::Done(answer) => return self.reply(index, request, &answer),
                Outcome::Next(cause) => {
                    tried[index] += 1;
                    tracing::debug!(manager = self.managers[index].url, %cause, "NSX-T manager does not serve");
                    last = Some(cause);
                    at = self.pick(&tried);
                }
                Outcome::Again(cause, after) => {
                    busy += 1;
                    if after > PATIENCE || busy >= BUSY_TRIES {
                        return Err(NsxtError::Busy { cause, after });
                    }
                    sleep(after).await;
                }
                Outcome::There(there) => {
                    hops += 1;
                    if hops > self.managers.len() {
                        let manager = self.managers[index].url.clone();
                        let cause = "managers redirect in a circle".to_owned();
                        return Err(NsxtError::Nonsense { manager, path: request.path.clone(), cause });
                    }
                    at = Some(there);
                }
            }
        }
        Err(last.unwrap_or_else(|| NsxtError::NoManager("none is configured".to_owned())))
    }

    /// GET of a path.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn get(&mut self, path: &str) -> Result<Value, NsxtError> {
        self.send(&Request::new(Method::GET, path.to_owned())).await
    }

    /// GET of something that can be absent.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn find(&mut self, path: &str) -> Result<Option<Value>, NsxtError> {
        match self.get(path).await {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_absence() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All items of a list. How its end shows differs: no cursor, one that was there before, one that begins with `0000`, or
    /// an offset that reached the number of items, which the first page names.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn list(&mut self, path: &str) -> Result<Vec<Value>, NsxtError> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let (mut items, mut cursors) = (Vec::new(), Vec::<String>::new());
        let mut count = None;
        while cursors.len() < MAX_PAGES {
            let page = match cursors.last() {
                None => self.get(path).await?,
                Some(cursor) => self.get(&format!("{path}{separator}cursor={}", encode(cursor))).await?,
            };
            let Some(results) = page.get("results").and_then(Value::as_array) else {
                return Err(self.nonsense(path, "a list without `results`"));
            };
            items.extend(results.iter().cloned());
            count = count.or_else(|| page.get("result_count").and_then(Value::as_u64));
            let cursor = page.get("cursor").and_then(Value::as_str).unwrap_or_default();
            let is_past = cursor.parse::<u64>().ok().zip(count).is_some_and(|(offset, count)| offset >= count);
            let is_known = cursors.iter().any(|known| known == cursor);
            if cursor.is_empty() || cursor.starts_with("0000") || results.is_empty() || is_past || is_known {
                return Ok(items);
            }
            cursors.push(cursor.to_owned());
        }
        Err(self.nonsense(path, "a list that does not end"))
    }

    /// Asks managers that failed whether they are well again.
    pub async fn check_health(&mut self) {
        for index in 0..self.managers.len() {
            if index == self.current || self.managers[index].down.is_none() {
                continue;
            }
            let request = Request::new(Method::GET, "/api/v1/reverse-proxy/node/health".to_owned());
            let Ok(Outcome::Done(answer)) = self.ask(index, &request).await else { continue };
            let health: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            if answer.status == 200 && health["healthy"] == Value::Bool(true) {
                self.managers[index].down = None;
            } else {
                let components = health["components_health"].as_str().unwrap_or("no health report").to_owned();
                self.managers[index].down = Some((Instant::now() + DOWN, format!("not healthy ({components})")));
            }
        }
    }

    /// Ends the sessions.
    pub async fn close(&mut self) {
        for index in 0..self.managers.len() {
            if let Some(session) = self.managers[index].session.take() {
                let request = Request::new(Method::POST, "/api/session/destroy".to_owned());
                let credentials = Credentials::Session(session);
                let _ = self.http.exchange(&self.managers[index].url, &request, &credentials, false).await;
            }
        }
    }

    /// The next to ask: the one that answered last, then those not known to be down, then those that are.
    fn pick(&self, tried: &[u32]) -> Option<usize> {
        let now = Instant::now();
        let is_down = |index: &usize| self.managers[*index].down.as_ref().is_some_and(|(until, _)| now < *until);
        let order = std::iter::once(self.current).chain((0..self.managers.len()).filter(|at| *at != self.current));
        let open: Vec<usize> = order.filter(|at| tried[*at] == 0).collect();
        open.iter().find(|at| !is_down(at)).or(open.first()).copied()
    }

    fn reply(&mut self, at: usize, request: &Request, answer: &Answer) -> Result<Value, NsxtError> {
        self.current = at;
        self.managers[at].down = None;
        self.pace.accepted();
        if !(200..300).contains(&answer.status) {
            let error = ApiError::read(&answer.body);
            return Err(NsxtError::refusal(request.verb(), &request.path, answer.status, error));
        }
        if answer.body.trim_ascii().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&answer.body).map_err(|error| self.nonsense(&request.path, &error.to_string()))
    }

    fn nonsense(&self, path: &str, cause: &str) -> NsxtError {
        let manager = self.managers[self.current].url.clone();
        NsxtError::Nonsense { manager, path: path.to_owned(), cause: cause.to_owned() }
    }
}

//! Asking one manager: with which credentials, and what its answer means for who is asked next.

use std::time::Duration;

use reqwest::Url;
use tokio::time::{Instant, sleep};

use super::{Auth, Client, DOWN, Outcome};
use crate::nsxt::{
    error::{ApiError, NsxtError},
    secrets::Password,
    transport::{Answer, Credentials, Fault, Request, Session},
};

/// How long after a new session was refused as well no other one is made for a refusal.
const NO_USE: Duration = Duration::from_secs(60);

/// What to show a manager.
struct Shown {
    credentials: Credentials,
    /// Whether it is a session from before.
    is_old_session: bool,
}

/// An answer of one step, or why another manager or another time is better.
type Stepped<T> = Result<Result<T, Outcome>, NsxtError>;

impl Client {
    /// Asks one manager.
    pub(super) async fn ask(&mut self, at: usize, request: &Request) -> Result<Outcome, NsxtError> {
        let shown = match self.credentials(at).await? {
            Ok(shown) => shown,
            Err(outcome) => return Ok(outcome),
        };
        let answer = match self.exchange(at, request, &shown.credentials).await {
            Ok(answer) => answer,
            Err(outcome) => return Ok(outcome),
        };
        if !matches!(answer.status, 401 | 403) {
            return self.judge(at, answer);
        }
        let may_log_in = shown.is_old_session && self.may_log_in_again(at);
        match (&mut self.auth, shown.credentials) {
            (Auth::Basic(guard), Credentials::Basic(_, password)) if is_about_credentials(&answer) => {
                let cause = ApiError::read(&answer.body).message;
                Err(guard.refused(password, &self.managers[at].url, cause, Instant::now()))
            }
            (Auth::Session(_), _) if may_log_in => self.ask_in_new_session(at, request).await,
            _ => Ok(Outcome::Done(answer)),
        }
    }

    fn may_log_in_again(&self, at: usize) -> bool {
        self.managers[at].login_helps_not_before.is_none_or(|until| Instant::now() >= until)
    }

    /// Once more with a new session. If that is refused as well, sessions are not the matter.
    async fn ask_in_new_session(&mut self, at: usize, request: &Request) -> Result<Outcome, NsxtError> {
        self.managers[at].session = None;
        let shown = match self.credentials(at).await? {
            Ok(shown) => shown,
            Err(outcome) => return Ok(outcome),
        };
        match self.exchange(at, request, &shown.credentials).await {
            Ok(answer) => {
                let is_refused = matches!(answer.status, 401 | 403);
                self.managers[at].login_helps_not_before = is_refused.then(|| Instant::now() + NO_USE);
                self.judge(at, answer)
            }
            Err(outcome) => Ok(outcome),
        }
    }

    /// Sends it, and once more if the answer was lost and doing it twice does no harm.
    async fn exchange(&mut self, at: usize, request: &Request, credentials: &Credentials) -> Result<Answer, Outcome> {
        let mut again = request.is_repeatable();
        loop {
            self.wait().await;
            let url = &self.managers[at].url;
            match self.http.exchange(url, request, credentials, self.overwrite).await {
                Ok(answer) => {
                    let status = answer.status;
                    tracing::debug!(
                        manager = url,
                        method = request.verb(),
                        path = request.path,
                        status,
                        "NSX-T request"
                    );
                    self.counts.failures += u64::from(status >= 400);
                    return Ok(answer);
                }
                Err(Fault::Lost(_)) if again => {
                    self.counts.failures += 1;
                    again = false;
                }
                Err(fault) => return Err(self.failed(at, fault)),
            }
        }
    }

    async fn credentials(&mut self, at: usize) -> Stepped<Shown> {
        let new = |credentials| Ok(Ok(Shown { credentials, is_old_session: false }));
        match &mut self.auth {
            Auth::Certificate => new(Credentials::None),
            Auth::Basic(guard) => {
                let password = guard.password(Instant::now())?;
                new(Credentials::Basic(guard.username().to_owned(), password))
            }
            Auth::Session(guard) => match &self.managers[at].session {
                Some(session) => {
                    let credentials = Credentials::Session(session.clone());
                    Ok(Ok(Shown { credentials, is_old_session: true }))
                }
                None => {
                    let (user, password) = (guard.username().to_owned(), guard.password(Instant::now())?);
                    match self.log_in(at, &user, password).await? {
                        Ok(session) => new(Credentials::Session(session)),
                        Err(outcome) => Ok(Err(outcome)),
                    }
                }
            },
        }
    }

    async fn log_in(&mut self, at: usize, user: &str, password: Password) -> Stepped<Session> {
        const PATH: &str = "/api/session/create";
        self.wait().await;
        self.counts.logins += 1;
        let url = self.managers[at].url.clone();
        let mut answer = match self.http.log_in(&url, user, &password).await {
            Ok(answer) => answer,
            Err(fault) => return Ok(Err(self.failed(at, fault))),
        };
        tracing::debug!(manager = url, status = answer.status, "NSX-T login");
        self.counts.failures += u64::from(answer.status >= 400);
        match (answer.status, answer.session.take(), &mut self.auth) {
            (200..=299, Some(session), _) => {
                self.managers[at].session = Some(session.clone());
                Ok(Ok(session))
            }
            (200..=299, None, _) => {
                let cause = "a login without cookie and token".to_owned();
                Err(NsxtError::Nonsense { manager: url, path: PATH.to_owned(), cause })
            }
            (401 | 403, _, Auth::Session(guard)) => {
                let cause = ApiError::read(&answer.body).message;
                Err(guard.refused(password, &url, cause, Instant::now()))
            }
            _ => match self.judge(at, answer)? {
                Outcome::Done(answer) => {
                    Err(NsxtError::refusal("POST", PATH, answer.status, ApiError::read(&answer.body)))
                }
                outcome => Ok(Err(outcome)),
            },
        }
    }

    async fn wait(&mut self) {
        let pause = self.pace.take(Instant::now());
        if !pause.is_zero() {
            sleep(pause).await;
        }
        self.counts.requests += 1;
    }

    /// What an answer means for who is asked next.
    fn judge(&mut self, at: usize, answer: Answer) -> Result<Outcome, NsxtError> {
        let error = ApiError::read(&answer.body);
        let cause = format!("{} {}", answer.status, error.message);
        match (answer.status, error.code) {
            (301 | 302 | 307 | 308, _) => self.redirect(at, answer.location.as_deref().unwrap_or_default()),
            (429, _) => Ok(Outcome::Again(cause, self.pace.refused(Instant::now(), answer.retry_after))),
            (503, _) if self.managers.len() == 1 => {
                Ok(Outcome::Again(cause, self.pace.refused(Instant::now(), answer.retry_after)))
            }
            // 607: transaction aborted, 98: cannot connect.
            (502..=504, _) | (500, Some(607 | 98)) => Ok(self.failed(at, Fault::Unreachable(cause))),
            _ => Ok(Outcome::Done(answer)),
        }
    }

    fn redirect(&self, at: usize, location: &str) -> Result<Outcome, NsxtError> {
        let from = &self.managers[at].url;
        let target = Url::parse(from).and_then(|url| url.join(location)).ok();
        let origin = target.map(|url| url.origin().ascii_serialization());
        let there = self.managers.iter().position(|manager| Some(&manager.url) == origin.as_ref());
        match there.filter(|there| *there != at) {
            Some(there) => Ok(Outcome::There(there)),
            None => {
                let target = origin.unwrap_or_else(|| "nowhere".to_owned());
                Err(NsxtError::Redirect { manager: from.clone(), target })
            }
        }
    }

    /// Notes that a manager does not serve.
    fn failed(&mut self, at: usize, fault: Fault) -> Outcome {
        self.counts.failures += 1;
        let manager = self.managers[at].url.clone();
        let error = match fault {
            Fault::NotTrusted(cause) => NsxtError::NotTrusted { manager, cause },
            Fault::Unreachable(cause) | Fault::Lost(cause) => NsxtError::NoManager(format!("{manager}: {cause}")),
            Fault::Late => NsxtError::NoManager(format!("{manager}: no answer in time")),
        };
        self.managers[at].down = Some((Instant::now() + DOWN, error.to_string()));
        Outcome::Next(error)
    }
}

/// Whether a 401 or 403 means name and password, and not what the user may do: 403 is the code for these, too.
fn is_about_credentials(answer: &Answer) -> bool {
    answer.status == 401 || matches!(ApiError::read(&answer.body).code, None | Some(403))
}

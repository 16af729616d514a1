//! Who sends a request: Basic, a session of this node, or a client certificate.

use std::collections::BTreeMap;

use tokio::time::Instant;

use crate::{
    ADMIN, AUDITOR, Reply,
    world::{Call, State},
};

/// What one node knows of its callers. The other nodes know nothing of it.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    /// Cookie: token, user, last use.
    open: BTreeMap<String, (String, String, Instant)>,
    failures: u32,
    locked: Option<Instant>,
    made: u64,
}

/// The caller's name, or what it is answered.
pub(crate) fn principal(state: &mut State, node: usize, call: &Call) -> Result<String, Reply> {
    if let Some(value) = call.header("authorization") {
        if !state.switches.basic_auth {
            return Err(Reply::bad_credentials());
        }
        let (user, password) = basic(value).ok_or_else(Reply::bad_credentials)?;
        return check(state, node, &user, &password);
    }
    if let Some(cookie) = call.header("cookie").and_then(|cookies| cookies.strip_prefix("JSESSIONID=")) {
        let token = call.header("x-xsrf-token");
        return session(state, node, cookie, token);
    }
    match &call.certificate {
        Some(name) => Ok(name.clone()),
        None => Err(Reply { status: 401, ..Reply::bad_credentials() }),
    }
}

/// Name and password, with the lock after too many failures.
fn check(state: &mut State, node: usize, user: &str, password: &str) -> Result<String, Reply> {
    let now = Instant::now();
    let (most, period) = (state.switches.lock_after, state.switches.lock_period);
    let sessions = &mut state.sessions[node];
    if sessions.locked.is_some_and(|until| now < until) {
        return Err(Reply::bad_credentials());
    }
    if (user == ADMIN.0 || user == AUDITOR) && password == ADMIN.1 {
        sessions.failures = 0;
        return Ok(user.to_owned());
    }
    sessions.failures += 1;
    if sessions.failures >= most {
        sessions.failures = 0;
        sessions.locked = Some(now + period);
    }
    Err(Reply::bad_credentials())
}

fn session(state: &mut State, node: usize, cookie: &str, token: Option<&str>) -> Result<String, Reply> {
    let idle = state.switches.session_idle;
    let refused = || Reply::error(403, 98, "common-services", "The session is unknown or its token does not fit.");
    let (known, user, used) = state.sessions[node].open.get_mut(cookie).ok_or_else(refused)?;
    if token != Some(known.as_str()) || used.elapsed() > idle {
        return Err(refused());
    }
    *used = Instant::now();
    Ok(user.clone())
}

/// POST `/api/session/create`.
pub(crate) fn create_session(state: &mut State, node: usize, form: &str) -> Reply {
    let field = |name: &str| form.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let (Some(user), Some(password)) = (field("j_username").and_then(decoded), field("j_password").and_then(decoded))
    else {
        return Reply::bad_credentials();
    };
    state.logins += 1;
    let user = match check(state, node, &user, &password) {
        Ok(user) => user,
        Err(reply) => return reply,
    };
    let sessions = &mut state.sessions[node];
    sessions.made += 1;
    let (cookie, token) = (format!("{node:04X}{:028X}", sessions.made), format!("token-{node}-{}", sessions.made));
    sessions.open.insert(cookie.clone(), (token.clone(), user, Instant::now()));
    Reply::empty()
        .with("set-cookie", format!("JSESSIONID={cookie}; Path=/; Secure; HttpOnly; SameSite=Lax"))
        .with("x-xsrf-token", token)
}

/// POST `/api/session/destroy`.
pub(crate) fn destroy_session(state: &mut State, node: usize, call: &Call) -> Reply {
    if let Some(cookie) = call.header("cookie").and_then(|cookies| cookies.strip_prefix("JSESSIONID=")) {
        state.sessions[node].open.remove(cookie);
    }
    Reply::empty()
}

impl Sessions {
    /// How many are open.
    pub(crate) fn count(&self) -> usize {
        self.open.len()
    }

    /// What a restart of the node does.
    pub(crate) fn drop_all(&mut self) {
        self.open.clear();
    }
}

/// A form's value. A raw `+` is a blank, as forms have it.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                bytes.push(u8::from_str_radix(str::from_utf8(&digits).ok()?, 16).ok()?);
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).ok()
}

fn basic(value: &str) -> Option<(String, String)> {
    let text = String::from_utf8(base64(value.strip_prefix("Basic ")?)?).ok()?;
    text.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
}

/// RFC 4648 section 4.
fn base64(text: &str) -> Option<Vec<u8>> {
    let mut bits = 0u32;
    let mut count = 0;
    let mut bytes = Vec::new();
    for byte in text.trim_end_matches('=').bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    Some(bytes)
}

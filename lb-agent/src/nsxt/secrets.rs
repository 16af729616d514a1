//! Passwords: read when they are needed, shown nowhere, and left alone for a while after they were refused.

use std::{env, fmt, fs, time::Duration};

use tokio::time::Instant;

use super::error::NsxtError;
use crate::config::{NsxtLogin, PasswordSource};

/// How long refused credentials are not used again: NSX-T locks an account after 5 failures within 900 s, by default.
pub const PAUSE: Duration = Duration::from_secs(300);

/// A password. It is shown nowhere.
#[derive(Clone, Eq, PartialEq)]
pub struct Password(String);

impl Password {
    /// Reads it where the configuration says.
    ///
    /// # Errors
    /// There is none.
    pub fn read(source: &PasswordSource) -> Result<Self, NsxtError> {
        let (text, place) = match source {
            PasswordSource::File(path) => {
                let text = fs::read_to_string(path)
                    .map_err(|source| NsxtError::PasswordFile { path: path.clone(), source })?;
                (text, format!("password file {}", path.display()))
            }
            PasswordSource::Env(name) => {
                (env::var(name).unwrap_or_default(), format!("the environment's variable {name} (`passwordEnv`)"))
            }
        };
        match text.trim_end_matches(['\r', '\n']) {
            "" => Err(NsxtError::NoPassword(place)),
            password => Ok(Self(password.to_owned())),
        }
    }

    /// Itself, for the request that carries it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// Remembers a refused password, so that it does not lock the account.
#[derive(Debug)]
pub struct Guard {
    login: NsxtLogin,
    pause: Duration,
    refused: Option<Refused>,
}

#[derive(Debug)]
struct Refused {
    password: Password,
    manager: String,
    cause: String,
    until: Instant,
}

impl Guard {
    /// Nothing refused yet.
    #[must_use]
    pub const fn new(login: NsxtLogin, pause: Duration) -> Self {
        Self { login, pause, refused: None }
    }

    /// The user's name.
    #[must_use]
    pub fn username(&self) -> &str {
        &self.login.username
    }

    /// The password, unless it was refused lately. Another one than that may be tried at once.
    ///
    /// # Errors
    /// There is none, or it has to rest.
    pub fn password(&mut self, now: Instant) -> Result<Password, NsxtError> {
        let password = Password::read(&self.login.password)?;
        match &self.refused {
            Some(refused) if refused.password == password && now < refused.until => Err(NsxtError::Credentials {
                who: self.login.username.clone(),
                manager: refused.manager.clone(),
                cause: refused.cause.clone(),
                wait: refused.until - now,
            }),
            _ => {
                self.refused = None;
                Ok(password)
            }
        }
    }

    /// Notes that a manager refused a password; the error to report.
    pub fn refused(&mut self, password: Password, manager: &str, cause: String, now: Instant) -> NsxtError {
        let (manager, who) = (manager.to_owned(), self.login.username.clone());
        let until = now + self.pause;
        self.refused = Some(Refused { password, manager: manager.clone(), cause: cause.clone(), until });
        NsxtError::Credentials { who, manager, cause, wait: self.pause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_file(text: &str) -> (tempfile::TempDir, NsxtLogin) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        fs::write(&path, text).unwrap();
        (dir, NsxtLogin { username: "admin".to_owned(), password: PasswordSource::File(path) })
    }

    #[test]
    fn a_line_end_is_not_part_of_it_and_debug_shows_nothing() {
        let (_dir, login) = in_file(" p+w \r\n");
        let password = Password::read(&login.password).unwrap();
        assert_eq!((password.expose(), format!("{password:?}").as_str()), (" p+w ", "Password(..)"));
    }

    #[test]
    fn none_is_an_error_that_says_where_to_write_it() {
        let (_dir, login) = in_file("\n");
        assert!(
            Password::read(&login.password).unwrap_err().to_string().ends_with("holds no password; write it there")
        );
        let absent = PasswordSource::File("/nonexistent/password".into());
        assert!(
            Password::read(&absent).unwrap_err().to_string().starts_with("password file /nonexistent/password can't")
        );
        let variable = PasswordSource::Env("LEVEE_TEST_NO_SUCH_VARIABLE".to_owned());
        assert!(Password::read(&variable).unwrap_err().to_string().contains("LEVEE_TEST_NO_SUCH_VARIABLE"));
    }

    #[test]
    fn a_refused_password_rests_and_a_changed_one_does_not() {
        let (dir, login) = in_file("wrong");
        let start = Instant::now();
        let mut guard = Guard::new(login, PAUSE);
        let password = guard.password(start).unwrap();
        let error = guard.refused(password, "https://a", "locked".to_owned(), start);
        let rest = |error: NsxtError| match error {
            NsxtError::Credentials { wait, .. } => wait,
            other => panic!("{other}"),
        };
        assert_eq!(rest(error), PAUSE);
        let later = start + Duration::from_secs(100);
        assert_eq!(rest(guard.password(later).unwrap_err()), Duration::from_secs(200));
        assert_eq!(guard.password(start + PAUSE).unwrap().expose(), "wrong");
        let password = guard.password(start + PAUSE).unwrap();
        guard.refused(password, "https://a", "locked".to_owned(), later);
        fs::write(dir.path().join("password"), "right").unwrap();
        assert_eq!(guard.password(later).unwrap().expose(), "right");
    }
}

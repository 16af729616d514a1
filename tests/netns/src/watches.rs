//! Watches: connections that stay open, carry something all the time, and are opened anew whenever they end, as clients
//! of the Kubernetes API do.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinHandle, time::sleep};

use crate::{
    client::{Client, Connection, Failure},
    netns::NetnsRuntime,
};

/// Pause before a watch that ended is opened again.
const PAUSE: Duration = Duration::from_millis(100);

/// One connection of a watch.
#[derive(Clone, Debug)]
pub struct Session {
    /// The server that answered; `None` if the connection never came about.
    pub server: Option<String>,
    /// When it was begun.
    pub began: Instant,
    /// Requests answered.
    pub answered: u64,
    /// When and how it ended, if the client did not end it.
    pub ended: Option<(Instant, Failure)>,
}

impl Session {
    /// Whether it carries data: it was answered, and has not ended.
    #[must_use]
    pub const fn lives(&self) -> bool {
        self.answered > 0 && self.ended.is_none()
    }
}

type Sessions = Arc<Mutex<Vec<Vec<Session>>>>;

/// Watches under way.
#[derive(Debug)]
pub struct Watches {
    sessions: Sessions,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Watches {
    /// Opens `count` watches, with a request on each every `period`.
    #[must_use]
    pub fn open(runtime: &NetnsRuntime, client: &Client, count: usize, period: Duration) -> Self {
        let sessions: Sessions = Arc::new(Mutex::new(vec![Vec::new(); count]));
        let (stop, stopped) = watch::channel(false);
        let tasks = (0..count).map(|n| {
            let note = Note { sessions: Arc::clone(&sessions), watch: n };
            let (client, mut stopped) = (client.clone(), stopped.clone());
            runtime.spawn(async move {
                tokio::select! {
                    () = go_on(&client, period, &note) => {}
                    // An error means that the watches' owner is gone.
                    _ = stopped.changed() => {}
                }
            })
        });
        Self { tasks: tasks.collect(), sessions, stop }
    }

    /// The connections of every watch so far, in the order of their beginning.
    #[must_use]
    pub fn sessions(&self) -> Vec<Vec<Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The connection that every watch has now; `None` before its first.
    #[must_use]
    pub fn latest(&self) -> Vec<Option<Session>> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.iter().map(|watch| watch.last().cloned()).collect()
    }

    /// Closes the watches and returns the connections of each.
    pub async fn close(self) -> Vec<Vec<Session>> {
        let _ = self.stop.send(true);
        for task in self.tasks {
            let _ = task.await;
        }
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Where one watch notes what becomes of it.
struct Note {
    sessions: Sessions,
    watch: usize,
}

impl Note {
    fn begin(&self) {
        let session = Session { server: None, began: Instant::now(), answered: 0, ended: None };
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)[self.watch].push(session);
    }

    fn change(&self, change: impl FnOnce(&mut Session)) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = sessions[self.watch].last_mut() {
            change(session);
        }
    }
}

/// One connection after the other, for ever.
async fn go_on(client: &Client, period: Duration, note: &Note) {
    loop {
        note.begin();
        let failure = match client.connect(0).await {
            Ok(connection) => follow(connection, period, note).await,
            Err(failure) => failure,
        };
        note.change(|session| session.ended = Some((Instant::now(), failure)));
        sleep(PAUSE).await;
    }
}

/// Uses a connection until it ends, and returns how it did.
async fn follow(mut connection: Connection, period: Duration, note: &Note) -> Failure {
    for number in 0.. {
        let server = match connection.ask(number).await {
            Ok(greeting) => greeting.server,
            Err(failure) => return failure,
        };
        let mut other = None;
        note.change(|session| {
            let first = session.server.get_or_insert_with(|| server.clone());
            other = (*first != server).then(|| first.clone());
            session.answered += 1;
        });
        if let Some(first) = other {
            return Failure::WrongAnswer(format!("{first} became {server}"));
        }
        sleep(period).await;
    }
    unreachable!("the numbers do not end")
}

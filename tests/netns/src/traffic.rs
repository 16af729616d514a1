//! Traffic over time: a steady stream of new connections, and connections that stay open.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{
    client::{Client, Failure},
    netns::NetnsRuntime,
};

/// One request on a connection of its own.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// When it was begun.
    pub started: Instant,
    /// Time to the answer or the failure.
    pub took: Duration,
    /// Name of the server that answered.
    pub outcome: Result<String, Failure>,
}

/// Answers by server and failures by kind.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// How many requests each server answered.
    pub answers: BTreeMap<String, usize>,
    /// How many requests failed in each way.
    pub failures: BTreeMap<String, usize>,
}

impl Tally {
    /// Counts `attempts`.
    pub fn of<'a>(attempts: impl IntoIterator<Item = &'a Attempt>) -> Self {
        let mut tally = Self::default();
        for attempt in attempts {
            match &attempt.outcome {
                Ok(server) => *tally.answers.entry(server.clone()).or_default() += 1,
                Err(failure) => *tally.failures.entry(failure.to_string()).or_default() += 1,
            }
        }
        tally
    }

    /// Number of requests that failed.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.failures.values().sum()
    }

    /// Number of requests that were answered.
    #[must_use]
    pub fn answered(&self) -> usize {
        self.answers.values().sum()
    }
}

/// Sends `count` requests on connections of their own, `parallel` at a time.
pub async fn burst(runtime: &NetnsRuntime, client: &Client, count: usize, parallel: usize) -> Vec<Attempt> {
    let mut attempts = Vec::with_capacity(count);
    let mut running = JoinSet::new();
    for _ in 0..count {
        if running.len() >= parallel {
            attempts.extend(running.join_next().await.and_then(Result::ok).and_then(Result::ok));
        }
        running.spawn(runtime.spawn(attempt(client.clone())));
    }
    attempts.extend(running.join_all().await.into_iter().filter_map(Result::ok));
    attempts
}

async fn attempt(client: Client) -> Attempt {
    let started = Instant::now();
    let outcome = client.request().await;
    Attempt { started, took: started.elapsed(), outcome: outcome.map(|(greeting, _)| greeting.server) }
}

/// A new request at every tick, whatever became of the ones before.
#[derive(Debug)]
pub struct Stream {
    stop: watch::Sender<bool>,
    task: JoinHandle<Vec<Attempt>>,
}

impl Stream {
    /// Starts the stream from `runtime`'s namespace.
    #[must_use]
    pub fn start(runtime: &NetnsRuntime, client: Client, period: Duration) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let task = runtime.spawn(async move {
            let mut ticks = interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut running = JoinSet::new();
            loop {
                tokio::select! {
                    _ = ticks.tick() => { running.spawn(attempt(client.clone())); }
                    // An error means that the stream's owner is gone.
                    _ = stopped.changed() => break,
                }
            }
            let mut attempts = running.join_all().await;
            attempts.sort_by_key(|attempt| attempt.started);
            attempts
        });
        Self { stop, task }
    }

    /// Ends the stream, waits for the requests under way and returns all in the order of their beginning.
    pub async fn stop(self) -> Vec<Attempt> {
        let _ = self.stop.send(true);
        self.task.await.unwrap_or_default()
    }
}

/// The life of a connection that stays open.
#[derive(Clone, Debug)]
pub struct Life {
    /// The server that answered first; `None` if the connection never came about.
    pub server: Option<String>,
    /// Requests answered.
    pub answered: u64,
    /// When and how it broke. Another server's answer on the same connection is a break as well.
    pub broken: Option<(Instant, Failure)>,
}

/// Connections that stay open, each with a numbered request every so often.
#[derive(Debug)]
pub struct LongLived {
    lives: Arc<Mutex<Vec<Life>>>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl LongLived {
    /// Opens `count` connections, asking on each every `period`.
    ///
    /// Connection `n` comes from port `first_port + n`, so that a run can be repeated with the same flows; with
    /// `first_port` 0 the kernel chooses.
    #[must_use]
    pub fn open(runtime: &NetnsRuntime, client: &Client, count: u16, first_port: u16, period: Duration) -> Self {
        let unborn = Life { server: None, answered: 0, broken: None };
        let lives = Arc::new(Mutex::new(vec![unborn; usize::from(count)]));
        let (stop, stopped) = watch::channel(false);
        let tasks = (0..count).map(|n| {
            let (client, lives, mut stopped) = (client.clone(), Arc::clone(&lives), stopped.clone());
            let port = if first_port == 0 { 0 } else { first_port + n };
            runtime.spawn(async move {
                let note = |change: &mut dyn FnMut(&mut Life)| {
                    change(&mut lives.lock().unwrap_or_else(PoisonError::into_inner)[usize::from(n)]);
                };
                tokio::select! {
                    failure = live(&client, port, period, &note) => {
                        note(&mut |life| life.broken = Some((Instant::now(), failure.clone())));
                    }
                    _ = stopped.changed() => {}
                }
            })
        });
        Self { tasks: tasks.collect(), lives, stop }
    }

    /// How the connections fare now, in the order of their opening.
    #[must_use]
    pub fn lives(&self) -> Vec<Life> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Closes the connections and returns what became of each.
    pub async fn close(self) -> Vec<Life> {
        let _ = self.stop.send(true);
        for task in self.tasks {
            let _ = task.await;
        }
        self.lives.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Uses one connection until it breaks, and returns how it did.
async fn live(client: &Client, port: u16, period: Duration, note: &impl Fn(&mut dyn FnMut(&mut Life))) -> Failure {
    let mut connection = match client.connect(port).await {
        Ok(connection) => connection,
        Err(failure) => return failure,
    };
    let mut server: Option<String> = None;
    for number in 0.. {
        let greeting = match connection.ask(number).await {
            Ok(greeting) => greeting,
            Err(failure) => return failure,
        };
        let first = server.get_or_insert_with(|| greeting.server.clone());
        if *first != greeting.server {
            return Failure::WrongAnswer(format!("{first} became {}", greeting.server));
        }
        note(&mut |life| {
            life.server.get_or_insert_with(|| greeting.server.clone());
            life.answered += 1;
        });
        sleep(period).await;
    }
    unreachable!("the numbers do not end")
}

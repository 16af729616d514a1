//! The file source: reads the configuration again whenever it changes, and on request.
//!
//! It watches the *folder*, since an editor replaces the file and Kubernetes swaps a symlink beside it. Now and then it
//! looks by itself: a symlink to elsewhere, a network file system or a replaced folder raises no event.
//!
//! Invariant: every outcome is whole. After an event the same content yields nothing; a request always yields one.
//! A changed `secretFile` counts with the next change or request, for it sends every flow to another backend.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, ModifyKind},
};
use thiserror::Error;
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::{self, Config, ConfigErrors, NamedFile, Reader};

/// Quiet time after an event before the file is read: an editor's write takes several events.
const DEBOUNCE: Duration = Duration::from_millis(10);
/// Longest time that events can put reading off.
const DEBOUNCE_MAX: Duration = Duration::from_millis(500);
/// How often the file is read without any event.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Outcomes that wait to be taken; then the source waits, too, and reads the newest content after that.
const QUEUED: usize = 4;

/// What reading the file came to.
pub type Outcome = Result<Config, ConfigErrors>;

/// A watched configuration file. Outcomes stop when it is cancelled.
#[derive(Debug)]
pub struct FileSource {
    wanted: Arc<Notify>,
}

/// Why a file can't be watched.
#[derive(Debug, Error)]
pub enum WatchError {
    /// The kernel refuses a watch.
    #[error("can't watch {}; if too many are in use, raise the sysctl fs.inotify.max_user_instances", path.display())]
    Refused {
        /// The folder.
        path: PathBuf,
        /// What the kernel said.
        source: notify::Error,
    },
}

impl FileSource {
    /// Watches `path` until `cancel`; the first outcome is what the file holds now. Needs a tokio runtime.
    ///
    /// # Errors
    /// If the folder can't be watched. A file that is absent or bad is an outcome, not an error.
    pub fn spawn(path: &Path, cancel: CancellationToken) -> Result<(Self, mpsc::Receiver<Outcome>), WatchError> {
        let changed = Arc::new(Notify::new());
        let wanted = Arc::new(Notify::new());
        let watcher = watch(config::base_dir(path), Arc::clone(&changed))?;
        let (outcomes, receiver) = mpsc::channel(QUEUED);
        wanted.notify_one(); // the first outcome needs no event
        let task = Task {
            path: path.to_owned(),
            changed,
            wanted: Arc::clone(&wanted),
            outcomes,
            last: None,
            reader: Reader::default(),
        };
        tokio::spawn(async move {
            let _watcher = watcher; // events end when it is dropped
            cancel.run_until_cancelled(task.run()).await;
        });
        Ok((Self { wanted }, receiver))
    }

    /// Reads the file now and yields the outcome even if nothing changed (SIGHUP).
    pub fn reload(&self) {
        self.wanted.notify_one();
    }
}

fn watch(folder: &Path, changed: Arc<Notify>) -> Result<RecommendedWatcher, WatchError> {
    let refused = |source| WatchError::Refused { path: folder.to_owned(), source };
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // An error can mean lost events, so the file is looked at then, too.
        if event.map_or(true, |event| is_change(event.kind)) {
            changed.notify_one();
        }
    })
    .map_err(refused)?;
    watcher.watch(folder, RecursiveMode::NonRecursive).map_err(refused)?;
    Ok(watcher)
}

/// Whether an event can mean new content that is complete. Opening and reading is what this source does itself; data
/// that is written is complete when the writer closes the file, and half a list of services can look like a good one.
const fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) | EventKind::Modify(ModifyKind::Data(_)) => false,
        _ => true,
    }
}

struct Task {
    path: PathBuf,
    changed: Arc<Notify>,
    wanted: Arc<Notify>,
    outcomes: mpsc::Sender<Outcome>,
    last: Option<Seen>,
    reader: Reader,
}

/// What was yielded last.
#[derive(Clone, Eq, PartialEq)]
enum Seen {
    /// A good file, by a hash of its bytes, and the files that it names.
    Good { hash: u64, files: Vec<NamedFile> },
    /// A bad one. It can become good without a change of its own (an absent `secretFile` that appears).
    Bad(ConfigErrors),
}

impl Task {
    async fn run(mut self) {
        loop {
            let forced = tokio::select! {
                biased;
                () = self.wanted.notified() => true,
                () = self.changed.notified() => {
                    self.settle().await;
                    false
                }
                () = tokio::time::sleep(LOOK_INTERVAL) => false,
            };
            if !self.look(forced).await {
                return; // nobody listens any more
            }
        }
    }

    /// Waits until no event came for a while.
    async fn settle(&self) {
        let end = Instant::now() + DEBOUNCE_MAX;
        while Instant::now() < end {
            let quiet = Instant::now() + DEBOUNCE;
            if timeout_at(quiet.min(end), self.changed.notified()).await.is_err() {
                return;
            }
        }
    }

    /// Reads the file and yields what is new; false when the receiver is gone.
    async fn look(&mut self, forced: bool) -> bool {
        let (path, last) = (self.path.clone(), self.last.clone().filter(|_| !forced));
        let mut reader = std::mem::take(&mut self.reader);
        // Reading and parsing 16 MB takes a second: not on a thread that renews announcements.
        let work = tokio::task::spawn_blocking(move || (read(&mut reader, &path, last.as_ref()), reader));
        let Ok((read, reader)) = work.await else {
            warn!(file = %self.path.display(), "reading the configuration was interrupted");
            return true;
        };
        self.reader = reader;
        let Some((seen, outcome)) = read else { return true };
        self.last = Some(seen);
        log(&self.path, &outcome);
        self.outcomes.send(outcome).await.is_ok()
    }
}

/// What the file holds, unless that is what was seen last.
fn read(reader: &mut Reader, path: &Path, last: Option<&Seen>) -> Option<(Seen, Outcome)> {
    let bytes = match config::read_bytes(path) {
        Ok(bytes) => bytes,
        Err(errors) => return bad(errors, last),
    };
    let hash = hash(&bytes);
    if let Some(Seen::Good { hash: before, files }) = last
        && *before == hash
        && files.iter().all(NamedFile::is_unchanged)
    {
        return None;
    }
    let name = path.display().to_string();
    let text = config::text_of(&name, bytes);
    match text.and_then(|text| reader.parse(&name, &text, config::base_dir(path))) {
        Ok(config) => Some((Seen::Good { hash, files: config.files.clone() }, Ok(config))),
        Err(errors) => bad(errors, last),
    }
}

fn bad(errors: ConfigErrors, last: Option<&Seen>) -> Option<(Seen, Outcome)> {
    let seen = Seen::Bad(errors.clone());
    (last != Some(&seen)).then_some((seen, Err(errors)))
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

fn log(path: &Path, outcome: &Outcome) {
    let file = path.display();
    match outcome {
        Ok(config) => {
            info!(%file, services = config.desired.services.len(), peers = config.desired.peers.len(), "configuration read");
            for warning in &config.warnings {
                warn!(%warning, "odd configuration");
            }
        }
        Err(errors) => warn!(%file, problems = errors.problems.len(), %errors, "configuration refused"),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write, os::unix::fs::symlink};

    use tempfile::TempDir;
    use tokio::time::timeout;

    use super::*;

    /// Far more than an event takes, so only a missing outcome runs into it.
    const PATIENCE: Duration = Duration::from_secs(60);
    /// Longer than debouncing, shorter than the source looks by itself.
    const SILENCE: Duration = Duration::from_millis(700);

    fn text(name: &str) -> String {
        format!(
            "node: {{name: {name}, addresses: [10.0.1.2]}}\ninterfaces: [{{name: eth0}}]\n\
             secret: 000102030405060708090a0b0c0d0e0f\n"
        )
    }

    struct Watched {
        folder: TempDir,
        source: FileSource,
        outcomes: mpsc::Receiver<Outcome>,
        _cancel: tokio_util::sync::DropGuard,
    }

    impl Watched {
        /// Watches `levee.yaml` in a folder that `prepare` fills.
        fn new(prepare: impl FnOnce(&Path)) -> Self {
            let folder = tempfile::tempdir().unwrap();
            prepare(folder.path());
            let cancel = CancellationToken::new();
            let (source, outcomes) = FileSource::spawn(&folder.path().join("levee.yaml"), cancel.clone()).unwrap();
            Self { folder, source, outcomes, _cancel: cancel.drop_guard() }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        /// The node's name in the next outcome, or what is wrong.
        async fn next(&mut self) -> Result<String, String> {
            let outcome = timeout(PATIENCE, self.outcomes.recv()).await.expect("an outcome").expect("a source");
            outcome.map(|config| config.desired.node.name).map_err(|errors| errors.to_string())
        }

        async fn assert_silent(&mut self) {
            let outcome = timeout(SILENCE, self.outcomes.recv()).await;
            assert!(outcome.is_err(), "{outcome:?}");
        }
    }

    #[test]
    fn only_complete_content_is_a_change() {
        use notify::event::{CreateKind, DataChange, MetadataKind, RenameMode};
        for (kind, expected) in [
            (EventKind::Access(AccessKind::Open(AccessMode::Any)), false),
            (EventKind::Access(AccessKind::Close(AccessMode::Read)), false),
            (EventKind::Access(AccessKind::Close(AccessMode::Write)), true),
            (EventKind::Modify(ModifyKind::Data(DataChange::Any)), false),
            (EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any)), true),
            (EventKind::Modify(ModifyKind::Name(RenameMode::To)), true),
            (EventKind::Create(CreateKind::File), true),
            (EventKind::Other, true),
        ] {
            assert_eq!(is_change(kind), expected, "{kind:?}");
        }
    }

    #[tokio::test]
    async fn a_file_written_in_place_is_read_again() {
        let mut watched = Watched::new(|folder| fs::write(folder.join("levee.yaml"), text("a")).unwrap());
        assert_eq!(watched.next().await, Ok("a".to_owned()));
        fs::write(watched.path("levee.yaml"), text("b")).unwrap();
        assert_eq!(watched.next().await, Ok("b".to_owned()));
    }

    #[tokio::test]
    async fn a_file_renamed_into_place_is_read_again() {
        let mut watched = Watched::new(|folder| fs::write(folder.join("levee.yaml"), text("a")).unwrap());
        assert_eq!(watched.next().await, Ok("a".to_owned()));
        fs::write(watched.path("levee.yaml.new"), text("b")).unwrap();
        fs::rename(watched.path("levee.yaml.new"), watched.path("levee.yaml")).unwrap();
        assert_eq!(watched.next().await, Ok("b".to_owned()));
    }

    #[tokio::test]
    async fn a_swapped_symlink_is_read_again() {
        let version = |folder: &Path, name: &str| {
            fs::create_dir(folder.join(name)).unwrap();
            fs::write(folder.join(name).join("levee.yaml"), text(name)).unwrap();
        };
        let mut watched = Watched::new(|folder| {
            version(folder, "v1");
            symlink("v1", folder.join("..data")).unwrap();
            symlink("..data/levee.yaml", folder.join("levee.yaml")).unwrap();
        });
        assert_eq!(watched.next().await, Ok("v1".to_owned()));
        version(watched.folder.path(), "v2");
        symlink("v2", watched.path("..data_tmp")).unwrap();
        fs::rename(watched.path("..data_tmp"), watched.path("..data")).unwrap();
        assert_eq!(watched.next().await, Ok("v2".to_owned()));
    }

    #[tokio::test]
    async fn unchanged_content_is_yielded_on_request_only() {
        let mut watched = Watched::new(|folder| fs::write(folder.join("levee.yaml"), text("a")).unwrap());
        assert_eq!(watched.next().await, Ok("a".to_owned()));
        fs::write(watched.path("levee.yaml"), text("a")).unwrap();
        fs::write(watched.path("other"), "x").unwrap();
        watched.assert_silent().await;
        watched.source.reload();
        assert_eq!(watched.next().await, Ok("a".to_owned()));
    }

    #[tokio::test]
    async fn a_file_is_read_when_its_writer_is_done() {
        let mut watched = Watched::new(|folder| fs::write(folder.join("levee.yaml"), text("a")).unwrap());
        assert_eq!(watched.next().await, Ok("a".to_owned()));
        let mut file = fs::File::create(watched.path("levee.yaml")).unwrap();
        file.write_all(b"node: {name: b, ").unwrap();
        watched.assert_silent().await;
        file.write_all(text("b").trim_start_matches("node: {name: b, ").as_bytes()).unwrap();
        drop(file);
        assert_eq!(watched.next().await, Ok("b".to_owned()));
    }

    #[tokio::test]
    async fn a_bad_edit_is_told_once_and_mended() {
        let mut watched = Watched::new(|folder| fs::write(folder.join("levee.yaml"), text("a")).unwrap());
        assert_eq!(watched.next().await, Ok("a".to_owned()));
        fs::write(watched.path("levee.yaml"), text("b") + "colour: red\n").unwrap();
        let error = watched.next().await.unwrap_err();
        assert!(error.contains("levee.yaml:4:1: unknown key `colour`"), "{error}");
        fs::write(watched.path("other"), "x").unwrap();
        watched.assert_silent().await;
        fs::write(watched.path("levee.yaml"), text("a")).unwrap();
        assert_eq!(watched.next().await, Ok("a".to_owned()));
    }

    #[tokio::test]
    async fn an_absent_file_is_an_outcome_until_it_appears() {
        let mut watched = Watched::new(|_| ());
        let error = watched.next().await.unwrap_err();
        assert!(error.contains("can't be read: No such file"), "{error}");
        fs::write(watched.path("levee.yaml"), text("a")).unwrap();
        assert_eq!(watched.next().await, Ok("a".to_owned()));
    }

    #[tokio::test]
    async fn a_secret_that_appears_mends_an_unchanged_file() {
        let with_file = text("a").replace("secret: 000102030405060708090a0b0c0d0e0f", "secretFile: secret");
        let mut watched = Watched::new(|folder| fs::write(folder.join("levee.yaml"), with_file).unwrap());
        assert!(watched.next().await.unwrap_err().contains("secret can't be read"));
        let hidden = watched.path("hidden");
        fs::write(&hidden, "000102030405060708090a0b0c0d0e0f\n").unwrap();
        fs::set_permissions(&hidden, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        fs::rename(&hidden, watched.path("secret")).unwrap();
        assert_eq!(watched.next().await, Ok("a".to_owned()));
    }

    #[tokio::test]
    async fn a_changed_file_that_the_configuration_names_is_read_again() {
        let authority = || {
            let mut parameters = rcgen::CertificateParams::default();
            parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            parameters.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
        };
        let service = "services: [{name: s, vips: [192.0.2.1], ports: [80], probe: {https: {caFile: pki/ca.crt}}}]\n";
        let mut watched = Watched::new(|folder| {
            fs::create_dir(folder.join("pki")).unwrap();
            fs::write(folder.join("pki/ca.crt"), authority()).unwrap();
            fs::write(folder.join("levee.yaml"), text("a") + service).unwrap();
        });
        assert_eq!(watched.next().await, Ok("a".to_owned()));
        fs::write(watched.path("other"), "x").unwrap();
        watched.assert_silent().await;
        fs::write(watched.path("pki/ca.crt"), authority()).unwrap();
        assert_eq!(watched.next().await, Ok("a".to_owned()));
        fs::remove_file(watched.path("pki/ca.crt")).unwrap();
        let error = watched.next().await.unwrap_err();
        assert!(error.contains("pki/ca.crt can't be read: No such file"), "{error}");
    }

    #[tokio::test]
    async fn cancelling_ends_the_outcomes() {
        let folder = tempfile::tempdir().unwrap();
        let cancel = CancellationToken::new();
        let (_source, mut outcomes) = FileSource::spawn(&folder.path().join("levee.yaml"), cancel.clone()).unwrap();
        assert!(outcomes.recv().await.unwrap().is_err());
        cancel.cancel();
        assert!(timeout(PATIENCE, outcomes.recv()).await.expect("an end").is_none());
    }
}

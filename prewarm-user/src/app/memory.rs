//! What was learnt, from one life of the daemon to the next: the predictor's counts and the known names.
//!
//! Comes in: the state folder. Goes out: a predictor and names to begin with; and now and then two files, each written
//! whole beside the old one and renamed over it. A file that can't be used is left out with a warning: then that part is
//! learnt anew.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep,
};

use super::core::{Question, chain};
use crate::{
    config::PredictSettings,
    history::RememberedName,
    kernel::Key,
    model::Name,
    predict::{Mixture, Predictor, SnapshotError},
};

/// How often it is written: what is lost in a crash.
const WRITE: Duration = Duration::from_secs(300);
/// The files in the state folder.
const PREDICTOR: &str = "predictor.bin";
const NAMES: &str = "names.json";
/// The version of the names' form. Fields may be added under the same number.
const VERSION: u32 = 1;
/// No file of names of ours is longer: a million of them.
const LONGEST: u64 = 1 << 30;

/// What the deciding task knows, to be written.
#[derive(Debug, Default)]
pub(super) struct State {
    /// What the predictor learnt; empty if it keeps nothing.
    pub(super) predictor: Vec<u8>,
    /// The known names.
    pub(super) names: Vec<RememberedName>,
}

/// Names that were read.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// The names.
    pub(super) names: Vec<RememberedName>,
    /// The time since they were written; zero if the clock was set back.
    pub(super) away: Duration,
}

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
enum MemoryError {
    #[error("{path} can't be read or written")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is damaged")]
    Names {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("{path} has form {found}, and this prewarm reads {VERSION}")]
    Version { path: PathBuf, found: u32 },
    #[error("{path} belongs to another key")]
    Key { path: PathBuf },
    #[error("{path} is of no use")]
    Predictor {
        path: PathBuf,
        #[source]
        source: SnapshotError,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct NamesFile<N> {
    version: u32,
    /// Seconds since 1970.
    written: u64,
    names: N,
}

/// The files, and the key that all they say hangs on.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    folder: PathBuf,
    tag: [u8; 8],
}

impl Memory {
    pub(super) fn new(folder: &Path, key: &Key) -> Self {
        // Says whether a file was written under the same key, and nothing about it.
        let tag = "prewarm.invalid".parse::<Name>().map(|name| key.resource_id(&name).0).unwrap_or_default();
        Self { folder: folder.to_owned(), tag: tag.to_le_bytes() }
    }

    /// The predictor as it was, or one that knows nothing.
    pub(super) fn predictor(&self, settings: &PredictSettings) -> Box<dyn Predictor> {
        match self.read_predictor(settings) {
            Ok(Some(predictor)) => {
                tracing::info!("the predictor goes on from {}", self.path(PREDICTOR).display());
                return Box::new(predictor);
            }
            Ok(None) => {}
            Err(error) => tracing::warn!("{}; the predictor begins anew", chain(&error)),
        }
        Box::new(Mixture::new(settings))
    }

    /// The names as they were.
    pub(super) fn names(&self) -> Names {
        self.read_names().unwrap_or_else(|error| {
            tracing::warn!("{}; names are learnt anew", chain(&error));
            Names::default()
        })
    }

    /// Writes both files.
    pub(super) fn write(&self, state: &State) {
        for written in [self.write_predictor(&state.predictor), self.write_names(&state.names)] {
            if let Err(error) = written {
                tracing::warn!("{}", chain(&error));
            }
        }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    fn read_predictor(&self, settings: &PredictSettings) -> Result<Option<Mixture>, MemoryError> {
        let path = self.path(PREDICTOR);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened,
        };
        let read = || -> io::Result<_> {
            let (mut file, mut tag) = (BufReader::new(file?), [0; 8]);
            file.read_exact(&mut tag)?;
            Ok((file, tag))
        };
        let (mut file, tag) = read().map_err(|source| MemoryError::File { path: path.clone(), source })?;
        if tag != self.tag {
            return Err(MemoryError::Key { path });
        }
        let loaded = Mixture::load(settings, &mut file);
        loaded.map(Some).map_err(|source| MemoryError::Predictor { path, source })
    }

    fn write_predictor(&self, bytes: &[u8]) -> Result<(), MemoryError> {
        if bytes.is_empty() {
            return Ok(());
        }
        write_whole(&self.path(PREDICTOR), &[&self.tag, bytes])
    }

    fn read_names(&self) -> Result<Names, MemoryError> {
        let path = self.path(NAMES);
        let refuse = |source| MemoryError::File { path: path.clone(), source };
        let text = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Names::default()),
            Ok(file) if file.len() > LONGEST => return Err(refuse(io::ErrorKind::FileTooLarge.into())),
            _ => fs::read(&path).map_err(refuse)?,
        };
        let damaged = |source| MemoryError::Names { path: path.clone(), source };
        // The form first: another one may have other names.
        let form: NamesFile<serde::de::IgnoredAny> = serde_json::from_slice(&text).map_err(damaged)?;
        if form.version != VERSION {
            return Err(MemoryError::Version { path, found: form.version });
        }
        let file: NamesFile<Vec<RememberedName>> = serde_json::from_slice(&text).map_err(damaged)?;
        Ok(Names { names: file.names, away: Duration::from_secs(since_1970().saturating_sub(file.written)) })
    }

    fn write_names(&self, names: &[RememberedName]) -> Result<(), MemoryError> {
        let path = self.path(NAMES);
        let file = NamesFile { version: VERSION, written: since_1970(), names };
        let text = serde_json::to_vec(&file).map_err(|source| MemoryError::Names { path: path.clone(), source })?;
        write_whole(&path, &[&text])
    }
}

fn since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Writes a file, whole or not at all.
fn write_whole(path: &Path, parts: &[&[u8]]) -> Result<(), MemoryError> {
    let unborn = path.with_extension(format!("{}.new", std::process::id()));
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unborn)?;
        parts.iter().try_for_each(|part| file.write_all(part))?;
        file.sync_all()?;
        fs::rename(&unborn, path)
    };
    write().map_err(|source| {
        // Half a file is of no use to anybody.
        let _not_there = fs::remove_file(&unborn);
        MemoryError::File { path: path.to_owned(), source }
    })
}

/// Asks the deciding task for what it knows, and writes it; whether it still answers.
pub(super) async fn remember(questions: &mpsc::Sender<Question>, memory: &Memory) -> bool {
    let (to, state) = oneshot::channel();
    if questions.send(Question::State(to)).await.is_err() {
        return false;
    }
    let Ok(state) = state.await else { return false };
    let memory = memory.clone();
    // Files are synced: that may take long.
    tokio::task::spawn_blocking(move || memory.write(&state)).await.is_ok()
}

/// Does so now and then, until it is dropped.
pub(super) async fn remember_often(questions: mpsc::Sender<Question>, memory: Memory) {
    loop {
        sleep(WRITE).await;
        if !remember(&questions, &memory).await {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{ResourceId, Timestamp},
        predict::ClientKey,
    };

    fn memory(folder: &Path, secret: u8) -> Memory {
        Memory::new(folder, &Key::from_secret(&[secret; 32]))
    }

    fn trained(settings: &PredictSettings) -> State {
        let mut model = Mixture::new(settings);
        for visit in 0..20 {
            for (resource, lag) in [(1, 0), (2, 200)] {
                let now = Timestamp::from_nanos((visit * 90_000 + lag) * 1_000_000);
                model.learn(now, ClientKey(1), ResourceId(resource << 40 | resource));
                model.predict(now, ClientKey(1), &mut Vec::new());
            }
        }
        let mut predictor = Vec::new();
        model.save(&mut predictor).unwrap();
        let name = serde_json::from_str(r#"{"name": "a.example", "asked": 3, "idle_seconds": 9}"#).unwrap();
        State { predictor, names: vec![name] }
    }

    fn knows(predictor: &mut Box<dyn Predictor>) -> bool {
        let mut out = Vec::new();
        for seconds in [0, 90] {
            let now = Timestamp::from_origin(Duration::from_secs(seconds));
            predictor.learn(now, ClientKey(1), ResourceId(1 << 40 | 1));
            predictor.predict(now, ClientKey(1), &mut out);
        }
        out.iter().any(|said| said.resource == ResourceId(2 << 40 | 2) && said.probability > 0.7)
    }

    #[test]
    fn what_was_written_is_read_again() {
        let settings = PredictSettings { memory_mib: 1, ..Default::default() };
        let folder = tempfile::tempdir().unwrap();
        let memory = memory(folder.path(), 1);
        assert!(!knows(&mut memory.predictor(&settings)) && memory.names().names.is_empty(), "nothing yet");
        let state = trained(&settings);
        memory.write(&state);
        assert!(knows(&mut memory.predictor(&settings)));
        let names = memory.names();
        assert_eq!((names.names, names.away < Duration::from_secs(60)), (state.names, true));
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
    }

    #[test]
    fn what_is_of_no_use_is_learnt_anew() {
        let settings = PredictSettings { memory_mib: 1, ..Default::default() };
        let folder = tempfile::tempdir().unwrap();
        let here = memory(folder.path(), 1);
        here.write(&trained(&settings));
        let other = memory(folder.path(), 2);
        assert!(matches!(other.read_predictor(&settings), Err(MemoryError::Key { .. })));
        assert!(!knows(&mut other.predictor(&settings)));
        let larger = PredictSettings { memory_mib: 2, ..Default::default() };
        assert!(matches!(
            here.read_predictor(&larger),
            Err(MemoryError::Predictor { source: SnapshotError::Size, .. })
        ));

        let (predictor, names) = (here.path(PREDICTOR), here.path(NAMES));
        let mut bytes = fs::read(&predictor).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&predictor, &bytes).unwrap();
        assert!(matches!(here.read_predictor(&settings), Err(MemoryError::Predictor { .. })));
        assert!(!knows(&mut here.predictor(&settings)));
        fs::write(&predictor, b"shor").unwrap();
        assert!(matches!(here.read_predictor(&settings), Err(MemoryError::File { .. })));

        fs::write(&names, "{").unwrap();
        assert!(matches!(here.read_names(), Err(MemoryError::Names { .. })));
        fs::write(&names, r#"{"version": 9, "written": 0, "names": "otherwise"}"#).unwrap();
        assert!(matches!(here.read_names(), Err(MemoryError::Version { found: 9, .. })));
        assert!(here.names().names.is_empty());
    }
}

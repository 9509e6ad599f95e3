//! What was learnt about origins, kept across restarts in one file.
//!
//! Comes in: what is known, or a file. Goes out: the same. Never here: a connection, a time of day, or trust: whatever
//! does not parse is left out, and a file that is none is an error to warn of.

use std::{
    fs,
    io::{self, Write as _},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{Known, Origins, REMEMBERED, SHORTEST, Tally};
use crate::model::{Origin, Timestamp};

/// The version of the file's form. Fields may be added under the same number.
const VERSION: u32 = 1;
/// No file of ours is longer: 4096 origins and as many addresses, 600 bytes each at most.
const LONGEST: u64 = 8 << 20;

/// What is remembered of all origins, the one untouched longest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    version: u32,
    origins: Vec<RememberedOrigin>,
    #[serde(default)]
    places: Vec<RememberedPlace>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RememberedOrigin {
    origin: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    round_trip_us: Option<u64>,
    /// Where it is less than the setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    idle_ms: Option<u64>,
    #[serde(default)]
    short_lives: u32,
    #[serde(flatten)]
    tally: Tally,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RememberedPlace {
    address: SocketAddr,
    origin: String,
    #[serde(default)]
    greetings: u8,
}

/// Why what was remembered can't be read or written. Nothing is lost but what was learnt.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The file can't be read or written.
    #[error("{path}: what was learnt of origins can't be read or written")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not what was written.
    #[error("{path} is damaged")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// How.
        #[source]
        source: serde_json::Error,
    },
    /// Another version of prewarm wrote it.
    #[error("{path} has form {found}, and this prewarm reads {VERSION}")]
    Version {
        /// Which.
        path: PathBuf,
        /// Its form.
        found: u32,
    },
}

impl Remembered {
    /// Reads a file; where there is none, nothing is remembered.
    ///
    /// # Errors
    /// When it can't be read, or is not what was written.
    pub fn read(path: &Path) -> Result<Self, MemoryError> {
        let refuse = |source| MemoryError::File { path: path.to_owned(), source };
        let text = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Ok(file) if file.len() > LONGEST => return Err(refuse(io::ErrorKind::FileTooLarge.into())),
            _ => fs::read(path).map_err(refuse)?,
        };
        let damaged = |source| MemoryError::Damaged { path: path.to_owned(), source };
        let read: Self = serde_json::from_slice(&text).map_err(damaged)?;
        if read.version != VERSION {
            return Err(MemoryError::Version { path: path.to_owned(), found: read.version });
        }
        Ok(read)
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&self, path: &Path) -> Result<(), MemoryError> {
        let unborn = path.with_extension(format!("{}.new", std::process::id()));
        let write = || -> io::Result<()> {
            let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unborn)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            file.sync_all()?;
            fs::rename(&unborn, path)
        };
        write().map_err(|source| {
            // Half a file is of no use to anybody.
            let _not_there = fs::remove_file(&unborn);
            MemoryError::File { path: path.to_owned(), source }
        })
    }
}

impl Origins {
    /// What is worth remembering.
    pub(crate) fn remember(&self) -> Remembered {
        let mut known: Vec<_> = self.known.iter().collect();
        known.sort_by(|(one, a), (other, b)| a.touched.cmp(&b.touched).then_with(|| one.cmp(other)));
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let origins = known.into_iter().map(|(origin, known)| RememberedOrigin {
            origin: origin.to_string(),
            round_trip_us: known.round_trip.map(micros),
            idle_ms: (known.idle < self.patience.idle).then(|| micros(known.idle) / 1000),
            short_lives: known.short_lives,
            tally: known.tally,
        });
        let places = self.places.oldest_first().into_iter().map(|(address, place)| RememberedPlace {
            address,
            origin: place.origin.to_string(),
            greetings: place.greetings,
        });
        Remembered { version: VERSION, origins: origins.collect(), places: places.collect() }
    }

    /// Takes in what was remembered, as older than anything that happens from now on. An origin that ended idle
    /// connections at once gets one for a trial.
    pub(crate) fn recollect(&mut self, remembered: Remembered) {
        let most = self.patience.idle;
        let skip = remembered.origins.len().saturating_sub(REMEMBERED);
        // The order is kept as nanoseconds after the clock's origin, where nothing else happens.
        for (nanos, row) in (0..).zip(remembered.origins.into_iter().skip(skip)) {
            let Ok(origin) = row.origin.parse::<Origin>() else { continue };
            let mut known = Known::new(most, Timestamp::from_nanos(nanos));
            known.round_trip = row.round_trip_us.map(Duration::from_micros);
            known.short_lives = row.short_lives;
            known.tally = row.tally;
            if let Some(idle) = row.idle_ms {
                known.idle = Duration::from_millis(idle).max(SHORTEST).min(most);
            }
            self.known.insert(origin, known);
        }
        let skip = remembered.places.len().saturating_sub(REMEMBERED);
        for (nanos, row) in (0..).zip(remembered.places.into_iter().skip(skip)) {
            if let Ok(origin) = row.origin.parse() {
                self.places.restore(row.address, origin, Some(row.greetings), Timestamp::from_nanos(nanos));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::lease::origins::tests::{at, origins};

    #[test]
    fn what_was_learnt_survives() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("origins.json");
        assert_eq!(Remembered::read(&path).unwrap(), Remembered::default(), "nothing is remembered at first");

        let mut before = origins();
        let origin: Origin = "a.example:25".parse().unwrap();
        let there: SocketAddr = "[2001:db8::1]:25".parse().unwrap();
        before.succeeded(&origin, there, Duration::from_millis(40), at(1));
        before.places.greeted(there, true);
        before.places.greeted(there, true);
        before.taken(&origin, Duration::from_millis(40), at(2));
        before.missed(&origin, at(2));
        before.ended(&origin, at(1), false, at(11));
        before.wasted(&origin, at(11));
        before.remember().write(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no leftovers");

        let mut after = origins();
        after.recollect(Remembered::read(&path).unwrap());
        assert_eq!(after.remember(), before.remember());
        assert_eq!(after.idle(&origin), Duration::from_secs(5));
        assert!(after.places.speaks_first(there));
        let view = &after.view(at(3))[0];
        assert_eq!((view.taken, view.missed, view.wasted, view.dials), (1, 1, 1, 1));
        assert!((view.saved_ms - 40.0).abs() < 0.001 && view.speaks_first && view.idle_learnt);
        assert_eq!(view.quiet_seconds, None);
    }

    #[test]
    fn what_is_damaged_is_said_and_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("origins.json");
        for (text, part) in [
            ("", "damaged"),
            ("{\"version\":1,\"origins\":[{\"orig", "damaged"),
            ("{\"version\":1,\"origins\":7}", "damaged"),
            ("{\"version\":9,\"origins\":[]}", "form 9"),
        ] {
            fs::write(&path, text).unwrap();
            let error = Remembered::read(&path).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("origins.json"), "{text}: {error}");
        }
        fs::File::create(&path).unwrap().set_len(LONGEST + 1).unwrap();
        assert!(matches!(Remembered::read(&path), Err(MemoryError::File { .. })));
        let nowhere = folder.path().join("none").join("origins.json");
        assert!(matches!(Remembered::default().write(&nowhere), Err(MemoryError::File { .. })));
        // A row that means nothing does not take the others with it.
        fs::write(&path, r#"{"version":1,"origins":[{"origin":"no port"},{"origin":"a.example:1","idle_ms":1}]}"#)
            .unwrap();
        let mut origins = origins();
        origins.recollect(Remembered::read(&path).unwrap());
        assert_eq!(origins.view(at(1)).len(), 1);
        assert_eq!(origins.idle(&"a.example:1".parse().unwrap()), SHORTEST, "no lifetime below this is believed");
    }

    #[test]
    fn more_than_fits_is_cut_at_the_old_end() {
        let row = |number: usize| RememberedOrigin {
            origin: format!("a{number}.example:80"),
            round_trip_us: None,
            idle_ms: None,
            short_lives: 0,
            tally: Tally::default(),
        };
        let rows = (0..REMEMBERED + 10).map(row).collect();
        let mut origins = origins();
        origins.recollect(Remembered { version: VERSION, origins: rows, places: Vec::new() });
        assert_eq!(origins.known.len(), REMEMBERED);
        assert!(!origins.known.contains_key(&"a9.example:80".parse().unwrap()));
        // The oldest of them goes first when there is something new.
        origins.missed(&"new.example:80".parse().unwrap(), at(1));
        assert!(!origins.known.contains_key(&"a10.example:80".parse().unwrap()));
        assert_eq!(origins.known.len(), REMEMBERED);
    }
}

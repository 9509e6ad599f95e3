//! What is played: a way out, and where prewarm is on it.

use std::fmt;

use crate::path::Path;
use crate::scenario::Place;

/// A way out and a place: `exec` on the host, `exec` of a proxy on the gateway, …
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Course {
    /// How leases reach the program.
    pub path: Path,
    /// Where prewarm is.
    pub place: Place,
}

impl Course {
    /// The courses of a path, at its place or at each of its places. Only `exec` has two.
    pub fn of(path: Path, place: Option<Place>) -> Vec<Self> {
        let places: &[Place] = match path {
            Path::Exec => &[Place::Host, Place::Gateway],
            Path::Redirect | Path::Fd => &[Place::Host],
            Path::Socks | Path::Connect | Path::Tproxy => &[Place::Gateway],
        };
        let wanted = |one: &&Place| place.is_none_or(|place| place == **one);
        places.iter().filter(wanted).map(|place| Self { path, place: *place }).collect()
    }
}

impl fmt::Display for Course {
    /// As it stands in the name of a case.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match (self.path, self.place) {
            (Path::Exec, Place::Gateway) => "gateway",
            (path, _) => path.label(),
        })
    }
}

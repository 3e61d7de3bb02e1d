//! Who is in which room, kept on disk, so that those who leave while the sidecar is down are found afterwards, and who is revoked, so
//! that every relay gets to know it: rooms, sessions and tags, no identities.
//!
//! ```text
//! hairpin-livekit participants 1
//! ["a-room","PA_8sVd3Kxyz","lk-q83vEjRWeJASNFZ4kKvN7w",1700000000]
//! ```
//!
//! Each line is a session: the room, its id, the tags, and when it was seen last.
//!
//! ```text
//! hairpin-livekit revocations 1
//! ["PA_8sVd3Kxyz","sid",1700086460,true]
//! ```
//!
//! Each line is a revocation: the user, which kind that is, up to which expiry, and whether every relay has confirmed it. A file that is
//! damaged is a warning and a fresh start, because events and lists tell who is there.

use std::ffi::OsString;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::revoke::{KEPT, Kept};
use super::rooms::{MOST, Rooms, Seat};
use crate::daemon::state;
use crate::daemon::store::Store;

/// The file of sessions.
const NAME: &str = "participants";

/// The file of revocations.
const REVOCATIONS: &str = "revocations";

/// The directory beneath that of the relay, which may have the same environment. Each locks its own.
const BENEATH: &str = "livekit";

/// Sessions by room: the room, the id, the tag, and when it was seen last.
pub type Sessions = Vec<(Box<str>, Box<str>, Box<str>, u64)>;

/// The directory for what is kept: that of the configuration, otherwise one beneath that of the environment.
///
/// # Errors
/// Neither names one.
pub fn directory(
    configured: Option<&Path>,
    environment: &dyn Fn(&str) -> Option<OsString>,
    is_service: bool,
) -> Result<PathBuf> {
    match configured {
        Some(configured) => Ok(configured.to_owned()),
        None => state::directory(None, environment, is_service)
            .map(|path| path.join(BENEATH))
            .context("set lifecycle.state_dir"),
    }
}

/// The sessions of rooms, as they are kept.
pub fn sessions(rooms: &Rooms) -> Sessions {
    let seats = rooms.seats().flatten();
    seats.map(|(seat, seen)| (seat.room.into(), seat.sid.into(), seat.tag.into(), seen)).collect()
}

/// Writes them. It blocks.
///
/// # Errors
/// The disk refused.
pub fn write(store: &Store, sessions: &Sessions) -> Result<()> {
    write_lines(store, NAME, sessions)
}

/// Writes revocations. It blocks.
///
/// # Errors
/// The disk refused.
pub fn write_revocations(store: &Store, revocations: &[Kept]) -> Result<()> {
    write_lines(store, REVOCATIONS, revocations)
}

/// Reads revocations.
///
/// # Errors
/// The file is damaged, or cannot be trusted.
pub fn read_revocations(store: &Store) -> Result<Vec<Kept>> {
    read_lines(store, REVOCATIONS, KEPT)
}

/// Reads them into `rooms`; returns how many there were.
///
/// # Errors
/// The file is damaged, or cannot be trusted.
pub fn read(store: &Store, rooms: &mut Rooms) -> Result<usize> {
    let sessions: Sessions = read_lines(store, NAME, MOST)?;
    for (room, sid, tag, seen) in &sessions {
        rooms.restore(Seat { room, sid, tag }, *seen);
    }
    Ok(sessions.len())
}

/// The first line of a file, with the version of what follows.
fn header(name: &str) -> String {
    format!("hairpin-livekit {name} 1")
}

fn write_lines(store: &Store, name: &str, lines: &[impl Serialize]) -> Result<()> {
    store.replace_with(name, |file| {
        let mut out = BufWriter::new(file);
        writeln!(out, "{}", header(name))?;
        for line in lines {
            serde_json::to_writer(&mut out, line)?;
            out.write_all(b"\n")?;
        }
        out.flush()
    })
}

fn read_lines<T: DeserializeOwned>(store: &Store, name: &str, most: usize) -> Result<Vec<T>> {
    let Some(bytes) = store.read(name)? else { return Ok(Vec::new()) };
    let shown = store.shown(name);
    let text = String::from_utf8(bytes).with_context(|| format!("{shown} is not UTF-8"))?;
    let mut lines = text.lines();
    if lines.next() != Some(&header(name)) {
        bail!("{shown} is not from this version");
    }
    let parsed = lines.take(most).enumerate().map(|(number, line)| {
        serde_json::from_str(line)
            .with_context(|| format!("{shown}:{}: this line cannot be read", number + 2))
    });
    parsed.collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;
    use crate::livekit::rooms::{Moment, UserKind};

    fn rooms() -> Rooms {
        let mut rooms = Rooms::new(60);
        let moment = Moment { now: Duration::from_secs(1), unix: 1_800_000_000 };
        for (room, sid) in [("a\n\"room\"", "PA_1"), ("a\n\"room\"", "PA_2"), ("b", "PA_3")] {
            rooms.joined(moment, Seat { room, sid, tag: "lk-a" });
        }
        rooms
    }

    #[test]
    fn what_is_kept_is_read_again_and_is_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(Ok(folder.path().join("state")));
        let mut found = Rooms::new(60);
        assert_eq!(read(&store, &mut found).unwrap(), 0);
        write(&store, &sessions(&rooms())).unwrap();
        assert_eq!(read(&store, &mut found).unwrap(), 3);
        let (mut before, mut after) = (sessions(&rooms()), sessions(&found));
        before.sort();
        after.sort();
        assert_eq!(before, after);
        let mode = std::fs::metadata(folder.path().join("state").join(NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_file_is_an_error_and_nothing_of_it_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(Ok(folder.path().to_owned()));
        let good = format!("{}\n[\"a\",\"PA_1\",\"lk-a\",5]\n", header(NAME));
        for damaged in
            ["".into(), "x".into(), good.replace('1', "2"), good.clone() + "[\"a\"", good.clone() + "\n"]
        {
            store.replace(NAME, damaged.as_bytes()).unwrap();
            let mut found = Rooms::new(60);
            assert!(read(&store, &mut found).is_err(), "{damaged:?}");
            assert_eq!(found.held(), 0);
        }
        store.replace(NAME, good.as_bytes()).unwrap();
        assert_eq!(read(&store, &mut Rooms::new(60)).unwrap(), 1);
    }

    #[test]
    fn revocations_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(Ok(folder.path().join("state")));
        assert_eq!(read_revocations(&store).unwrap(), []);
        let kept = [("PA_1".into(), UserKind::Sid, 1, true), ("lk-a".into(), UserKind::Tag, u64::MAX, false)];
        write_revocations(&store, &kept).unwrap();
        assert_eq!(read_revocations(&store).unwrap(), kept);
    }

    #[test]
    fn the_directory_is_beneath_that_of_the_relay_unless_it_is_configured() {
        let environment = |name: &str| (name == "STATE_DIRECTORY").then(|| "/var/lib/hairpin".into());
        let found = directory(None, &environment, true).unwrap();
        assert_eq!(found, Path::new("/var/lib/hairpin/livekit"));
        let found = directory(Some(Path::new("/x")), &environment, true).unwrap();
        assert_eq!(found, Path::new("/x"));
        assert_eq!(directory(None, &|_| None, true).unwrap(), Path::new("/var/lib/hairpin/livekit"));
        let error = directory(None, &|_| None, false).unwrap_err();
        assert!(format!("{error:#}").contains("lifecycle.state_dir"));
    }
}

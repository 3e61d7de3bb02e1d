//! Who is in which room, kept on disk, so that those who leave while the sidecar is down are found afterwards: rooms, sessions and
//! tags, no identities.
//!
//! ```text
//! hairpin-livekit participants 1
//! ["a-room","PA_8sVd3Kxyz","lk-q83vEjRWeJASNFZ4kKvN7w",1700000000]
//! ```
//!
//! Each line is a session: the room, its id, the tag, and when it was seen last. A file that is damaged is a warning and a fresh
//! start, because events and lists tell who is there.

use std::ffi::OsString;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::rooms::{MOST, Rooms, Seat};
use crate::daemon::state;
use crate::daemon::store::Store;

/// The file.
const NAME: &str = "participants";

/// Its first line, with the version of what follows.
const HEADER: &str = "hairpin-livekit participants 1";

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
    store.replace_with(NAME, |file| {
        let mut out = BufWriter::new(file);
        writeln!(out, "{HEADER}")?;
        for session in sessions {
            serde_json::to_writer(&mut out, session)?;
            out.write_all(b"\n")?;
        }
        out.flush()
    })
}

/// Reads them into `rooms`; returns how many there were.
///
/// # Errors
/// The file is damaged, or cannot be trusted.
pub fn read(store: &Store, rooms: &mut Rooms) -> Result<usize> {
    let Some(bytes) = store.read(NAME)? else { return Ok(0) };
    let shown = store.shown(NAME);
    let text = String::from_utf8(bytes).with_context(|| format!("{shown} is not UTF-8"))?;
    let mut lines = text.lines();
    if lines.next() != Some(HEADER) {
        bail!("{shown} is not from this version");
    }
    let mut sessions: Sessions = Vec::new();
    for (number, line) in lines.enumerate().take(MOST) {
        let session = serde_json::from_str(line);
        sessions.push(session.with_context(|| format!("{shown}:{}: this is not a session", number + 2))?);
    }
    for (room, sid, tag, seen) in &sessions {
        rooms.restore(Seat { room, sid, tag }, *seen);
    }
    Ok(sessions.len())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;
    use crate::livekit::rooms::Moment;

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
        let good = format!("{HEADER}\n[\"a\",\"PA_1\",\"lk-a\",5]\n");
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

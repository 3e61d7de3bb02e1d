//! Revoked users, kept in the state directory so that they stay revoked after a restart.
//!
//! The file is a log. A revocation is on disk before it takes effect and before anybody is told, so a process that is killed then
//! has kept it. A last line that is torn was never confirmed and is ignored; any other damage is an error at the start,
//! because nobody can know who would be let in. The log is rewritten when most of it is history.
//!
//! ```text
//! hairpin revocations 1
//! 0f3a91c2 revoke 1700000000 1702592000 time "alice"
//! 77d2b0e4 revoke 1700000000 1702592000 static "bob"
//! a1b2c3d4 unrevoke "alice"
//! ```
//!
//! Each line begins with the CRC-32 of the rest. The numbers are Unix seconds: since when, and up to which expiry.

use std::io::{BufRead, BufReader, BufWriter, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::store::{Appender, Store, Unconfirmed};
use super::unix_now;
use crate::auth::{Revocation, Revocations};
use crate::plural::counted;

/// The file.
const NAME: &str = "revocations";

/// Its first line, with the version of what follows.
const HEADER: &str = "hairpin revocations 1";

/// How many lines of history a log may have before it is rewritten, beside as many as there are revocations.
const HISTORY: usize = 10_000;

/// How often revocations are forgotten that have no effect any more.
const PRUNE: Duration = Duration::from_secs(60);

/// How many names are copied at once when the log is rewritten.
const COPIED: usize = 1000;

/// RFC 8489 §14.3: the longest USERNAME that a server has to support, in bytes. A user part is a part of one.
const USER_MAX: usize = 763;

/// Revoked users, and the file that keeps them.
pub struct RevokedUsers {
    table: Arc<Revocations>,
    store: Arc<Store>,
    /// Changes are made one after the other.
    log: Mutex<Log>,
    /// How many revocations were made since the start.
    made: AtomicU64,
}

struct Log {
    /// `None` until something is appended.
    file: Option<Appender>,
    /// How much of the file is complete lines.
    complete: u64,
    /// How many lines it has beside the header.
    lines: usize,
}

/// Why a user was not revoked.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    /// The user's name.
    #[error("a user to revoke has a name of 1 to {USER_MAX} bytes")]
    Name,
    /// The time is over already.
    #[error("{until} is in the past; to accept the user again, unrevoke it")]
    Past {
        /// The time in Unix seconds.
        until: u64,
    },
    /// The time is too far away to be in seconds.
    #[error("{until} is more than ten years away; the time is in Unix seconds")]
    TooFar {
        /// The time in Unix seconds.
        until: u64,
    },
    /// The table is full.
    #[error(
        "{} users are revoked, which is as many as there can be; unrevoke some that need it no longer",
        Revocations::MAX
    )]
    Full,
    /// The relay is stopping.
    #[error("{0}")]
    Stopping(String),
    /// It could not be kept.
    #[error("the revocation cannot be kept, so it was not made: {0:#}")]
    NotKept(anyhow::Error),
}

impl RevokedUsers {
    /// Those that are kept in `store`.
    ///
    /// # Errors
    /// The file is damaged, or cannot be read or trusted.
    pub fn load(store: Arc<Store>) -> Result<RevokedUsers> {
        let table = Arc::new(Revocations::default());
        let log = read(&store, &table)?;
        let users = RevokedUsers { table, store, log: Mutex::new(log), made: AtomicU64::new(0) };
        users.table.prune(unix_now());
        if !users.table.is_empty() {
            info!("{} revoked: {}", counted(users.table.len(), "user"), users.store.shown(NAME));
        }
        Ok(users)
    }

    /// Nobody, and nothing is kept, for tests.
    #[cfg(test)]
    pub(super) fn none() -> Arc<RevokedUsers> {
        let store = Arc::new(Store::open(Err(anyhow::anyhow!("this test keeps nothing"))));
        Arc::new(RevokedUsers::load(store).expect("there is no file"))
    }

    /// The table that requests are checked with.
    pub fn table(&self) -> &Arc<Revocations> {
        &self.table
    }

    /// How many revocations were made since the start.
    pub fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// Revokes a user. When this returns it is on disk, and credentials of the user are refused. It blocks.
    ///
    /// # Errors
    /// See [`RevokeError`]; nothing has changed.
    pub fn revoke(&self, user: &str, revocation: Revocation) -> Result<Revocation, RevokeError> {
        if user.is_empty() || user.len() > USER_MAX {
            return Err(RevokeError::Name);
        }
        let mut log = self.log();
        let now = revocation.since;
        let before = self.table.get(user).filter(|found| !found.is_over(now));
        let revocation = before.map_or(revocation, |found| found.and(revocation));
        if self.table.len() >= Revocations::MAX && self.table.get(user).is_none() {
            self.table.prune(now);
            if self.table.len() >= Revocations::MAX {
                return Err(RevokeError::Full);
            }
        }
        if before != Some(revocation) {
            self.append(&mut log, &line(user, &revocation)).map_err(RevokeError::NotKept)?;
        }
        if !self.table.insert(user, revocation) {
            return Err(RevokeError::Full);
        }
        self.made.fetch_add(1, Ordering::Relaxed);
        self.shorten(&mut log);
        Ok(revocation)
    }

    /// Takes a revocation back; false if there was none. It blocks.
    ///
    /// # Errors
    /// It could not be kept; nothing has changed.
    pub fn unrevoke(&self, user: &str) -> Result<bool> {
        let mut log = self.log();
        if self.table.get(user).is_none() {
            return Ok(false);
        }
        let kept = self.append(&mut log, &checked(&format!("unrevoke {}", quoted(user))));
        kept.context("this cannot be kept, so the user stays revoked")?;
        self.table.remove(user);
        self.shorten(&mut log);
        Ok(true)
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, log: &mut Log, line: &str) -> Result<()> {
        if log.file.as_ref().is_some_and(|file| file.complete().is_none()) {
            // What the disk has of an earlier line is unknown, so everything is written anew.
            self.rewrite(log)?;
        }
        let file = match &mut log.file {
            Some(file) => file,
            none => none.insert(self.store.append(NAME, log.complete)?),
        };
        match log.complete {
            0 => file.append(format!("{HEADER}\n{line}").as_bytes())?,
            _ => file.append(line.as_bytes())?,
        }
        log.complete = file.complete().unwrap_or(log.complete);
        log.lines += 1;
        Ok(())
    }

    /// Rewrites the log if most of it is history. The old one serves on if that fails.
    fn shorten(&self, log: &mut Log) {
        if log.lines > 2 * self.table.len() + HISTORY
            && let Err(error) = self.rewrite(log)
        {
            warn!("the log of revocations could not be shortened: {error:#}");
        }
    }

    fn rewrite(&self, log: &mut Log) -> Result<()> {
        let (mut len, mut lines) = (0, 0);
        let replaced = self.store.replace_with(NAME, |file| {
            let mut out = BufWriter::new(file);
            let mut write = |text: &str| {
                len += text.len() as u64;
                out.write_all(text.as_bytes())
            };
            write(&format!("{HEADER}\n"))?;
            let mut after: Option<Box<str>> = None;
            loop {
                let page = self.table.page(after.as_deref(), COPIED);
                for (user, revocation) in &page {
                    write(&line(user, revocation))?;
                    lines += 1;
                }
                match page.into_iter().next_back() {
                    Some((last, _)) => after = Some(last),
                    None => break,
                }
            }
            out.flush()
        });
        // The old file has no name any more, even if the disk has not confirmed that.
        if replaced.as_ref().err().is_none_or(|error| error.is::<Unconfirmed>()) {
            *log = Log { file: None, complete: len, lines };
        }
        replaced
    }
}

/// Forgets revocations that have no effect any more, as long as the relay runs.
pub async fn prune(users: Arc<RevokedUsers>) {
    let mut ticks = interval(PRUNE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if !users.table.is_empty() {
            let table = users.table.clone();
            let _ = spawn_blocking(move || table.prune(unix_now())).await;
        }
    }
}

/// Reads the log into a table.
fn read(store: &Store, table: &Revocations) -> Result<Log> {
    let mut log = Log { file: None, complete: 0, lines: 0 };
    let Some(file) = store.file(NAME)? else { return Ok(log) };
    let shown = store.shown(NAME);
    let (mut file, mut text, mut number) = (BufReader::new(file), Vec::new(), 0);
    loop {
        text.clear();
        let len = file.read_until(b'\n', &mut text).with_context(|| format!("cannot read {shown}"))?;
        if len == 0 {
            return Ok(log);
        }
        if text.pop() != Some(b'\n') {
            warn!("{shown}: the last line is incomplete and was never confirmed; it is ignored");
            return Ok(log);
        }
        number += 1;
        let line = str::from_utf8(&text).ok();
        let understood = match number {
            1 => line.is_some_and(|line| line == HEADER),
            _ => line.is_some_and(|line| apply(table, line)),
        };
        if !understood {
            bail!(
                "{shown}:{number}: this line is damaged, or from a newer version, so it is unknown who is revoked; restore the file from \
                 a backup, or move it away to start with nobody revoked"
            );
        }
        log.complete += len as u64;
        log.lines += usize::from(number > 1);
    }
}

/// Applies a line of the log; false if it is damaged.
fn apply(table: &Revocations, line: &str) -> bool {
    let Some((crc, rest)) = line.split_once(' ') else { return false };
    if crc != format!("{:08x}", crc32fast::hash(rest.as_bytes())) {
        return false;
    }
    if let Some(user) = rest.strip_prefix("unrevoke ") {
        let user = serde_json::from_str::<String>(user);
        return user.is_ok_and(|user| {
            table.remove(&user);
            true
        });
    }
    let mut parts = rest.splitn(5, ' ');
    let mut next = || parts.next();
    let (Some("revoke"), Some(since), Some(until), Some(kind), Some(user)) =
        (next(), next(), next(), next(), next())
    else {
        return false;
    };
    let is_static = match kind {
        "time" => false,
        "static" => true,
        _ => return false,
    };
    match (since.parse(), until.parse(), serde_json::from_str::<String>(user)) {
        (Ok(since), Ok(until), Ok(user)) => {
            let revocation = Revocation { since, until, is_static };
            // The log may name more users than could be revoked at once, of whom many are not any more.
            if revocation.is_over(unix_now()) {
                table.remove(&user);
                return true;
            }
            table.insert(&user, revocation)
        }
        _ => false,
    }
}

fn line(user: &str, revocation: &Revocation) -> String {
    let Revocation { since, until, is_static } = revocation;
    let kind = if *is_static { "static" } else { "time" };
    checked(&format!("revoke {since} {until} {kind} {}", quoted(user)))
}

fn checked(rest: &str) -> String {
    format!("{:08x} {rest}\n", crc32fast::hash(rest.as_bytes()))
}

/// A name in quotes, in one line whatever it contains.
fn quoted(user: &str) -> String {
    serde_json::Value::from(user).to_string()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    const LATER: u64 = u64::MAX / 2;

    fn users(folder: &Path) -> RevokedUsers {
        RevokedUsers::load(Arc::new(Store::open(Ok(folder.to_owned())))).unwrap()
    }

    fn failure(folder: &Path) -> String {
        let loaded = RevokedUsers::load(Arc::new(Store::open(Ok(folder.to_owned()))));
        format!("{:#}", loaded.map(|users| users.table.len()).unwrap_err())
    }

    fn until(until: u64) -> Revocation {
        Revocation { since: 1_700_000_000, until, is_static: false }
    }

    fn names(users: &RevokedUsers) -> Vec<String> {
        users.table.page(None, 100).into_iter().map(|(user, _)| user.into_string()).collect()
    }

    /// A revocation holds for whoever reads the file next, as after kill -9, and so does taking one back.
    #[test]
    fn what_was_confirmed_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let first = users(folder.path());
        for user in ["alice", "@carol:example.org", "two\nlines \"quoted\" ünï \u{1}"] {
            first.revoke(user, until(LATER)).unwrap();
        }
        first.revoke("bob", Revocation { is_static: true, ..until(5) }).unwrap();
        assert!(first.unrevoke("alice").unwrap() && !first.unrevoke("alice").unwrap());
        let expected = names(&first);
        assert_eq!(expected.len(), 3);
        // The first process is not told to stop; its file is what counts.
        let second = users(folder.path());
        assert_eq!(names(&second), expected);
        assert_eq!(second.table.get("bob"), Some(Revocation { is_static: true, ..until(5) }));
    }

    /// The log of a relay that has never revoked too many users at once may name more than that: whoever is not revoked any more
    /// takes no room when it is read.
    #[test]
    fn revocations_that_are_over_take_no_room_at_the_start() {
        let table = Revocations::default();
        let read = |line: &str| apply(&table, line.trim_end());
        assert!(read(&line("alice", &until(LATER))) && read(&line("bob", &until(1_700_000_001))));
        assert_eq!(table.len(), 1);
        assert!(read(&line("bob", &Revocation { is_static: true, ..until(1_700_000_001) })));
        assert_eq!(table.len(), 2, "a static user stays revoked");
    }

    #[test]
    fn a_torn_last_line_is_ignored_and_what_follows_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        let first = users(folder.path());
        first.revoke("alice", until(LATER)).unwrap();
        let complete = fs::read(&path).unwrap();
        first.revoke("bob", until(LATER)).unwrap();
        drop(first);
        let whole = fs::read(&path).unwrap();
        for len in complete.len()..whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            let users = users(folder.path());
            assert_eq!(names(&users), ["alice"], "{len} bytes");
            users.revoke("carol", until(LATER)).unwrap();
            drop(users);
            assert_eq!(names(&self::users(folder.path())), ["alice", "carol"], "{len} bytes");
        }
        // Even of the first line nothing was confirmed.
        fs::write(&path, &HEADER[..9]).unwrap();
        let users = users(folder.path());
        users.revoke("dave", until(LATER)).unwrap();
        drop(users);
        assert_eq!(names(&self::users(folder.path())), ["dave"]);
    }

    /// A relay that does not know who is revoked does not start: it could let in whom it must not.
    #[test]
    fn other_damage_refuses_to_start_and_names_the_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        let first = users(folder.path());
        for user in ["alice", "bob", "carol"] {
            first.revoke(user, until(LATER)).unwrap();
        }
        drop(first);
        let text = fs::read_to_string(&path).unwrap();
        for (from, to, at) in [
            ("bob", "bop", "revocations:3: "),
            (HEADER, "hairpin revocations 2", "revocations:1: "),
            ("revoke", "reboke", "revocations:2: "),
            ("\"carol\"", "\"carol", "revocations:4: "),
        ] {
            fs::write(&path, text.replacen(from, to, 1)).unwrap();
            let error = failure(folder.path());
            assert!(error.contains(at) && error.contains("move it away"), "{error}");
        }
        let mut bytes = text.into_bytes();
        bytes[40] = 0xFF;
        fs::write(&path, bytes).unwrap();
        assert!(failure(folder.path()).contains("revocations:2: "));
    }

    /// History does not accumulate: the log is rewritten, and holds exactly what it held.
    #[test]
    fn a_log_of_history_is_rewritten() {
        let folder = tempfile::tempdir().unwrap();
        let users = users(folder.path());
        users.revoke("alice", until(LATER)).unwrap();
        {
            let mut log = users.log();
            log.lines = HISTORY + 100;
        }
        let path = folder.path().join(NAME);
        users.revoke("bob", until(LATER)).unwrap();
        users.unrevoke("bob").unwrap();
        users.revoke("carol", until(LATER)).unwrap();
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert_eq!((lines, users.log().lines), (5, 4), "the header, two that were copied, and two changes");
        drop(users);
        assert_eq!(names(&self::users(folder.path())), ["alice", "carol"]);
    }

    #[test]
    fn what_has_no_effect_any_more_is_not_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let first = users(folder.path());
        first.revoke("alice", until(1_700_000_001)).unwrap();
        first.revoke("bob", until(LATER)).unwrap();
        drop(first);
        assert_eq!(names(&users(folder.path())), ["bob"]);
    }

    /// A second revocation changes nothing that the first has said, and needs no line for that.
    #[test]
    fn a_second_revocation_never_shortens_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let users = users(folder.path());
        users.revoke("alice", until(LATER)).unwrap();
        let later = Revocation { since: 1_700_000_005, until: 1_700_000_009, is_static: false };
        assert_eq!(users.revoke("alice", later).unwrap(), until(LATER));
        assert_eq!(users.log().lines, 1);
        assert_eq!(users.made(), 2);
    }

    /// Without a place to keep it, a revocation is refused with what to set: it would be forgotten.
    #[test]
    fn what_cannot_be_kept_is_not_revoked() {
        let none = RevokedUsers::none();
        let error = none.revoke("alice", until(LATER)).unwrap_err();
        assert!(error.to_string().contains("cannot be kept"), "{error}");
        assert!(none.table.is_empty());
        let folder = tempfile::tempdir().unwrap();
        let _first = users(folder.path()).revoke("alice", until(LATER)).unwrap();
        let first = users(folder.path());
        let second = users(folder.path());
        let error = second.revoke("bob", until(LATER)).unwrap_err().to_string();
        assert!(error.contains("another hairpin process"), "{error}");
        drop(first);
    }

    #[test]
    fn names_are_neither_empty_nor_longer_than_a_user_name() {
        let folder = tempfile::tempdir().unwrap();
        let users = users(folder.path());
        let name = |len| "x".repeat(len);
        for (len, accepted) in [(0, false), (1, true), (USER_MAX, true), (USER_MAX + 1, false)] {
            assert_eq!(users.revoke(&name(len), until(LATER)).is_ok(), accepted, "{len}");
        }
    }
}

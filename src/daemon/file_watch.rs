//! Notices that files may have changed: by inotify(7), and by the clock where that does not tell, as on network file systems.
//!
//! Files are replaced by renaming another one over them, or by swapping a link somewhere on their path: certbot's `live/NAME/*.pem`
//! lead to `../../archive/NAME/`, and Kubernetes swaps `..data`, the directory that every file of a volume leads through. So the
//! directory of each link on the way is watched, and the way is walked again after each change.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::info;

/// How often files are looked at nevertheless.
const POLL: Duration = Duration::from_secs(60);

/// How long nothing must change before files are read: a certificate and its key are two files, and often four links.
const SETTLE: Duration = Duration::from_millis(300);

/// How long that may take: files that change all the time are read nevertheless.
const SETTLE_MAX: Duration = Duration::from_secs(3);

/// The most links on the way to a file, as the kernel has it (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// Notifies of changes of these files, and every [`POLL`], while it is polled.
pub async fn run(mut paths: watch::Receiver<Vec<PathBuf>>, changed: &Notify) {
    let mut told = false;
    loop {
        let files = paths.borrow_and_update().clone();
        // Walking a path on a network file system may take long.
        let watched = spawn_blocking(move || Watched::new(&files)).await;
        // There may have been a change before.
        changed.notify_one();
        let next_poll = Instant::now() + POLL;
        match watched {
            Ok(Ok(watched)) => tokio::select! {
                () = watched.changed(next_poll) => {}
                Ok(()) = paths.changed() => {}
            },
            Ok(Err(error)) => {
                if !std::mem::replace(&mut told, true) {
                    let seconds = POLL.as_secs();
                    info!(%error, "files cannot be watched by inotify; they are read every {seconds} s instead");
                }
                sleep_until(next_poll).await;
            }
            Err(_) => sleep_until(next_poll).await,
        }
    }
}

/// The directories on the way to files.
struct Watched {
    inotify: AsyncFd<Descriptor>,
    /// The names in each directory that matter; a watch that is not here is one of a file itself.
    names: HashMap<WatchDescriptor, HashSet<OsString>>,
}

/// Gives tokio the descriptor, which lives as long as this.
struct Descriptor(Inotify);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Watched {
    #[allow(
        deprecated,
        reason = "its successor is unsafe; an Inotify keeps its descriptor for its whole life"
    )]
    fn new(files: &[PathBuf]) -> nix::Result<Watched> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let mut names: HashMap<WatchDescriptor, HashSet<OsString>> = HashMap::new();
        let in_directory = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_ATTRIB;
        let itself = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_ONLYDIR;
        // A file that is mounted by itself changes without its directory.
        let of_file = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_ATTRIB;
        for file in files {
            for (directory, name) in way(file) {
                // One that is gone by now is walked to again at the next change.
                match inotify.add_watch(&directory, in_directory | itself) {
                    Ok(descriptor) => drop(names.entry(descriptor).or_default().insert(name)),
                    Err(nix::Error::ENOENT | nix::Error::ENOTDIR | nix::Error::EACCES) => {}
                    Err(error) => return Err(error),
                }
            }
            if let Err(nix::Error::ENOSPC) = inotify.add_watch(file, of_file) {
                return Err(nix::Error::ENOSPC);
            }
        }
        let inotify = AsyncFd::new(Descriptor(inotify)).map_err(|_| nix::Error::EBADF)?;
        Ok(Watched { inotify, names })
    }

    /// Waits until something has changed and nothing changes any more, or until it is time to look.
    async fn changed(&self, next_poll: Instant) {
        match timeout_at(next_poll, self.event()).await {
            Ok(true) => {}
            Ok(false) => return sleep_until(next_poll).await,
            Err(_) => return,
        }
        let latest = Instant::now() + SETTLE_MAX;
        while let Ok(true) = timeout_at(latest.min(Instant::now() + SETTLE), self.event()).await {}
    }

    /// Waits for a change that matters; false if there will be none.
    async fn event(&self) -> bool {
        loop {
            let Ok(mut ready) = self.inotify.readable().await else { return false };
            match ready.get_inner().0.read_events() {
                Ok(events) if events.iter().any(|event| self.matters(event)) => return true,
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(nix::Error::EAGAIN) => ready.clear_ready(),
                Err(_) => return false,
            }
        }
    }

    fn matters(&self, event: &InotifyEvent) -> bool {
        match (&event.name, self.names.get(&event.wd)) {
            (Some(name), Some(names)) => names.contains(name),
            // The directory or the file itself, or events were lost.
            _ => true,
        }
    }
}

/// The way to a file: each link on it and the file itself, as a directory and a name in it. If a part of it does not exist, the way
/// ends with that.
fn way(file: &Path) -> Vec<(PathBuf, OsString)> {
    let Ok(absolute) = std::path::absolute(file) else { return Vec::new() };
    let mut rest: VecDeque<OsString> = VecDeque::new();
    let prepend = |rest: &mut VecDeque<OsString>, path: &Path| {
        let parts: Vec<_> = path.components().filter(|part| !matches!(part, Component::RootDir)).collect();
        parts.iter().rev().for_each(|part| rest.push_front(part.as_os_str().to_owned()));
    };
    prepend(&mut rest, &absolute);
    let (mut directory, mut found, mut links) = (PathBuf::from("/"), Vec::new(), 0);
    while let Some(name) = rest.pop_front() {
        if name == "." || name == ".." {
            if name == ".." {
                directory.pop();
            }
            continue;
        }
        let next = directory.join(&name);
        let is_link = fs::symlink_metadata(&next).map(|metadata| metadata.is_symlink());
        match (is_link, fs::read_link(&next)) {
            (Ok(true), Ok(target)) if links < LINKS_MAX => {
                links += 1;
                found.push((directory.clone(), name));
                if target.is_absolute() {
                    directory = PathBuf::from("/");
                }
                prepend(&mut rest, &target);
            }
            (Ok(false), _) if !rest.is_empty() => directory = next,
            _ => {
                found.push((directory, name));
                break;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests;

//! The control socket: a Unix socket whose mode decides who may use it.
//!
//! It gets its mode and group under a temporary name, and its own name when it is ready. So nobody else can connect at any time,
//! and the socket of a dead process is replaced without a gap.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, Group, chown, geteuid};
use socket2::{Domain, SockAddr, Socket, Type};
use tracing::{info, warn};

use super::random;
use crate::config::settings::{AdminSettings, ControlSocket};

/// Its name in a default folder.
const NAME: &str = "control.sock";

/// The folder of services and of root.
const RUN: &str = "/run/hairpin";

/// Its mode: the owner and the group may use it.
const MODE: u32 = 0o660;

/// Connections that may wait in the kernel's accept queue.
const BACKLOG: i32 = 64;

/// How often, and after what time, a lock that another relay holds is tried again. It is held for moments.
const ATTEMPTS: u32 = 10;
const RETRY: Duration = Duration::from_millis(50);

/// The default path; `None` where there is no folder for it.
pub fn default_path(
    environment: &dyn Fn(&str) -> Option<OsString>,
    is_service: bool,
    is_root: bool,
) -> Option<PathBuf> {
    let variable = |name| environment(name).map(PathBuf::from);
    let absolute = |path: &PathBuf| path.is_absolute();
    // systemd separates several directories by colons (systemd.exec(5)).
    let given = variable("RUNTIME_DIRECTORY").and_then(|list| std::env::split_paths(&list).next());
    let default = || match is_root || is_service {
        true => Some(RUN.into()),
        false => variable("XDG_RUNTIME_DIR").filter(absolute).map(|folder| folder.join("hairpin")),
    };
    given.filter(absolute).or_else(default).map(|folder| folder.join(NAME))
}

/// The default paths where `hairpin ctl` looks, the likeliest first: whoever may use the socket of a service need not be root.
pub fn default_paths(environment: &dyn Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let mut paths: Vec<_> = default_path(environment, false, geteuid().is_root()).into_iter().collect();
    let service = Path::new(RUN).join(NAME);
    if !paths.contains(&service) {
        paths.push(service);
    }
    paths
}

/// A socket that is being listened on. Dropping it removes its file, unless another relay has taken the name.
pub struct BoundSocket {
    path: PathBuf,
    /// The name of the file now: a temporary one until it is published.
    name: PathBuf,
    /// The device and inode of the file.
    file: (u64, u64),
    listener: UnixListener,
    /// Keeps other relays from taking the path until it is published.
    lock: Option<PathLock>,
}

/// Held by the relay that is about to take a path. Its file belongs to this user alone: a lock on the folder could be held by
/// everyone who may read that (flock(2)), and for ever.
struct PathLock {
    name: PathBuf,
    file: Flock<File>,
}

impl BoundSocket {
    /// Opens the socket of these settings. At the default path it is done without if it cannot be opened, with a warning.
    /// It may take the name of one that is `held` by this relay.
    ///
    /// # Errors
    /// The socket of the settings cannot be opened.
    pub fn of(
        settings: &AdminSettings,
        default: Option<PathBuf>,
        held: Option<&BoundSocket>,
    ) -> Result<Option<BoundSocket>> {
        let group = group(&settings.group)?;
        match (&settings.socket, default) {
            (ControlSocket::Off, _) => Ok(None),
            (ControlSocket::At(path), _) => BoundSocket::open(path, group, held).map(Some),
            (ControlSocket::Default, None) => {
                info!(
                    "there is no control socket for hairpin ctl, because there is no folder for it; set admin.socket, or \
                     XDG_RUNTIME_DIR in the environment"
                );
                Ok(None)
            }
            (ControlSocket::Default, Some(path)) => {
                let opened = create_folder(&path).and_then(|()| BoundSocket::open(&path, group, held));
                match opened {
                    Ok(socket) => Ok(Some(socket)),
                    // The one that there is would disappear.
                    Err(error) if held.is_some_and(BoundSocket::is_in_place) => Err(error),
                    Err(error) => {
                        warn!("{error:#}; the relay runs without a control socket");
                        Ok(None)
                    }
                }
            }
        }
    }

    fn open(path: &Path, group: Option<Gid>, held: Option<&BoundSocket>) -> Result<BoundSocket> {
        let shown = path.display();
        bind(path, group, held).with_context(|| format!("control socket {shown}"))
    }

    /// Gives it its name, in the place of what had it.
    ///
    /// # Errors
    /// Its folder is not what it was any more.
    pub fn publish(&mut self) -> Result<()> {
        let renamed = fs::rename(&self.name, &self.path).map_err(|error| refused(&self.path, &error));
        renamed.with_context(|| format!("control socket {}", self.path.display()))?;
        self.name.clone_from(&self.path);
        self.lock = None;
        Ok(())
    }

    /// Where it is, once it is published.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The listener, which does not block.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }

    /// Whether its file is where it was published.
    pub fn is_in_place(&self) -> bool {
        self.is_at(&self.path)
    }

    /// Whether the file of this path is that of this socket.
    fn is_at(&self, path: &Path) -> bool {
        fs::symlink_metadata(path).is_ok_and(|file| (file.dev(), file.ino()) == self.file)
    }
}

impl Drop for BoundSocket {
    fn drop(&mut self) {
        if self.is_at(&self.name) {
            let _ = fs::remove_file(&self.name);
        }
    }
}

impl PathLock {
    fn new(path: &Path) -> Result<PathLock> {
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let name = PathBuf::from(name);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        for _ in 0..ATTEMPTS {
            let file = options.open(&name).map_err(|error| refused(&name, &error))?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => {
                    let lock = PathLock { name: name.clone(), file };
                    if lock.is_in_place() {
                        return Ok(lock);
                    }
                    // Whoever had it has removed the file.
                }
                Err((_, Errno::EWOULDBLOCK)) => thread::sleep(RETRY),
                Err((_, error)) => bail!("cannot lock {}: {error}", name.display()),
            }
        }
        bail!("another relay is about to use it; try again, or set another path in admin.socket")
    }

    fn is_in_place(&self) -> bool {
        let same =
            |file: fs::Metadata, other: fs::Metadata| (file.dev(), file.ino()) == (other.dev(), other.ino());
        fs::symlink_metadata(&self.name)
            .and_then(|found| Ok(same(found, self.file.metadata()?)))
            .unwrap_or_default()
    }
}

impl Drop for PathLock {
    fn drop(&mut self) {
        // While it is locked, nobody else relies on it.
        if self.is_in_place() {
            let _ = fs::remove_file(&self.name);
        }
    }
}

fn group(name: &str) -> Result<Option<Gid>> {
    if name.is_empty() {
        return Ok(None);
    }
    let by_number = || name.parse().ok().map(Gid::from_raw);
    let group = Group::from_name(name).ok().flatten().map(|group| group.gid).or_else(by_number);
    group
        .map(Some)
        .ok_or_else(|| anyhow!("admin.group: there is no group {name:?}; create it, or change admin.group"))
}

/// Creates the folder of a default path.
fn create_folder(path: &Path) -> Result<()> {
    let Some(folder) = path.parent() else { return Ok(()) };
    let created = DirBuilder::new().recursive(true).mode(0o755).create(folder);
    created.with_context(|| {
        format!(
            "control socket {}: its folder cannot be created; set RuntimeDirectory=hairpin (systemd) or admin.socket",
            path.display()
        )
    })
}

fn bind(path: &Path, group: Option<Gid>, held: Option<&BoundSocket>) -> Result<BoundSocket> {
    let folder = path.parent().context("not a path of a file; change admin.socket")?;
    let metadata = fs::metadata(folder).map_err(|error| refused(folder, &error))?;
    if metadata.mode() & 0o002 != 0 && metadata.mode() & 0o1000 == 0 {
        bail!(
            "every user may write to {}, and could replace the socket; choose another folder in admin.socket, or run `chmod o-w` \
             on it",
            folder.display()
        );
    }
    // Two relays that start at once do not both replace a dead one's socket.
    let lock = PathLock::new(path)?;
    if held.is_none_or(|held| !held.is_at(path)) {
        check_is_free(path)?;
    }
    let name = folder.join(URL_SAFE_NO_PAD.encode(random::bytes::<6>()?));
    let listened = listen(&name, group).and_then(|listener| Ok((listener, fs::symlink_metadata(&name)?)));
    let (listener, file) = listened.map_err(|error| {
        let _ = fs::remove_file(&name);
        refused(folder, &error)
    })?;
    Ok(BoundSocket {
        path: path.to_owned(),
        name,
        file: (file.dev(), file.ino()),
        listener,
        lock: Some(lock),
    })
}

fn listen(path: &Path, group: Option<Gid>) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // The file gets the mode of the socket, less that of the umask (unix_bind in net/unix/af_unix.c).
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    socket.bind(&SockAddr::unix(path)?)?;
    if let Some(group) = group {
        chown(path, None, Some(group))?;
    }
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    // Until now nobody can connect (unix(7): ECONNREFUSED).
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Checks that nothing but a dead process' socket has the name.
fn check_is_free(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refused(path, &error)),
        Ok(file) if !file.file_type().is_socket() => {
            bail!("there is something else with this name; remove it, or change admin.socket")
        }
        Ok(_) => {}
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A full queue of a process that hangs must not hold up the start.
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(refused(path, &error)),
        // Connected, or waiting for a place, or a socket of another type.
        connected => {
            let process = connected.ok().and_then(|()| getsockopt(&socket, PeerCredentials).ok());
            let process = process.map(|one| format!(" (process {})", one.pid())).unwrap_or_default();
            bail!("another relay uses it{process}; stop that one, or set another path in admin.socket")
        }
    }
}

fn refused(path: &Path, error: &io::Error) -> anyhow::Error {
    let fix = match error.kind() {
        io::ErrorKind::NotFound => "create the folder, or change admin.socket",
        io::ErrorKind::PermissionDenied => {
            "allow the user of hairpin to write to the folder and to set admin.group, or change admin.socket"
        }
        _ => "change admin.socket",
    };
    anyhow!("{}: {error}; {fix}", path.display())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn default(variables: &[(&str, &str)], is_service: bool, is_root: bool) -> Option<String> {
        let variable = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        };
        default_path(&variable, is_service, is_root).map(|path| path.to_str().unwrap().to_owned())
    }

    #[test]
    fn the_default_path_is_in_the_runtime_directory() {
        let given = ("RUNTIME_DIRECTORY", "/run/one:/run/two");
        let user = ("XDG_RUNTIME_DIR", "/run/user/1000");
        for (variables, is_service, is_root, expected) in [
            (&[given, user][..], true, false, Some("/run/one/control.sock")),
            (&[user], true, false, Some("/run/hairpin/control.sock")),
            (&[user], false, true, Some("/run/hairpin/control.sock")),
            (&[user], false, false, Some("/run/user/1000/hairpin/control.sock")),
            (&[], false, false, None),
        ] {
            assert_eq!(default(variables, is_service, is_root).as_deref(), expected);
        }
    }

    fn at(path: &Path) -> AdminSettings {
        AdminSettings { socket: ControlSocket::At(path.to_owned()), ..AdminSettings::default() }
    }

    fn published(
        settings: &AdminSettings,
        default: Option<PathBuf>,
        held: Option<&BoundSocket>,
    ) -> Result<Option<BoundSocket>> {
        let mut opened = BoundSocket::of(settings, default, held)?;
        opened.as_mut().map_or(Ok(()), BoundSocket::publish)?;
        Ok(opened)
    }

    fn open(path: &Path) -> Result<BoundSocket> {
        published(&at(path), None, None).map(Option::unwrap)
    }

    /// The file's mode is the gate.
    #[test]
    fn the_owner_and_the_group_may_use_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let bound = open(&path).unwrap();
        let file = fs::symlink_metadata(&path).unwrap();
        assert!(file.file_type().is_socket());
        assert_eq!((file.mode() & 0o7777, file.uid()), (MODE, geteuid().as_raw()));
        assert!(UnixStream::connect(&path).is_ok());
        drop(bound);
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            0,
            "it is removed, and nothing else is left"
        );
    }

    /// Anyone who may read a folder can lock it; the relay must not wait for that.
    #[test]
    fn a_lock_of_others_on_the_folder_holds_nothing_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let _other = Flock::lock(File::open(folder.path()).unwrap(), FlockArg::LockExclusive).ok().unwrap();
        assert!(open(&path).is_ok());
    }

    #[test]
    fn two_relays_do_not_take_the_same_path_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let first = BoundSocket::of(&at(&path), None, None).unwrap().unwrap();
        let error = format!("{:#}", open(&path).map(drop).unwrap_err());
        assert!(error.contains("another relay is about to use it"), "{error}");
        drop(first);
        fs::write(folder.path().join("control.sock.lock"), "").unwrap();
        assert!(open(&path).is_ok(), "the file of a dead process is no lock");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left");
    }

    #[test]
    fn a_dead_process_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let first = open(&path).unwrap();
        let error = format!("{:#}", open(&path).map(drop).unwrap_err());
        let process = format!("another relay uses it (process {})", std::process::id());
        assert!(error.contains(&process) && error.contains(path.to_str().unwrap()), "{error}");
        assert!(UnixStream::connect(&path).is_ok());
        // Another relay's file stays.
        fs::remove_file(&path).unwrap();
        let second = open(&path).unwrap();
        drop(first);
        assert!(UnixStream::connect(&path).is_ok());
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn at_the_default_path_the_relay_runs_without() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hairpin/control.sock");
        let settings = AdminSettings::default();
        let first = published(&settings, Some(path.clone()), None).unwrap();
        assert!(first.is_some(), "its folder is created");
        assert!(published(&settings, Some(path.clone()), None).unwrap().is_none());
        assert!(UnixStream::connect(&path).is_ok());
        let off = AdminSettings { socket: ControlSocket::Off, ..AdminSettings::default() };
        assert!(published(&off, Some(path.clone()), None).unwrap().is_none());
        // Settings that cannot be applied take it from nobody who uses it.
        fs::set_permissions(folder.path().join("hairpin"), Permissions::from_mode(0o777)).unwrap();
        let other = AdminSettings { group: nix::unistd::getegid().to_string(), ..settings };
        assert!(published(&other, Some(path.clone()), first.as_ref()).is_err());
        assert!(UnixStream::connect(&path).is_ok());
    }

    #[test]
    fn what_is_no_socket_and_what_all_may_replace_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        fs::write(&path, "a file").unwrap();
        let error = format!("{:#}", open(&path).map(drop).unwrap_err());
        assert!(error.contains("there is something else with this name"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "a file");
        fs::remove_file(&path).unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        let error = format!("{:#}", open(&path).map(drop).unwrap_err());
        assert!(error.contains("every user may write to"), "{error}");
        let missing = folder.path().join("missing/control.sock");
        let error = format!("{:#}", open(&missing).map(drop).unwrap_err());
        assert!(error.contains("create the folder"), "{error}");
    }

    #[test]
    fn an_unknown_group_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let mut settings = at(&path);
        settings.group = "no-such-group-here".into();
        let error = published(&settings, None, None).map(drop).unwrap_err().to_string();
        assert!(error.contains("admin.group: there is no group \"no-such-group-here\""), "{error}");
        if geteuid().is_root() {
            settings.group = "12345".into();
            let bound = published(&settings, None, None).unwrap().unwrap();
            assert_eq!(fs::symlink_metadata(&path).unwrap().gid(), 12345);
            settings.group.clear();
            drop(BoundSocket::of(&settings, None, Some(&bound)).unwrap());
            assert!(UnixStream::connect(&path).is_ok(), "what was given up changes nothing");
            let again = published(&settings, None, Some(&bound)).unwrap();
            drop(bound);
            assert_eq!(fs::symlink_metadata(&path).unwrap().gid(), nix::unistd::getegid().as_raw());
            assert!(UnixStream::connect(&path).is_ok() && again.is_some());
        }
    }
}

//! The setting `user`: a process of root becomes another user before it serves anybody.
//!
//! That happens before the process has a second thread. The user of a process is changed for all of its threads at once (glibc),
//! but capabilities belong to a thread, and a new one inherits those of the thread that makes it (capabilities(7)). What is kept
//! makes it possible to open listeners after that: at the start, and at reloads, which root could not do any more either.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use caps::{CapSet, Capability, CapsHashSet};
use nix::fcntl::AtFlags;
use nix::sys::prctl;
use nix::unistd::{
    Gid, Group, Uid, User, fchown, fchownat, geteuid, initgroups, setresgid, setresuid, setuid,
};

use super::{ServeArgs, account, certificate, configuration, control_socket, is_service, reading, variable};
use crate::config::settings::{ControlSocket, Settings};
use crate::config::{Finding, PREFIX};

/// What is kept: ports below 1024 (ip(7)). Larger socket buffers are a matter of the system's settings, as with systemd's unit:
/// CAP_NET_ADMIN, which could force them, could change this machine's network, too.
const KEPT: [Capability; 1] = [Capability::CAP_NET_BIND_SERVICE];

/// What a relay keeps in its state directory.
const KNOWN: [&str; 5] = ["lock", "overlays.json", "revocations", "secret", "self-signed.pem"];

/// The most files of a state directory that are handed over.
const FILES_MAX: usize = 64;

/// A process of root has become another user.
static WAS_ROOT: AtomicBool = AtomicBool::new(false);

/// Whether this process was started as root and has become another user. It keeps the folders of a service.
pub fn was_root() -> bool {
    WAS_ROOT.load(Ordering::Relaxed)
}

/// What the log says about the user of this process.
#[derive(Debug, Default)]
pub struct Said {
    pub note: Option<String>,
    pub warnings: Vec<String>,
}

/// Makes this process one of the user of the settings. To be called before there is a second thread.
///
/// # Errors
/// It may not, or what the relay needs as that user cannot be prepared.
pub fn settle(settings: &Settings, args: &ServeArgs) -> Result<Said, Box<Finding>> {
    let me = geteuid();
    if settings.user.is_empty() {
        let warnings = if me.is_root() && !is_service() { vec![root_without_need()] } else { Vec::new() };
        return Ok(Said { note: None, warnings });
    }
    let wrong = |what: String, fix: &str| {
        let (file, line) = place(args);
        let (key, value) = ("user".to_owned(), format!("{:?}", settings.user));
        Box::new(Finding { file, line, key, value, what, fix: fix.to_owned(), warning: false })
    };
    let Some(user) = account::by_name_or_number(&settings.user) else {
        return Err(wrong("this machine has no user of this name".into(), "create it, or name another one"));
    };
    if user.uid == me {
        return Ok(Said::default());
    }
    if !me.is_root() {
        let name = User::from_uid(me).ok().flatten().map_or_else(|| me.to_string(), |me| me.name);
        return Err(wrong(
            format!("hairpin runs as {name:?}, and only root can become another user"),
            "start it as root or as that user, or remove the setting",
        ));
    }
    WAS_ROOT.store(true, Ordering::Relaxed);
    // What is read again as the user, to know what a reload will not be able to read.
    let text = args.config.as_deref().filter(|file| !file.starts_with("/dev")).map(reading::read);
    prepare(settings, args, &user).map_err(|error| {
        wrong(
            format!("{error:#}"),
            "name another one with --state-dir, or start it as root with every privilege",
        )
    })?;
    let kept = become_user(&user).map_err(|error| {
        wrong(format!("{error:#}"), "start it as root with every privilege, or remove the setting")
    })?;
    let kept: Vec<_> = KEPT.iter().filter(|one| kept.contains(one)).map(ToString::to_string).collect();
    let kept = if kept.is_empty() { "nothing".to_owned() } else { kept.join(" and ") };
    let note = format!("became user {:?}; kept of root's privileges: {kept}", user.name);
    let mut warnings = Vec::new();
    if let (Some(file), Some(Ok(contents))) = (&args.config, text) {
        if let Err(error) = reading::read(file) {
            let (what, fix) = crate::config::files::unreadable(&error);
            warnings.push(format!("{}: {what}; {fix}", file.display()));
        }
        let findings = configuration::judge(file, &contents, &args.settings, args.generates());
        warnings.extend(findings.err().into_iter().flatten().map(|finding| finding.to_string()));
    }
    if args.config.is_none() {
        // Flags and the environment may name files, too.
        let findings = configuration::defaults(&args.settings).err();
        warnings.extend(findings.into_iter().flatten().map(|finding| finding.to_string()));
    }
    if args.certificate.is_some()
        && let Ok(tls) = certificate::obtain(args, || bail!("the certificate is that of the arguments"))
    {
        warnings.extend(tls.all().iter().filter_map(|one| one.load().err()).map(|error| error.to_string()));
    }
    let warnings = warnings.iter().map(|warning| with_consequence(warning, &user.name)).collect();
    Ok(Said { note: Some(note), warnings })
}

/// A sentence about a file that the user may not read (`unreadable`), with what that means for a relay that has read it as root.
fn with_consequence(warning: &str, user: &str) -> String {
    let consequence = format!(
        "the user {user:?} cannot read it: what root has read serves until a reload, or a renewal of the certificate, which will fail"
    );
    warning.replacen("cannot be read: permission denied", &consequence, 1)
}

fn root_without_need() -> String {
    "hairpin runs as root, which it does not need, so a fault in it is a fault of root; set user = \"NAME\" at the top of the \
     configuration (or --set user=NAME) to the user that it shall become, or run it as a service of systemd"
        .to_owned()
}

/// Where the setting is: its file and line.
fn place(args: &ServeArgs) -> (String, Option<usize>) {
    if args.settings.iter().any(|one| one.sets("user")) {
        return ("arguments".to_owned(), None);
    }
    let environment = || ("environment".to_owned(), None);
    if variable(&format!("{PREFIX}USER")).is_some() {
        return environment();
    }
    let Some(file) = &args.config else { return environment() };
    let text = fs::read_to_string(file).unwrap_or_default();
    let is_it = |line: &str| {
        line.trim_start().strip_prefix("user").is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    (file.display().to_string(), text.lines().position(is_it).map(|index| index + 1))
}

/// Makes what only root can make, and gives it to the user.
fn prepare(settings: &Settings, args: &ServeArgs, user: &User) -> Result<()> {
    if let Ok(directory) = args.state_directory() {
        let shown = directory.display().to_string();
        hand_over(&directory, user)
            .with_context(|| format!("cannot give the state directory {shown} to it"))?;
    }
    let socket = match &settings.admin.socket {
        ControlSocket::Off => None,
        ControlSocket::At(path) => Some(path.clone()),
        ControlSocket::Default => control_socket::default_path(&variable, true, true),
    };
    if let Some(socket) = socket {
        // If it cannot be made, opening the socket says what is wrong.
        let _ = open_folder(&socket, user);
    }
    Ok(())
}

/// A state directory of root, or of another user that hairpin was, becomes one of the user with its files.
fn hand_over(path: &Path, user: &User) -> Result<()> {
    if !path.exists() {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        DirBuilder::new().mode(0o700).create(path)?;
    }
    let directory = File::open(path)?;
    let metadata = directory.metadata()?;
    if !metadata.is_dir() || metadata.uid() == user.uid.as_raw() {
        return Ok(());
    }
    let files = kept_files(path, metadata.uid())?;
    let (uid, gid) = (Some(user.uid), Some(user.gid));
    for name in files {
        fchownat(&directory, name.as_os_str(), uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    }
    fchown(directory.as_fd(), uid, gid)?;
    Ok(())
}

/// The names of the files in a state directory that go with it to another user: those of its owner. A directory for something else
/// was named by mistake, and stays as it is: the user could read and replace what is in it.
fn kept_files(path: &Path, owner: u32) -> Result<Vec<OsString>> {
    let mut files = Vec::new();
    for (count, entry) in fs::read_dir(path)?.enumerate() {
        let entry = entry?;
        let file = entry.metadata()?;
        if !file.is_file() || !is_kept(&entry.file_name()) {
            bail!("it has more than a relay keeps in it: {}", entry.path().display());
        }
        if count >= FILES_MAX {
            bail!("it has more than a relay keeps in it: more than {FILES_MAX} files");
        }
        // A hard link might be to a file elsewhere.
        if file.uid() == owner && file.nlink() == 1 {
            files.push(entry.file_name());
        }
    }
    Ok(files)
}

/// Whether a relay keeps a file of this name: one of its own, or `.NAME.xxx`, which is left if it was killed while it wrote one.
fn is_kept(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    let temporary = name.strip_prefix('.').and_then(|rest| rest.rsplit_once('.'));
    KNOWN.contains(&temporary.map_or(name, |(of, _)| of))
}

/// Makes the folder of the control socket, which is usually in a folder of root. One that exists stays as it is, unless it is for
/// this socket alone.
fn open_folder(socket: &Path, user: &User) -> io::Result<()> {
    let Some(folder) = socket.parent() else { return Ok(()) };
    match DirBuilder::new().mode(0o755).create(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if !is_for_socket(folder, socket)? {
                return Ok(());
            }
        }
        Err(error) => return Err(error),
    }
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(folder)?;
    let (uid, gid) = (Some(user.uid), Some(user.gid));
    fchown(opened.as_fd(), uid, gid)?;
    Ok(())
}

/// Whether a folder is called `hairpin` and has nothing but sockets and the lock of this one: /etc/hairpin is not for sockets.
fn is_for_socket(folder: &Path, socket: &Path) -> io::Result<bool> {
    let mut lock = socket.file_name().unwrap_or_default().to_owned();
    lock.push(".lock");
    if !folder.ends_with("hairpin") || !fs::symlink_metadata(folder)?.is_dir() {
        return Ok(false);
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_type()?.is_socket() && entry.file_name() != lock {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Becomes the user, with its groups, and without any privilege but those that are kept. Returns these.
fn become_user(user: &User) -> Result<CapsHashSet> {
    let permitted =
        caps::read(None, CapSet::Permitted).context("the privileges of this process cannot be read")?;
    let kept: CapsHashSet = KEPT.into_iter().filter(|one| permitted.contains(one)).collect();
    // A program that this process ran could not have more either. Without CAP_SETPCAP it stays, and no_new_privs is enough.
    for one in caps::read(None, CapSet::Bounding).unwrap_or_default().difference(&kept) {
        let _ = caps::drop(None, CapSet::Bounding, *one);
    }
    prctl::set_keepcaps(true)?;
    let name = std::ffi::CString::new(user.name.as_bytes())?;
    initgroups(&name, user.gid).context("its groups cannot be taken on")?;
    setresgid(user.gid, user.gid, user.gid).context("its group cannot be taken on")?;
    setresuid(user.uid, user.uid, user.uid).context("the user cannot be changed")?;
    prctl::set_keepcaps(false)?;
    caps::clear(None, CapSet::Ambient).ok();
    // The user's change has cleared the effective ones, so they are within the permitted ones at any time.
    let none = CapsHashSet::new();
    for (set, value) in [
        (CapSet::Effective, &none),
        (CapSet::Inheritable, &none),
        (CapSet::Permitted, &kept),
        (CapSet::Effective, &kept),
    ] {
        caps::set(None, set, value).context("privileges cannot be given up")?;
    }
    prctl::set_no_new_privs()?;
    // The old user, or the groups of root, would be a privilege.
    let groups = nix::unistd::getgroups()?;
    let keeps_root = user.gid != Gid::from_raw(0)
        && groups.contains(&Gid::from_raw(0))
        && Group::from_gid(Gid::from_raw(0))?.is_none_or(|root| !root.mem.contains(&user.name));
    if setuid(Uid::from_raw(0)).is_ok() || keeps_root {
        bail!("the privileges of root are still there");
    }
    // Like every program of root that has changed its user (prctl(2)), it stays closed to debuggers of the user.
    prctl::set_dumpable(false)?;
    Ok(kept)
}

#[cfg(test)]
mod tests;

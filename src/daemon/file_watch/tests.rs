//! Files as certbot, Kubernetes and operators replace them.

use std::os::unix::fs::symlink;

use tempfile::TempDir;
use tokio::time::timeout;

use super::*;

/// A place of its own, without links in its path.
fn place() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().canonicalize().unwrap();
    (folder, path)
}

/// The way to a file, below `base`.
fn way_below(base: &Path, file: &Path) -> Vec<String> {
    let shown = |(directory, name): (PathBuf, OsString)| {
        let path = directory.join(name);
        path.strip_prefix(base).map_or_else(|_| path.display().to_string(), |path| path.display().to_string())
    };
    way(file).into_iter().map(shown).collect()
}

/// certbot: live/NAME/*.pem are links into archive/NAME, which another link may lead to.
fn certbot(base: &Path) -> PathBuf {
    fs::create_dir_all(base.join("archive/turn")).unwrap();
    fs::create_dir_all(base.join("live/turn")).unwrap();
    fs::write(base.join("archive/turn/cert1.pem"), "one").unwrap();
    symlink("../../archive/turn/cert1.pem", base.join("live/turn/cert.pem")).unwrap();
    base.join("live/turn/cert.pem")
}

/// Kubernetes: each file is a link through ..data, which is a link to the newest version.
fn kubernetes(base: &Path) -> PathBuf {
    fs::create_dir_all(base.join("..2026_01")).unwrap();
    fs::write(base.join("..2026_01/tls.crt"), "one").unwrap();
    symlink("..2026_01", base.join("..data")).unwrap();
    symlink("..data/tls.crt", base.join("tls.crt")).unwrap();
    base.join("tls.crt")
}

#[test]
fn every_link_of_the_way_is_found() {
    let (_folder, base) = place();
    assert_eq!(way_below(&base, &certbot(&base)), ["live/turn/cert.pem", "archive/turn/cert1.pem"]);
    let (_folder, base) = place();
    assert_eq!(way_below(&base, &kubernetes(&base)), ["tls.crt", "..data", "..2026_01/tls.crt"]);
}

#[test]
fn the_way_ends_where_something_is_missing() {
    let (_folder, base) = place();
    assert_eq!(way_below(&base, &base.join("later/cert.pem")), ["later"]);
    symlink("nowhere/cert.pem", base.join("cert.pem")).unwrap();
    assert_eq!(way_below(&base, &base.join("cert.pem")), ["cert.pem", "nowhere"]);
}

/// path_resolution(7): the kernel follows 40 links.
#[test]
fn a_link_to_itself_ends() {
    let (_folder, base) = place();
    symlink("cert.pem", base.join("cert.pem")).unwrap();
    assert_eq!(way(&base.join("cert.pem")).len(), LINKS_MAX + 1);
}

/// Runs a watch of a file, makes a change, and fails unless it is noticed by inotify.
async fn notices(file: PathBuf, changes: Vec<Box<dyn FnOnce() + Send>>) {
    let (_paths, watched) = watch::channel(vec![file]);
    let changed = std::sync::Arc::new(Notify::new());
    let notified = changed.clone();
    let task = tokio::spawn(async move { run(watched, &notified).await });
    // That of the start.
    changed.notified().await;
    for (n, change) in changes.into_iter().enumerate() {
        change();
        let noticed = timeout(Duration::from_secs(20), changed.notified()).await;
        assert!(noticed.is_ok(), "change {n} was not noticed");
    }
    task.abort();
}

#[tokio::test]
async fn a_swapped_link_of_certbot_is_noticed() {
    let (_folder, base) = place();
    let file = certbot(&base);
    let renew = move |n: u32| -> Box<dyn FnOnce() + Send> {
        let base = base.clone();
        Box::new(move || {
            fs::write(base.join(format!("archive/turn/cert{n}.pem")), "new").unwrap();
            fs::remove_file(base.join("live/turn/cert.pem")).unwrap();
            symlink(format!("../../archive/turn/cert{n}.pem"), base.join("live/turn/cert.pem")).unwrap();
        })
    };
    notices(file, vec![renew(2), renew(3)]).await;
}

#[tokio::test]
async fn a_swapped_directory_of_kubernetes_is_noticed() {
    let (_folder, base) = place();
    let file = kubernetes(&base);
    let renew = move |n: u32| -> Box<dyn FnOnce() + Send> {
        let base = base.clone();
        Box::new(move || {
            let version = format!("..2026_0{n}");
            fs::create_dir(base.join(&version)).unwrap();
            fs::write(base.join(&version).join("tls.crt"), "new").unwrap();
            symlink(version, base.join("..data_tmp")).unwrap();
            fs::rename(base.join("..data_tmp"), base.join("..data")).unwrap();
        })
    };
    notices(file, vec![renew(2), renew(3)]).await;
}

/// Written in place, replaced by rename, removed, and there again; also before its folder is there.
#[tokio::test]
async fn changes_of_a_plain_file_are_noticed() {
    let (_folder, base) = place();
    let file = base.join("new/cert.pem");
    let at = |change: fn(&Path)| -> Box<dyn FnOnce() + Send> {
        let file = file.clone();
        Box::new(move || change(&file))
    };
    let changes = vec![
        at(|file| fs::create_dir(file.parent().unwrap()).unwrap()),
        at(|file| fs::write(file, "one").unwrap()),
        at(|file| fs::write(file, "two").unwrap()),
        at(|file| {
            fs::write(file.with_extension("tmp"), "three").unwrap();
            fs::rename(file.with_extension("tmp"), file).unwrap();
        }),
        at(|file| fs::remove_file(file).unwrap()),
        at(|file| fs::write(file, "four").unwrap()),
    ];
    notices(file.clone(), changes).await;
}

/// A directory may be one in which others write all the time.
#[tokio::test]
async fn other_files_of_a_directory_do_not_matter() {
    let (_folder, base) = place();
    let file = base.join("cert.pem");
    fs::write(&file, "one").unwrap();
    let watched = Watched::new(std::slice::from_ref(&file)).unwrap();
    fs::write(base.join("other.pem"), "two").unwrap();
    fs::read(&file).unwrap();
    assert!(timeout(Duration::from_millis(200), watched.event()).await.is_err());
    fs::write(&file, "three").unwrap();
    assert!(watched.event().await);
}

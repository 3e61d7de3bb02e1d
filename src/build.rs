//! Tells the program its commit, for `hairpin --version`. A build without a checkout or git works too: then the commit is that of
//! the published package, or unknown.

#![allow(clippy::print_stdout, reason = "this is how a build script talks to cargo")]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Digits of a commit that are shown. A fixed number, so that every clone builds the same program.
const DIGITS: usize = 7;

fn main() {
    println!("cargo::rerun-if-changed=src/build.rs");
    println!("cargo::rerun-if-env-changed=HAIRPIN_COMMIT");
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let given = env::var("HAIRPIN_COMMIT").ok().filter(|commit| is_commit(commit));
    let commit = given.or_else(|| checkout(&root)).or_else(|| package(&root));
    let commit = commit.as_deref().and_then(|commit| commit.get(..DIGITS)).unwrap_or("unknown");
    println!("cargo::rustc-env=HAIRPIN_COMMIT={commit}");
}

/// The commit of the checkout whose top is `root`. A package may lie in the checkout of another project.
fn checkout(root: &Path) -> Option<String> {
    let top = git(root, &["rev-parse", "--show-toplevel"])?;
    if fs::canonicalize(top).ok()? != fs::canonicalize(root).ok()? {
        return None;
    }
    // A commit changes one of these files: HEAD names a branch, whose commit is in a file of its own or in packed-refs. The log of
    // HEAD is there even if the file of a packed branch is not yet.
    let branch = git(root, &["rev-parse", "--symbolic-full-name", "HEAD"]).unwrap_or_default();
    for name in ["HEAD", "logs/HEAD", branch.as_str(), "packed-refs"] {
        if let Some(file) = git(root, &["rev-parse", "--git-path", name]).map(|file| root.join(file))
            && file.is_file()
        {
            println!("cargo::rerun-if-changed={}", file.display());
        }
    }
    git(root, &["rev-parse", "HEAD"]).filter(|commit| is_commit(commit))
}

/// The commit that cargo wrote down when it made the package.
fn package(root: &Path) -> Option<String> {
    let text = fs::read_to_string(root.join(".cargo_vcs_info.json")).ok()?;
    let (_, rest) = text.split_once("\"sha1\"")?;
    rest.split('"').nth(1).filter(|commit| is_commit(commit)).map(str::to_owned)
}

fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(root).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn is_commit(text: &str) -> bool {
    text.len() >= DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

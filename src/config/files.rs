//! Sentences about files that cannot be read.

use std::io;

/// The most bytes of a file that is read: a configuration with hundreds of thousands of users, or a long list of ranges.
pub const FILE_MAX: u64 = 16 * 1024 * 1024;

/// What is wrong with a file that cannot be read, and how to fix it.
pub fn unreadable(error: &io::Error) -> (String, &'static str) {
    use io::ErrorKind as Kind;
    let (what, fix) = match error.kind() {
        Kind::NotFound => ("No such file or directory", "correct the path"),
        Kind::PermissionDenied => {
            ("permission denied", "allow the user that runs hairpin to read it, and to enter its folders")
        }
        Kind::IsADirectory => ("it is a directory", "name a file in it"),
        Kind::NotADirectory => ("a part of the path is a file and not a directory", "correct the path"),
        Kind::InvalidFilename | Kind::InvalidInput => ("it is not the name of a file", "correct the path"),
        Kind::NotSeekable => ("it is a FIFO, which cannot be read again by a reload", "name a regular file"),
        Kind::FileTooLarge => ("it is larger than 16 MiB", "name another file, or make it smaller"),
        _ if error.raw_os_error() == Some(libc::ELOOP) => {
            ("a link of the path leads to itself", "correct the link")
        }
        _ => return (format!("cannot be read: {error}"), "check the file and its disk"),
    };
    (format!("cannot be read: {what}"), fix)
}

/// `file:line:`, the place that a sentence is about.
pub fn place(file: &str, line: Option<usize>) -> String {
    let file: String = file.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match line {
        Some(line) => format!("{file}:{line}:"),
        None => format!("{file}:"),
    }
}

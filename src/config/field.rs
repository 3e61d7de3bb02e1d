//! What a setting may be and where it goes, in one value: a [`Field`] holds the way to the place in the settings, and
//! its variant says how a TOML value is read on that way. How each is read stands in `values`, whether settings agree
//! with each other in `checks`.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::{Range, RangeInclusive};
use std::path::Path;

use toml_edit::Value;

use super::external::ExternalIp;
use super::tls::Pem;
use super::values;

use crate::auth::{Password, Secret, StaticUser};
use crate::turn::peers::Cidr;

/// What a setting may be, and where in a `T` it goes.
pub enum Field<T: 'static> {
    /// On or off.
    Switch(fn(&mut T) -> &mut bool),
    /// A whole number within a range.
    Number {
        /// Least and most.
        range: RangeInclusive<u64>,
        /// Its place.
        at: fn(&mut T) -> &mut u64,
    },
    /// A time. Off the norm it runs, with a warning.
    Seconds {
        /// What the RFC says.
        norm: Norm,
        /// Its place.
        at: fn(&mut T) -> &mut u32,
    },
    /// Text of so many characters.
    Text {
        /// Least and most.
        range: RangeInclusive<usize>,
        /// Its place.
        at: fn(&mut T) -> &mut String,
    },
    /// One of several words.
    Choice(&'static [Word<T>]),
    /// Addresses to listen on; without a port they get this one.
    Sockets {
        /// The port when none is written.
        port: u16,
        /// Their place.
        at: fn(&mut T) -> &mut Vec<SocketAddr>,
    },
    /// Addresses of this machine.
    Addresses(fn(&mut T) -> &mut Vec<IpAddr>),
    /// External addresses, `public` or `public/local`.
    External(fn(&mut T) -> &mut Vec<ExternalIp>),
    /// A file with certificates or a key.
    Pem(fn(&mut T) -> &mut Option<Pem>),
    /// A port range, `first-last`.
    Ports(fn(&mut T) -> &mut RangeInclusive<u16>),
    /// Address ranges.
    Prefixes(fn(&mut T) -> &mut Vec<Cidr>),
    /// NAT64 prefixes: IPv6, of the lengths of RFC 6052 section 2.2.
    Nat64(fn(&mut T) -> &mut Vec<Cidr>),
    /// Shared secrets, spelt out.
    Secrets(fn(&mut T) -> &mut Vec<Secret>),
    /// Files with more of them.
    SecretFiles(fn(&mut T) -> &mut Vec<Secret>),
    /// `[[auth.user]]` sections, read by the table [`USER`](super::table::USER).
    Users(fn(&mut T) -> &mut Vec<StaticUser>),
    /// A password, spelt out. This and the next two add to a list, so that a user with two of them is noticed.
    Password(fn(&mut T) -> &mut Vec<Password>),
    /// A file with a password.
    PasswordFile(fn(&mut T) -> &mut Vec<Password>),
    /// 32 hex digits: MD5(user:realm:password).
    Md5Key(fn(&mut T) -> &mut Vec<Password>),
}

/// A word, and what it sets.
pub type Word<T> = (&'static str, fn(&mut T));

/// What an RFC says of a lifetime.
#[derive(Clone, Copy)]
pub struct Norm {
    /// Whether this many seconds agree with it.
    pub holds: fn(u32) -> bool,
    /// The sentence that is quoted when they do not.
    pub says: &'static str,
}

impl Norm {
    /// No RFC says anything.
    pub const NONE: Norm = Norm { holds: |_| true, says: "" };
}

/// A user that is being read.
#[derive(Default)]
pub struct UserDraft {
    /// The user name; empty if not given.
    pub name: String,
    /// What was given as password: exactly one is right.
    pub passwords: Vec<Password>,
}

/// The world outside the file, passed in so that reading settings is a function of its inputs.
pub struct ReadContext<'a> {
    /// Whether this machine has an address.
    pub has_address: &'a dyn Fn(IpAddr) -> bool,
    /// The text of a file; relative paths start where the configuration stands.
    pub read: &'a dyn Fn(&Path) -> io::Result<String>,
    /// A variable of the environment.
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    /// Unix seconds, for certificates.
    pub now: u64,
}

impl ReadContext<'static> {
    /// Has every address, reads nothing.
    pub const NONE: ReadContext<'static> = ReadContext {
        has_address: &|_| true,
        read: &|_| Err(io::ErrorKind::Unsupported.into()),
        environment: &|_| None,
        now: 0,
    };
}

/// Something wrong with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueError {
    /// Where in the file.
    pub at: Range<usize>,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub fix: String,
    /// It runs all the same.
    pub warning: bool,
}

impl<T> Field<T> {
    /// Puts `value` in its place. What is wrong with it is left out and comes back.
    pub fn apply(&self, target: &mut T, value: &Value, reader: &ReadContext<'_>) -> Vec<ValueError> {
        let mut wrong = Vec::new();
        let report = &mut wrong;
        match self {
            Field::Switch(at) => put(at(target), values::switch(value), report),
            Field::Number { range, at } => put(at(target), values::number(value, range), report),
            Field::Seconds { norm, at } => {
                put(at(target), values::seconds(value), report);
                let seconds = *at(target);
                if report.is_empty() && !(norm.holds)(seconds) {
                    report.push(ValueError {
                        warning: true,
                        ..ValueError::of(value, norm.says, "it runs, but clients count on that")
                    });
                }
            }
            Field::Text { range, at } => put(at(target), values::sized_text(value, range), report),
            Field::Choice(words) => match values::choice(value, words) {
                Ok(set) => set(target),
                Err(wrong) => report.push(wrong),
            },
            Field::Sockets { port, at } => {
                *at(target) = values::each(value, report, |v| values::socket(v, *port, reader));
                values::no_repeats(value, at(target), report);
            }
            Field::Addresses(at) => {
                *at(target) = values::each(value, report, |v| values::address(v, reader));
                values::no_repeats(value, at(target), report);
            }
            Field::External(at) => {
                *at(target) = values::each(value, report, |v| values::external(v, reader));
                values::no_repeats(value, at(target), report);
            }
            Field::Pem(at) => *at(target) = keep(values::pem(value, reader), report),
            Field::Ports(at) => put(at(target), values::ports(value), report),
            Field::Prefixes(at) => *at(target) = values::each(value, report, values::prefix),
            Field::Nat64(at) => *at(target) = values::each(value, report, values::nat64),
            Field::Secrets(at) => at(target).extend(values::each(value, report, values::secret)),
            Field::SecretFiles(at) => {
                let files = values::each(value, report, |v| values::secret_file(v, reader));
                at(target).extend(files.into_iter().flatten());
            }
            // Sections of their own: the loader reads them with a table of their own.
            Field::Users(_) => {}
            Field::Password(at) => at(target).extend(keep(values::password(value), report)),
            Field::PasswordFile(at) => at(target).extend(keep(values::password_file(value, reader), report)),
            Field::Md5Key(at) => at(target).extend(keep(values::md5_key(value), report)),
        }
        wrong
    }

    /// Whether its values are never shown.
    pub fn is_secret(&self) -> bool {
        matches!(self, Field::Secrets(_) | Field::Password(_) | Field::Md5Key(_))
    }

    /// What it may be, for the reference page.
    pub fn describe(&self) -> String {
        match self {
            Field::Switch(_) => "`true` or `false`".into(),
            Field::Number { range, .. } => format!("number, {} to {}", range.start(), range.end()),
            Field::Seconds { .. } => "seconds, from 1".into(),
            Field::Text { .. } => "text".into(),
            Field::Choice(words) => {
                let words: Vec<_> = words.iter().map(|(word, _)| format!("`\"{word}\"`")).collect();
                format!("one of {}", words.join(", "))
            }
            Field::Sockets { .. } => "list of addresses with ports".into(),
            Field::Addresses(_) => "list of addresses".into(),
            Field::External(_) => "list of addresses, `public` or `public/local`".into(),
            Field::Pem(_) => "file".into(),
            Field::Ports(_) => "first and last port".into(),
            Field::Prefixes(_) => "list of ranges in CIDR".into(),
            Field::Nat64(_) => "list of IPv6 prefixes".into(),
            Field::Secrets(_) => "list of secrets".into(),
            Field::SecretFiles(_) => "list of files".into(),
            Field::Users(_) => "sections".into(),
            Field::Password(_) => "text".into(),
            Field::PasswordFile(_) => "file".into(),
            Field::Md5Key(_) => "32 hex digits".into(),
        }
    }
}

impl ValueError {
    /// Something wrong with all of `value`.
    pub fn of(value: &Value, what: impl Into<String>, fix: impl Into<String>) -> ValueError {
        ValueError {
            at: value.span().unwrap_or_default(),
            what: what.into(),
            fix: fix.into(),
            warning: false,
        }
    }
}

fn put<X>(place: &mut X, read: Result<X, ValueError>, report: &mut Vec<ValueError>) {
    if let Some(value) = keep(read, report) {
        *place = value;
    }
}

fn keep<X>(read: Result<X, ValueError>, report: &mut Vec<ValueError>) -> Option<X> {
    read.map_err(|wrong| report.push(wrong)).ok()
}

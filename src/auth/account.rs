//! Who an allocation counts for: the name that quotas, rates and logs use, and whether many clients share it.

use std::sync::Arc;

/// The user of every probe, in logs and lists.
pub const PROBE_USER: &str = "hairpin-probe";

/// Whether a user name is kept for probes.
pub fn is_reserved(username: &str) -> bool {
    username.strip_prefix(PROBE_USER).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
}

/// A user as quotas, rates and logs see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    name: Arc<str>,
    kind: AccountKind,
    /// A limit of its own on allocations; 0 is no limit.
    allocations: usize,
}

/// Where the name of an [`Account`] comes from. Equal names of different kinds are different accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccountKind {
    /// The user in a time-limited username, or a participant of LiveKit: a person.
    Person,
    /// A static user. Many applications give its password to every client.
    Static,
    /// A time-limited username that is an expiry and nothing else: everyone whose credentials were made in the same second.
    ExpiryOnly,
    /// The reserved user of probes, which count nowhere but in a bound of their own.
    Probe,
}

/// What identifies an account in tables.
pub type AccountKey = (AccountKind, Arc<str>);

impl Account {
    /// How many allocations all probes together may have in a process.
    pub const PROBES: usize = 16;

    /// The user in a time-limited username, or a participant of LiveKit.
    pub fn person(name: impl Into<Arc<str>>) -> Account {
        Account { name: name.into(), kind: AccountKind::Person, allocations: 0 }
    }

    /// A static user with as many `allocations`; 0 is no limit.
    pub fn static_user(name: impl Into<Arc<str>>, allocations: usize) -> Account {
        Account { name: name.into(), kind: AccountKind::Static, allocations }
    }

    /// A time-limited username without a user.
    pub fn expiry_only(name: impl Into<Arc<str>>) -> Account {
        Account { name: name.into(), kind: AccountKind::ExpiryOnly, allocations: 0 }
    }

    /// The reserved user of probes.
    pub fn probe() -> Account {
        Account { name: PROBE_USER.into(), kind: AccountKind::Probe, allocations: 0 }
    }

    /// The name in logs.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Where the name comes from.
    pub fn kind(&self) -> AccountKind {
        self.kind
    }

    /// The key in tables: a static user and a person of the same name count apart.
    pub fn key(&self) -> AccountKey {
        (self.kind, self.name.clone())
    }

    /// Whether it is that of probes.
    pub fn is_probe(&self) -> bool {
        self.kind == AccountKind::Probe
    }

    /// Whether many clients are expected to have this name.
    pub fn is_shared(&self) -> bool {
        match self.kind {
            AccountKind::Person => false,
            AccountKind::Static | AccountKind::ExpiryOnly | AccountKind::Probe => true,
        }
    }

    /// How many allocations it may have, where a person may have `per_person`.
    pub fn allocations(&self, per_person: usize) -> usize {
        match (self.kind, self.allocations) {
            (AccountKind::Person, _) => per_person,
            (AccountKind::Probe, _) => Account::PROBES,
            (AccountKind::Static | AccountKind::ExpiryOnly, 0) => usize::MAX,
            (AccountKind::Static | AccountKind::ExpiryOnly, own) => own,
        }
    }
}

impl From<&str> for Account {
    /// A person.
    fn from(name: &str) -> Account {
        Account::person(name)
    }
}

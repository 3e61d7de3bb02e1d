//! What differs between two configurations, key by key. No message shows a secret.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::kind::{Reload, shortened};
use super::listener::{Listener, ListenerSettings, PublicAddress};
use super::report::names_others;
use super::settings::{Settings, SiblingSettings};
use super::table::SETTINGS;
use super::tls::CertificateSettings;
use crate::auth::{Password, StaticUser};
use crate::shown as masking;

/// A setting that has another value than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its key, such as `limits.channels`; of a section that can be repeated, the key of the section.
    pub key: &'static str,
    /// The old and the new value, `old -> new`; only that it has changed if the value is secret.
    pub what: String,
    /// When the new value holds.
    pub holds: Reload,
}

impl Change {
    /// The difference for the log, where addresses of others may have to be masked.
    pub fn logged(&self) -> String {
        let (own, others) = self.what.split_at(self.others());
        format!("{own}{}", masking::text(others))
    }

    /// Where it begins to name peers, clients or proxies.
    fn others(&self) -> usize {
        if names_others(self.key) {
            return 0;
        }
        let of_listener = self.what.find(": ").filter(|_| self.key == "listener").map(|at| at + 2);
        let names_others = |at: &usize| NAMING.iter().any(|one| self.what[*at..].starts_with(one));
        of_listener.filter(names_others).unwrap_or(self.what.len())
    }
}

/// How changes of a listener begin that name peers or proxies.
const NAMING: [&str; 2] = ["peers ", "proxy_from "];

/// The changes of one repeated section that are listed.
const ENTRIES: usize = 100;

/// How a section that can be repeated differs: its key, when changes hold, and a sentence per entry that has changed.
type RepeatedChanges = (&'static str, Reload, fn(&Settings, &Settings) -> Vec<String>);

/// The sections of [`REPEATED`](super::table::REPEATED).
static REPEATED_CHANGES: &[RepeatedChanges] = &[
    ("listener", Reload::Live, listeners),
    ("tls.certificate", Reload::Live, certificates),
    ("sibling", Reload::Live, siblings),
    ("auth.user", Reload::NewAllocations, users),
];

impl Settings {
    /// What differs in `new`, in the order of the table.
    pub fn changes(&self, new: &Settings) -> Vec<Change> {
        let (mut old, mut new) = (self.clone(), new.clone());
        let mut changes = Vec::new();
        for setting in SETTINGS {
            if let Some(what) = setting.kind.difference(&mut old, &mut new) {
                changes.push(Change { key: setting.key, what, holds: setting.reload });
            }
        }
        for &(key, holds, compare) in REPEATED_CHANGES {
            let mut entries = compare(&old, &new);
            let more = entries.len().saturating_sub(ENTRIES);
            entries.truncate(ENTRIES);
            entries.extend((more > 0).then(|| format!("and {more} more")));
            changes.extend(entries.into_iter().map(|what| Change { key, what, holds }));
        }
        changes
    }

    /// These settings, but where a changed value needs a restart, that of `running`.
    #[must_use]
    pub fn until_restart(&self, running: &Settings) -> Settings {
        let (mut running, mut held) = (running.clone(), self.clone());
        for setting in SETTINGS.iter().filter(|setting| setting.reload == Reload::Restart) {
            setting.kind.copy(&mut running, &mut held);
        }
        held
    }
}

/// Every key of the table with when a changed value holds, those of repeated sections with the key of their section.
#[cfg(test)]
pub fn every_key() -> Vec<(String, Reload)> {
    let settings = SETTINGS.iter().map(|setting| (setting.key.to_owned(), setting.reload));
    let repeated = super::table::REPEATED.iter().flat_map(|section| {
        section.entry.rows().into_iter().map(|row| (format!("{}.{}", section.key, row.key), row.reload))
    });
    settings.chain(repeated).collect()
}

/// `[[listener]]`
fn listeners(old: &Settings, new: &Settings) -> Vec<String> {
    let each = |settings: &Settings| -> Vec<Listener> {
        settings.listener.iter().flat_map(ListenerSettings::each).collect()
    };
    let (old, new) = (each(old), each(new));
    let find = |list: &[Listener], one: &Listener| {
        list.iter().find(|other| (other.transport, other.address) == (one.transport, one.address)).cloned()
    };
    let added = new.iter().filter(|one| find(&old, one).is_none()).map(|one| format!("{one} added"));
    let removed = old.iter().filter(|one| find(&new, one).is_none()).map(|one| format!("{one} removed"));
    let peers = new.iter().filter_map(|one| {
        let before = find(&old, one).filter(|before| before.peers != one.peers)?;
        Some(format!("{one}: peers {} -> {}", before.peers, one.peers))
    });
    let public = new.iter().filter_map(|one| {
        let before = find(&old, one).filter(|before| before.public != one.public)?;
        let shown =
            |public: &Option<PublicAddress>| public.as_ref().map_or("none".into(), ToString::to_string);
        Some(format!("{one}: public {} -> {}", shown(&before.public), shown(&one.public)))
    });
    // TCP and TLS at one address are one socket, whichever of them was there before.
    let socket = |one: &&Listener| one.transport.is_stream();
    let mut told: Vec<SocketAddr> = Vec::new();
    let service = new.iter().filter(socket).flat_map(|one| {
        let is_told = told.contains(&one.address);
        told.push(one.address);
        let mut sockets = old.iter().filter(socket);
        let before = sockets.find(|before| before.address == one.address && !is_told);
        let changes = before.map(|before| before.service.changes(&one.service)).unwrap_or_default();
        changes.into_iter().map(move |change| format!("{one}: {change}"))
    });
    let service: Vec<String> = service.collect();
    added.chain(removed).chain(public).chain(peers).chain(service).collect()
}

/// `[[auth.user]]`
fn users(old: &Settings, new: &Settings) -> Vec<String> {
    let by_name = |settings: &Settings| -> BTreeMap<String, StaticUser> {
        settings.auth.users.iter().map(|user| (user.name.clone(), user.clone())).collect()
    };
    let (old, new) = (by_name(old), by_name(new));
    let added =
        new.keys().filter(|name| !old.contains_key(*name)).map(|name| format!("{} added", user(name)));
    let removed =
        old.keys().filter(|name| !new.contains_key(*name)).map(|name| format!("{} removed", user(name)));
    let both = new.iter().filter_map(|(name, after)| Some((name, old.get(name)?, after)));
    let changed = both.flat_map(|(name, before, after)| {
        let password = (password(&before.password) != password(&after.password))
            .then(|| format!("{}: password changed", user(name)));
        let allocations = (before.allocations != after.allocations)
            .then(|| format!("{}: allocations {} -> {}", user(name), before.allocations, after.allocations));
        password.into_iter().chain(allocations)
    });
    added.chain(removed).chain(changed).collect()
}

/// `[[tls.certificate]]`
fn certificates(old: &Settings, new: &Settings) -> Vec<String> {
    let (old, new) = (&old.tls.certificates, &new.tls.certificates);
    let with_files_of = |one: &CertificateSettings, list: &[CertificateSettings]| {
        list.iter().find(|other| other.has_the_files_of(one)).cloned()
    };
    let shown = |one: &CertificateSettings| shortened(&format!("{:?}", one.cert.name));
    let added = new.iter().filter(|one| with_files_of(one, old).is_none());
    let removed = old.iter().filter(|one| with_files_of(one, new).is_none());
    let both = new.iter().filter_map(|one| Some((one, with_files_of(one, old)?)));
    let changed = both.filter(|(one, before)| *one != before).map(|(one, before)| {
        let what = if one.names != before.names { "names" } else { "files" };
        format!("{}: {what} changed", shown(one))
    });
    let added = added.map(|one| format!("{} added", shown(one)));
    let list: Vec<String> =
        added.chain(removed.map(|one| format!("{} removed", shown(one)))).chain(changed).collect();
    // The first one may be the default.
    let is_same_order = old.iter().zip(new).all(|(one, other)| one.has_the_files_of(other));
    match list.is_empty() && !is_same_order {
        true => vec!["another order".to_owned()],
        false => list,
    }
}

/// `[[sibling]]`
fn siblings(old: &Settings, new: &Settings) -> Vec<String> {
    let shown = |one: &SiblingSettings| {
        let addresses: Vec<String> = [one.v4, one.v6].iter().flatten().map(ToString::to_string).collect();
        addresses.join(" and ")
    };
    let (old, new) = (&old.siblings, &new.siblings);
    let is_at = |one: &SiblingSettings, list: &[SiblingSettings]| {
        list.iter().any(|other| (other.v4, other.v6) == (one.v4, one.v6))
    };
    let differs = new.iter().filter(|one| !old.contains(one));
    let (changed, added): (Vec<_>, Vec<_>) = differs.partition(|one| is_at(one, old));
    let removed = old.iter().filter(|one| !new.contains(one) && !is_at(one, new));
    let added = added.into_iter().map(|one| format!("{} added", shown(one)));
    let changed = changed.into_iter().map(|one| format!("{} changed", shown(one)));
    added.chain(removed.map(|one| format!("{} removed", shown(one)))).chain(changed).collect()
}

/// A user's name. One of coturn's form, `user:password`, may contain a password.
fn user(name: &str) -> String {
    let name = match name.split_once(':') {
        Some((user, _)) => format!("{user}:***"),
        None => name.to_owned(),
    };
    shortened(&format!("{name:?}"))
}

fn password(password: &Password) -> (bool, &[u8]) {
    match password {
        Password::Plain(text) => (true, text.as_bytes()),
        Password::Md5Key(key) => (false, key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Secret;
    use crate::config::table::REPEATED;

    fn user(name: &str, password: &str) -> StaticUser {
        StaticUser { name: name.into(), password: Password::Plain(Secret::new(password)), allocations: 0 }
    }

    fn said(old: &Settings, new: &Settings) -> Vec<String> {
        old.changes(new).iter().map(|change| format!("{}: {}", change.key, change.what)).collect()
    }

    #[test]
    fn plain_settings_show_both_values() {
        let (old, mut new) = (Settings::default(), Settings::default());
        assert_eq!(old.changes(&new), []);
        new.limits.channels = 7;
        new.software = "a \"name\"".into();
        new.listen.udp.truncate(1);
        new.log.level = super::super::settings::Level::Debug;
        new.relay.ports = 50_000..=50_001;
        assert_eq!(
            said(&old, &new),
            [
                r#"software: "" -> "a \"name\"""#,
                r#"listen.udp: ["0.0.0.0:3478", "[::]:3478"] -> ["0.0.0.0:3478"]"#,
                r#"relay.ports: "49152-65535" -> "50000-50001""#,
                "limits.channels: 1024 -> 7",
                r#"log.level: "info" -> "debug""#,
            ]
        );
    }

    /// Secrets and passwords are never shown; names of users are.
    #[test]
    fn secrets_have_changed_and_no_more() {
        let (mut old, mut new) = (Settings::default(), Settings::default());
        old.auth.secrets = vec![Secret::new("the secret before")];
        new.auth.secrets = vec![Secret::new("the secret after"), Secret::new("of a file")];
        new.auth.file_secrets = vec![Secret::new("of a file")];
        old.auth.users = vec![user("alice", "one"), user("bob", "two"), user("eve:three", "x")];
        new.auth.users = vec![user("alice", "four"), StaticUser { allocations: 5, ..user("carol", "five") }];
        assert_eq!(
            said(&old, &new),
            [
                "auth.secrets: changed",
                "auth.secret_files: changed",
                "auth.user: \"carol\" added",
                "auth.user: \"bob\" removed",
                "auth.user: \"eve:***\" removed",
                "auth.user: \"alice\": password changed",
            ]
        );
        let secrets = SETTINGS.iter().find(|setting| setting.key == "auth.secrets").unwrap();
        let debug = format!("{:?} {:?}", old.changes(&new), secrets.kind.value(&mut new));
        assert!(!["four", "five", "three", "secret before"].iter().any(|hidden| debug.contains(hidden)));
        let more: Vec<StaticUser> = (0..1000).map(|n| user(&n.to_string(), "x")).collect();
        old.auth.users = more;
        assert_eq!(said(&old, &new).last().unwrap(), "auth.user: and 902 more");
    }

    /// With `log.mask_addresses`, addresses of peers, clients and proxies are masked, and the relay's own are not.
    #[test]
    fn the_log_knows_which_addresses_are_those_of_others() {
        for (key, own, others) in [
            ("limits.exempt_sources", "", r#"[] -> ["10.0.0.1"]"#),
            ("listener", "tls [::]:443: ", "proxy_from [] -> [10.0.0.1/32]"),
            (
                "listener",
                "tls 192.0.2.1:443: ",
                "peers (add, allow [10.0.0.1], deny []) -> (add, allow [], deny [])",
            ),
            ("listener", "tls 192.0.2.1:443: mss 0 -> 1360", ""),
            ("listener", "tls 192.0.2.1:443 added", ""),
            ("listen.tls", r#"[] -> ["192.0.2.1:443"]"#, ""),
        ] {
            let change = Change { key, what: format!("{own}{others}"), holds: Reload::Live };
            assert_eq!(change.others(), own.len(), "{change:?}");
        }
    }

    /// A section that can be repeated is compared by a function of its own.
    #[test]
    fn every_repeated_section_is_compared() {
        for repeated in REPEATED {
            let found = REPEATED_CHANGES.iter().any(|(key, ..)| *key == repeated.key);
            assert!(found, "say in REPEATED_CHANGES how [[{}]] differs", repeated.key);
        }
    }

    #[test]
    fn what_needs_a_restart_stays_until_then() {
        let running = Settings::default();
        let mut new = Settings::default();
        (new.workers, new.limits.channels) = (running.workers + 1, 7);
        let held = new.until_restart(&running);
        assert_eq!(said(&running, &held), ["limits.channels: 1024 -> 7"]);
        assert_eq!(said(&held, &new), [format!("workers: {} -> {}", running.workers, new.workers)]);
    }
}

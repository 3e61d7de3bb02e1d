//! Who may use the relay: realm, shared secrets, users and nonces.

use std::collections::HashSet;
use std::collections::hash_map::Entry;

use toml_edit::Value;

use super::document::{Document, Place, Weight};
use super::source::{Input, Lines, options, realm_of, realms, refusal, shown};
use super::users::{Password, User, write_users};
use crate::auth::{md5_key, prepared_name, prepared_password};
use crate::config::report::Finding;
use crate::config::secrets::{leftover, shared_secret};
use crate::plural::counted;
use crate::text;

/// The longest time in seconds that hairpin accepts for nonces: a year.
const NONCE_MAX: u64 = 31_536_000;

/// Whom coturn serves.
#[derive(Debug, PartialEq, Eq)]
enum Mode {
    /// Whoever has a credential made from a shared secret; users are ignored.
    Secrets,
    Users,
    /// Everybody. The line that says so, if there is one.
    Anonymous(Option<usize>),
}

/// Writes `[auth]`. Returns the files with users, if there are to be some: names and contents.
pub fn translate(
    input: &Input<'_>,
    lines: &Lines<'_>,
    document: &mut Document,
) -> Result<Vec<(String, String)>, Box<Finding>> {
    let mode = mode(lines);
    let only_stun = lines.on("stun-only").filter(|_| matches!(mode, Mode::Anonymous(_)));
    if let (Mode::Anonymous(line), false) = (&mode, input.anonymous) {
        let (key, what) = match line {
            _ if only_stun.is_some() => (
                "stun-only",
                "coturn needs no credentials with this line, because it only answers STUN; hairpin always relays for whoever has \
                 credentials",
            ),
            Some(_) => (
                "no-auth",
                "coturn relays for everybody with this line, and hairpin never runs as an anonymous relay",
            ),
            None => (
                "",
                "there is neither lt-cred-mech with users nor a shared secret, so that coturn relays for everybody, and hairpin never \
                 runs as an anonymous relay",
            ),
        };
        let fix = match only_stun {
            Some(_) => {
                "add --allow-anonymous: STUN is answered without credentials, and as long as nobody is told the shared secret that is \
                 generated, nobody relays"
            }
            None => {
                "to import the rest, add --allow-anonymous: clients then need credentials, made from a shared secret that is generated if \
                 the configuration has none"
            }
        };
        return Err(refusal(input, only_stun.map(|entry| entry.line).or(*line), key, what, fix));
    }
    let realm = realm(input, lines, document);
    let mut users = Vec::new();
    let mut usable = secrets(input, lines, realm.as_deref(), document);
    if mode == Mode::Secrets {
        unused_users(input, lines, document);
    } else {
        let found = found_users(input, lines, realm.as_deref(), document)?;
        usable |= !found.is_empty();
        users = write_users(input, quota(input, lines), found, document);
    }
    if let (Mode::Anonymous(line), None) = (&mode, only_stun) {
        let text = "coturn relays for everybody with this configuration. hairpin never does: clients need credentials of this section";
        document.comment("auth", Weight::Danger, line.map_or(Place::Nowhere, Place::line), text);
    }
    if !usable {
        generated(input, lines, &mode, document);
    }
    nonces(lines, document);
    foreign(input, realm.as_deref(), document);
    Ok(users)
}

/// Whom coturn serves: the flags in the order of the file, as it reads them.
fn mode(lines: &Lines<'_>) -> Mode {
    let (mut long_term, mut anonymous, mut secret) = (false, None, false);
    for entry in &lines.entries {
        match (entry.key, entry.flag()) {
            ("lt-cred-mech", Some(on)) => long_term = on,
            ("no-auth", Some(on)) => anonymous = on.then_some(entry.line),
            ("use-auth-secret" | "static-auth-secret", _) => (long_term, secret) = (true, true),
            _ => {}
        }
    }
    match anonymous {
        Some(line) => Mode::Anonymous(Some(line)),
        None if secret => Mode::Secrets,
        None if long_term || lines.all("user").any(|entry| split(entry.value).is_some()) => Mode::Users,
        None => Mode::Anonymous(None),
    }
}

fn realm(input: &Input<'_>, lines: &Lines<'_>, document: &mut Document) -> Option<String> {
    let realm = realm_of(input, lines)?;
    let line = lines.last("realm").map(|entry| Place::line(entry.line));
    let (place, said) = match (input.realm, line) {
        (Some(_), line) => (line.unwrap_or(Place::Nowhere), Some("--realm was given")),
        (None, Some(line)) => (line, None),
        (None, None) => {
            let text = "the configuration has no realm; this is the only one in the database. coturn takes the machine's domain name";
            (Place::Database, Some(text))
        }
    };
    document.set("auth.realm", realm.as_str(), place);
    if let Some(text) = said {
        document.remark(Weight::Note, Place::Nowhere, text);
    }
    Some(realm)
}

/// Writes the shared secrets. `true`: there are some.
fn secrets(input: &Input<'_>, lines: &Lines<'_>, realm: Option<&str>, document: &mut Document) -> bool {
    let uses = lines.last("use-auth-secret").or_else(|| lines.last("static-auth-secret"));
    let Some(uses) = uses else { return false };
    let from_file = lines.all("static-auth-secret").map(|entry| (entry.value, Place::line(entry.line)));
    // coturn asks for those of exactly its realm.
    let rows = input.database.into_iter().flat_map(|database| &database.secrets);
    let rows = rows.filter(|(of, _)| Some(of.as_str()) == realm);
    let rows = rows.map(|(_, secret)| (secret.as_str(), Place::Database));
    let nobodys =
        input.database.map_or(0, |database| database.secrets.iter().filter(|(of, _)| of.is_empty()).count());
    if nobodys > 0 {
        let text = format!(
            "{} of no realm left out: coturn only uses those of its realm",
            counted(nobodys, "shared secret")
        );
        document.comment("auth", Weight::Lost, Place::Database, text);
    }
    let (mut good, mut at, mut wrong): (Vec<&str>, _, _) = (Vec::new(), Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    for (secret, place) in from_file.chain(rows) {
        match shared_secret(secret) {
            Ok(_) if !seen.insert(secret) => {}
            Ok(_) => {
                good.push(secret);
                at.extend(place.lines().iter().copied());
            }
            Err(why) => wrong.push((place, why)),
        }
    }
    if !good.is_empty() {
        let place = if at.is_empty() { Place::Database } else { Place::Lines(at) };
        document.set_secret("auth.secrets", good.iter().copied().collect::<Value>(), place);
        let text = "credentials that expire more than 30 days ahead are refused; coturn accepts any. auth.max_lifetime is the bound";
        document.remark(Weight::Note, Place::Nowhere, text);
        document.set("auth.user_before_expiry", true, Place::line(uses.line));
        let text = "coturn accepts `user:expiry` as well as `expiry:user`. Remove this line if the application only uses the latter";
        document.remark(Weight::Note, Place::Nowhere, text);
    }
    for (place, (what, fix)) in wrong {
        document.comment(
            "auth",
            Weight::Danger,
            place,
            format!("a shared secret is left out: {what}; {fix}"),
        );
    }
    if let Some(entry) = lines.last("rest-api-separator").filter(|entry| !matches!(entry.value, "" | ":")) {
        let text = format!(
            "rest-api-separator={}: names with this separator are refused, which is `:` here; change it in the application",
            shown(entry.value)
        );
        document.comment("auth", Weight::Danger, Place::line(entry.line), text);
    }
    !good.is_empty()
}

/// Writes a shared secret that nobody knows yet, where the configuration has no credentials that can be used.
fn generated(input: &Input<'_>, lines: &Lines<'_>, mode: &Mode, document: &mut Document) {
    document.set_secret("auth.secrets", Value::from_iter([input.generated]), Place::Nowhere);
    let (why, place) = match mode {
        Mode::Anonymous(line) => ("", line.map(Place::line)),
        Mode::Users => {
            ("no user could be imported. ", lines.last("lt-cred-mech").map(|entry| Place::line(entry.line)))
        }
        Mode::Secrets => {
            let at = lines.all("static-auth-secret").map(|entry| entry.line).collect::<Vec<_>>();
            let at = if at.is_empty() {
                lines.all("use-auth-secret").map(|entry| entry.line).collect()
            } else {
                at
            };
            ("no shared secret could be imported. ", Some(Place::Lines(at)))
        }
    };
    let text = format!(
        "{why}This shared secret was generated; until the application uses it, or this section has other credentials, every client is \
         refused. `hairpin credentials --user NAME --config FILE` makes some for a test"
    );
    document.remark(Weight::Danger, place.unwrap_or(Place::Nowhere), text);
}

/// Says which users coturn ignores because of a shared secret.
fn unused_users(input: &Input<'_>, lines: &Lines<'_>, document: &mut Document) {
    let at: Vec<usize> = lines.all("user").map(|entry| entry.line).collect();
    if !at.is_empty() {
        let text = "users are left out: coturn ignores them where there is a shared secret. hairpin can have both; add [[auth.user]] \
                    sections for those that are meant";
        document.comment("auth", Weight::Lost, Place::Lines(at), text);
    }
    let rows = input.database.map_or(0, |database| database.users.len());
    if rows > 0 {
        let text = format!(
            "{} left out: coturn ignores users where there is a shared secret",
            counted(rows, "user")
        );
        document.comment("auth", Weight::Lost, Place::Database, text);
    }
}

/// Name and password of `name:password`.
fn split(value: &str) -> Option<(&str, &str)> {
    let (name, password) = value.split_once(':')?;
    let password = password.trim_start_matches([' ', '\t']);
    (!name.is_empty() && !password.is_empty()).then_some((name, password))
}

fn found_users(
    input: &Input<'_>,
    lines: &Lines<'_>,
    realm: Option<&str>,
    document: &mut Document,
) -> Result<Vec<User>, Box<Finding>> {
    let mut users: Vec<User> = Vec::new();
    let mut positions = std::collections::HashMap::new();
    for entry in lines.all("user") {
        let place = Place::line(entry.line);
        let mut lost = |why: String| {
            document.comment("auth", Weight::Danger, place.clone(), format!("a user is left out: {why}"));
        };
        let Some((name, password)) = split(entry.value) else {
            lost("coturn expects name:password or name:0xkey, and ignores it, too".into());
            continue;
        };
        let prepared = match usable_name(name) {
            Ok(prepared) => prepared,
            Err(why) => {
                lost(why);
                continue;
            }
        };
        let password = match password.strip_prefix("0x") {
            Some(key) => match key.get(..32).filter(|key| key.bytes().all(|byte| byte.is_ascii_hexdigit())) {
                Some(key) => Password::Key(key.to_ascii_lowercase()),
                None => {
                    lost(format!("the key of {} is not 32 hex digits", shown(name)));
                    continue;
                }
            },
            None if is_literal(name, &prepared, password) => Password::Plain(password.to_owned()),
            None => {
                let Some(realm) = realm else { return Err(without_realm(input, Some(entry.line))) };
                let text = format!(
                    "{}: name or password have characters that clients and hairpin may write in two ways, so the key for MD5 is kept, \
                     which works for the spelling here",
                    shown(name)
                );
                document.comment("auth", Weight::Note, place.clone(), text);
                Password::Key(derived(name, realm, password))
            }
        };
        if let (Password::Key(_), None) = (&password, realm) {
            return Err(without_realm(input, Some(entry.line)));
        }
        let user = User { name: prepared.clone(), place: place.clone(), password };
        match positions.entry(prepared) {
            Entry::Occupied(at) => users[*at.get()] = user,
            Entry::Vacant(at) => {
                at.insert(users.len());
                users.push(user);
            }
        }
    }
    let mut lost = 0;
    for row in input.database.into_iter().flat_map(|database| &database.users) {
        if realm.is_some_and(|realm| realm != row.realm) {
            continue;
        }
        if realm.is_none() {
            return Err(without_realm(input, None));
        }
        let is_key = row.key.len() == 32 && row.key.bytes().all(|byte| byte.is_ascii_hexdigit());
        let Some(name) = usable_name(&row.name).ok().filter(|_| is_key) else {
            lost += 1;
            continue;
        };
        // A user of the configuration precedes.
        if let Entry::Vacant(at) = positions.entry(name.clone()) {
            at.insert(users.len());
            let password = Password::Key(row.key.to_ascii_lowercase());
            users.push(User { name, place: Place::Database, password });
        }
    }
    if lost > 0 {
        let text = format!(
            "{} left out, whose name cannot be used, or whose key is not MD5(user:realm:password) in 32 hex digits",
            counted(lost, "user")
        );
        document.comment("auth", Weight::Danger, Place::Database, text);
    }
    Ok(users)
}

/// Keys depend on the realm, which coturn takes from the machine's domain if it has none.
fn without_realm(input: &Input<'_>, line: Option<usize>) -> Box<Finding> {
    let what = "users have keys, which depend on the realm, and the configuration has none";
    refusal(input, line, "user", what, "add --realm NAME, with the realm that the keys were made for")
}

/// Whether hairpin derives of name and password what clients do that take them as they are written, as coturn does.
fn is_literal(name: &str, prepared: &str, password: &str) -> bool {
    let is_prepared = prepared_password(password).is_ok_and(|prepared| prepared == password);
    name == prepared && is_prepared && text::invisible(password).is_none() && leftover(password).is_none()
}

/// What a client derives from its password, in hex.
fn derived(name: &str, realm: &str, password: &str) -> String {
    md5_key(name, realm, password).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The name as hairpin knows it, or why it cannot be used.
fn usable_name(name: &str) -> Result<String, String> {
    let invisible = text::invisible(name).map(|(_, what)| format!("contains {what}"));
    let prepared = match invisible {
        Some(why) => Err(why),
        None => prepared_name(name).map_err(Into::into),
    };
    prepared.map_err(|why| format!("the name {} {why}", shown(name)))
}

/// The limit of each user: coturn counts static users like all others. `None`: there is none.
fn quota(input: &Input<'_>, lines: &Lines<'_>) -> Option<u32> {
    let of_realm = options(input, lines).into_iter().find(|(option, _)| *option == "user-quota");
    let quota = of_realm.map(|(_, quota)| quota).or_else(|| Some(lines.number("user-quota")?.0));
    quota.filter(|quota| *quota > 0).map(|quota| quota.min(1_000_000) as u32)
}

fn nonces(lines: &Lines<'_>, document: &mut Document) {
    let Some(entry) = lines.last("stale-nonce").filter(|entry| !entry.value.is_empty()) else { return };
    match entry.number() {
        Some(seconds @ 1..) => {
            let seconds = seconds.min(NONCE_MAX as i64);
            document.set("auth.nonce_lifetime", seconds, Place::line(entry.line));
        }
        _ => {
            let text = format!(
                "stale-nonce={}: nonces never expire in coturn with this; hairpin keeps its default, an hour. Clients go on without \
                 interruption",
                shown(entry.value)
            );
            document.comment("auth", Weight::Lost, Place::line(entry.line), text);
        }
    }
}

/// What of the database is about other realms, or has no counterpart.
fn foreign(input: &Input<'_>, realm: Option<&str>, document: &mut Document) {
    if let Some(why) = input.missing_database {
        let text = format!("coturn's database was not imported: {why}. Name it with --turndb");
        document.comment("auth", Weight::Danger, Place::Nowhere, text);
    }
    let Some(database) = input.database else { return };
    let others: Vec<String> =
        realms(database).into_iter().filter(|other| Some(other.as_str()) != realm).collect();
    if !others.is_empty() {
        let shown: Vec<String> = others.iter().take(10).map(|realm| shown(realm)).collect();
        let more = if others.len() > 10 { ", ..." } else { "" };
        let text = format!(
            "a relay has one realm. Left out is what {} has for {}: {}{more}. --realm chooses another",
            database.name,
            counted(others.len(), "other realm"),
            shown.join(", ")
        );
        document.comment("auth", Weight::Lost, Place::Database, text);
    }
    for (table, rows) in &database.others {
        let what = match *table {
            "admin_user" => {
                "operators of coturn's web page: `hairpin ctl` needs none, and the API over TCP has admin.tokens_file"
            }
            "oauth_key" => "keys of third-party authorization, which is not supported",
            _ => "realms by the client's origin: a relay has one realm",
        };
        document.comment(
            "auth",
            Weight::Lost,
            Place::Database,
            format!("{table} has {}, {what}", counted(*rows, "row")),
        );
    }
}

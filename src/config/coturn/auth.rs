//! Who may use the relay: realm, shared secrets, users and nonces.

use toml_edit::Value;

use super::document::{Document, Place, Weight};
use super::keys::is_setting;
use super::source::{Input, Lines, realm_of, realms, refusal, shown};
use crate::auth::{is_reserved, md5_key, password_problem};
use crate::config::report::Finding;
use crate::config::secrets::shared_secret;
use crate::plural::counted;
use crate::text;

/// The users that are written into the configuration; more have a file of their own.
const INLINE_MAX: usize = 20;

/// The longest time in seconds that hairpin accepts for nonces: a year.
const NONCE_MAX: u64 = 31_536_000;

/// A user.
struct User {
    name: String,
    place: Place,
    password: Password,
}

enum Password {
    Plain(String),
    /// 32 hex digits.
    Key(String),
}

/// Whom coturn serves.
#[derive(Debug, PartialEq, Eq)]
enum Mode {
    /// Whoever has a credential made from a shared secret; users are ignored.
    Secrets,
    Users,
    /// Everybody. The line that says so, if there is one.
    Anonymous(Option<usize>),
}

/// Writes `[auth]`. Returns the contents of a file with users, if there is to be one.
pub fn translate(
    input: &Input<'_>,
    lines: &Lines<'_>,
    document: &mut Document,
) -> Result<Option<String>, Box<Finding>> {
    let mode = mode(lines);
    if let (Mode::Anonymous(line), false) = (&mode, input.anonymous) {
        let (key, what) = match line {
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
        let fix = "to import the rest, add --allow-anonymous: clients then need credentials, made from a shared secret that is generated if \
                   the configuration has none";
        return Err(refusal(input, *line, key, what, fix));
    }
    let realm = realm(input, lines, document);
    let mut users = None;
    let mut usable = secrets(input, lines, realm.as_deref(), document);
    if mode == Mode::Secrets {
        unused_users(input, lines, document);
    } else {
        let found = found_users(input, lines, realm.as_deref(), document)?;
        usable |= !found.is_empty();
        users = write_users(input, lines, realm.as_deref(), found, document);
    }
    if let Mode::Anonymous(line) = mode {
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
    let here = |of: &str| of.is_empty() || realm.is_none_or(|realm| realm == of);
    let rows = input.database.into_iter().flat_map(|database| &database.secrets);
    let rows = rows.filter(|(of, _)| here(of)).map(|(_, secret)| (secret.as_str(), Place::Database));
    let (mut good, mut at, mut wrong): (Vec<&str>, _, _) = (Vec::new(), Vec::new(), Vec::new());
    for (secret, place) in from_file.chain(rows) {
        match shared_secret(secret) {
            Ok(_) if good.contains(&secret) => {}
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
        if let Some(why) = name_problem(name) {
            lost(why);
            continue;
        }
        let password = match password.strip_prefix("0x") {
            Some(key) => match key.get(..32).filter(|key| key.bytes().all(|byte| byte.is_ascii_hexdigit())) {
                Some(key) => Password::Key(key.to_ascii_lowercase()),
                None => {
                    lost(format!("the key of {} is not 32 hex digits", shown(name)));
                    continue;
                }
            },
            None => plain(name, password, realm),
        };
        if let (Password::Key(_), None) = (&password, realm) {
            return Err(without_realm(input, Some(entry.line)));
        }
        let user = User { name: name.to_owned(), place: place.clone(), password };
        match positions.get(name) {
            Some(&n) => users[n] = user,
            None => {
                positions.insert(name.to_owned(), users.len());
                users.push(user);
            }
        }
    }
    let mut lost = 0;
    for row in input.database.into_iter().flat_map(|database| &database.users) {
        if realm.is_some_and(|realm| realm != row.realm) || positions.contains_key(&row.name) {
            continue;
        }
        if realm.is_none() {
            return Err(without_realm(input, None));
        }
        let is_key = row.key.len() == 32 && row.key.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_key || name_problem(&row.name).is_some() {
            lost += 1;
            continue;
        }
        positions.insert(row.name.clone(), users.len());
        let password = Password::Key(row.key.to_ascii_lowercase());
        users.push(User { name: row.name.clone(), place: Place::Database, password });
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

/// A password, or the key that clients make of it where hairpin would not accept the text.
fn plain(name: &str, password: &str, realm: Option<&str>) -> Password {
    let is_usable = password_problem(password).is_none() && text::invisible(password).is_none();
    match realm {
        Some(realm) if !is_usable => Password::Key(derived(name, realm, password)),
        _ => Password::Plain(password.to_owned()),
    }
}

/// What a client derives from its password, in hex.
fn derived(name: &str, realm: &str, password: &str) -> String {
    md5_key(name, realm, password).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn name_problem(name: &str) -> Option<String> {
    let invisible = text::invisible(name).map(|(_, what)| format!("contains {what}"));
    let problem = invisible.or_else(|| password_problem(name).map(Into::into));
    let reserved = is_reserved(name).then(|| "is kept for probes of the relay".to_owned());
    let long = (name.len() > 508).then(|| "is longer than 508 bytes".to_owned());
    problem.or(reserved).or(long).map(|why| format!("the name {} {why}", shown(name)))
}

/// Writes users into the configuration, or many of them into a file whose contents are returned.
fn write_users(
    input: &Input<'_>,
    lines: &Lines<'_>,
    realm: Option<&str>,
    users: Vec<User>,
    document: &mut Document,
) -> Option<String> {
    // coturn counts static users like all others.
    let quota = lines.number("user-quota").map(|(quota, _)| quota.min(1_000_000)).filter(|quota| *quota > 0);
    let file = input.users_file.filter(|_| users.len() > INLINE_MAX && is_setting("auth.users_file"));
    let mut page = String::new();
    let mut in_file = Vec::new();
    for User { name, place, password } in users {
        let key = match (&password, realm) {
            (Password::Key(key), _) => Some(key.clone()),
            (Password::Plain(password), Some(realm)) => Some(derived(&name, realm, password)),
            _ => None,
        };
        // The colon separates the fields of a line.
        let is_plain = file.is_some() && !name.contains([':', '#']) && name.trim() == name;
        let line = key.filter(|_| is_plain).map(|key| format!("{name}:0x{key}"));
        if let Some(line) = line {
            let quota = quota.map_or(String::new(), |quota| format!(":{quota}"));
            page.push_str(&format!("{line}{quota}\n"));
            in_file.push(place);
            continue;
        }
        let mut settings = vec![("name", Value::from(name))];
        settings.push(match password {
            Password::Plain(password) => ("password", password.into()),
            Password::Key(key) => ("key", key.into()),
        });
        settings.extend(
            quota.map(|quota| ("allocations", Value::from(i64::try_from(quota).unwrap_or_default()))),
        );
        document.repeated("auth.user", settings, place);
    }
    let file = file.filter(|_| !page.is_empty())?;
    let at: Vec<usize> = in_file.iter().flat_map(Place::lines).copied().collect();
    let count = in_file.len();
    document.set("auth.users_file", file, if at.is_empty() { Place::Database } else { Place::Lines(at) });
    document.remark(
        Weight::Note,
        Place::Nowhere,
        format!("{} in a file beside this one", counted(count, "user")),
    );
    Some(page)
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

//! Settings that do not come from the file: arguments, above all `--set key=value`, and the environment variables
//! `HAIRPIN_SECTION_KEY`. Arguments precede the environment, which precedes the file. Secrets are neither: the arguments of a
//! process can be read by every user of the machine, and the environment has one variable for them.

#[cfg(test)]
mod tests;

use toml_edit::Value;

use super::argument::Argument;
use super::kind::{ReadContext, Setting, Shape};
use super::report::{Finding, HIDDEN, Note};
use super::service_links;
use super::settings::Settings;
use super::table::{REPEATED, SECRET_VARIABLE, SETTINGS};

/// What the names of all variables begin with.
pub const PREFIX: &str = "HAIRPIN_";

/// Variables that are no settings: the shared secrets, also that of the sidecar, and the token of `hairpin ctl`.
const OTHERS: [&str; 3] = [SECRET_VARIABLE, "HAIRPIN_LIVEKIT_SECRET", "HAIRPIN_ADMIN_TOKEN"];

const PRECEDENCE: &str = "flags precede the environment, and the environment precedes the file";

/// Where a setting comes from that is not in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Environment,
    Arguments,
}

impl Origin {
    /// What findings have in place of the name of a file.
    pub fn as_str(self) -> &'static str {
        match self {
            Origin::Environment => "environment",
            Origin::Arguments => "arguments",
        }
    }
}

/// A setting that is used instead of what the file says.
pub struct Override {
    pub setting: &'static Setting<Settings>,
    pub origin: Origin,
    /// The variable, or the flag.
    name: String,
    /// As it was written.
    text: String,
    /// Whether its value may be a secret that was written in the wrong place.
    hides: bool,
    /// The variable that has the setting too and is not used.
    variable: Option<String>,
}

/// Every override, and what is wrong with the others.
#[derive(Default)]
pub struct Overrides {
    list: Vec<Override>,
    pub findings: Vec<Finding>,
}

impl Overrides {
    pub fn collect(context: &ReadContext<'_>) -> Overrides {
        let mut overrides = Overrides::default();
        for argument in context.arguments {
            overrides.argument(argument);
        }
        let mut names = (context.variables)();
        names.sort_unstable();
        for name in names.iter().filter(|name| !OTHERS.contains(&name.as_str())) {
            let value = (context.environment)(name).unwrap_or_default();
            // A variable that a script passes on may be empty
            if !value.is_empty() {
                overrides.variable(name, value.to_str());
            }
        }
        let place = |one: &Override| SETTINGS.iter().position(|setting| setting.key == one.setting.key);
        overrides.list.sort_by_key(place);
        overrides
    }

    pub fn get(&self, key: &str) -> Option<&Override> {
        self.list.iter().find(|one| one.setting.key == key)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Override> {
        self.list.iter()
    }

    /// Gives findings about overrides the names of their variables and flags.
    pub fn rename(&self, finding: &mut Finding) {
        let is_about =
            |one: &&Override| finding.file == one.origin.as_str() && finding.key == one.setting.key;
        if let Some(one) = self.list.iter().find(is_about) {
            one.rename(finding);
        }
    }

    fn argument(&mut self, argument: &Argument) {
        let Argument { flag, key, value } = argument;
        let mut mistake = |name: &str, what: &str, fix: String| {
            self.findings.push(about(Origin::Arguments, name, what, fix));
        };
        let Some(value) = value else {
            // The text may be anything.
            let fix = "write it like --set listen.udp=0.0.0.0:3478".to_owned();
            return mistake("--set", "expected key=value", fix);
        };
        let known = SETTINGS.iter().find(|setting| setting.key == key);
        let Some(setting) = known.filter(|setting| !setting.kind.is_secret()) else {
            // Names of coturn have hyphens.
            let nearest = closest(&key.replace(['.', '-'], "_"));
            return if known.is_some()
                || is_repeated(key) && key.starts_with("auth.")
                || nearest.is_some_and(is_secret)
            {
                let what = "a secret is never an argument, because every user of this machine can read those of a process";
                let fix = format!(
                    "set {SECRET_VARIABLE} in the environment, or write it in the configuration or a file that this names"
                );
                mistake(&format!("{flag}={HIDDEN}"), what, fix)
            } else if is_repeated(key) {
                let fix = "write it in a configuration file".to_owned();
                mistake(flag, "only a file can have sections that can be repeated", fix)
            } else if key.starts_with("auth.") && nearest.is_none() {
                // A key of [auth] that is like no other may be a secret.
                mistake(&format!("--set auth.{HIDDEN}"), "unknown setting", did_you_mean(None))
            } else {
                mistake(flag, "unknown setting", did_you_mean(nearest.map(str::to_owned)))
            };
        };
        if value.trim().is_empty() {
            let fix = format!("write {flag}=VALUE; [] is an empty list, and \"\" is empty text");
            return mistake(flag, "there is no value", fix);
        }
        if self.list.iter().any(|one| one.setting.key == setting.key) {
            let fix = "write it once; commas separate the elements of a list".to_owned();
            return mistake(flag, &format!("{key} is set twice"), fix);
        }
        self.list.push(Override::new(setting, Origin::Arguments, flag, value));
    }

    /// `value` is `None` if it is not UTF-8.
    fn variable(&mut self, name: &str, value: Option<&str>) {
        if value.is_some_and(|value| service_links::is_one(name, value)) {
            return;
        }
        let known = SETTINGS.iter().find(|setting| variable_of(setting.key) == name);
        let Some(setting) = known.filter(|setting| !setting.kind.is_secret()) else {
            let nearest = nearest_variable(name);
            let is_near = nearest.as_ref().is_some_and(|near| strsim::damerau_levenshtein(name, near) <= 2);
            let repeated = REPEATED.iter().find(|one| is_below(name, &variable_of(one.key), '_'));
            let (what, fix) = match (known, repeated) {
                (Some(_), _) => {
                    let what = format!("is not used: {SECRET_VARIABLE} is the variable for shared secrets");
                    (what, format!("rename it to {SECRET_VARIABLE}"))
                }
                (None, Some(section)) if !is_near => {
                    let what = "is not used: only a file can have sections that can be repeated".to_owned();
                    (what, format!("write [[{}]] in a configuration file", section.key))
                }
                (None, _) => ("unknown variable, which has no effect".into(), did_you_mean(nearest)),
            };
            let finding = about(Origin::Environment, name, &what, fix);
            return self.findings.push(Finding { warning: true, ..finding });
        };
        if let Some(stronger) = self.list.iter_mut().find(|one| one.setting.key == setting.key) {
            stronger.variable = Some(name.to_owned());
            return;
        }
        match value {
            Some(value) => self.list.push(Override::new(setting, Origin::Environment, name, value)),
            None => {
                let fix = "set it again, or unset it".to_owned();
                self.findings.push(about(Origin::Environment, name, "the value is not UTF-8", fix));
            }
        }
    }
}

impl Override {
    fn new(setting: &'static Setting<Settings>, origin: Origin, name: &str, text: &str) -> Override {
        let hides = setting.kind.is_secret() || setting.kind.describe().contains("file");
        Override { setting, origin, name: name.to_owned(), text: text.to_owned(), hides, variable: None }
    }

    /// The setting as a line of TOML.
    pub fn line(&self) -> String {
        format!("value = {}", value_of(self.setting.kind.shape(), &self.text))
    }

    /// A finding about it as a whole.
    pub fn finding(&self, what: &str, fix: String) -> Finding {
        let shown = if self.hides { HIDDEN } else { self.text.trim() };
        Finding { value: shown.to_owned(), ..about(self.origin, self.setting.key, what, fix) }
    }

    /// Says that it is used. `place` is where the file has the setting.
    pub fn note(&self, place: Option<String>) -> Note {
        let variable = self.variable.as_ref().map(|name| format!("{name} in the environment"));
        let unused: Vec<String> = [variable, place].into_iter().flatten().collect();
        let mut what = format!("sets {}", self.setting.key);
        if !unused.is_empty() {
            let is = if unused.len() == 1 { "is" } else { "are" };
            what += &format!(" instead of {}, which {is} not used", unused.join(" and of "));
        }
        let mut finding = self.finding(&what, PRECEDENCE.to_owned());
        self.rename(&mut finding);
        Note(finding)
    }

    fn rename(&self, finding: &mut Finding) {
        finding.key.clone_from(&self.name);
        if self.origin == Origin::Arguments && self.name.starts_with("--set") && !finding.value.is_empty() {
            finding.key += &format!("={}", std::mem::take(&mut finding.value));
        }
    }
}

/// The variable of a setting.
pub fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.to_ascii_uppercase().replace('.', "_"))
}

/// The TOML of a value that was written without a file. Text and the elements of a list need no quotes, which a shell would
/// remove, and a list needs no brackets.
fn value_of(shape: Shape, text: &str) -> Value {
    let text = text.trim();
    let parsed = text.parse::<Value>().ok();
    match shape {
        Shape::Plain => parsed.unwrap_or_else(|| text.into()),
        Shape::Text => {
            parsed.filter(|value| value.is_str() || value.is_array()).unwrap_or_else(|| text.into())
        }
        Shape::List => parsed
            .filter(|value| value.is_str() || value.is_array())
            .unwrap_or_else(|| elements(without_brackets(text)).collect()),
    }
}

fn elements(list: &str) -> impl Iterator<Item = Value> {
    let elements = list.split([',', '\n']).map(str::trim).filter(|element| !element.is_empty());
    elements.map(|element| match element.parse::<Value>() {
        Ok(value) if value.is_str() => value,
        _ => element.into(),
    })
}

/// The inside of a list in brackets. The brackets of an IPv6 address are not those of a list.
fn without_brackets(text: &str) -> &str {
    let Some(inside) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) else { return text };
    let mut depth = 0_usize;
    for c in inside.chars() {
        match c {
            '[' => depth += 1,
            ']' if depth == 0 => return text,
            ']' => depth -= 1,
            _ => {}
        }
    }
    inside
}

/// Whether a key is that of a section that can be repeated, or one in it.
fn is_repeated(key: &str) -> bool {
    REPEATED.iter().any(|repeated| is_below(key, repeated.key, '.'))
}

fn is_below(name: &str, section: &str, separator: char) -> bool {
    name.strip_prefix(section).is_some_and(|rest| rest.is_empty() || rest.starts_with(separator))
}

fn did_you_mean(name: Option<String>) -> String {
    match name {
        Some(name) => format!("did you mean {name}?"),
        None => "remove it; docs/configuration.md lists every setting".to_owned(),
    }
}

/// The variable that a mistyped one probably means.
fn nearest_variable(name: &str) -> Option<String> {
    let key = closest(name.strip_prefix(PREFIX)?);
    let distance = |known: &str| strsim::damerau_levenshtein(name, known);
    let of_key = key.map(|key| if is_secret(key) { SECRET_VARIABLE.to_owned() } else { variable_of(key) });
    let other =
        OTHERS.iter().map(|other| (distance(other), *other)).min().filter(|(distance, _)| *distance <= 3);
    match (of_key, other) {
        (Some(key), Some((nearer, other))) if nearer < distance(&key) => Some(other.to_owned()),
        (None, other) => other.map(|(_, other)| other.to_owned()),
        (key, _) => key,
    }
}

fn is_secret(key: &str) -> bool {
    SETTINGS.iter().any(|setting| setting.key == key && setting.kind.is_secret())
}

/// The key that is like a name with underscores for dots, in any case: as a whole, or as the right key in the wrong section. Names
/// of coturn count.
fn closest(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    let of_coturn =
        |setting: &&Setting<Settings>| setting.coturn.iter().any(|coturn| coturn.replace('-', "_") == name);
    if let Some(setting) = SETTINGS.iter().find(of_coturn) {
        return Some(setting.key);
    }
    let distance = |key: &'static str| {
        let last = key.rsplit('.').next().unwrap_or(key);
        let misplaced = strsim::damerau_levenshtein(&name, last) + 1;
        (strsim::damerau_levenshtein(&name, &key.replace('.', "_")).min(misplaced), key)
    };
    let (distance, key) = SETTINGS.iter().map(|setting| distance(setting.key)).min()?;
    (distance <= 2.max(name.len() / 4)).then_some(key)
}

/// A mistake that shows no value.
fn about(origin: Origin, name: &str, what: &str, fix: String) -> Finding {
    Finding {
        file: origin.as_str().to_owned(),
        line: None,
        key: name.to_owned(),
        value: String::new(),
        what: what.to_owned(),
        fix,
        warning: false,
    }
}

//! The settings of `[[listener]]` about what its TCP connections are and where they go.

use std::collections::HashSet;
use std::ops::Range;

use toml_edit::{Item, TableLike, Value};

use super::network::prefix;
use super::{list, set_of, text, wrong_type};
use crate::config::backend;
use crate::config::kind::{FieldValue, ReadContext, SettingKind, Shape, ValueError};
use crate::config::listener_section::{Placed, PlacedRoute};
use crate::config::report::ERRORS_MAX;
use crate::config::section::key_span;
use crate::config::service::{Protocol, ProxyMode, ShownBackend, ShownRoute};
use crate::datapath::{Backend, Route};
use crate::tls::CertificateName;
use crate::turn::peers::Cidr;

/// The most routes of a listener.
const ROUTES_MAX: usize = 1024;

/// What connections may speak.
pub struct SpokenProtocols<T: 'static>(pub fn(&mut T) -> &mut Placed<Option<Vec<Protocol>>>);

impl<T> SettingKind<T> for SpokenProtocols<T> {
    fn read(&self, target: &mut T, value: &Value, _: &ReadContext<'_>) -> Vec<ValueError> {
        let (names, errors) = set_of(value, |one| {
            let name = text(one)?;
            match Protocol::ALL.into_iter().find(|protocol| protocol.as_str() == name) {
                Some(protocol) => Ok(protocol.as_str()),
                None => {
                    let fix = match name {
                        "http" | "https" | "h2c" => {
                            "use turn or tls; where HTTP goes is said by http and routes"
                        }
                        "stun" | "tcp" | "udp" => {
                            "use turn or tls; transports are those that clients are offered"
                        }
                        _ => "use one of turn, tls",
                    };
                    Err(ValueError::of(one, "unknown protocol", fix))
                }
            }
        });
        let of = |name: &&str| Protocol::ALL.into_iter().find(|protocol| protocol.as_str() == *name);
        let protocols = names.iter().filter_map(of).collect();
        *(self.0)(target) = Placed { value: Some(protocols), at: value.span().unwrap_or_default() };
        errors
    }

    fn value(&self, target: &mut T) -> FieldValue {
        let listed = (self.0)(target).value.iter().flatten().map(|one| one.as_str()).collect::<Vec<_>>();
        FieldValue::list(&listed)
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        (self.0)(to).clone_from((self.0)(from));
    }

    fn describe(&self) -> String {
        "list of `\"turn\"` and `\"tls\"`".into()
    }
}

/// A server that connections are passed on to: `host:port`, or a table with `pass` and `send_proxy`.
pub struct BackendServer<T: 'static>(pub fn(&mut T) -> &mut Placed<Option<Backend>>);

impl<T> SettingKind<T> for BackendServer<T> {
    fn read(&self, target: &mut T, value: &Value, context: &ReadContext<'_>) -> Vec<ValueError> {
        if let Value::InlineTable(table) = value {
            return self
                .read_section(target, table, value.span().unwrap_or_default(), context)
                .unwrap_or_default();
        }
        match server(value) {
            Ok(backend) => {
                let at = value.span().unwrap_or_default();
                *(self.0)(target) = Placed { value: Some(backend), at };
                Vec::new()
            }
            Err(error) => vec![error],
        }
    }

    fn read_section(
        &self,
        target: &mut T,
        table: &dyn TableLike,
        at: Range<usize>,
        _: &ReadContext<'_>,
    ) -> Option<Vec<ValueError>> {
        let mut fields = Fields::read(table, &["pass", "send_proxy"]);
        match fields.pass.take() {
            Some(backend) => {
                let backend = Backend { send_proxy: fields.send_proxy, ..backend };
                *(self.0)(target) = Placed { value: Some(backend), at };
            }
            None if fields.errors.is_empty() => {
                let fix = "write it like { pass = \"127.0.0.1:8443\", send_proxy = true }";
                fields.errors.push(ValueError::at(at, "the backend is missing", fix));
            }
            None => {}
        }
        Some(fields.errors)
    }

    fn value(&self, target: &mut T) -> FieldValue {
        let shown = (self.0)(target).value.as_ref().map(|backend| ShownBackend(backend).to_string());
        FieldValue::plain(format_args!("{:?}", shown.unwrap_or_default()))
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        (self.0)(to).clone_from((self.0)(from));
    }

    fn describe(&self) -> String {
        "`\"host:port\"`, or a table with `pass` and `send_proxy`".into()
    }
}

/// Where TLS clients go, by name.
pub struct RouteTable<T: 'static> {
    pub at: fn(&mut T) -> &mut Vec<PlacedRoute>,
    /// The settings of the section: in TOML a line below the header of this table belongs to the table.
    pub beside: fn() -> Vec<&'static str>,
}

impl<T> SettingKind<T> for RouteTable<T> {
    fn read(&self, target: &mut T, value: &Value, context: &ReadContext<'_>) -> Vec<ValueError> {
        let fix = "write [listener.routes], and below it lines like \"www.example.org\" = \"127.0.0.1:8443\"";
        match value {
            Value::InlineTable(table) => self
                .read_section(target, table, value.span().unwrap_or_default(), context)
                .unwrap_or_default(),
            _ => vec![wrong_type(value, "a table", fix)],
        }
    }

    fn read_section(
        &self,
        target: &mut T,
        table: &dyn TableLike,
        at: Range<usize>,
        _: &ReadContext<'_>,
    ) -> Option<Vec<ValueError>> {
        let (mut routes, mut errors, mut names) = (Vec::new(), Vec::new(), HashSet::new());
        let beside = (self.beside)();
        if table.len() > ROUTES_MAX {
            let what = format!("there are {} routes", table.len());
            let fix = format!("list up to {ROUTES_MAX}; a wildcard like *.example.org stands for many names");
            return Some(vec![ValueError { is_key: true, ..ValueError::at(at, what, fix) }]);
        }
        for (written, item) in table.iter().filter(|(_, item)| !item.is_none()) {
            let key = key_span(table, written);
            if is_misplaced(written, item, &beside) {
                let what = "is a setting of [[listener]], and stands below [listener.routes]";
                let error = ValueError::at(key, what, "move the line above [listener.routes]");
                errors.push(ValueError { inside: format!(".{written}"), is_key: true, ..error });
                continue;
            }
            let name = match CertificateName::parse(written) {
                Ok(name) => name,
                Err((what, fix)) => {
                    errors.push(ValueError::at(key, what, fix));
                    continue;
                }
            };
            if !names.insert(name.clone()) {
                errors.push(ValueError::at(key, format!("{name} has two routes"), "remove one"));
                continue;
            }
            let inside =
                |error: ValueError| ValueError { inside: format!(".\"{name}\"{}", error.inside), ..error };
            match route(written, item) {
                Ok(route) => {
                    let at = item.span().unwrap_or(key);
                    routes.push(PlacedRoute { name, route, at });
                }
                Err(wrong) => errors.extend(wrong.into_iter().map(inside)),
            }
        }
        errors.truncate(ERRORS_MAX);
        *(self.at)(target) = routes;
        Some(errors)
    }

    fn value(&self, target: &mut T) -> FieldValue {
        let routes = (self.at)(target).iter();
        let shown = |one: &PlacedRoute| ShownRoute(&one.name, &one.route).to_string();
        FieldValue::list(&routes.map(shown).collect::<Vec<_>>())
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        (self.at)(to).clone_from((self.at)(from));
    }

    fn describe(&self) -> String {
        "table of host names".into()
    }
}

/// Whether a key of the routes is one of `settings`, or the beginning of one, such as `peers`. A host name that lacks its quotes may
/// begin so, too.
fn is_misplaced(key: &str, item: &Item, settings: &[&str]) -> bool {
    match item.as_table_like().and_then(|table| unquoted(key, table)) {
        Some(full) => settings.contains(&&*full),
        None => settings.iter().any(|setting| setting.split('.').next() == Some(key)),
    }
}

/// The route of a name.
fn route(name: &str, item: &Item) -> Result<Route, Vec<ValueError>> {
    let at = item.span().unwrap_or_default();
    let Some(table) = item.as_table_like() else {
        let Some(value) = item.as_value() else {
            return Err(vec![ValueError::at(at, "expected a backend", "write it like \"127.0.0.1:8443\"")]);
        };
        return server(value).map(Route::Pass).map_err(|error| vec![error]);
    };
    if let Some(name) = unquoted(name, table) {
        let what = "a name with dots needs quotes, because TOML splits it otherwise";
        return Err(vec![ValueError::at(at, what, format!("write \"{name}\" = ..."))]);
    }
    let fields = Fields::read(table, &["pass", "http", "h2c", "send_proxy"]);
    if !fields.errors.is_empty() {
        return Err(fields.errors);
    }
    let Fields { pass, http, h2c, send_proxy, .. } = fields;
    let with = |backend: Backend| Backend { send_proxy, ..backend };
    let mistake = |what: &str, fix: &str| Err(vec![ValueError::at(at.clone(), what, fix)]);
    match (pass, http, h2c) {
        (Some(backend), None, None) => Ok(Route::Pass(with(backend))),
        (Some(_), ..) => mistake(
            "pass leaves TLS to the backend, and http and h2c end it here, so a name cannot have both",
            "keep pass, or keep http and h2c",
        ),
        (None, None, None) => mistake(
            "the route has no backend",
            "add pass, or http or h2c; a name of a certificate that serves TURN alone needs no route",
        ),
        (None, http, h2c) => Ok(Route::Terminate { http: http.map(with), h2c: h2c.map(with) }),
    }
}

/// The name that was meant, if it has no quotes: then TOML makes a table of each of its labels.
fn unquoted(name: &str, table: &dyn TableLike) -> Option<String> {
    const FIELDS: [&str; 4] = ["pass", "http", "h2c", "send_proxy"];
    let (first, item) = table.iter().next()?;
    if name.contains('.') || FIELDS.contains(&first) || !table.is_dotted() && !item.is_table_like() {
        return None;
    }
    let (mut full, mut below) = (name.to_owned(), Some(table));
    while let Some((label, item)) = below.and_then(|table| table.iter().next()) {
        if FIELDS.contains(&label) {
            break;
        }
        full = format!("{full}.{label}");
        below = item.as_table_like();
    }
    Some(full)
}

/// The fields of a route or of a backend.
#[derive(Default)]
struct Fields {
    pass: Option<Backend>,
    http: Option<Backend>,
    h2c: Option<Backend>,
    send_proxy: bool,
    errors: Vec<ValueError>,
}

impl Fields {
    fn read(table: &dyn TableLike, known: &[&str]) -> Fields {
        let mut fields = Fields::default();
        for (name, item) in table.iter() {
            let inside = |error: ValueError| ValueError { inside: format!(".{name}"), ..error };
            let key = key_span(table, name);
            if !known.contains(&name) {
                let closest = known.iter().min_by_key(|one| strsim::damerau_levenshtein(name, one));
                let near = closest.filter(|one| strsim::damerau_levenshtein(name, one) <= 2);
                let fix = match near {
                    Some(one) => format!("did you mean {one}?"),
                    None => format!("use {}", known.join(", ")),
                };
                let error = ValueError { is_key: true, ..ValueError::at(key, "unknown setting", fix) };
                fields.errors.push(inside(error));
                continue;
            }
            let Some(value) = item.as_value() else {
                let error =
                    ValueError::at(key, "expected a value, found a section", format!("write {name} = ..."));
                fields.errors.push(inside(ValueError { is_key: true, ..error }));
                continue;
            };
            let read = match name {
                "pass" => server(value).map(|backend| fields.pass = Some(backend)),
                "http" => server(value).map(|backend| fields.http = Some(backend)),
                "h2c" => server(value).map(|backend| fields.h2c = Some(backend)),
                _ => match value.as_bool() {
                    Some(send) => {
                        fields.send_proxy = send;
                        Ok(())
                    }
                    None => Err(wrong_type(value, "true or false", "write true or false, without quotes")),
                },
            };
            fields.errors.extend(read.err().map(inside));
        }
        fields
    }
}

/// `host:port`
fn server(value: &Value) -> Result<Backend, ValueError> {
    backend::parse(text(value)?).map_err(|(what, fix)| ValueError::of(value, what, fix))
}

/// Addresses of proxies.
pub struct ProxySources<T: 'static>(pub fn(&mut T) -> &mut Placed<Vec<Cidr>>);

impl<T> SettingKind<T> for ProxySources<T> {
    fn read(&self, target: &mut T, value: &Value, _: &ReadContext<'_>) -> Vec<ValueError> {
        let (ranges, errors) = list(value, prefix);
        *(self.0)(target) = Placed { value: ranges, at: value.span().unwrap_or_default() };
        errors
    }

    fn value(&self, target: &mut T) -> FieldValue {
        FieldValue::list(&(self.0)(target).value)
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        (self.0)(to).clone_from((self.0)(from));
    }

    fn describe(&self) -> String {
        "list of ranges in CIDR notation".into()
    }
}

/// Whether connections of proxies always begin with a header.
pub struct ProxyHeaderMode<T: 'static>(pub fn(&mut T) -> &mut Placed<Option<ProxyMode>>);

impl<T> SettingKind<T> for ProxyHeaderMode<T> {
    fn read(&self, target: &mut T, value: &Value, _: &ReadContext<'_>) -> Vec<ValueError> {
        let mode = text(value).and_then(|text| match text {
            "required" => Ok(ProxyMode::Required),
            "optional" => Ok(ProxyMode::Optional),
            _ => Err(ValueError::of(value, "unknown value", "use one of required, optional")),
        });
        match mode {
            Ok(mode) => {
                *(self.0)(target) = Placed { value: Some(mode), at: value.span().unwrap_or_default() };
                Vec::new()
            }
            Err(error) => vec![error],
        }
    }

    fn value(&self, target: &mut T) -> FieldValue {
        FieldValue::plain(format_args!("{:?}", (self.0)(target).value.unwrap_or_default().as_str()))
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        (self.0)(to).clone_from((self.0)(from));
    }

    fn describe(&self) -> String {
        "one of `\"required\"`, `\"optional\"`".into()
    }
}

/// The largest segment of TCP connections; 0 leaves it to the kernel.
pub struct SegmentSize<T: 'static> {
    pub at: fn(&mut T) -> &mut u16,
    /// Where to note the bytes of the file that have it.
    pub place: fn(&mut T) -> Option<&mut Range<usize>>,
}

/// What Linux takes for TCP_MAXSEG (`TCP_MIN_MSS`, `MAX_TCP_WINDOW`).
const MSS: std::ops::RangeInclusive<u16> = 88..=32_767;

impl<T> SettingKind<T> for SegmentSize<T> {
    fn read(&self, target: &mut T, value: &Value, _: &ReadContext<'_>) -> Vec<ValueError> {
        let Some(n) = value.as_integer() else {
            return vec![wrong_type(value, "a number", "write a whole number, without quotes")];
        };
        match u16::try_from(n).ok().filter(|n| *n == 0 || MSS.contains(n)) {
            Some(mss) => {
                *(self.at)(target) = mss;
                if let Some(place) = (self.place)(target) {
                    *place = value.span().unwrap_or_default();
                }
                Vec::new()
            }
            None => {
                let fix = format!("write 0, or a number from {} to {}", MSS.start(), MSS.end());
                vec![ValueError::of(value, "out of range", fix)]
            }
        }
    }

    fn value(&self, target: &mut T) -> FieldValue {
        FieldValue::plain((self.at)(target))
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        *(self.at)(to) = *(self.at)(from);
    }

    fn describe(&self) -> String {
        format!("number, 0 or {} to {}", MSS.start(), MSS.end())
    }

    fn shape(&self) -> Shape {
        Shape::Plain
    }
}

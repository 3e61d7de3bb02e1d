//! The kinds of `[admin]`: the control socket, host names and the file with tokens.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use toml_edit::Value;

use super::secret::{FileKind, file, public};
use super::{Elements, set, text};
use crate::config::files;
use crate::config::kind::{FieldValue, ReadContext, SettingKind, ValueError};
use crate::config::settings::ControlSocket;
use crate::config::tokens::Tokens;

/// The longest path: Linux allows 107 bytes (unix(7)), and the socket has a longer name while it is made.
pub const SOCKET_PATH_MAX: usize = 100;

/// The path of the control socket; empty text turns it off.
pub struct SocketPath<T: 'static>(pub fn(&mut T) -> &mut ControlSocket);

impl<T> SettingKind<T> for SocketPath<T> {
    fn read(&self, target: &mut T, value: &Value, _: &ReadContext<'_>) -> Vec<ValueError> {
        set((self.0)(target), text(value).and_then(|text| socket_path(value, text)))
    }

    fn value(&self, target: &mut T) -> FieldValue {
        match (self.0)(target) {
            ControlSocket::At(path) => FieldValue::plain(format_args!("{path:?}")),
            ControlSocket::Off => FieldValue::plain("\"\""),
            ControlSocket::Default => FieldValue::plain("the default"),
        }
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        (self.0)(to).clone_from((self.0)(from));
    }

    fn describe(&self) -> String {
        "absolute path, or empty text for none".into()
    }
}

fn socket_path(value: &Value, text: &str) -> Result<ControlSocket, ValueError> {
    let wrong = |what: &str, fix: &str| Err(ValueError::of(value, what, fix));
    if text.is_empty() {
        return Ok(ControlSocket::Off);
    }
    let path = PathBuf::from(text);
    let names_a_file = path.file_name().is_some() && !text.ends_with('/');
    if !path.is_absolute() || !names_a_file || path.components().any(|part| part == Component::ParentDir) {
        return wrong(
            "not an absolute path",
            "write it like \"/run/hairpin/control.sock\", or \"\" for no socket",
        );
    }
    if text.contains(char::is_control) {
        return wrong("contains a control character", "write it like \"/run/hairpin/control.sock\"");
    }
    if Path::new(text).as_os_str().as_bytes().len() > SOCKET_PATH_MAX {
        return wrong("the path is longer than Linux allows for a socket", "use at most 100 bytes");
    }
    Ok(ControlSocket::At(path))
}

/// Host names and addresses.
pub const HOST_NAMES: Elements<String> = Elements { read: host, differ: true, name: "host names" };

/// A name as a request has it, in lower case; without a port, because names of one machine differ and not its ports.
fn host(value: &Value) -> Result<String, ValueError> {
    let name = text(value)?;
    let is_host = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    let is_ip = name.parse::<std::net::IpAddr>().is_ok();
    if name.is_empty() || name.len() > 253 || !name.chars().all(is_host) || name.contains(':') && !is_ip {
        let fix = "write it like \"turn.example.org\", without a scheme and a port";
        return Err(ValueError::of(value, "not a host name", fix));
    }
    Ok(name.to_ascii_lowercase())
}

/// The file with the tokens of the API.
pub struct TokensFile<T: 'static>(pub fn(&mut T) -> &mut Tokens);

impl<T> SettingKind<T> for TokensFile<T> {
    fn read(&self, target: &mut T, value: &Value, context: &ReadContext<'_>) -> Vec<ValueError> {
        let (name, contents) = match file(value, context, FileKind::Tokens) {
            Ok(read) => read,
            Err(error) => return vec![error],
        };
        let (tokens, wrong) = Tokens::in_file(&contents.bytes);
        *(self.0)(target) = tokens;
        let wrong = wrong.into_iter().map(|wrong| {
            ValueError::of(value, format!("{} {}", files::place(name, wrong.line), wrong.what), wrong.fix)
        });
        public(value, &contents).into_iter().chain(wrong).collect()
    }

    fn value(&self, target: &mut T) -> FieldValue {
        FieldValue::hidden([&(self.0)(target).fingerprint()[..]])
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        (self.0)(to).clone_from((self.0)(from));
    }

    fn describe(&self) -> String {
        "file".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Finding, Loaded, load, tests};

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn read(text: &str) -> Result<Loaded, Vec<Finding>> {
        let read = |path: &Path| match path.to_str() {
            Some("tokens") => Ok(format!("ops:admin:{TOKEN}\n").as_str().into()),
            Some("short") => Ok("ops:admin:short\n".into()),
            _ => tests::pem(path).map(|pem| pem.as_str().into()).ok_or(std::io::ErrorKind::NotFound.into()),
        };
        let context = ReadContext { read: &read, now: 1_893_456_000, ..ReadContext::NONE };
        load("file", &format!("[auth]\nsecrets = [\"0123456789abcdef\"]\n{text}"), &context)
    }

    fn mistakes(text: &str) -> Vec<String> {
        read(text).map(|_| Vec::new()).unwrap_or_else(|found| found.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_socket_is_a_path_or_off() {
        for (text, expected) in [
            ("", ControlSocket::Default),
            ("[admin]\nsocket = \"\"", ControlSocket::Off),
            ("[admin]\nsocket = \"/run/x/y.sock\"", ControlSocket::At("/run/x/y.sock".into())),
        ] {
            assert_eq!(read(text).unwrap().settings.admin.socket, expected, "{text}");
        }
        let long = format!("/{}", "x".repeat(SOCKET_PATH_MAX));
        for path in ["control.sock", "/run/../x", "/", "/run/", "/a\\u001b", &long] {
            let found = mistakes(&format!("[admin]\nsocket = \"{path}\""));
            assert!(found.len() == 1 && found[0].starts_with("file:4: admin.socket"), "{path}: {found:?}");
        }
    }

    /// Tokens must not cross a network without TLS, and nobody calls without one.
    #[test]
    fn the_api_over_tcp_has_tokens_and_tls() {
        let tls = "[tls]\ncert = \"fullchain.pem\"\nkey = \"privkey.pem\"\n";
        let good = "[admin]\nlisten = [\"192.0.2.1\", \"[::1]:9643\"]\ntls = true\ntokens_file = \"tokens\"\nhosts = \"Turn.Example.org\"";
        let admin = read(&format!("{tls}{good}")).unwrap().settings.admin;
        assert_eq!(format!("{:?}", admin.listen), "[192.0.2.1:9642, [::1]:9643]");
        assert_eq!((admin.hosts, admin.tls), (vec!["turn.example.org".to_owned()], true));
        assert!(admin.tokens.find(TOKEN.as_bytes()).is_some());
        assert!(read("[admin]\nlisten = \"127.0.0.1\"\ntokens_file = \"tokens\"").is_ok());
        for (text, said) in [
            ("listen = \"127.0.0.1\"", "file:4: admin.listen = \"127.0.0.1\": there is no token"),
            (
                "listen = \"192.0.2.1\"\ntokens_file = \"tokens\"",
                "192.0.2.1:9642 is not a loopback address, and tokens must not cross a network without TLS; set admin.tls = true",
            ),
            ("listen = \"0.0.0.0\"\ntokens_file = \"tokens\"", "0.0.0.0:9642 is not a loopback address"),
            (
                "listen = \"127.0.0.1\"\ntokens_file = \"tokens\"\ntls = true",
                "file:6: admin.tls = true: TLS requires a certificate",
            ),
            ("listen = \"127.0.0.1:9641\"\ntokens_file = \"tokens\"", "127.0.0.1:9641 is listed twice"),
            ("tokens_file = \"short\"", "short:1: a token is so short that it can be guessed"),
            ("tokens_file = \"missing\"", "admin.tokens_file = ***: cannot be read"),
            ("hosts = \"https://turn.example.org\"", "not a host name"),
            ("hosts = \"turn.example.org:443\"", "without a scheme and a port"),
        ] {
            let found = mistakes(&format!("[admin]\n{text}"));
            assert!(found.len() == 1 && found[0].contains(said), "{text}: {found:?}");
        }
    }

    /// The pages for monitoring may be anywhere, and who can read them there is said in one line.
    #[test]
    fn exposed_pages_are_warned_about() {
        let tls = "[tls]\ncert = \"fullchain.pem\"\nkey = \"privkey.pem\"\n";
        let warnings = |text: &str| -> Vec<String> {
            let loaded = read(&format!("{tls}[http]\n{text}")).unwrap();
            let warnings = loaded.warnings.iter().map(ToString::to_string);
            warnings.filter(|warning| warning.contains("http.listen")).collect()
        };
        let listen = "listen = [\"192.0.2.1\", \"127.0.0.1\", \"[2001:db8::7]:9641\"]\n";
        let (tls_on, tokens) = ("tls = true\n", "tokens_file = \"tokens\"\n");
        for (text, what, fix) in [
            ("", "can read the metrics, and why", "set http.tls = true and http.tokens_file, or make sure"),
            (tls_on, "can read the metrics, and why", "set http.tokens_file, or make sure"),
            (tokens, "can be read on the way", "set http.tls = true, or make sure"),
        ] {
            let said = warnings(&format!("{listen}{text}"));
            assert_eq!(said.len(), 1, "{said:?}");
            assert!(said[0].contains("192.0.2.1:9641 and [2001:db8::7]:9641 are not loopback addresses"));
            assert!(said[0].contains(what) && said[0].contains(fix), "{said:?}");
        }
        assert_eq!(warnings(&format!("{listen}{tls_on}{tokens}")), [""; 0]);
        assert_eq!(warnings("listen = \"[::1]\""), [""; 0]);
        assert_eq!(warnings("listen = []\ntls = true"), [""; 0]);
    }

    /// The tokens of `[http]` are in the format of `admin.tokens_file`, and TLS needs a certificate.
    #[test]
    fn pages_with_tls_have_a_certificate() {
        let http = read("[http]\ntokens_file = \"tokens\"").unwrap().settings.http;
        assert!(http.tokens.find(TOKEN.as_bytes()).is_some() && !http.tls);
        for (text, said) in [
            (
                "tls = true",
                "file:4: http.tls = true: TLS requires a certificate and its private key; set tls.cert",
            ),
            ("tokens_file = \"short\"", "short:1: a token is so short that it can be guessed"),
            ("tokens_file = \"missing\"", "http.tokens_file = ***: cannot be read"),
        ] {
            let found = mistakes(&format!("[http]\n{text}"));
            assert!(found.len() == 1 && found[0].contains(said), "{text}: {found:?}");
        }
    }
}

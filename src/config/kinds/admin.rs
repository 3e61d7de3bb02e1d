//! The kinds of `[admin]`: the control socket, host names and the file with tokens.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use toml_edit::Value;

use super::secret::{FileKind, file, public};
use super::{set, set_of, text};
use crate::config::files;
use crate::config::kind::{FieldValue, ReadContext, SettingKind, ValueError};
use crate::config::settings::ControlSocket;
use crate::config::tokens::Tokens;

/// The longest path of a Unix socket, without the NUL byte at its end (unix(7)).
pub const SOCKET_PATH_MAX: usize = 107;

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
        return wrong("the path is longer than Linux allows for a socket", "use at most 107 bytes");
    }
    Ok(ControlSocket::At(path))
}

/// Host names and addresses.
pub struct HostNames<T: 'static>(pub fn(&mut T) -> &mut Vec<String>);

impl<T> SettingKind<T> for HostNames<T> {
    fn read(&self, target: &mut T, value: &Value, _: &ReadContext<'_>) -> Vec<ValueError> {
        let (hosts, errors) = set_of(value, host);
        *(self.0)(target) = hosts;
        errors
    }

    fn value(&self, target: &mut T) -> FieldValue {
        FieldValue::list((self.0)(target))
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        (self.0)(to).clone_from((self.0)(from));
    }

    fn describe(&self) -> String {
        "list of host names".into()
    }
}

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

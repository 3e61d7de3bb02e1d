//! The kind of `user`: an account of this machine.

use toml_edit::Value;

use super::{set, text};
use crate::config::kind::{FieldValue, ReadContext, SettingKind, ValueError};

/// The name of an account of this machine, or its number; empty text for none.
pub struct Account<T: 'static>(pub fn(&mut T) -> &mut String);

impl<T> SettingKind<T> for Account<T> {
    fn read(&self, target: &mut T, value: &Value, context: &ReadContext<'_>) -> Vec<ValueError> {
        set((self.0)(target), text(value).and_then(|name| account(value, name, context)))
    }

    fn value(&self, target: &mut T) -> FieldValue {
        FieldValue::plain(format_args!("{:?}", (self.0)(target)))
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        (self.0)(to).clone_from((self.0)(from));
    }

    fn describe(&self) -> String {
        "name of a user of this machine, or empty text".into()
    }
}

fn account(value: &Value, name: &str, context: &ReadContext<'_>) -> Result<String, ValueError> {
    if name.is_empty() || (context.has_user)(name) {
        return Ok(name.to_owned());
    }
    let what = "this machine has no user of this name";
    let fix = "create it, for example with `useradd --system --user-group --no-create-home --shell /usr/sbin/nologin NAME`, or name \
               another one";
    Err(ValueError::of(value, what, fix))
}

//! One section of a YAML file is written, and everything else stays as it is, byte for byte, comments included.
//!
//! Text in, text out: files are read and written in [`super::file`]. The place of the section comes from the parser's events;
//! what comes of the edit is parsed again by another way, and must mean the same but for the section.

mod comments;
mod edit;
pub mod outline;
mod refusal;
mod section;
#[cfg(test)]
mod tests;
mod verify;

pub use refusal::Refusal;
pub use section::{Body, Entry, Section, Value, scalar};

use outline::Outline;
use verify::Split;

/// The largest file, in bytes.
pub const FILE_MAX: usize = 1 << 20;

const MARK: char = '\u{FEFF}';

/// What writing a section into a text comes to.
pub struct Edited {
    /// The value of the section before, if there was one.
    pub old: Option<serde_json::Value>,
    /// Its value from now on.
    pub new: serde_json::Value,
    /// The new text; `None` if the section is current.
    pub text: Option<String>,
}

/// The text of a file, if it is text at all, and no template.
///
/// # Errors
///
/// The file cannot be edited, whatever it means.
pub fn text(bytes: &[u8]) -> Result<&str, Refusal> {
    if bytes.len() > FILE_MAX {
        return Err(Refusal::TooLarge);
    }
    crate::text::of(bytes).map_err(|wrong| Refusal::NotText {
        line: wrong.line,
        what: wrong.sentence(),
        fix: wrong.fix,
    })?;
    let text = str::from_utf8(bytes).unwrap_or_default();
    let mut rest = text.match_indices('\r').map(|(at, _)| at);
    if let Some(at) = rest.find(|at| text.as_bytes().get(at + 1) != Some(&b'\n')) {
        return Err(Refusal::CarriageReturn(outline::line_number(text, at)));
    }
    if let Some(line) = text.lines().position(is_template) {
        return Err(Refusal::Template(line + 1));
    }
    Ok(text)
}

/// The tree of a text that [`text`] accepts.
///
/// # Errors
///
/// The text is not one YAML document of a form that can be edited.
pub fn outline(text: &str) -> Result<Outline, Refusal> {
    outline::read(text.strip_prefix(MARK).unwrap_or(text))
}

/// Writes the section into a text that [`text`] accepts.
///
/// # Errors
///
/// The text cannot be edited, or the result would differ in more than the section.
pub fn edit(text: &str, section: &Section) -> Result<Edited, Refusal> {
    let (mark, text) = text.split_at(if text.starts_with(MARK) { MARK.len_utf8() } else { 0 });
    let outline = outline::read(text)?;
    let before = Split::of(text, section)?;
    let section = &section.with_kept(before.section.as_ref());
    let wanted = section.value();
    if before.section.as_ref() == Some(&wanted) {
        return Ok(Edited { old: before.section, new: wanted, text: None });
    }
    let edited = edit::plan(text, &outline, section)?.apply(text);
    let after = Split::of(&edited, section)?;
    if after.section.as_ref() != Some(&wanted) || !before.is_rest_equal(&after) {
        return Err(Refusal::Unverified);
    }
    Ok(Edited { old: before.section, new: wanted, text: Some([mark, &edited].concat()) })
}

/// Whether a line has marks of templates outside a comment.
fn is_template(line: &str) -> bool {
    let comment = if line.trim_start().starts_with('#') { Some(0) } else { line.find(" #") };
    let content = &line[..comment.unwrap_or(line.len())];
    content.contains("{{") || content.contains("{%")
}

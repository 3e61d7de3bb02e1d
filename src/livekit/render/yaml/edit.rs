//! Where a section goes in a document, and the text that comes of it.
//!
//! A section that exists is replaced from the line after its key to its last value; one that does not exist becomes the first in
//! its parent, so that the comments of what is there stay above what they describe; a missing parent comes last in the document.

use super::comments::Comments;
use super::outline::{self, Node, Outline, Shape, Style};
use super::refusal::Refusal;
use super::section::{Body, Section};

/// The columns of a nested mapping in files that have none.
const INDENT: usize = 2;

/// A change of a text: the bytes that go, and what takes their place.
pub struct Edit {
    start: usize,
    end: usize,
    text: String,
}

impl Edit {
    /// The text after the change.
    pub fn apply(&self, text: &str) -> String {
        [&text[..self.start], &self.text, &text[self.end..]].concat()
    }
}

/// The change that gives a document the section.
///
/// # Errors
///
/// What has to change is not written in block style.
pub fn plan(text: &str, outline: &Outline, section: &Section) -> Result<Edit, Refusal> {
    let place = Place { text, outline, section };
    if let Shape::Mapping { flow: true, .. } = outline.root.shape {
        return Err(Refusal::Json);
    }
    let Some(parent) = section.parent else {
        return match outline.root.get(section.key) {
            Some((key, value)) => place.existing(key, value),
            None => place.at_end(),
        };
    };
    let Some((key, value)) = outline.root.get(parent) else { return place.at_end() };
    place.is_usual(key)?;
    match &value.shape {
        _ if value.is_empty() => place.fill(key, value, &place.with_key(place.column(key) + place.step())),
        Shape::Mapping { flow: true, .. } => Err(place.flow(key)),
        Shape::Mapping { entries, .. } => match value.get(section.key) {
            Some((key, value)) => place.existing(key, value),
            None => place.fill(key, value, &place.with_key(place.column(&entries[0].0))),
        },
        Shape::Sequence { .. } | Shape::Scalar { .. } => Err(place.wrong_type(key, "mapping")),
    }
}

struct Place<'a> {
    text: &'a str,
    outline: &'a Outline,
    section: &'a Section,
}

impl Place<'_> {
    /// Replaces the section of this key.
    fn existing(&self, key: &Node, value: &Node) -> Result<Edit, Refusal> {
        self.is_usual(key)?;
        let (wanted, is_list) = match self.section.body {
            Body::List(_) => ("list", true),
            Body::Map(_) => ("mapping", false),
        };
        if value.is_empty() {
            let lines = self.section.lines(self.column(key) + self.step(), &Comments::default());
            return self.fill(key, value, &lines);
        }
        match &value.shape {
            Shape::Sequence { flow, .. } if is_list && *flow => return Err(self.flow(key)),
            Shape::Mapping { flow, .. } if !is_list && *flow => return Err(self.flow(key)),
            Shape::Sequence { items, .. } if is_list => {
                let is_flow = |item: &&Node| match &item.shape {
                    Shape::Sequence { flow, .. } | Shape::Mapping { flow, .. } => *flow,
                    Shape::Scalar { .. } => false,
                };
                if let Some(item) = items.iter().find(is_flow) {
                    let line = outline::line_number(self.text, item.start);
                    return Err(Refusal::Flow { line, key: self.section.key.into() });
                }
            }
            Shape::Mapping { .. } if !is_list => {}
            _ => return Err(self.wrong_type(key, wanted)),
        }
        let start = self.line_end(key.end);
        let end = self.line_end(value.end);
        let indent = match &value.shape {
            // The first item may begin in the line after its dash, but the dash begins a line.
            Shape::Sequence { .. } => self.dash(start..end).ok_or_else(|| self.unusual(key))?,
            _ => self.column(value),
        };
        let comments = Comments::of(self.text, start..end, value);
        let lines = self.section.lines(indent, &comments);
        let text = self.joined(&lines, self.text[..end].ends_with('\n'));
        Ok(Edit { start, end, text })
    }

    /// Puts lines below a key, and removes its value from its line if that stands for nothing.
    fn fill(&self, key: &Node, value: &Node, lines: &[String]) -> Result<Edit, Refusal> {
        let start = self.line_end(key.end);
        let below = |at: usize| {
            let open = if self.text[..at].ends_with('\n') { "" } else { self.line_break() };
            format!("{open}{}", self.joined(lines, !self.text[at..].is_empty() || open.is_empty()))
        };
        if !value.is_empty() || value.start == value.end {
            // The lines of the mapping follow.
            return Ok(Edit { start, end: start, text: below(start) });
        }
        if value.end > start {
            return Err(self.unusual(key));
        }
        let after = &self.text[value.end..start];
        let keep = if after.trim().is_empty() { after.trim_start_matches([' ', '\t']) } else { after };
        let before = self.text[..value.start].trim_end_matches([' ', '\t']).len();
        Ok(Edit { start: before, end: start, text: format!("{keep}{}", below(start)) })
    }

    /// Puts the section at the end of the document, in its parent if it has one.
    fn at_end(&self) -> Result<Edit, Refusal> {
        let at = self.outline.end;
        let open = if self.text[..at].is_empty() || self.text[..at].ends_with('\n') {
            ""
        } else {
            self.line_break()
        };
        if !open.is_empty() && ends_in_block(&self.outline.root) {
            return Err(Refusal::OpenEnd);
        }
        let column = self.column(&self.outline.root);
        let lines = match self.section.parent {
            None => self.with_key(column),
            Some(parent) => {
                let mut lines = vec![format!("{:column$}{parent}:", "")];
                lines.extend(self.with_key(column + self.step()));
                lines
            }
        };
        Ok(Edit { start: at, end: at, text: format!("{open}{}", self.joined(&lines, true)) })
    }

    /// The section with its key at this column.
    fn with_key(&self, column: usize) -> Vec<String> {
        let mut lines = vec![format!("{:column$}{}:", "", self.section.key)];
        lines.extend(self.section.lines(column + self.step(), &Comments::default()));
        lines
    }

    fn joined(&self, lines: &[String], ends: bool) -> String {
        let text = lines.join(self.line_break());
        if ends { text + self.line_break() } else { text }
    }

    /// The line break of the file.
    fn line_break(&self) -> &'static str {
        match self.text.find('\n') {
            Some(at) if self.text[..at].ends_with('\r') => "\r\n",
            _ => "\n",
        }
    }

    /// Where the line of this byte ends, with its line break. A value may end with its own.
    fn line_end(&self, at: usize) -> usize {
        self.text[at..].find('\n').map_or(self.text.len(), |length| at + length + 1)
    }

    fn column(&self, node: &Node) -> usize {
        node.start - self.text[..node.start].rfind('\n').map_or(0, |at| at + 1)
    }

    /// The column of the first dash in these lines.
    fn dash(&self, lines: std::ops::Range<usize>) -> Option<usize> {
        let content = |line: &&str| !matches!(line.trim_start().bytes().next(), None | Some(b'#'));
        let line = self.text[lines].lines().find(content)?;
        let column = line.len() - line.trim_start().len();
        line[column..].starts_with('-').then_some(column)
    }

    /// By how many columns the file indents, judged by its first nested mapping.
    fn step(&self) -> usize {
        let Shape::Mapping { entries, .. } = &self.outline.root.shape else { return INDENT };
        let nested = entries.iter().find_map(|(_, value)| match &value.shape {
            Shape::Mapping { flow: false, entries } => entries.first(),
            _ => None,
        });
        nested.map_or(INDENT, |(key, _)| self.column(key) - self.column(&self.outline.root))
    }

    /// A key that begins its line, and whose colon follows.
    fn is_usual(&self, key: &Node) -> Result<(), Refusal> {
        let begins = &self.text[key.start - self.column(key)..key.start];
        let is_block = matches!(key.shape, Shape::Scalar { style: Style::Block, .. });
        let colon = self.text[key.end..].trim_start_matches([' ', '\t']).starts_with(':');
        if begins.bytes().all(|byte| byte == b' ') && colon && !is_block {
            Ok(())
        } else {
            Err(self.unusual(key))
        }
    }

    fn unusual(&self, key: &Node) -> Refusal {
        Refusal::Unusual { line: outline::line_number(self.text, key.start), key: name(key) }
    }

    fn flow(&self, key: &Node) -> Refusal {
        Refusal::Flow { line: outline::line_number(self.text, key.start), key: name(key) }
    }

    fn wrong_type(&self, key: &Node, wanted: &'static str) -> Refusal {
        Refusal::WrongType { line: outline::line_number(self.text, key.start), key: name(key), wanted }
    }
}

fn name(key: &Node) -> String {
    key.scalar().unwrap_or_default().to_owned()
}

/// Whether the last value of a node is a block scalar.
fn ends_in_block(node: &Node) -> bool {
    match &node.shape {
        Shape::Scalar { style, .. } => *style == Style::Block,
        Shape::Sequence { flow, items } => !flow && items.last().is_some_and(ends_in_block),
        Shape::Mapping { flow, entries } => {
            !flow && entries.last().is_some_and(|(_, value)| ends_in_block(value))
        }
    }
}

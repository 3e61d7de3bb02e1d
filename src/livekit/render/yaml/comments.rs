//! The comments inside a section that is replaced. They belong to the operator and stay beside what they were beside; those of
//! entries and keys that are gone stay as whole lines.

use std::ops::Range;

use super::outline::{Node, Shape};

/// Begins every comment line that is written into a section, so that the next writing recognises and replaces it.
pub const OURS: &str = "# hairpin-livekit: ";

/// The comments of a section.
#[derive(Default)]
pub struct Comments {
    /// Whole lines, blank ones included, with the field that they are above.
    above: Vec<(Spot, String)>,
    /// What follows a value on its line, with the blanks before it.
    beside: Vec<(Spot, String)>,
}

/// A field: the number of its entry, and its key.
type Spot = (usize, String);

/// The places of what a section has, in bytes.
#[derive(Default)]
struct Places {
    /// Each field and where its key begins.
    fields: Vec<(Spot, usize)>,
    /// Each key, scalar and flow collection. What looks like a comment in them is none.
    leaves: Vec<Range<usize>>,
}

impl Comments {
    /// The comments in these lines of a text, which are the block collection `section`.
    pub fn of(text: &str, lines: Range<usize>, section: &Node) -> Comments {
        let places = Places::of(section);
        let mut comments = Comments::default();
        let mut start = lines.start;
        for line in text[lines].split_inclusive('\n') {
            let this = start..start + line.len();
            comments.read(text, this.clone(), &places);
            start = this.end;
        }
        comments
    }

    fn read(&mut self, text: &str, line: Range<usize>, places: &Places) {
        let leaf = places.leaves.iter().map(|leaf| leaf.end).filter(|end| line.contains(end)).max();
        let is_inside = places.leaves.iter().any(|leaf| leaf.start < line.start && line.start < leaf.end);
        if leaf.is_none() && is_inside {
            return;
        }
        let last = places.fields.last().map(|(spot, _)| spot);
        let next = places.fields.iter().find(|(_, at)| *at >= line.start).map(|(spot, _)| spot).or(last);
        let Some(next) = next else { return };
        let whole = text[line.clone()].trim_end();
        if leaf.is_none() && (whole.is_empty() || whole.trim_start().starts_with('#')) {
            if !whole.trim_start().starts_with(OURS.trim_end()) {
                self.above.push((next.clone(), whole.to_owned()));
            }
            return;
        }
        // Only marks of YAML can be between a value, or the begin of the line, and a comment.
        let rest = text[leaf.unwrap_or(line.start)..line.end].trim_end();
        let Some(at) = rest.find('#') else { return };
        let is_mark = |c: char| " \t:-|>+123456789".contains(c);
        let blanks = at - rest[..at].trim_end_matches([' ', '\t']).len();
        if blanks == 0 || !rest[..at].chars().all(is_mark) {
            return;
        }
        match places.fields.iter().rfind(|(_, at)| line.contains(at)) {
            Some((spot, _)) => self.beside.push((spot.clone(), rest[at - blanks..].to_owned())),
            // An item of a list in a field, or a dash alone.
            None => {
                let before = places.fields.iter().rfind(|(_, at)| *at < line.start).map(|(spot, _)| spot);
                let owner = before.filter(|_| leaf.is_some()).unwrap_or(next);
                let indent = whole.len() - whole.trim_start().len();
                self.above.push((owner.clone(), format!("{:indent$}{}", "", &rest[at..])));
            }
        }
    }

    /// The lines above a field.
    pub fn above(&self, entry: usize, key: &str) -> impl Iterator<Item = String> {
        let here = self.above.iter().filter(move |((n, name), _)| *n == entry && name == key);
        here.map(|(_, line)| line.clone())
    }

    /// The comment on the line of a field, or nothing.
    pub fn beside(&self, entry: usize, key: &str) -> &str {
        let found = self.beside.iter().find(|((n, name), _)| *n == entry && name == key);
        found.map_or("", |(_, comment)| comment)
    }

    /// The comments of fields that an entry has no more, as lines at this column.
    pub fn gone(&self, entry: usize, keys: &[&str], indent: usize) -> Vec<String> {
        self.lines(indent, |(n, key)| *n == entry && !keys.contains(&key.as_str()))
    }

    /// The comments of the entries from this one on, as lines at this column.
    pub fn rest(&self, entries: usize, indent: usize) -> Vec<String> {
        self.lines(indent, |(n, _)| *n >= entries)
    }

    fn lines(&self, indent: usize, is_wanted: impl Fn(&Spot) -> bool) -> Vec<String> {
        let all = self.above.iter().chain(&self.beside).filter(|(spot, _)| is_wanted(spot));
        let all = all.map(|(_, line)| line.trim_start()).filter(|line| !line.is_empty());
        all.map(|line| format!("{:indent$}{line}", "")).collect()
    }
}

impl Places {
    fn of(section: &Node) -> Places {
        let mut places = Places::default();
        match &section.shape {
            Shape::Sequence { items, .. } => {
                items.iter().enumerate().for_each(|(n, item)| places.entry(n, item));
            }
            Shape::Mapping { .. } | Shape::Scalar { .. } => places.entry(0, section),
        }
        places
    }

    fn entry(&mut self, n: usize, entry: &Node) {
        if let Shape::Mapping { flow: false, entries } = &entry.shape {
            for (key, value) in entries {
                self.fields.push(((n, key.scalar().unwrap_or_default().to_owned()), key.start));
                self.leaves(key);
                self.leaves(value);
            }
        } else {
            self.fields.push(((n, String::new()), entry.start));
            self.leaves(entry);
        }
    }

    fn leaves(&mut self, node: &Node) {
        match &node.shape {
            Shape::Sequence { flow: false, items } => items.iter().for_each(|item| self.leaves(item)),
            Shape::Mapping { flow: false, entries } => {
                for (key, value) in entries {
                    self.leaves(key);
                    self.leaves(value);
                }
            }
            Shape::Scalar { .. } | Shape::Sequence { .. } | Shape::Mapping { .. } => {
                self.leaves.push(node.start..node.end);
            }
        }
    }
}

//! A YAML document as a tree of nodes that know their place in the text, made from the events of the parser.
//!
//! Everything is refused here that makes a local edit unsafe wherever it is: several documents, anchors, tags. Flow style matters
//! only where something is changed, so it is recorded.

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput};

use super::refusal::Refusal;

/// Deeper than any configuration. Parsers are recursive, so without a bound a file could exhaust the stack.
const DEPTH_MAX: usize = 64;

/// A document.
pub struct Outline {
    /// Its root node.
    pub root: Node,
    /// Where its end marker (`...`) begins, or the end of the text.
    pub end: usize,
}

/// A node with the bytes that it takes, without the comments after it.
pub struct Node {
    /// The first byte.
    pub start: usize,
    /// The byte after the last one.
    pub end: usize,
    /// What it is.
    pub shape: Shape,
}

/// What a node is.
pub enum Shape {
    /// Text, a number, nothing: all that is no collection.
    Scalar {
        /// The text that it stands for.
        text: String,
        /// How it is written.
        style: Style,
    },
    /// A list.
    Sequence {
        /// Whether it is written as `[...]`.
        flow: bool,
        /// Its items.
        items: Vec<Node>,
    },
    /// Keys with their values.
    Mapping {
        /// Whether it is written as `{...}`.
        flow: bool,
        /// The keys and values, in the order of the file.
        entries: Vec<(Node, Node)>,
    },
}

/// How a scalar is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Without marks.
    Plain,
    /// In single or double quotes.
    Quoted,
    /// After `|` or `>`.
    Block,
}

impl Node {
    /// The text of a scalar.
    pub fn scalar(&self) -> Option<&str> {
        match &self.shape {
            Shape::Scalar { text, .. } => Some(text),
            Shape::Sequence { .. } | Shape::Mapping { .. } => None,
        }
    }

    /// Whether a configuration takes it for nothing: no value, null, an empty collection.
    pub fn is_empty(&self) -> bool {
        match &self.shape {
            Shape::Scalar { text, style } => {
                *style == Style::Plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL")
            }
            Shape::Sequence { items, .. } => items.is_empty(),
            Shape::Mapping { entries, .. } => entries.is_empty(),
        }
    }

    /// The key and value with this name, in a mapping.
    pub fn get(&self, name: &str) -> Option<&(Node, Node)> {
        match &self.shape {
            Shape::Mapping { entries, .. } => entries.iter().find(|(key, _)| key.scalar() == Some(name)),
            Shape::Scalar { .. } | Shape::Sequence { .. } => None,
        }
    }
}

/// The document of a text, which has no byte order mark.
///
/// # Errors
///
/// The text is not one YAML document of a form that can be edited.
pub fn read(text: &str) -> Result<Outline, Refusal> {
    Reader::new(text).document()
}

/// The number of the line of a byte, counted from 1.
pub fn line_number(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1
}

struct Reader<'a> {
    text: &'a str,
    parser: Parser<'a, StrInput<'a>>,
    /// The byte of each character, because markers count characters; the last is the length of the text.
    bytes: Vec<usize>,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Reader<'a> {
        let bytes = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        Reader { text, parser: Parser::new_from_str(text), bytes }
    }

    fn byte(&self, marker: Marker) -> usize {
        self.bytes[marker.index().min(self.bytes.len() - 1)]
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Refusal> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                Err(Refusal::NotYaml { line: error.marker().line(), what: error.info().to_owned() })
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn document(mut self) -> Result<Outline, Refusal> {
        let mut outline = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::DocumentStart(_) if outline.is_some() => {
                    return Err(Refusal::SeveralDocuments(span.start.line()));
                }
                Event::DocumentEnd => {}
                Event::StreamStart | Event::DocumentStart(_) | Event::Nothing => continue,
                event => {
                    let root = self.node(event, span, 0)?;
                    outline = Some(Outline { root, end: self.text.len() });
                    continue;
                }
            }
            // An implicit end takes no characters.
            if let (Some(outline), false) = (&mut outline, span.is_empty()) {
                outline.end = self.byte(span.start);
            }
        }
        outline.ok_or(Refusal::Empty)
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Refusal> {
        let line = span.start.line();
        if depth > DEPTH_MAX {
            return Err(Refusal::TooDeep(line));
        }
        let (start, end) = (self.byte(span.start), self.byte(span.end));
        let (anchor, tag) = match &event {
            Event::Alias(_) => (1, None),
            Event::Scalar(_, _, anchor, tag) => (*anchor, tag.as_ref()),
            Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) => (*anchor, tag.as_ref()),
            _ => (0, None),
        };
        if anchor > 0 {
            return Err(Refusal::Anchor(line));
        }
        if tag.is_some() {
            return Err(Refusal::Tag(line));
        }
        let opens = |mark| self.text[start..].starts_with(mark);
        match event {
            Event::Scalar(text, style, ..) => {
                let style = match style {
                    ScalarStyle::Plain => Style::Plain,
                    ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Style::Quoted,
                    ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
                };
                // The parser lets a block scalar begin with its first word, and ends it, and quoted ones, at the next token.
                let (start, end) = match style {
                    Style::Block => {
                        let start = self.text[..start].rfind('\n').unwrap_or(start);
                        (start, start.max(self.text[..end].trim_end().len()))
                    }
                    Style::Quoted => (start, quote_end(self.text, start).unwrap_or(end)),
                    Style::Plain => (start, end),
                };
                Ok(Node { start, end, shape: Shape::Scalar { text: text.into_owned(), style } })
            }
            Event::SequenceStart(..) => {
                // A block sequence begins at its dash or at its first item.
                let (flow, mut items, mut end) = (opens('['), Vec::new(), start);
                loop {
                    let (event, span) = self.next()?;
                    if event == Event::SequenceEnd {
                        end = if flow { self.byte(span.start) + 1 } else { end };
                        return Ok(Node { start, end, shape: Shape::Sequence { flow, items } });
                    }
                    let item = self.node(event, span, depth + 1)?;
                    end = item.end;
                    items.push(item);
                }
            }
            Event::MappingStart(..) => {
                let (flow, mut entries, mut end) = (opens('{'), Vec::<(Node, Node)>::new(), start);
                loop {
                    let (event, span) = self.next()?;
                    if event == Event::MappingEnd {
                        end = if flow { self.byte(span.start) + 1 } else { end };
                        return Ok(Node { start, end, shape: Shape::Mapping { flow, entries } });
                    }
                    let line = span.start.line();
                    let key = self.node(event, span, depth + 1)?;
                    if let Shape::Scalar { text, style } = &key.shape {
                        if text == "<<" && *style == Style::Plain {
                            return Err(Refusal::Anchor(line));
                        }
                        if entries.iter().any(|(other, _)| other.scalar() == Some(text)) {
                            return Err(Refusal::Duplicate { line, key: text.clone() });
                        }
                    }
                    let (event, span) = self.next()?;
                    let value = self.node(event, span, depth + 1)?;
                    end = key.end.max(value.end);
                    entries.push((key, value));
                }
            }
            // The parser's grammar allows no other event here.
            _ => Err(Refusal::NotYaml { line, what: "a value is missing".into() }),
        }
    }
}

/// Where a quoted scalar that begins here ends.
fn quote_end(text: &str, start: usize) -> Option<usize> {
    let quote = *text.as_bytes().get(start)?;
    let mut rest = text.bytes().enumerate().skip(start + 1).peekable();
    while let Some((at, byte)) = rest.next() {
        let is_doubled = quote == b'\'' && rest.peek().is_some_and(|(_, next)| *next == quote);
        if byte == b'\\' && quote == b'"' || byte == quote && is_doubled {
            rest.next();
        } else if byte == quote {
            return Some(at + 1);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> Refusal {
        match read(text) {
            Ok(_) => panic!("{text:?} is accepted"),
            Err(refusal) => refusal,
        }
    }

    #[test]
    fn nodes_know_their_place_in_bytes() {
        let text = "a: \u{e9}\nrtc:\n  list:\n  - x: \"\u{fc}\" # tail\n    y: [1, 2]  # [\n    'it''s' : \"\\\"\"  # c\nend: |\n  text\n\n";
        let outline = read(text).unwrap();
        let at = |node: &Node| &text[node.start..node.end];
        let (_, rtc) = outline.root.get("rtc").unwrap();
        let (key, list) = rtc.get("list").unwrap();
        assert_eq!(at(key), "list");
        let Shape::Sequence { flow: false, items } = &list.shape else { panic!("not a block sequence") };
        assert_eq!(at(&items[0].get("x").unwrap().1), "\"\u{fc}\"");
        assert_eq!(at(&items[0].get("y").unwrap().1), "[1, 2]");
        let (key, value) = items[0].get("it's").unwrap();
        assert_eq!((at(key), at(value)), ("'it''s'", r#""\"""#));
        assert!(list.end == value.end && text[list.end..].starts_with("  # c\nend"));
        assert_eq!(outline.end, text.len());
        let marked = "a: 1\n...\n# after\n";
        assert_eq!(read(marked).unwrap().end, marked.find("...").unwrap());
    }

    /// What is no value for a configuration: nothing, null, an empty collection.
    #[test]
    fn empty_values_are_recognised() {
        let outline = read("a:\nb: ~\nc: null\nd: []\ne: {}\nf: \"\"\ng: 0\n").unwrap();
        let empty = |key: &str| outline.root.get(key).unwrap().1.is_empty();
        assert_eq!(
            ["a", "b", "c", "d", "e", "f", "g"].map(empty),
            [true, true, true, true, true, false, false]
        );
    }

    #[test]
    fn what_makes_edits_unsafe_is_refused_with_its_line() {
        for (text, expected) in [
            ("a: 1\n---\nb: 2\n", Refusal::SeveralDocuments(2)),
            ("a: 1\n---\n", Refusal::SeveralDocuments(2)),
            ("a: 1\n...\n---\nb: 1\n", Refusal::SeveralDocuments(3)),
            ("a: &x 1\n", Refusal::Anchor(1)),
            ("a: 1\nb: &x\n  c: 1\n", Refusal::Anchor(2)),
            ("a: 1\n<<: {b: 1}\n", Refusal::Anchor(2)),
            ("a: !!str 1\n", Refusal::Tag(1)),
            ("a: !vault x\n", Refusal::Tag(1)),
            ("a: 1\nb: 2\n\"a\": 3\n", Refusal::Duplicate { line: 3, key: "a".into() }),
            ("b:\n  a: 1\n  a: 2\n", Refusal::Duplicate { line: 3, key: "a".into() }),
            ("", Refusal::Empty),
            ("# only a comment\n", Refusal::Empty),
        ] {
            assert_eq!(refusal(text), expected, "{text:?}");
        }
        for (text, line) in [("a: 1\nb:\n\t- 1\n", 3), ("a: [1\nb: 2\n", 2), ("a: *x\n", 1), ("a: 'x\n", 1)] {
            assert!(
                matches!(refusal(text), Refusal::NotYaml { line: found, .. } if found >= line),
                "{text:?}"
            );
        }
    }

    /// A file cannot exhaust the stack.
    #[test]
    fn nesting_is_bounded() {
        let deep = |open: &str, n| open.repeat(n);
        assert!(matches!(refusal(&deep("[", 100_000)), Refusal::TooDeep(_) | Refusal::NotYaml { .. }));
        assert!(matches!(refusal(&deep("- ", 100_000)), Refusal::TooDeep(1)));
    }
}

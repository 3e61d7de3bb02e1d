//! Why a file is not edited. Each sentence says what stands in the way and where; the section is printed beside it.

use thiserror::Error;

/// Why a file is not edited.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The file is larger than [`super::FILE_MAX`].
    #[error("the file is larger than 1 MiB")]
    TooLarge,
    /// The file is not UTF-8.
    #[error("line {line}: {what}; {fix}")]
    NotText {
        /// Counted from 1.
        line: usize,
        /// A sentence.
        what: String,
        /// What to do.
        fix: &'static str,
    },
    /// A carriage return that ends no line: parsers disagree about it.
    #[error("line {0}: a carriage return without a line feed; save the file with one kind of line ends")]
    CarriageReturn(usize),
    /// The text is not YAML.
    #[error("line {line}: this is not valid YAML: {what}")]
    NotYaml {
        /// Counted from 1.
        line: usize,
        /// The words of the parser.
        what: String,
    },
    /// A template of Helm, Jinja or the like, which is filled in later.
    #[error("line {0}: the file is a template (`{{{{ }}}}` or `{{% %}}`); write into what is made from it")]
    Template(usize),
    /// Nothing but blanks and comments.
    #[error("the file is empty, so it may be the wrong one")]
    Empty,
    /// More than one document.
    #[error("line {0}: another YAML document begins here; a file with several documents is not edited")]
    SeveralDocuments(usize),
    /// `&name`, `*name` or `<<`.
    #[error("line {0}: a file with anchors, aliases or merge keys is not edited")]
    Anchor(usize),
    /// `!tag`.
    #[error("line {0}: a file with tags (`!...`) is not edited")]
    Tag(usize),
    /// The same key twice in one mapping.
    #[error("line {line}: `{key}` is listed twice; LiveKit and MediaMTX refuse that, too")]
    Duplicate {
        /// Counted from 1.
        line: usize,
        /// The key.
        key: String,
    },
    /// The document is one flow mapping.
    #[error("the file is JSON, or one mapping in flow style (`{{...}}`); only block style is edited")]
    Json,
    /// What has to change is written as `{...}` or `[...]`.
    #[error("line {line}: `{key}` is in flow style (`{{...}}` or `[...]`); only block style is edited")]
    Flow {
        /// Counted from 1.
        line: usize,
        /// The key.
        key: String,
    },
    /// A list where a mapping is wanted, or the like.
    #[error("line {line}: `{key}` is not a {wanted}")]
    WrongType {
        /// Counted from 1.
        line: usize,
        /// The key.
        key: String,
        /// `list` or `mapping`.
        wanted: &'static str,
    },
    /// `? key`, a key after `- `, a value on the next line.
    #[error("line {line}: `{key}` is written in an unusual way that is not edited")]
    Unusual {
        /// Counted from 1.
        line: usize,
        /// The key.
        key: String,
    },
    /// A block scalar ends with the file, and a line end after it would become a part of it.
    #[error("the file ends without a line end in a block scalar (`|` or `>`); add a line end")]
    OpenEnd,
    /// Collections in collections, more than any configuration has.
    #[error("line {0}: the file is nested too deeply")]
    TooDeep(usize),
    /// The file is something else, or has the configuration somewhere inside.
    #[error("{0}")]
    Foreign(String),
    /// The edited text would not mean the same but for the section.
    #[error("the edited file would differ in more than the section, so it was not written")]
    Unverified,
}

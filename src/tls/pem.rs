//! Reads PEM files (RFC 7468) as authorities, tools and editors leave them.
//!
//! The file may contain a private key, and so may any part of it that is not understood. An error therefore consists of
//! fixed text and line numbers only; labels are quoted if they are known.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::text;

/// A section between `-----BEGIN` and `-----END`.
pub struct Section {
    /// Its label, if it is one that appears beside certificates and keys.
    pub label: &'static str,
    /// The line of its beginning.
    pub line: usize,
    /// Whether it begins on the line on which the section before it ends, so that other programs do not find it.
    pub is_joined: bool,
    /// Whether its headers say that it is encrypted (RFC 1421 section 4.6.1.1).
    pub is_encrypted: bool,
    /// Its contents.
    pub der: Vec<u8>,
}

/// Why a file is not PEM: what is wrong, at which line, and how to fix it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotPem {
    pub line: Option<usize>,
    pub what: &'static str,
    pub fix: &'static str,
}

/// The labels that appear beside certificates and keys. Any other label is not quoted, as it may be part of a damaged key.
const LABELS: [&str; 19] = [
    "CERTIFICATE",
    "X509 CERTIFICATE",
    "TRUSTED CERTIFICATE",
    "CERTIFICATE REQUEST",
    "NEW CERTIFICATE REQUEST",
    "X509 CRL",
    "PKCS7",
    "CMS",
    "PRIVATE KEY",
    "ENCRYPTED PRIVATE KEY",
    "RSA PRIVATE KEY",
    "EC PRIVATE KEY",
    "DSA PRIVATE KEY",
    "OPENSSH PRIVATE KEY",
    "PUBLIC KEY",
    "RSA PUBLIC KEY",
    "EC PARAMETERS",
    "DH PARAMETERS",
    "ATTRIBUTE CERTIFICATE",
];

/// The label of a section of another kind.
pub const OTHER: &str = "another kind of section";

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

const LINE_ENDS: &str = "has lost its line ends: BEGIN and END must have lines of their own";
const LINE_ENDS_FIX: &str =
    "copy the original file again; in a variable or a template, line ends must survive";
const DAMAGED_FIX: &str = "copy the original file again";

/// The sections of a file. Text around them is skipped, as openssl and authorities write some.
pub fn sections(text: &str) -> Result<Vec<Section>, NotPem> {
    let mut found = Vec::new();
    let mut open: Option<Open> = None;
    // Lines of old Macs end with CR alone.
    let text = if text.contains('\n') { text.to_owned() } else { text.replace('\r', "\n") };
    for (n, line) in text.lines().enumerate() {
        let (n, line) = (n + 1, line.trim_matches([' ', '\t', '\r']));
        let Some(mut section) = open.take() else {
            open = begin(n, line)?;
            continue;
        };
        let Some(end) = line.strip_prefix(END) else {
            section.add(n, line)?;
            open = Some(section);
            continue;
        };
        let Some((label, rest)) = end.split_once(DASHES) else {
            return Err(damaged(n, "has a damaged END line"));
        };
        if known(label) != section.label {
            return Err(damaged(n, "has a section that ends with another label than it begins with"));
        }
        found.push(section.finish()?);
        // Any other text here belongs to the file that was appended without a line end.
        open =
            begin(n, rest.trim_start_matches([' ', '\t']))?.map(|joined| Open { is_joined: true, ..joined });
    }
    match open {
        Some(section) => Err(NotPem {
            line: Some(section.line),
            what: "is cut off: a section that begins here has no END line",
            fix: DAMAGED_FIX,
        }),
        None => Ok(found),
    }
}

/// A section whose end has not been read.
struct Open {
    label: &'static str,
    line: usize,
    is_joined: bool,
    is_encrypted: bool,
    base64: String,
}

impl Open {
    fn add(&mut self, n: usize, line: &str) -> Result<(), NotPem> {
        if line.starts_with(BEGIN) {
            return Err(damaged(self.line, "is cut off: a section that begins here has no END line"));
        }
        if line.contains(BEGIN) || line.contains(END) {
            return Err(damaged(n, LINE_ENDS));
        }
        // Headers come before the contents (RFC 1421). A colon is not base64.
        if line.contains(':') && self.base64.is_empty() {
            self.is_encrypted |= line.contains("ENCRYPTED");
            return Ok(());
        }
        let is_base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
        if self.is_encrypted && line.contains(',') {
            // The rest of DEK-Info.
            return Ok(());
        }
        let Some(odd) = line.chars().find(|c| !is_base64(*c) && !matches!(c, ' ' | '\t')) else {
            self.base64.extend(line.chars().filter(|c| is_base64(*c)));
            return Ok(());
        };
        let what = match text::invisible(line) {
            Some((c, _)) if c == odd => "has an invisible character in a section",
            _ => "is damaged: a section has a character that is not base64",
        };
        Err(damaged(n, what))
    }

    fn finish(self) -> Result<Section, NotPem> {
        let Open { label, line, is_joined, is_encrypted, base64 } = self;
        let der = BASE64.decode(base64);
        let der =
            der.map_err(|_| damaged(line, "is damaged: a part is missing from a section that begins here"))?;
        Ok(Section { label, line, is_joined, is_encrypted, der })
    }
}

/// The section that begins with this line, if one does.
fn begin(n: usize, line: &str) -> Result<Option<Open>, NotPem> {
    let Some(rest) = line.strip_prefix(BEGIN) else {
        // A section that is commented out is none, nor is one that is mentioned.
        let quoted = !line.starts_with(['#', ';']) && (line.contains(BEGIN) || line.contains(END));
        return if quoted { Err(damaged(n, LINE_ENDS)) } else { Ok(None) };
    };
    let Some((label, rest)) = rest.split_once(DASHES) else {
        return Err(damaged(n, "has a damaged BEGIN line"));
    };
    if !rest.is_empty() {
        return Err(damaged(n, LINE_ENDS));
    }
    Ok(Some(Open {
        label: known(label),
        line: n,
        is_joined: false,
        is_encrypted: false,
        base64: String::new(),
    }))
}

fn known(label: &str) -> &'static str {
    LABELS.into_iter().find(|known| *known == label).unwrap_or(OTHER)
}

fn damaged(line: usize, what: &'static str) -> NotPem {
    let fix = if what == LINE_ENDS { LINE_ENDS_FIX } else { DAMAGED_FIX };
    NotPem { line: Some(line), what, fix }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "-----BEGIN CERTIFICATE-----\nAAEC\nAwQF\n-----END CERTIFICATE-----\n";

    fn read(text: &str) -> Vec<(&'static str, usize, Vec<u8>)> {
        sections(text).unwrap().into_iter().map(|one| (one.label, one.line, one.der)).collect()
    }

    fn fails(text: &str) -> (Option<usize>, &'static str) {
        let error = sections(text).map(|found| found.len()).unwrap_err();
        (error.line, error.what)
    }

    #[test]
    fn line_ends_blanks_and_text_around_are_understood() {
        let expected = [("CERTIFICATE", 1, vec![0, 1, 2, 3, 4, 5])];
        assert_eq!(read(ONE), expected);
        assert_eq!(read(&ONE.replace('\n', "\r\n")), expected);
        assert_eq!(read(&ONE.replace('\n', "\r")), expected);
        assert_eq!(read(&ONE.replace('\n', " \t\n\n").replace("AAEC", "  AA EC")), expected);
        assert_eq!(read(ONE.trim_end()), expected);
        let around = format!("subject=CN = a\n# -----BEGIN CERTIFICATE-----\n{ONE}some text\n{ONE}");
        assert_eq!(read(&around).iter().map(|one| one.1).collect::<Vec<_>>(), [3, 8]);
        assert!(read("no section").is_empty());
    }

    /// `cat` of two files, the first of which does not end with a line end.
    #[test]
    fn a_section_that_is_joined_to_another_is_found() {
        let found = sections(&format!("{}{ONE}", ONE.trim_end())).unwrap();
        assert_eq!(
            found.iter().map(|one| (one.line, one.is_joined)).collect::<Vec<_>>(),
            [(1, false), (4, true)]
        );
        let blank = sections(&format!("{} \t{ONE}", ONE.trim_end())).unwrap();
        assert_eq!(blank.iter().map(|one| one.is_joined).collect::<Vec<_>>(), [false, true]);
    }

    /// The same with a file that begins with the text that openssl writes.
    #[test]
    fn text_that_is_joined_to_a_section_is_skipped() {
        let found = read(&format!("{}subject=CN = a\nissuer=CN = b\n{ONE}", ONE.trim_end()));
        assert_eq!(found.iter().map(|one| one.1).collect::<Vec<_>>(), [1, 6]);
        assert_eq!(read(&format!("{} some text", ONE.trim_end())).len(), 1);
    }

    #[test]
    fn damage_is_reported_with_its_line() {
        for (text, line, what) in [
            (ONE.replace('\n', ""), 1, "has lost its line ends"),
            (ONE.replace('\n', " "), 1, "has lost its line ends"),
            (ONE.replace('\n', "\\n"), 1, "has lost its line ends"),
            (format!("key: \"{ONE}"), 1, "has lost its line ends"),
            (ONE.replace("AwQF\n", "AwQF"), 3, "has lost its line ends"),
            (ONE.replace("-----END CERTIFICATE-----", ""), 1, "is cut off"),
            (format!("{}{ONE}", &ONE[..33]), 1, "is cut off"),
            (ONE.replace("AwQF", "Aw?F"), 3, "is damaged: a section has a character"),
            (ONE.replace("AwQF", "Aw\u{200B}QF"), 3, "has an invisible character"),
            (format!("{}subject=CN = a {ONE}", ONE.trim_end()), 4, "has lost its line ends"),
            (ONE.replace("AwQF", "A"), 1, "is damaged: a part is missing"),
            (ONE.replace("END CERT", "END OTHER CERT"), 4, "has a section that ends with another label"),
            (ONE.replace("CERTIFICATE-----\nAA", "CERTIFICATE\nAA"), 1, "has a damaged BEGIN line"),
        ] {
            let found = fails(&text);
            assert!(found.0 == Some(line) && found.1.starts_with(what), "{text:?} gave {found:?}");
        }
    }

    #[test]
    fn encrypted_sections_have_headers() {
        let headers =
            "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00112233445566778899AABBCCDDEEFF\n\nAAEC";
        let [one] = &sections(&ONE.replace("AAEC", headers)).unwrap()[..] else { panic!("one section") };
        assert!(one.is_encrypted);
    }

    #[test]
    fn unknown_labels_are_not_quoted() {
        assert_eq!(read(&ONE.replace("CERTIFICATE", "MIIEvQIBADANBg"))[0].0, OTHER);
    }
}

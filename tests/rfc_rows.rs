//! Checks docs/rfc.md: every section that it marks as done or as a deliberate choice is named by a test.

#![cfg(test)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The number of an RFC, and a section in it.
type Section = (String, String);

#[test]
fn every_row_that_is_done_has_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut named = BTreeSet::new();
    for file in files(root) {
        let text = fs::read_to_string(&file).unwrap();
        // In src/, tests are at the end of a file, in a file `tests.rs` or in a `tests` folder.
        let is_tests = |part: &Path| part.file_stem().is_some_and(|stem| stem == "tests");
        let only_tests =
            !file.starts_with(root.join("src")) || file.iter().any(|part| is_tests(Path::new(part)));
        let tests = if only_tests {
            &text[..]
        } else {
            text.split_once("#[cfg(test)]").map_or("", |(_, tests)| tests)
        };
        named.extend(tests.lines().flat_map(sections));
    }
    let page = fs::read_to_string(root.join("docs/rfc.md")).unwrap();
    let rows = rows(&page);
    assert!(rows.len() > 30, "the page's tables were not recognised");
    let untested: Vec<_> = rows
        .iter()
        .filter(|(_, state)| matches!(state.as_str(), "done" | "chosen"))
        .filter(|((rfc, section), _)| {
            let inside = format!("{section}.");
            !named.iter().any(|(r, s)| r == rfc && (s == section || s.starts_with(&inside)))
        })
        .map(|((rfc, section), _)| format!("RFC {rfc} §{section}"))
        .collect();
    assert!(untested.is_empty(), "no test names {}", untested.join(", "));
    let unknown: Vec<_> =
        rows.iter().filter(|(_, state)| !["done", "chosen", "not done"].contains(&state.as_str())).collect();
    assert!(unknown.is_empty(), "unknown states: {unknown:?}");
}

/// The sections in the page's tables, with their states.
fn rows(page: &str) -> Vec<(Section, String)> {
    let mut rows = Vec::new();
    let mut rfc = String::new();
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            rfc = heading.strip_prefix("RFC ").map(digits).unwrap_or_default();
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if cells.len() != 6 || cells[1] == "section" || cells[1].starts_with("---") {
            continue;
        }
        let section = match cells[1].strip_prefix('§') {
            Some(section) => (rfc.clone(), section.to_string()),
            None => sections(cells[1]).into_iter().next().unwrap_or((digits(&cells[1][4..]), String::new())),
        };
        rows.push((section, cells[3].to_string()));
    }
    rows
}

/// The sections that a line names: `RFC 8656 §9, §12` are two.
fn sections(line: &str) -> Vec<Section> {
    let mut found = Vec::new();
    for part in line.split("RFC ").skip(1) {
        let rfc = digits(part);
        for section in part.split('§').skip(1) {
            let section: String =
                section.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '.').collect();
            found.push((rfc.clone(), section.trim_end_matches('.').to_string()));
        }
    }
    found
}

fn digits(text: &str) -> String {
    text.chars().take_while(char::is_ascii_digit).collect()
}

fn files(root: &Path) -> Vec<PathBuf> {
    let mut folders = vec![root.join("src"), root.join("tests")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs" || kind == "py") {
                files.push(path);
            }
        }
    }
    files
}

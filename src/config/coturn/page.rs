//! The table of keys in `docs/from-coturn.md`, which a test keeps equal to what the importer does.

use super::keys::{Fate, KEYS, Key, counterparts, counterparts_inside};
use crate::config::pages::assert_current;

const BEGIN: &str = "<!-- keys: generated from src/config/coturn/keys.rs -->\n";
const END: &str = "<!-- end of keys -->\n";

/// One row per key, in the order of the table, in which keys of one subject stand together.
fn table() -> String {
    let mut page = String::from("| turnserver.conf | hairpin | what becomes of it |\n|---|---|---|\n");
    for Key { name, fate, says, .. } in KEYS {
        let to = counterparts(name).into_iter().map(str::to_owned).chain(counterparts_inside(name));
        let to: Vec<String> = to.map(|key| format!("`{key}`")).collect();
        let word = match fate {
            Fate::Translated => "translated",
            Fate::Lost(_) => "**lost**",
            Fate::Danger(_) => "**danger**",
            Fate::Note(_) => "note",
            Fate::Silent => "nothing to do",
        };
        let says = says.trim_end_matches('.');
        page.push_str(&format!("| `{name}` | {} | {word}: {says}. |\n", to.join(", ")));
    }
    page
}

#[test]
fn the_page_has_every_key() {
    let path = "docs/from-coturn.md";
    let stored =
        std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let (head, rest) = stored.split_once(BEGIN).expect("the mark before the table");
    let (_, tail) = rest.split_once(END).expect("the mark after it");
    assert_current(path, &format!("{head}{BEGIN}{}{END}{tail}", table()));
}

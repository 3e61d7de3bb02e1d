//! The query of a request. Nothing is dropped in silence: an unknown or repeated key is an error.

use std::collections::BTreeMap;

use super::response::Failure;
use crate::admin::percent::decoded;

/// The keys with their values.
#[derive(Debug, Default)]
pub struct Query(BTreeMap<String, String>);

impl Query {
    /// That of a request, which may have these keys.
    pub fn new(text: Option<&str>, known: &[&str]) -> Result<Query, Failure> {
        let mut query = BTreeMap::new();
        for pair in text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |text| {
                decoded(text, true).map_err(|wrong| Failure::bad_request(format!("the query {wrong}")))
            };
            let Some(key) = known.iter().find(|known| decode(key).is_ok_and(|key| key == **known)) else {
                let known = known.join(", ");
                let message = format!("the query has an unknown key; there are {known}");
                return Err(Failure::bad_request(message));
            };
            if query.insert((*key).to_owned(), decode(value)?).is_some() {
                return Err(Failure::bad_request(format!("{key} is given twice")));
            }
        }
        Ok(Query(query))
    }

    /// The text of a key. An empty one counts as missing.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str).filter(|text| !text.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Result<Query, String> {
        Query::new(Some(text), &["room", "region"]).map_err(|failure| failure.message)
    }

    #[test]
    fn values_are_decoded() {
        let found = query("room=a%2Bb+c%26&region=").unwrap();
        assert_eq!((found.text("room"), found.text("region")), (Some("a+b c&"), None));
        assert!(Query::new(None, &["room"]).unwrap().text("room").is_none());
    }

    #[test]
    fn mistakes_are_named() {
        for (text, said) in [
            ("rooms=a", "the query has an unknown key; there are room, region"),
            ("room=a&room=b", "room is given twice"),
            ("room=%zz", "the query has a % that two hex digits do not follow"),
            ("room=%ff", "the query is not UTF-8"),
        ] {
            assert_eq!(query(text).err().as_deref(), Some(said), "{text}");
        }
    }
}

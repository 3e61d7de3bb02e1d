//! Whether two documents mean the same but for a section, asked of a parser that knows nothing of the edit.

use saphyr::{LoadableYamlNode, Scalar, Yaml};

use super::refusal::Refusal;
use super::section::Section;

/// A document without the section, and the section, if it has one.
pub struct Split {
    rest: Yaml<'static>,
    /// The value of the section.
    pub section: Option<serde_json::Value>,
}

impl Split {
    /// Takes the section out of a document.
    ///
    /// # Errors
    ///
    /// The text is not one mapping in YAML.
    pub fn of(text: &str, section: &Section) -> Result<Split, Refusal> {
        let mut documents = Yaml::load_from_str(text).map_err(|error| Refusal::NotYaml {
            line: error.marker().line(),
            what: error.info().to_owned(),
        })?;
        let (Some(mut rest), true) = (documents.pop(), documents.is_empty()) else {
            return Err(Refusal::SeveralDocuments(1));
        };
        let mut found = None;
        match section.parent {
            None => found = remove(&mut rest, section.key),
            Some(parent) => {
                if let Some(mut inner) = remove(&mut rest, parent) {
                    found = remove(&mut inner, section.key);
                    // A parent without anything else is as good as none, whatever its place.
                    let is_empty =
                        inner.is_null() || inner.as_mapping().is_some_and(|inner| inner.is_empty());
                    if !is_empty {
                        insert(&mut rest, parent, inner);
                    }
                }
            }
        }
        Ok(Split { rest, section: found.as_ref().map(value) })
    }

    /// Whether everything but the section is equal.
    pub fn is_rest_equal(&self, other: &Split) -> bool {
        self.rest == other.rest
    }
}

fn remove(yaml: &mut Yaml<'static>, key: &'static str) -> Option<Yaml<'static>> {
    yaml.as_mapping_mut()?.remove(&name(key))
}

fn insert(yaml: &mut Yaml<'static>, key: &'static str, value: Yaml<'static>) {
    if let Some(mapping) = yaml.as_mapping_mut() {
        mapping.insert(name(key), value);
    }
}

fn name(key: &'static str) -> Yaml<'static> {
    Yaml::Value(Scalar::String(key.into()))
}

/// A value for comparisons in which the order of keys does not matter.
fn value(yaml: &Yaml<'static>) -> serde_json::Value {
    match yaml {
        Yaml::Value(Scalar::Boolean(flag)) => (*flag).into(),
        Yaml::Value(Scalar::Integer(number)) => (*number).into(),
        Yaml::Value(Scalar::FloatingPoint(number)) => number.into_inner().into(),
        Yaml::Value(Scalar::String(text)) => text.as_ref().into(),
        Yaml::Sequence(items) => items.iter().map(value).collect(),
        Yaml::Mapping(entries) => {
            let name = |key: &Yaml<'_>| key.as_str().map_or_else(|| format!("{key:?}"), str::to_owned);
            serde_json::Value::Object(entries.iter().map(|(key, one)| (name(key), value(one))).collect())
        }
        Yaml::Tagged(_, inner) => value(inner),
        Yaml::Value(Scalar::Null) | Yaml::Representation(..) | Yaml::Alias(_) | Yaml::BadValue => {
            serde_json::Value::Null
        }
    }
}

//! What a request says: its query, and its body. Nothing is dropped in silence: an unknown or repeated key is an error.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::body::{Body, Bytes};
use hyper::header::CONTENT_TYPE;
use hyper::http::request::Parts;
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::percent::decoded;
use super::response::Failure;
use super::routes::{Operation, Route};
use super::times;
use crate::http::body::{self, BodyError};

/// The most bytes of a body.
pub const BODY: usize = 64 << 10;

/// Time for a body to arrive.
const ARRIVAL: Duration = Duration::from_secs(10);

/// A request that was understood as far as its form goes.
#[derive(Debug)]
pub struct Call {
    pub route: Route,
    pub query: Fields,
    pub body: Fields,
}

/// The named values of a query or of a body. Those that an operation does not take are reported at the end.
#[derive(Debug, Default)]
pub struct Fields(BTreeMap<String, Value>);

impl Call {
    /// Reads the rest of a request.
    pub async fn new<B>(route: Route, head: &Parts, body: B) -> Result<Call, Failure>
    where
        B: Body<Data = Bytes>,
        B::Error: ToString,
    {
        let query = Fields::of_query(head.uri.query().unwrap_or_default())?;
        let body = match timeout(ARRIVAL, read(body)).await {
            Ok(read) => read?,
            Err(_) => return Err(Failure::timeout()),
        };
        if body.trim_ascii().is_empty() {
            return Ok(Call { route, query, body: Fields::default() });
        }
        let media_type =
            head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim();
        if !media_type.eq_ignore_ascii_case("application/json") {
            return Err(Failure::media_type());
        }
        let body = Fields::of_json(&body)?;
        Ok(Call { route, query, body })
    }

    /// What it does, for the audit log.
    pub fn action(&self) -> String {
        let action = self.route.action();
        match self.body.0.get("user").and_then(Value::as_str) {
            Some(user) if self.route.operation == Operation::Revoke => format!("{action} {user}"),
            _ => action,
        }
    }
}

impl Fields {
    fn of_query(query: &str) -> Result<Fields, Failure> {
        let mut fields = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |text| {
                decoded(text, true).map_err(|wrong| Failure::bad_request(format!("the query {wrong}")))
            };
            let key = decode(key)?;
            if fields.insert(key.clone(), Value::String(decode(value)?)).is_some() {
                return Err(Failure::bad_request(format!("{key} is given twice")));
            }
        }
        Ok(Fields(fields))
    }

    fn of_json(body: &[u8]) -> Result<Fields, Failure> {
        match serde_json::from_slice::<Map<String, Value>>(body) {
            Ok(map) => Ok(Fields(map.into_iter().collect())),
            Err(error) => Err(Failure::bad_request(format!("the body is not a JSON object: {error}"))),
        }
    }

    /// Takes a text.
    pub fn text(&mut self, key: &'static str) -> Result<Option<String>, Failure> {
        match self.0.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Failure::bad_request(format!("{key}: expected text"))),
        }
    }

    /// Takes a text that must be there.
    pub fn required(&mut self, key: &'static str) -> Result<String, Failure> {
        self.text(key)?
            .filter(|text| !text.is_empty())
            .ok_or_else(|| Failure::bad_request(format!("{key} is missing")))
    }

    /// Takes a value that is written as text.
    pub fn parsed<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Failure> {
        let wrong = |error| Failure::bad_request(format!("{key}: {error}"));
        self.text(key)?.map(|text| parse(&text).map_err(wrong)).transpose()
    }

    /// Takes a list of texts.
    pub fn texts(&mut self, key: &'static str) -> Result<Option<Vec<String>>, Failure> {
        let wrong = || Failure::bad_request(format!("{key}: expected a list of texts"));
        let list = match self.0.remove(key) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Array(list)) => list,
            Some(_) => return Err(wrong()),
        };
        let text = |value| match value {
            Value::String(text) => Ok(text),
            _ => Err(wrong()),
        };
        list.into_iter().map(text).collect::<Result<_, _>>().map(Some)
    }

    /// Takes a number.
    pub fn number(&mut self, key: &'static str) -> Result<Option<u64>, Failure> {
        let number = match self.0.remove(key) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Number(number)) => number.as_u64(),
            Some(Value::String(text)) => text.parse().ok(),
            Some(_) => None,
        };
        number.map(Some).ok_or_else(|| Failure::bad_request(format!("{key}: expected a whole number")))
    }

    /// Takes true or false.
    pub fn switch(&mut self, key: &'static str) -> Result<Option<bool>, Failure> {
        match self.0.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(Value::String(text)) if text == "true" => Ok(Some(true)),
            Some(Value::String(text)) if text == "false" => Ok(Some(false)),
            Some(_) => Err(Failure::bad_request(format!("{key}: expected true or false"))),
        }
    }

    /// Takes a duration: seconds, or text like `1h`.
    pub fn duration(&mut self, key: &'static str) -> Result<Option<Duration>, Failure> {
        self.number_as_text(key);
        self.parsed(key, times::duration)
    }

    /// Takes a time: Unix seconds, or text like `2026-12-01T08:00:00Z`.
    pub fn time(&mut self, key: &'static str) -> Result<Option<u64>, Failure> {
        self.number_as_text(key);
        self.parsed(key, times::unix_time)
    }

    fn number_as_text(&mut self, key: &str) {
        if let Some(value @ Value::Number(_)) = self.0.get_mut(key) {
            *value = Value::String(value.to_string());
        }
    }

    /// Checks that nothing is left. `known` are the keys that there may be.
    pub fn finish(self, known: &[&str]) -> Result<(), Failure> {
        let Some(key) = self.0.into_keys().next() else { return Ok(()) };
        let near = known.iter().map(|known| (strsim::damerau_levenshtein(known, &key), known)).min();
        let fix = match near.filter(|(distance, _)| *distance <= 2) {
            Some((_, known)) => format!("did you mean {known}?"),
            None if known.is_empty() => "this call takes none".into(),
            None => format!("there are {}", known.join(", ")),
        };
        Err(Failure::bad_request(format!("{key}: unknown; {fix}")))
    }
}

/// Reads a body, up to a bound.
async fn read<B: Body<Data = Bytes>>(body: B) -> Result<Vec<u8>, Failure>
where
    B::Error: ToString,
{
    body::bytes(body, BODY).await.map_err(|error| match error {
        BodyError::TooLong => Failure::too_large(BODY),
        BodyError::CutOff(_) => Failure::bad_request("the body has not arrived as a whole"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message<T>(result: Result<T, Failure>) -> String {
        result.map(drop).unwrap_err().message
    }

    #[test]
    fn queries_are_decoded_and_their_mistakes_named() {
        let mut fields = Fields::of_query("user=a%2Bb+c%3A&limit=5&min_age=1h&empty=").unwrap();
        assert_eq!(fields.text("user").unwrap().as_deref(), Some("a+b c:"));
        assert_eq!(fields.number("limit").unwrap(), Some(5));
        assert_eq!(fields.duration("min_age").unwrap(), Some(Duration::from_secs(3600)));
        assert_eq!(
            message(Fields::of_query("limit=5").unwrap().finish(&["user"])),
            "limit: unknown; there are user"
        );
        assert_eq!(
            message(Fields::of_query("usr=5").unwrap().finish(&["user"])),
            "usr: unknown; did you mean user?"
        );
        assert_eq!(message(Fields::of_query("limit=5&limit=6")), "limit is given twice");
        assert_eq!(
            message(Fields::of_query("limit=x").unwrap().number("limit")),
            "limit: expected a whole number"
        );
        assert_eq!(
            message(Fields::of_query("user=%zz")),
            "the query has a % that two hex digits do not follow"
        );
    }

    #[test]
    fn bodies_are_objects_and_their_mistakes_named() {
        let mut fields =
            Fields::of_json(br#"{"deadline": 60, "for": "2d", "peers": ["a"], "until": null}"#).unwrap();
        assert_eq!(fields.duration("deadline").unwrap(), Some(Duration::from_secs(60)));
        assert_eq!(fields.duration("for").unwrap(), Some(Duration::from_secs(2 * 86_400)));
        assert_eq!(fields.texts("peers").unwrap(), Some(vec!["a".to_owned()]));
        assert_eq!(fields.time("until").unwrap(), None);
        assert!(fields.finish(&[]).is_ok());
        for body in ["[]", "1", "{", "{} {}", "\"\""] {
            assert!(
                message(Fields::of_json(body.as_bytes())).starts_with("the body is not a JSON object"),
                "{body}"
            );
        }
        let typo = Fields::of_json(br#"{"dedline": 60}"#).unwrap();
        assert_eq!(message(typo.finish(&["deadline"])), "dedline: unknown; did you mean deadline?");
        let wrong = |body: &[u8]| message(Fields::of_json(body).unwrap().duration("deadline"));
        assert!(wrong(br#"{"deadline": true}"#).starts_with("deadline: "));
        assert!(wrong(br#"{"deadline": -5}"#).starts_with("deadline: "));
        assert!(wrong(br#"{"deadline": "soon"}"#).starts_with("deadline: "));
    }

    #[tokio::test]
    async fn bodies_are_bounded() {
        assert_eq!(read("x".repeat(BODY)).await.unwrap().len(), BODY);
        let failure = read("x".repeat(BODY + 1)).await.unwrap_err();
        assert_eq!(failure.status.as_u16(), 413);
    }
}

//! Listing, showing and ending allocations.

use serde_json::{Value, json};

use crate::admin::json;
use crate::admin::request::Fields;
use crate::admin::response::Failure;
use crate::daemon::control::Control;
use crate::datapath::{AllocationQuery, EndedAllocations};
use crate::turn::peers::{PeerRule, PeerRuleError};
use crate::turn::{AllocationName, Selector, Transport};

/// The most allocations of a page, and how many there are unless the query says.
const LIMIT: std::ops::RangeInclusive<u64> = 1..=1000;
const DEFAULT_LIMIT: u64 = 100;

const PARAMETERS: [&str; 9] =
    ["user", "client", "peer", "transport", "min_age", "max_age", "limit", "cursor", "rates"];

/// A page of the allocations.
pub async fn list(control: &Control, mut query: Fields) -> Result<Value, Failure> {
    let seconds = |query: &mut Fields, key| Ok(query.duration(key)?.map(|time| time.as_secs()));
    let wanted = AllocationQuery {
        selector: Selector {
            name: None,
            expires_by: None,
            user: query.text("user")?,
            client: query.parsed("client", rule)?,
            peer: query.parsed("peer", rule)?,
            transport: query.parsed("transport", transport)?,
            min_age: seconds(&mut query, "min_age")?,
            max_age: seconds(&mut query, "max_age")?,
        },
        limit: limit(&mut query)?,
        after: query.parsed("cursor", |cursor| {
            cursor.parse().map_err(|_| "not a cursor; use the value of next in the page before".to_owned())
        })?,
        rates: query.switch("rates")?.unwrap_or(true),
        peers: false,
    };
    query.finish(&PARAMETERS)?;
    let page = control.allocations(&wanted).await.map_err(Failure::unavailable)?;
    Ok(json!({
        "allocations": page.rows.iter().map(json::allocation).collect::<Vec<_>>(),
        "next": page.next.map(|next| next.to_string()),
        "silent_workers": page.silent,
    }))
}

/// How many entries a page has at most.
pub fn limit(query: &mut Fields) -> Result<usize, Failure> {
    let limit = query.number("limit")?.unwrap_or(DEFAULT_LIMIT);
    if !LIMIT.contains(&limit) {
        let (first, last) = (LIMIT.start(), LIMIT.end());
        return Err(Failure::bad_request(format!("limit: write a number from {first} to {last}")));
    }
    Ok(limit as usize)
}

/// One allocation with its peers.
pub async fn show(control: &Control, id: &str) -> Result<Value, Failure> {
    let selector = Selector { name: Some(name(id)?), ..Selector::default() };
    let query = AllocationQuery { selector, after: None, limit: 1, peers: true, rates: true };
    let page = control.allocations(&query).await.map_err(Failure::unavailable)?;
    match page.rows.first() {
        Some(row) => Ok(json::allocation(row)),
        None => Err(silent(&page.silent).unwrap_or_else(|| unknown(id))),
    }
}

/// Ends one allocation.
pub async fn end(control: &Control, id: &str) -> Result<Value, Failure> {
    let selector = Selector { name: Some(name(id)?), ..Selector::default() };
    let ended = control.end(selector).await.map_err(Failure::unavailable)?;
    match ended.ended {
        0 => Err(silent(&ended.silent).unwrap_or_else(|| unknown(id))),
        _ => Ok(ended_by(&ended)),
    }
}

/// Ends the allocations of a user.
pub async fn end_user(control: &Control, user: String) -> Result<Value, Failure> {
    let selector = Selector { user: Some(user), ..Selector::default() };
    let ended = control.end(selector).await.map_err(Failure::unavailable)?;
    Ok(ended_by(&ended))
}

fn ended_by(ended: &EndedAllocations) -> Value {
    json!({ "ended": ended.ended, "silent_workers": ended.silent })
}

fn name(id: &str) -> Result<AllocationName, Failure> {
    id.parse().map_err(|_| unknown(id))
}

fn unknown(id: &str) -> Failure {
    Failure::not_found(format!("there is no allocation {id:?}"))
}

/// Workers that do not respond may have what was asked for.
fn silent(workers: &[usize]) -> Option<Failure> {
    let workers: Vec<_> = workers.iter().map(|worker| format!("worker {worker}")).collect();
    (!workers.is_empty()).then(|| Failure::unavailable(format!("no response from {}", workers.join(", "))))
}

fn rule(text: &str) -> Result<PeerRule, String> {
    text.parse().map_err(|error: PeerRuleError| format!("{error}; {}", error.fix()))
}

fn transport(text: &str) -> Result<Transport, String> {
    let known = Transport::ALL.into_iter().find(|transport| transport.as_str() == text);
    known.ok_or_else(|| "write udp, tcp or tls".to_owned())
}

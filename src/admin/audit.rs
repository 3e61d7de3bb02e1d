//! The audit log: one line per changing call, with who, what and the outcome, and with the allocation that it ends. It never has a
//! token, and is written at every `log.level`.

use serde_json::Value;
use tracing::info;

use super::access::Who;
use super::response::Failure;
use crate::daemon::logging::AUDIT;
use crate::shown::{self, Shown};
use crate::turn::AllocationName;

/// Writes the line of a changing call. Where the result has them, it says until when a user is revoked, and what mode an overlay
/// has.
pub fn write(who: &Who, action: &str, session: Option<AllocationName>, outcome: &Result<Value, Failure>) {
    let of_result = |key| outcome.as_ref().ok().and_then(|value| value.get(key)?.as_str());
    let (until, mode) = (of_result("until"), of_result("mode"));
    let outcome = match outcome {
        Ok(_) => "ok".to_owned(),
        Err(failure) => format!("{}: {}", failure.code, failure.message),
    };
    let session = session.map(tracing::field::display);
    // A call may name a client or a peer.
    let (action, outcome) = (shown::text(action), shown::text(&outcome));
    let (action, outcome) = (&*action, &*outcome);
    match who {
        Who::Process { uid, gid, pid } => {
            info!(target: AUDIT, uid, gid, pid = pid.unwrap_or_default(), action, session, until, mode, outcome, "audit");
        }
        Who::Token { name, from, .. } => {
            info!(target: AUDIT, token = name, from = %Shown(*from), action, session, until, mode, outcome, "audit");
        }
    }
}

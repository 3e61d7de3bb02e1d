//! Requests that were authenticated before their user was revoked.
//!
//! An owner of sockets may take its time to answer an [`Ask`](crate::turn::Ask), and meanwhile a request is pending. That of
//! the datapath answers at once, so it never has one; this is for owners that do not.

use super::{Now, Refused, Server, unsigned_error};
use crate::auth::AuthReason;
use crate::turn::{Output, Selector};

impl Server {
    /// Refuses the pending requests of a user whose allocations are to end (RFC 8489 §9.2.4: 401), so that none becomes one.
    pub(in crate::turn) fn refuse_pending(&mut self, now: Now, user: &str, ending: &Selector) {
        for ticket in self.pending.tickets() {
            let is_meant = self
                .pending
                .get(ticket)
                .is_some_and(|request| ending.is_credential_meant(request.authenticated.credential()));
            if !is_meant {
                continue;
            }
            let Some(request) = self.pending.remove(ticket, &mut self.timers) else { continue };
            let (origin, reason) = (request.origin, AuthReason::Revoked);
            self.stats.auth_failures[reason] += 1;
            let refused = self.not_authenticated(now, &origin, reason, user);
            self.outputs.push_back(Output::Refused(Refused { user: Some(user.into()), ..refused }));
            let mut response = unsigned_error(&origin, reason.code());
            self.snapshot.auth.challenge(now.unix, origin.tuple.client.0, &mut response);
            self.finish(origin, reason.code(), None, response);
        }
    }
}

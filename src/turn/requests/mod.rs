//! Requests and their responses, one file per method.
//!
//! Checks come in the order of RFC 8489 §6.3 and RFC 8656 §5: authentication, unknown attributes, the allocation on the
//! 5-tuple, then those of the method. Every response after authentication is signed.

mod allocate;
mod binding;
mod channel_bind;
mod permission;
mod refresh;
mod revoked;

use std::collections::HashMap;
use std::net::SocketAddr;

use slotmap::SlotMap;

use super::allocation::Allocation;
use super::bucket::UnsignedResponse::{self, Challenge};
use super::peers::Forbidden;
use super::pending::RequestOrigin;
use super::siblings::Alternate;
use super::stats::Dropped;
use super::{
    AllocationId, AllocationName, ClientAddr, FiveTuple, Fix, Limit, Now, Output, PeerAddr, RefusalReason,
    Refused, Server, TurnConfig, Via,
};
use crate::auth::{self, Auth, AuthPurpose, AuthReason, Authenticated, REDIRECTED};
use crate::keyed::KeyedState;
use crate::wire::{self, Attribute, Class, Encoder, Family, Malformed, Message, Method, attribute};

/// A request that was carried out.
enum Success {
    /// The response has no attributes of the method.
    Empty,
    /// The response has LIFETIME, in seconds.
    Lifetime(u32),
    /// The response describes this allocation.
    Allocated(AllocationId),
    /// The request is pending; the response comes when its question is answered.
    Pending,
}

/// An error response to a client's mistake.
struct Reject {
    /// For the log; the response has the recommended phrase.
    reason: RefusalReason,
    /// For the log: what can be done, if more is known than the reason says.
    fix: Option<Box<Fix>>,
    unknown: Vec<u16>,
    peer: Option<SocketAddr>,
    channel: Option<u16>,
    alternate: Option<Box<Alternate>>,
}

impl Reject {
    fn new(reason: RefusalReason) -> Reject {
        Reject { reason, fix: None, unknown: Vec::new(), peer: None, channel: None, alternate: None }
    }

    fn about(self, peer: SocketAddr) -> Reject {
        Reject { peer: Some(peer), ..self }
    }

    fn forbidden(why: Forbidden, peer: SocketAddr, tuple: &FiveTuple, config: &TurnConfig) -> Reject {
        let fix = config.peers_of(tuple).remedy(peer, why, &config.external);
        let fix = fix.map(|remedy| Box::new(Fix::Peer(remedy)));
        Reject { fix, ..Reject::new(RefusalReason::Peer(why)).about(peer) }
    }

    /// The line for the log. `session`: the allocation on the 5-tuple.
    fn refused(
        self,
        origin: &RequestOrigin,
        session: Option<AllocationName>,
        user: Option<Box<str>>,
    ) -> Refused {
        let Reject { reason, fix, unknown, peer, channel, alternate } = self;
        Refused {
            tuple: origin.tuple,
            user,
            method: origin.method,
            reason,
            fix: fix.map_or_else(|| Fix::Text(reason.fix().into()), |fix| *fix),
            limit: reason.limit(),
            session,
            scheme: None,
            expires_in: None,
            peer: peer.map(PeerAddr),
            channel,
            alternate: alternate.map(|alternate| alternate.server),
            unknown,
        }
    }

    /// RFC 8656 §21.4: Allocate and ChannelBind requests from tunnels that could loop packets through the relay.
    fn tunnelled(client: ClientAddr, config: &TurnConfig) -> Result<(), Reject> {
        match config.peers.tunnel(client.0.ip()) {
            None => Ok(()),
            Some(name) => Err(Reject::new(RefusalReason::Tunnelled(name))),
        }
    }

    /// A proxy names a client that cannot be one: another proxy in front of it hides the client's address. Firefox would
    /// abandon the allocation without an error.
    fn proxied(tuple: &FiveTuple) -> Option<Reject> {
        let ip = tuple.client.0.ip();
        let is_behind_two = tuple.via != Via::Direct && (ip.is_loopback() || ip.is_unspecified());
        is_behind_two.then(|| Reject::new(RefusalReason::ProxiedClient))
    }

    /// RFC 8489 §6.3.1.
    fn unknown(message: &Message<'_>) -> Option<Reject> {
        let mut unknown = Vec::new();
        // A bit per type once there is one, since a request can have thousands
        let mut listed: Vec<u64> = Vec::new();
        for attribute in message.attributes() {
            if !attribute.is_comprehension_required() || is_understood(message, &attribute) {
                continue;
            }
            listed.resize(0x8000 / 64, 0);
            let (word, bit) = (usize::from(attribute.kind / 64), 1 << (attribute.kind % 64));
            if listed[word] & bit == 0 {
                listed[word] |= bit;
                // All of them fit: each takes two bytes here and at least four in the request
                unknown.push(attribute.kind);
            }
        }
        (!unknown.is_empty()).then(|| Reject { unknown, ..Reject::new(RefusalReason::UnknownAttribute) })
    }
}

impl From<Malformed> for Reject {
    fn from(_: Malformed) -> Reject {
        Reject::new(RefusalReason::MalformedAttribute)
    }
}

/// CHANGE-REQUEST of classic STUN (RFC 3489 §11.2.4).
const CHANGE_REQUEST: u16 = 0x0003;

fn is_understood(message: &Message<'_>, attribute: &Attribute<'_>) -> bool {
    // Classic clients also send it to request no change
    attribute::is_known(attribute.kind)
        || message.is_classic() && attribute.kind == CHANGE_REQUEST && attribute.value == [0; 4]
}

impl Server {
    pub(super) fn request(&mut self, now: Now, tuple: &FiveTuple, message: &Message<'_>) {
        self.stats.receive(message.method());
        // A request from one of our own relayed addresses comes from inside another allocation. Nested allocations would
        // multiply each packet, so it is dropped.
        let client = self.snapshot.config.external.inside(tuple.client.0);
        if !tuple.transport.is_stream() && self.shared.live.is_live(client) {
            self.outputs.push_back(Output::NestedDropped { from: *tuple });
            return self.stats.drop(Dropped::Nested, 1);
        }
        let origin = RequestOrigin {
            tuple: *tuple,
            method: message.method(),
            id: message.transaction_id(),
            fingerprint: message.has_fingerprint(),
        };
        if let Some(reject) = Reject::proxied(tuple) {
            return self.reject_proxied(origin, message, reject);
        }
        // RFC 8489 §12: Binding uses no credentials
        if origin.method == Method::Binding {
            return self.binding(now, origin, message);
        }
        // RFC 8489 §6.3.1: a retransmission gets the response of the request, whatever has expired since
        if let Some((authenticated, done)) = self.retransmission(now, &origin, message) {
            return self.conclude(now, origin, &authenticated, done);
        }
        let purpose = match origin.method {
            Method::Allocate => AuthPurpose::Allocate,
            _ => AuthPurpose::Other,
        };
        // A response that will not be signed is rate-limited before it is made
        let stranger = !message.has_integrity_sha1() && !message.has_integrity_sha256();
        if stranger && !self.may_respond_unsigned(now, tuple, Challenge) {
            return;
        }
        let allocation = self.by_tuple.get(tuple).copied();
        let known = allocation.and_then(|id| self.allocations.get(id)).map(|found| &found.credential);
        match self.snapshot.auth.authenticate(now.unix, tuple.client.0, message, purpose, known) {
            Ok(authenticated) => {
                if let Some(allocation) = allocation.and_then(|id| self.allocations.get_mut(id)) {
                    allocation.remember(now.mono, origin.id);
                }
                let done = self.carry_out(now, &origin, message, &authenticated);
                self.conclude(now, origin, &authenticated, done);
            }
            Err(refusal) => {
                // RFC 8489 §9.2.4: a 438 to a client that has proved its key reflects nothing
                let is_free = stranger || refusal.signed.is_some() || refusal.reason.has_proved_key();
                if is_free || self.may_respond_unsigned(now, tuple, Challenge) {
                    self.refuse(now, origin, message, refusal);
                }
            }
        }
    }

    fn reject_proxied(&mut self, origin: RequestOrigin, message: &Message<'_>, reject: Reject) {
        let code = reject.reason.code();
        let response = Encoder::error_response(message, code, unsigned_reason(&origin, code));
        self.outputs.push_back(Output::Refused(reject.refused(&origin, None, None)));
        self.finish(origin, code, None, response);
    }

    /// The outcome of a request that is the retransmission of one that was carried out, or is pending.
    fn retransmission(
        &mut self,
        now: Now,
        origin: &RequestOrigin,
        message: &Message<'_>,
    ) -> Option<(Authenticated, Result<Success, Reject>)> {
        let found = self.by_tuple.get(&origin.tuple).and_then(|&id| Some((id, self.allocations.get(id)?)));
        match (origin.method, found) {
            (Method::Allocate, Some((id, allocation))) if allocation.transaction == origin.id => {
                let authenticated = Auth::recognize(message, &allocation.credential)?;
                Some((authenticated, Ok(Success::Allocated(id))))
            }
            (Method::Allocate, None) => {
                let (_, pending) = self.pending.allocate_on(&origin.tuple)?;
                if pending.origin.id != origin.id {
                    return None;
                }
                let authenticated = Auth::recognize(message, pending.authenticated.credential())?;
                Some((authenticated, Ok(Success::Pending)))
            }
            (Method::Allocate, Some(_)) | (_, None) => None,
            // The other requests are idempotent, so they are carried out again
            (_, Some((_, allocation))) => {
                if !allocation.remembers(now.mono, origin.id) {
                    return None;
                }
                let authenticated = Auth::recognize(message, &allocation.credential)?;
                let done = self.carry_out(now, origin, message, &authenticated);
                Some((authenticated, done))
            }
        }
    }

    /// RFC 8489 §6.3: unknown attributes first, then the method.
    fn carry_out(
        &mut self,
        now: Now,
        origin: &RequestOrigin,
        message: &Message<'_>,
        authenticated: &Authenticated,
    ) -> Result<Success, Reject> {
        if let Some(reject) = Reject::unknown(message) {
            return Err(reject);
        }
        match origin.method {
            Method::Allocate => self.allocate(now, origin, message, authenticated),
            Method::Refresh => self.refresh(now, origin, message),
            Method::CreatePermission => self.create_permission(now, origin, message),
            Method::ChannelBind => self.channel_bind(now, origin, message),
            Method::Binding | Method::Send | Method::Data => {
                unreachable!("no request that needs credentials")
            }
        }
    }

    /// Responds to a request whose sender has authenticated.
    fn conclude(
        &mut self,
        now: Now,
        origin: RequestOrigin,
        authenticated: &Authenticated,
        done: Result<Success, Reject>,
    ) {
        let mut response = match &done {
            Ok(Success::Pending) => return,
            Ok(_) => Encoder::new(Class::Success, origin.method, origin.id),
            Err(reject) => error(&origin, reject.reason.code()),
        };
        let code = match done {
            Ok(success) => {
                match success {
                    Success::Lifetime(seconds) => response.u32(attribute::LIFETIME, seconds),
                    Success::Allocated(id) => self.describe(now, id, &mut response),
                    Success::Empty | Success::Pending => {}
                }
                0
            }
            Err(reject) => {
                if !reject.unknown.is_empty() {
                    response.unknown_attributes(&reject.unknown);
                }
                if let Some(alternate) = &reject.alternate {
                    describe_alternate(alternate, &mut response);
                }
                let code = reject.reason.code();
                let user = authenticated.credential().user().as_ref().into();
                let session = self.session(&origin.tuple);
                self.outputs.push_back(Output::Refused(reject.refused(&origin, session, Some(user))));
                code
            }
        };
        self.finish(origin, code, Some(authenticated), response);
    }

    /// RFC 8489 §9.2.4: responds to a request whose sender failed to authenticate.
    fn refuse(&mut self, now: Now, origin: RequestOrigin, message: &Message<'_>, refusal: auth::AuthRefusal) {
        self.stats.auth_failures[refusal.reason] += 1;
        // Every client is refused once to learn realm and nonce, and again when its nonce is stale
        if !matches!(
            refusal.reason,
            AuthReason::NoCredentials | AuthReason::StaleNonce | AuthReason::ForeignNonce
        ) {
            let name = message.attribute(attribute::USERNAME).and_then(|name| name.utf8().ok());
            let refused = self.not_authenticated(now, &origin, refusal.reason, name.unwrap_or_default());
            self.outputs.push_back(Output::Refused(Refused { user: name.map(Into::into), ..refused }));
        }
        let mut response = match &refusal.signed {
            Some(_) => error(&origin, refusal.code),
            None => unsigned_error(&origin, refusal.code),
        };
        if matches!(refusal.code, 401 | 438) {
            self.snapshot.auth.challenge(now.unix, origin.tuple.client.0, &mut response);
        }
        self.finish(origin, refusal.code, refusal.signed.as_ref(), response);
    }

    /// The line for the log about a request that is not authenticated.
    fn not_authenticated(
        &self,
        now: Now,
        origin: &RequestOrigin,
        reason: AuthReason,
        username: &str,
    ) -> Refused {
        let auth = &self.snapshot.auth;
        let fix = auth.fix(reason, username).map(|fix| Box::new(Fix::Text(fix)));
        let known = auth.scheme(username);
        let expires = known.and_then(|(_, expires)| expires);
        let expires_in = || Some(i64::try_from(expires?).ok()?.saturating_sub_unsigned(now.unix));
        let (expires_in, limit) = match reason {
            AuthReason::Expired => (expires_in(), None),
            AuthReason::ExpiryTooFar => {
                (expires_in(), Some(Limit { setting: "auth.max_lifetime", value: auth.max_lifetime() }))
            }
            _ => (None, None),
        };
        let reject = Reject { fix, ..Reject::new(RefusalReason::Auth(reason)) };
        let refused = reject.refused(origin, self.session(&origin.tuple), None);
        Refused { scheme: known.map(|(scheme, _)| scheme), expires_in, limit, ..refused }
    }

    /// Whether a response without MESSAGE-INTEGRITY may be sent.
    fn may_respond_unsigned(&mut self, now: Now, tuple: &FiveTuple, response: UnsignedResponse) -> bool {
        // The source of a stream is not forged, so its response reaches nobody else
        let source = tuple.client.0.ip();
        let rates = &self.snapshot.config.rates;
        let may =
            tuple.transport.is_stream() || self.shared.rates.take_response(rates, now.mono, response, source);
        if !may {
            self.stats.drop(Dropped::ResponseWithheld, 1);
            let (setting, rate) = match response {
                UnsignedResponse::Binding => ("limits.binding_rate", rates.bindings),
                UnsignedResponse::Challenge => ("limits.unauthenticated_rate", rates.challenges),
            };
            let value = u64::from(rate.per_second) * u64::from(rates.exempt.factor(source));
            let limit = Limit { setting, value };
            self.outputs.push_back(Output::Withheld { from: *tuple, response, limit });
        }
        may
    }

    /// Counts, signs and queues a response; `code` 0 is success.
    fn finish(
        &mut self,
        origin: RequestOrigin,
        code: u16,
        signed: Option<&Authenticated>,
        mut response: Encoder,
    ) {
        self.stats.answer(origin.method, code);
        if let Some(software) = &self.snapshot.config.software {
            response.text(attribute::SOFTWARE, software);
        }
        if let Some(authenticated) = signed {
            authenticated.sign(&mut response);
        }
        if origin.fingerprint {
            response.fingerprint();
        }
        self.outputs.push_back(Output::Reply { to: origin.tuple, message: response.finish() });
    }
}

/// RFC 8656 §5: every request but Allocate needs an allocation on its 5-tuple.
fn live<'a>(
    allocations: &'a mut SlotMap<AllocationId, Box<Allocation>>,
    by_tuple: &HashMap<FiveTuple, AllocationId, KeyedState>,
    origin: &RequestOrigin,
) -> Result<(AllocationId, &'a mut Allocation), Reject> {
    let id = by_tuple.get(&origin.tuple).copied();
    let found = id.and_then(|id| Some((id, allocations.get_mut(id)?.as_mut())));
    found.ok_or_else(|| Reject::new(RefusalReason::NoAllocation))
}

/// RFC 8489 §10: the address of the client's own family comes first.
fn describe_alternate(alternate: &Alternate, response: &mut Encoder) {
    response.alternate_server(alternate.server);
    if let Some(other) = alternate.other {
        response.alternate_server(other);
    }
    if let Some(domain) = &alternate.domain {
        response.text(attribute::ALTERNATE_DOMAIN, domain);
    }
    if alternate.nonce {
        response.bytes(attribute::NONCE, REDIRECTED);
    }
}

/// REQUESTED-ADDRESS-FAMILY or ADDITIONAL-ADDRESS-FAMILY. `None`: the number is not a family.
fn requested_family(attribute: Attribute<'_>) -> Result<Option<Family>, Malformed> {
    match attribute.family() {
        Err(Malformed::Family) => Ok(None),
        family => family.map(Some),
    }
}

fn error(origin: &RequestOrigin, code: u16) -> Encoder {
    let mut response = Encoder::new(Class::Error, origin.method, origin.id);
    response.error_code(code, wire::reason_phrase(code));
    response
}

/// An error response that will not be signed. Over UDP its receiver may be the victim of a forged request, so it is short:
/// the reason phrase is optional (RFC 8489 §14.8), and the code says the same.
fn unsigned_error(origin: &RequestOrigin, code: u16) -> Encoder {
    let mut response = Encoder::new(Class::Error, origin.method, origin.id);
    response.error_code(code, unsigned_reason(origin, code));
    response
}

fn unsigned_reason(origin: &RequestOrigin, code: u16) -> &'static str {
    if origin.tuple.transport.is_stream() { wire::reason_phrase(code) } else { "" }
}

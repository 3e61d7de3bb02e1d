//! Binding (RFC 8489 §6.3.1 and §12; RFC 3489 §8.1 for clients without the magic cookie).

use super::{Message, Now, Output, Reject, RequestOrigin, Server, UnsignedResponse, unsigned_reason};
use crate::wire::{Class, Encoder, attribute};

impl Server {
    pub(super) fn binding(&mut self, now: Now, origin: RequestOrigin, message: &Message<'_>) {
        if !self.may_respond_unsigned(now, &origin.tuple, UnsignedResponse::Binding) {
            return;
        }
        if let Some(reject) = Reject::unknown(message) {
            let code = reject.reason.code();
            let mut response = Encoder::error_response(message, code, unsigned_reason(&origin, code));
            response.unknown_attributes(&reject.unknown);
            let session = self.session(&origin.tuple);
            self.outputs.push_back(Output::Refused(reject.refused(&origin, session, None)));
            return self.finish(origin, code, None, response);
        }
        let mut response = Encoder::response(message, Class::Success);
        let client = origin.tuple.client.0;
        if message.is_classic() {
            response.mapped_address(client);
        } else {
            response.xor_address(attribute::XOR_MAPPED_ADDRESS, client);
        }
        self.finish(origin, 0, None, response);
    }
}

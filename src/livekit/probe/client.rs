//! A TURN client with one allocation: requests, signed with a long-term credential (RFC 8489 section 9.2.3), and their responses,
//! whose signature is verified. A response that is none is ignored, as the RFC says; what has come says then what is there instead.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::failure::Failure;
use super::link::Link;
use crate::auth::md5_key;
use crate::daemon::random;
use crate::wire::{
    CHANNEL_HEADER, ChannelHeader, Class, Encoder, Family, Message, Method, TransactionId, attribute,
};

/// The first interval after which a request over UDP is repeated (RFC 8489 section 6.2.1); it doubles.
const RTO: Duration = Duration::from_millis(500);

/// REQUESTED-TRANSPORT: UDP.
const UDP: [u8; 4] = [17, 0, 0, 0];

/// A user name and its password.
#[derive(Clone)]
pub struct TurnCredential {
    /// The user name.
    pub username: String,
    /// The password.
    pub password: String,
}

/// A client.
pub struct TurnClient {
    link: Link,
    credential: TurnCredential,
    /// REALM and NONCE of the last challenge.
    challenge: Option<(String, Vec<u8>)>,
    deadline: Instant,
    /// Something else than a response came.
    has_seen_others: bool,
}

/// Data from a peer.
#[derive(Debug, PartialEq, Eq)]
pub enum FromPeer {
    /// On a channel.
    Channel(u16, Vec<u8>),
    /// In a Data indication.
    Data(SocketAddr, Vec<u8>),
}

impl TurnClient {
    /// A client that does everything until `deadline`.
    pub fn new(link: Link, credential: TurnCredential, deadline: Instant) -> TurnClient {
        TurnClient { link, credential, challenge: None, deadline, has_seen_others: false }
    }

    /// Allocates a relayed address of this family, and returns it.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn allocate(&mut self, family: Family) -> Result<SocketAddr, Failure> {
        let response = self
            .request(Method::Allocate, |request| {
                request.bytes(attribute::REQUESTED_TRANSPORT, &UDP);
                request.u32(attribute::LIFETIME, 60);
                if family == Family::V6 {
                    request.bytes(attribute::REQUESTED_ADDRESS_FAMILY, &[0x02, 0, 0, 0]);
                }
            })
            .await?;
        let relayed = parsed(&response)?.attribute(attribute::XOR_RELAYED_ADDRESS);
        let relayed = relayed.and_then(|relayed| relayed.xor_address().ok());
        relayed.ok_or(Failure::Incomplete(Method::Allocate))
    }

    /// Lets a peer send.
    ///
    /// # Errors
    /// The relay refuses.
    pub async fn permit(&mut self, peer: SocketAddr) -> Result<(), Failure> {
        let fill = |request: &mut Encoder| request.xor_address(attribute::XOR_PEER_ADDRESS, peer);
        self.request(Method::CreatePermission, fill).await.map(drop)
    }

    /// Binds a channel to a peer.
    ///
    /// # Errors
    /// The relay refuses.
    pub async fn bind(&mut self, channel: u16, peer: SocketAddr) -> Result<(), Failure> {
        let fill = |request: &mut Encoder| {
            request.u32(attribute::CHANNEL_NUMBER, u32::from(channel) << 16);
            request.xor_address(attribute::XOR_PEER_ADDRESS, peer);
        };
        self.request(Method::ChannelBind, fill).await.map(drop)
    }

    /// Ends the allocation.
    ///
    /// # Errors
    /// The relay refuses.
    pub async fn release(&mut self, deadline: Instant) -> Result<(), Failure> {
        self.deadline = deadline;
        let fill = |request: &mut Encoder| request.u32(attribute::LIFETIME, 0);
        self.request(Method::Refresh, fill).await.map(drop)
    }

    /// Sends data on a channel.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn send_on(&mut self, channel: u16, data: &[u8]) -> Result<(), Failure> {
        let mut header = [0; CHANNEL_HEADER];
        let len = u16::try_from(data.len()).unwrap_or(u16::MAX);
        ChannelHeader { number: channel, len }.write(&mut header);
        self.send(&[&header, &data[..usize::from(len)]].concat()).await
    }

    /// Sends data to a peer in a Send indication.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn send_to(&mut self, peer: SocketAddr, data: &[u8]) -> Result<(), Failure> {
        let mut indication = Encoder::new(Class::Indication, Method::Send, transaction()?);
        indication.xor_address(attribute::XOR_PEER_ADDRESS, peer);
        indication.bytes(attribute::DATA, data);
        self.send(&indication.finish()).await
    }

    /// The next data from a peer until a time; `None` if there is none.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn from_peer(&mut self, until: Instant) -> Result<Option<FromPeer>, Failure> {
        let until = until.min(self.deadline);
        loop {
            let Ok(received) = timeout_at(until, self.link.receive()).await else { return Ok(None) };
            let received = received?;
            // Whoever sends all the time does not hold up the probe.
            if Instant::now() >= until {
                return Ok(None);
            }
            if let Some(found) = data(&received) {
                return Ok(Some(found));
            }
        }
    }

    /// Sends a request, again with credentials after a challenge, and returns the success response.
    async fn request(&mut self, method: Method, fill: impl Fn(&mut Encoder)) -> Result<Vec<u8>, Failure> {
        // RFC 8489 §9.2.5: a new challenge is followed twice at the most: for realm and nonce, and for a nonce that is stale
        for _ in 0..3 {
            let response = self.exchange(method, &fill).await?;
            let message = parsed(&response)?;
            if message.class() == Class::Success {
                return Ok(response);
            }
            let code = message.attribute(attribute::ERROR_CODE).and_then(|code| code.error_code().ok());
            let Some((code, _)) = code else { return Err(Failure::Incomplete(method)) };
            let text = |kind| message.attribute(kind).and_then(|found| found.utf8().ok());
            let realm = text(attribute::REALM).map(str::to_owned);
            let nonce = message.attribute(attribute::NONCE).map(|nonce| nonce.value.to_vec());
            match (code, &self.challenge) {
                (401, Some(_)) => return Err(Failure::Unauthorized),
                (401 | 438, _) => {
                    let nonce =
                        nonce.filter(|nonce| nonce.len() <= 763).ok_or(Failure::Incomplete(method))?;
                    let known = self.challenge.take().map(|(realm, _)| realm);
                    let realm = realm.or(known).ok_or(Failure::Incomplete(method))?;
                    self.challenge = Some((realm, nonce));
                }
                (code, _) => return Err(Failure::Error(method, code)),
            }
        }
        Err(Failure::Unauthorized)
    }

    /// Sends a request, and over UDP again until the response comes.
    async fn exchange(&mut self, method: Method, fill: impl Fn(&mut Encoder)) -> Result<Vec<u8>, Failure> {
        let id = transaction()?;
        let mut request = Encoder::new(Class::Request, method, id);
        fill(&mut request);
        let key = self.challenge.as_ref().map(|(realm, nonce)| {
            request.text(attribute::USERNAME, &self.credential.username);
            request.text(attribute::REALM, realm);
            request.bytes(attribute::NONCE, nonce);
            let key = md5_key(&self.credential.username, realm, &self.credential.password);
            request.integrity_sha1(&key);
            key
        });
        let request = request.finish();
        let (mut wait, mut is_unsigned) = (RTO, false);
        loop {
            self.send(&request).await?;
            let again = match self.link.is_lossy() {
                true => self.deadline.min(Instant::now() + wait),
                false => self.deadline,
            };
            wait *= 2;
            while Instant::now() < again
                && let Ok(received) = timeout_at(again, self.link.receive()).await
            {
                let received = received?;
                match judge(&received, method, id, key.as_ref().map(|key| &key[..])) {
                    Judged::Response => return Ok(received),
                    Judged::Unsigned => is_unsigned = true,
                    Judged::Data => {}
                    Judged::Other => self.has_seen_others = true,
                }
            }
            if again >= self.deadline {
                return Err(match (is_unsigned, self.has_seen_others) {
                    (true, _) => Failure::NotSigned,
                    (false, true) => Failure::NotTurn,
                    (false, false) => self.link.silence(),
                });
            }
        }
    }

    async fn send(&mut self, message: &[u8]) -> Result<(), Failure> {
        match timeout_at(self.deadline, self.link.send(message)).await {
            Ok(sent) => sent,
            Err(_) => Err(self.link.silence()),
        }
    }
}

/// What a message is to a client that waits for a response.
#[derive(Debug, PartialEq, Eq)]
enum Judged {
    Response,
    /// The response, but not of someone who knows the password.
    Unsigned,
    /// Data, or a response to an earlier request.
    Data,
    Other,
}

/// RFC 8489 §9.2.5: a response with a wrong signature, or none, is ignored, but for errors, which a server may not be able to sign.
fn judge(received: &[u8], method: Method, id: TransactionId, key: Option<&[u8]>) -> Judged {
    if data(received).is_some() {
        return Judged::Data;
    }
    let Ok(message) = Message::parse(received) else { return Judged::Other };
    let is_response = matches!(message.class(), Class::Success | Class::Error);
    if !is_response {
        return Judged::Other;
    }
    if message.transaction_id() != id || message.method() != method {
        return Judged::Data;
    }
    let is_signed = key.is_none_or(|key| message.verify_sha1(key));
    let may_be_unsigned = message.class() == Class::Error && !message.has_integrity_sha1();
    if is_signed || may_be_unsigned { Judged::Response } else { Judged::Unsigned }
}

/// Data from a peer, if this is some.
fn data(received: &[u8]) -> Option<FromPeer> {
    if let Some(header) = ChannelHeader::parse(received) {
        let data = received.get(CHANNEL_HEADER..CHANNEL_HEADER + usize::from(header.len))?;
        return Some(FromPeer::Channel(header.number, data.to_vec()));
    }
    let message = Message::parse(received).ok()?;
    if (message.class(), message.method()) != (Class::Indication, Method::Data) {
        return None;
    }
    let peer = message.attribute(attribute::XOR_PEER_ADDRESS)?.xor_address().ok()?;
    Some(FromPeer::Data(peer, message.attribute(attribute::DATA)?.value.to_vec()))
}

fn parsed(response: &[u8]) -> Result<Message<'_>, Failure> {
    Message::parse(response).map_err(|_| Failure::NotTurn)
}

fn transaction() -> Result<TransactionId, Failure> {
    random::bytes().map(TransactionId).map_err(|error| Failure::Broken(error.to_string()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: TransactionId = TransactionId([5; 12]);

    fn response(class: Class, key: Option<&[u8]>) -> Vec<u8> {
        let mut response = Encoder::new(class, Method::Refresh, ID);
        response.u32(attribute::LIFETIME, 1);
        key.iter().for_each(|key| response.integrity_sha1(key));
        response.finish()
    }

    /// RFC 8489 §9.2.5
    #[test]
    fn responses_must_be_signed_by_who_knows_the_password() {
        let judged = |bytes: &[u8]| judge(bytes, Method::Refresh, ID, Some(b"key"));
        assert_eq!(judged(&response(Class::Success, Some(b"key"))), Judged::Response);
        assert_eq!(judged(&response(Class::Success, Some(b"other"))), Judged::Unsigned);
        assert_eq!(judged(&response(Class::Success, None)), Judged::Unsigned);
        assert_eq!(judged(&response(Class::Error, None)), Judged::Response);
        assert_eq!(judged(&response(Class::Error, Some(b"other"))), Judged::Unsigned);
        let other = judge(&response(Class::Success, None), Method::Allocate, ID, None);
        assert_eq!((other, judged(b"HTTP/1.1 400")), (Judged::Data, Judged::Other));
        assert_eq!(judged(&[0x40, 0, 0, 2, b'h', b'i', 0, 0]), Judged::Data);
    }

    proptest! {
        /// Whatever a server sends, nothing panics.
        #[test]
        fn any_bytes_are_judged(bytes: Vec<u8>, first in 0_u8..=0x4F) {
            let bytes = [&[first][..], &bytes].concat();
            judge(&bytes, Method::Allocate, ID, Some(b"key"));
            data(&bytes);
        }
    }
}

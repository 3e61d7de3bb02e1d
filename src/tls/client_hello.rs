//! Reads a ClientHello (RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2) without a TLS library, because connections that are passed
//! through unopened are routed by it: by the name that the client asks for (RFC 6066 section 3).
//!
//! A ClientHello may span records and segments in any way: a post-quantum key share makes it longer than a segment, and some clients
//! cut it on purpose. With Encrypted ClientHello the name is the outer one, which is what routes.
//!
//! Everything else in it is left to the server that completes the handshake. Where that is this one, rustls reads the ClientHello
//! again, and [`ClientHello::agrees`] makes sure that both have read the same name.

use std::borrow::Cow;

use rustls::pki_types::ServerName;

use super::alert::Alert;
use super::name::canonical;
use super::refusal::HelloRefusal;

/// The records of a ClientHello have this many bytes at most. Clients send 200 to 2,000, or six times as many if each byte is a
/// record of its own.
pub const CLIENT_HELLO_MAX: usize = 16 << 10;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello {
    /// The host name, in lower case and without a trailing dot. Addresses are not allowed as names, and ignored, as rustls does
    /// (RFC 6066 section 3): clients that send them connect to an address.
    pub server_name: Option<String>,
    /// The highest version that the client offers.
    version: u16,
}

/// Why bytes are no ClientHello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum HelloError {
    /// A record of another kind, or another protocol.
    #[error("the client did not begin with a TLS handshake record")]
    NotHandshake,
    /// RFC 8446 section 5.1: records of handshake messages are never empty.
    #[error("a handshake record is empty")]
    EmptyRecord,
    /// The first handshake message is another one.
    #[error("the first TLS handshake message is no ClientHello")]
    NotClientHello,
    /// It is longer than [`CLIENT_HELLO_MAX`].
    #[error("the ClientHello is longer than {CLIENT_HELLO_MAX} bytes")]
    TooLarge,
    /// A length in it is wrong.
    #[error("the ClientHello is malformed")]
    Malformed,
    /// RFC 6066 section 3: exactly one host name, in ASCII. RFC 8446 section 4.2: an extension appears once.
    #[error("the ClientHello does not contain exactly one valid host name")]
    ServerName,
}

/// Reads a ClientHello from what has arrived on a connection since it was opened; see [`HelloReader::read`].
///
/// # Errors
/// The bytes cannot become a ClientHello.
pub fn read(received: &[u8]) -> Result<Option<ClientHello>, HelloError> {
    HelloReader::default().read(received)
}

/// Reads a ClientHello that arrives in pieces: looks at each record once, however many reads its bytes arrive in.
#[derive(Clone, Debug, Default)]
pub struct HelloReader {
    /// Where the first record begins that was not complete.
    at: usize,
    /// How many bytes of the message the complete records have.
    gathered: usize,
    /// The first bytes of the message: its type and length.
    header: [u8; MESSAGE_HEADER],
}

const HANDSHAKE_RECORD: u8 = 22;
const RECORD_HEADER: usize = 5;
const CLIENT_HELLO: u8 = 1;
const MESSAGE_HEADER: usize = 4;

/// The extensions that are read.
const SERVER_NAME: u16 = 0;
const SUPPORTED_VERSIONS: u16 = 43;

/// The oldest version that is supported here: TLS 1.2.
const OLDEST: u16 = 0x0303;

/// The type of names in [`SERVER_NAME`] that are host names, the only one that is defined.
const HOST_NAME: u8 = 0;

impl HelloReader {
    /// Reads the ClientHello at the beginning of `received`: everything that has arrived on the connection since it was opened,
    /// which is what the last call was given and more. `None` means that more bytes are needed; for [`CLIENT_HELLO_MAX`] bytes this
    /// is never the answer.
    ///
    /// # Errors
    /// The bytes cannot become a ClientHello, which is an error as soon as they show it.
    pub fn read(&mut self, received: &[u8]) -> Result<Option<ClientHello>, HelloError> {
        loop {
            if self.at + RECORD_HEADER >= CLIENT_HELLO_MAX {
                return Err(HelloError::TooLarge);
            }
            let record = received.get(self.at..).unwrap_or_default();
            // RFC 8446 §5.1: the minor version is ignored.
            let (Some(&HANDSHAKE_RECORD) | None, Some(3) | None) = (record.first(), record.get(1)) else {
                return Err(HelloError::NotHandshake);
            };
            let Some((&[_, _, _, high, low], payload)) = record.split_first_chunk() else { return Ok(None) };
            let len = usize::from(u16::from_be_bytes([high, low]));
            if len == 0 {
                return Err(HelloError::EmptyRecord);
            }
            let end = self.at + RECORD_HEADER + len;
            if end > CLIENT_HELLO_MAX {
                return Err(HelloError::TooLarge);
            }
            let payload = &payload[..len.min(payload.len())];
            self.check_header(payload)?;
            if payload.len() < len {
                return Ok(None);
            }
            self.at = end;
            self.gathered += len;
            if self.gathered >= MESSAGE_HEADER + self.body_len() {
                return parse(&self.body(&received[..end])).map(Some);
            }
        }
    }

    /// Adds to the header what a record has of it, and checks it.
    fn check_header(&mut self, payload: &[u8]) -> Result<(), HelloError> {
        for (to, from) in self.header.iter_mut().skip(self.gathered).zip(payload) {
            *to = *from;
        }
        if self.header[0] != CLIENT_HELLO && self.gathered + payload.len() > 0 {
            return Err(HelloError::NotClientHello);
        }
        let is_complete = self.gathered + payload.len() >= MESSAGE_HEADER;
        if is_complete && MESSAGE_HEADER + self.body_len() > CLIENT_HELLO_MAX - RECORD_HEADER {
            return Err(HelloError::TooLarge);
        }
        Ok(())
    }

    /// The length of the message without its header. At least the header has to be complete.
    fn body_len(&self) -> usize {
        let [_, high, middle, low] = self.header;
        usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low)
    }

    /// The message without its header, from its complete records. Most have one.
    fn body<'a>(&self, mut records: &'a [u8]) -> Cow<'a, [u8]> {
        let range = MESSAGE_HEADER..MESSAGE_HEADER + self.body_len();
        if records.len() == RECORD_HEADER + self.gathered {
            return Cow::Borrowed(&records[RECORD_HEADER..][range]);
        }
        let mut message = Vec::with_capacity(self.gathered);
        while let Some((&[_, _, _, high, low], rest)) = records.split_first_chunk() {
            let len = usize::from(u16::from_be_bytes([high, low])).min(rest.len());
            let (payload, rest) = rest.split_at(len);
            message.extend_from_slice(payload);
            records = rest;
        }
        Cow::Owned(message[range].to_vec())
    }
}

impl ClientHello {
    /// Whether this server speaks a version that the client offers; a backend may.
    ///
    /// # Errors
    /// It does not. rustls would refuse the client, too, but for an extension that older clients do not know.
    pub fn check_version(&self) -> Result<(), HelloRefusal> {
        match self.version {
            OLDEST.. => Ok(()),
            version => Err(HelloRefusal::OldVersion(version)),
        }
    }

    /// Whether rustls has read the same name. If not, the connection must be closed: it was routed by another one.
    pub fn agrees(&self, hello: &rustls::server::ClientHello<'_>) -> bool {
        self.server_name == hello.server_name().map(canonical)
    }
}

impl HelloError {
    /// The fatal alert that tells the client, as a record (RFC 8446 section 6.2).
    pub fn alert(self) -> [u8; 7] {
        match self {
            HelloError::NotHandshake | HelloError::EmptyRecord | HelloError::NotClientHello => {
                Alert::UnexpectedMessage
            }
            HelloError::TooLarge | HelloError::Malformed => Alert::DecodeError,
            HelloError::ServerName => Alert::IllegalParameter,
        }
        .record()
    }
}

/// Reads the message without its header.
fn parse(body: &[u8]) -> Result<ClientHello, HelloError> {
    let mut fields = Fields(body);
    let legacy = fields.integer::<2>().ok_or(HelloError::Malformed)?;
    let mut extensions = fields.extensions().ok_or(HelloError::Malformed)?;
    let (mut server_name, mut versions) = (None, None);
    // RFC 8446 §4.2: an extension appears once.
    while !extensions.0.is_empty() {
        let (kind, data) = extensions.extension().ok_or(HelloError::Malformed)?;
        match kind {
            SERVER_NAME if server_name.is_some() => return Err(HelloError::ServerName),
            SERVER_NAME => server_name = Some(host_name(data)?),
            SUPPORTED_VERSIONS if versions.is_some() => return Err(HelloError::Malformed),
            SUPPORTED_VERSIONS => versions = Some(highest(data).ok_or(HelloError::Malformed)?),
            _ => {}
        }
    }
    Ok(ClientHello {
        server_name: server_name.flatten(),
        // RFC 8446 §4.2.1: the extension replaces the field.
        version: versions.unwrap_or(u16::try_from(legacy).unwrap_or_default()),
    })
}

/// RFC 8446 §4.2.1: a list of versions. Those that do not exist make no version of TLS known (RFC 8701).
fn highest(data: &[u8]) -> Option<u16> {
    let mut list = Fields(Fields(data).only_vector::<1>()?);
    let mut highest = 0;
    while !list.0.is_empty() {
        let version = u16::try_from(list.integer::<2>()?).ok()?;
        if version >> 8 == 3 {
            highest = highest.max(version);
        }
    }
    Some(highest)
}

/// RFC 6066 §3: a list with one name per type, of which only one is defined. What follows a name of an unknown type cannot be read.
fn host_name(data: &[u8]) -> Result<Option<String>, HelloError> {
    let mut names = Fields(data).only_vector::<2>().map(Fields).ok_or(HelloError::Malformed)?;
    let mut found = None;
    while !names.0.is_empty() {
        if names.integer::<1>() != Some(usize::from(HOST_NAME)) {
            break;
        }
        let name = names.vector::<2>().ok_or(HelloError::Malformed)?;
        if found.replace(name).is_some() {
            return Err(HelloError::ServerName);
        }
    }
    match found.map(ServerName::try_from) {
        Some(Ok(ServerName::DnsName(name))) => Ok(Some(canonical(name.as_ref()))),
        Some(Ok(ServerName::IpAddress(_))) => Ok(None),
        _ => Err(HelloError::ServerName),
    }
}

/// What is left of a structure. `None` means that a length leads beyond its end.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// The extensions of a ClientHello, after its version; none if it ends before them, as those of older clients do.
    fn extensions(&mut self) -> Option<Fields<'a>> {
        let _random = self.take(32)?;
        let _session_id = self.vector::<1>()?;
        let _cipher_suites = self.vector::<2>()?;
        let _compression_methods = self.vector::<1>()?;
        match self.0 {
            [] => Some(Fields(&[])),
            _ => Fields(self.0).only_vector::<2>().map(Fields),
        }
    }

    fn extension(&mut self) -> Option<(u16, &'a [u8])> {
        let kind = u16::try_from(self.integer::<2>()?).ok()?;
        Some((kind, self.vector::<2>()?))
    }

    /// A vector after its length of `N` bytes.
    fn vector<const N: usize>(&mut self) -> Option<&'a [u8]> {
        let len = self.integer::<N>()?;
        self.take(len)
    }

    /// The same if nothing follows it.
    fn only_vector<const N: usize>(mut self) -> Option<&'a [u8]> {
        self.vector::<N>().filter(|_| self.0.is_empty())
    }

    fn integer<const N: usize>(&mut self) -> Option<usize> {
        let bytes = self.take(N)?;
        Some(bytes.iter().fold(0, |value, byte| value << 8 | usize::from(*byte)))
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests;

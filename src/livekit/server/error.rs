//! Why LiveKit has not answered, as sentences for the operator.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use rustls::CertificateError;
use thiserror::Error;

/// The most bytes of a response: some ten thousand participants.
pub const RESPONSE_MAX: usize = 8 << 20;

/// Time for a whole exchange.
pub const RESPONSE: Duration = Duration::from_secs(10);

/// Why LiveKit has not answered, as one sentence with the fix.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ServerError {
    /// The URL in the configuration.
    #[error("{setting}: write the URL of LiveKit like wss://livekit.example.org or http://127.0.0.1:7880")]
    Url {
        /// The key.
        setting: &'static str,
    },
    /// There is no certificate to judge LiveKit's by.
    #[error("{0}")]
    Authorities(String),
    /// The name has no address.
    #[error(
        "the name of LiveKit in {at} does not resolve ({why}); correct livekit.url, or the DNS of this machine"
    )]
    Unresolved {
        /// Its URL.
        at: String,
        /// What the resolver said.
        why: String,
    },
    /// There is no connection.
    #[error(
        "LiveKit cannot be reached at {at}: {why}; is it running, and does a firewall let this machine connect? Otherwise set \
         livekit.api_url to where it listens"
    )]
    Unreachable {
        /// Its URL.
        at: String,
        /// What the kernel said.
        why: String,
    },
    /// The handshake of TLS.
    #[error("the TLS connection to LiveKit at {at} failed: {why}")]
    Tls {
        /// Its URL.
        at: String,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// It takes too long.
    #[error("LiveKit at {at} has not responded within {} s", RESPONSE.as_secs())]
    Timeout {
        /// Its URL.
        at: String,
    },
    /// The key pair.
    #[error(
        "LiveKit at {at} refuses the API key {key}: the key or its secret is not one of those in LiveKit's own configuration (keys)"
    )]
    WrongKey {
        /// Its URL.
        at: String,
        /// The key, which is no secret.
        key: String,
    },
    /// The clock.
    #[error("LiveKit at {at} refuses the token: its clock is {}; set both by NTP", skew(*.ahead))]
    Skew {
        /// Its URL.
        at: String,
        /// Seconds by which LiveKit's clock is ahead.
        ahead: i64,
    },
    /// It, or a proxy in front of it, cannot answer now.
    #[error("LiveKit at {at}, or a proxy in front of it, responds with {status}; see its log")]
    Failing {
        /// Its URL.
        at: String,
        /// The status.
        status: u16,
    },
    /// It leads elsewhere. Tokens are not sent there.
    #[error("{at} redirects ({status}); write the URL that it leads to into livekit.url or livekit.api_url")]
    Redirect {
        /// Its URL.
        at: String,
        /// The status.
        status: u16,
    },
    /// It is something else.
    #[error("what responds at {at} is not a LiveKit server: {why}; correct livekit.url or livekit.api_url")]
    NotLiveKit {
        /// Its URL.
        at: String,
        /// What shows that.
        why: String,
    },
    /// The response is longer than it may be.
    #[error("the response of LiveKit at {at} is longer than {} MiB", RESPONSE_MAX >> 20)]
    TooLong {
        /// Its URL.
        at: String,
    },
}

impl ServerError {
    /// A word for programs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            ServerError::Url { .. } => "url",
            ServerError::Authorities(_) => "authorities",
            ServerError::Unresolved { .. } => "unresolved",
            ServerError::Unreachable { .. } => "unreachable",
            ServerError::Tls { .. } => "tls",
            ServerError::Timeout { .. } => "timeout",
            ServerError::WrongKey { .. } => "wrong_key",
            ServerError::Skew { .. } => "clock",
            ServerError::Failing { .. } => "failing",
            ServerError::Redirect { .. } => "redirect",
            ServerError::NotLiveKit { .. } => "not_livekit",
            ServerError::TooLong { .. } => "too_long",
        }
    }
}

/// What a failed exchange is about.
#[derive(Default)]
pub struct Causes {
    /// What is wrong with TLS.
    pub tls: Option<rustls::Error>,
    /// The name does not resolve.
    pub is_dns: bool,
    /// The response is not HTTP.
    pub is_protocol: bool,
    /// The innermost error.
    pub last: String,
}

impl Causes {
    /// What this error and its sources say.
    pub fn of(error: &(dyn StdError + 'static)) -> Causes {
        let mut causes = Causes::default();
        let mut next = Some(error);
        while let Some(error) = next {
            causes.last = error.to_string();
            causes.is_dns |= causes.last.starts_with("dns error");
            if let Some(error) = error.downcast_ref::<rustls::Error>() {
                causes.tls = Some(error.clone());
            }
            if let Some(error) = error.downcast_ref::<hyper::Error>() {
                // A server that speaks first has no method for it.
                causes.is_protocol |= error.is_parse() || causes.last.contains("unexpected message");
            }
            // The source of an io::Error skips the error that it wraps.
            let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            next = match wrapped {
                Some(wrapped) => Some(wrapped),
                None => error.source(),
            };
        }
        causes
    }
}

/// What is wrong with a TLS connection, and what to do.
pub fn explained(error: &rustls::Error) -> String {
    let rustls::Error::InvalidCertificate(wrong) = error else {
        return match error {
            rustls::Error::InvalidMessage(_) => {
                "what responds there does not speak TLS; for a server without it write ws:// or http://"
                    .into()
            }
            error => error.to_string(),
        };
    };
    match wrong {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its certificate is for other names; write a URL with a name that it has".into()
        }
        CertificateError::UnknownIssuer => {
            "its certificate is from an authority that this machine does not know; name that with livekit.ca_file".into()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired; renew it".into()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet; compare the clocks of the machines".into()
        }
        _ => error.to_string(),
    }
}

fn skew(ahead: i64) -> String {
    match ahead {
        ahead if ahead < 0 => format!("{} s behind that of this machine", -ahead),
        ahead => format!("{ahead} s ahead of that of this machine"),
    }
}

//! Which certificate a client gets: by the name that it asks for (SNI, RFC 6066 section 3) and the signatures that it can verify.
//!
//! A pure value: a new set of certificates is a new [`Identities`], and connections keep the one that they began with.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::server::ClientHello;
use rustls::{NamedGroup, ServerConfig, SignatureAlgorithm, SignatureScheme, SupportedCipherSuite};

use super::name::{canonical, parent};
use super::protocols::{Protocols, is_acme};
use super::refusal::HelloRefusal;
use super::{CertificateName, Identity, Sessions};

/// Every certificate of this server.
#[derive(Clone)]
pub struct Identities(Arc<Choice>);

/// A certificate and what it is chosen by.
#[derive(Clone, Debug)]
pub struct NamedIdentity {
    /// The chain and its key.
    pub identity: Identity,
    /// The names that clients ask for.
    pub names: Vec<CertificateName>,
    /// When it expires, in Unix seconds.
    pub until: u64,
}

/// What a client gets that asks for a name of no certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownName {
    /// The default certificate.
    #[default]
    Default,
    /// The alert `unrecognized_name`.
    Refuse,
}

/// Indexes of [`Choice::entries`], the preferred one first. There is at least one.
type Candidates = Vec<usize>;

struct Choice {
    entries: Vec<Entry>,
    /// By host name.
    exact: HashMap<String, Candidates>,
    /// By the domain below which a wildcard stands for one label.
    wildcard: HashMap<String, Candidates>,
    /// For clients that ask for no name: the first certificate, then those for the same names.
    default: Candidates,
    unknown_name: UnknownName,
}

struct Entry {
    identity: Identity,
    /// By [`Protocols::index`].
    configs: [Arc<ServerConfig>; Protocols::ALL.len()],
    /// The same for clients that offer no protocol of ours.
    without_alpn: Arc<ServerConfig>,
}

impl Identities {
    /// The choice between `certificates`, of which the first is the default one; `None` if there is none.
    pub fn new(
        certificates: &[NamedIdentity],
        unknown_name: UnknownName,
        sessions: &Sessions,
    ) -> Option<Identities> {
        let first = certificates.first()?;
        let (mut exact, mut wildcard) = (HashMap::new(), HashMap::new());
        for n in preference(certificates) {
            for name in &certificates[n].names {
                let map = if name.is_wildcard() { &mut wildcard } else { &mut exact };
                let candidates: &mut Candidates = map.entry(name.host().to_owned()).or_default();
                // A certificate may list a name twice.
                if candidates.last() != Some(&n) {
                    candidates.push(n);
                }
            }
        }
        let set = |named: &NamedIdentity| named.names.iter().cloned().collect::<BTreeSet<_>>();
        let default_names = set(first);
        let twins = preference(certificates).into_iter().filter(|n| set(&certificates[*n]) == default_names);
        let default = std::iter::once(0).chain(twins.filter(|n| *n != 0)).collect();
        let entries = certificates.iter().map(|named| Entry::new(&named.identity, sessions)).collect();
        Some(Identities(Arc::new(Choice { entries, exact, wildcard, default, unknown_name })))
    }

    /// The rustls configuration for a client of a name that serves `protocols`.
    ///
    /// If none of the application protocols that it offers is served, it is treated as if it had offered none, as a server without
    /// ALPN would (RFC 7301 section 3.1): Firefox behind an HTTP proxy offers only `http/1.1`, and speaks TURN.
    ///
    /// # Errors
    /// The client is refused.
    pub fn choose(
        &self,
        hello: &ClientHello<'_>,
        protocols: Protocols,
    ) -> Result<Arc<ServerConfig>, HelloRefusal> {
        let Identities(choice) = self;
        let offered = || hello.alpn().into_iter().flatten();
        if is_acme(offered()) {
            return Err(HelloRefusal::OnlyAcme);
        }
        let candidates = match hello.server_name() {
            Some(name) => choice.named(&canonical(name)).ok_or(HelloRefusal::UnknownName)?,
            None => choice.default.clone(),
        };
        let can = |n: &&usize| choice.entries[**n].identity.suits(hello);
        // If the client can verify none of them, the handshake fails with an alert that says so.
        let chosen = candidates.iter().find(can).unwrap_or(&candidates[0]);
        let Entry { configs, without_alpn, .. } = &choice.entries[*chosen];
        let is_served = protocols.names().any(|name| offered().any(|one| one == name));
        Ok(if is_served { configs[protocols.index()].clone() } else { without_alpn.clone() })
    }

    /// Whether there is a certificate for a name, in canonical form.
    pub fn covers(&self, name: &str) -> bool {
        let Identities(choice) = self;
        choice.exact.contains_key(name)
            || parent(name).is_some_and(|parent| choice.wildcard.contains_key(parent))
    }
}

impl Entry {
    fn new(identity: &Identity, sessions: &Sessions) -> Entry {
        let without_alpn = identity.server_config(&[], sessions);
        let with = |protocols: Protocols| {
            let mut config = without_alpn.clone();
            config.alpn_protocols = protocols.names().map(<[u8]>::to_vec).collect();
            Arc::new(config)
        };
        let configs = Protocols::ALL.map(with);
        Entry { identity: identity.clone(), configs, without_alpn: Arc::new(without_alpn) }
    }
}

impl Choice {
    /// The certificates for a name: those that have exactly this name before those with a wildcard.
    fn named(&self, host: &str) -> Option<Candidates> {
        let exact = self.exact.get(host).into_iter().flatten();
        let wildcard = parent(host).and_then(|parent| self.wildcard.get(parent));
        let found: Candidates = exact.chain(wildcard.into_iter().flatten()).copied().collect();
        match self.unknown_name {
            _ if !found.is_empty() => Some(found),
            UnknownName::Default => Some(self.default.clone()),
            UnknownName::Refuse => None,
        }
    }
}

/// The order in which certificates for the same name are tried. ECDSA signatures cost a server a tenth of RSA's; of two with the
/// same kind of key, that which expires later is used.
fn preference(certificates: &[NamedIdentity]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..certificates.len()).collect();
    order.sort_by_key(|n| {
        let NamedIdentity { identity, until, .. } = &certificates[*n];
        let rank = match identity.algorithm() {
            SignatureAlgorithm::ECDSA => 0,
            SignatureAlgorithm::ED25519 => 1,
            _ => 2,
        };
        (rank, Reverse(*until))
    });
    order
}

impl Identity {
    /// Whether a client can verify the signatures of this key: by its signature schemes, and until TLS 1.2 by its cipher suites,
    /// which name the kind of key (RFC 5246 section 7.4.2), and by its groups, which name the curves (RFC 8422 section 5.1.1).
    fn suits(&self, hello: &ClientHello<'_>) -> bool {
        let suites = || aws_lc_rs::DEFAULT_CIPHER_SUITES.iter();
        let common = || suites().filter(|suite| hello.cipher_suites().contains(&suite.suite()));
        let Some(signer) = self.key.key.choose_scheme(hello.signature_schemes()) else { return false };
        let knows_curve = || match (hello.named_groups(), curve(signer.scheme())) {
            (Some(groups), Some(curve)) => groups.contains(&curve),
            // A client that lists no groups can use any (section 4).
            _ => true,
        };
        common().any(|suite| match suite {
            SupportedCipherSuite::Tls13(_) => true,
            SupportedCipherSuite::Tls12(_) => {
                suite.usable_for_signature_algorithm(self.algorithm()) && knows_curve()
            }
        })
    }
}

/// The curve of the keys that sign with a scheme, if it is one of ECDSA.
fn curve(scheme: SignatureScheme) -> Option<NamedGroup> {
    match scheme {
        SignatureScheme::ECDSA_NISTP256_SHA256 => Some(NamedGroup::secp256r1),
        SignatureScheme::ECDSA_NISTP384_SHA384 => Some(NamedGroup::secp384r1),
        SignatureScheme::ECDSA_NISTP521_SHA512 => Some(NamedGroup::secp521r1),
        _ => None,
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identities({})", self.0.entries.len())
    }
}

#[cfg(test)]
mod tests;

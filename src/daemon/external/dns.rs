//! Asks the system's resolver for the addresses of a host.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::turn::PerFamily;

/// How long the resolver may take.
const WAIT: Duration = Duration::from_secs(5);

/// Lookups at a time. One that nobody waits for any more goes on in its thread until the resolver gives up.
static LOOKUPS: Semaphore = Semaphore::const_new(4);

/// The only address of each family that a name has. `last` are those that it had: of several, that one is taken.
///
/// # Errors
/// It has none, or several.
pub async fn addresses(
    name: &str,
    last: Option<PerFamily<Option<IpAddr>>>,
) -> Result<PerFamily<Option<IpAddr>>, String> {
    let found: Vec<IpAddr> = sockets(&format!("{name}:1")).await?.iter().map(SocketAddr::ip).collect();
    only(&found, last)
}

/// The addresses and the port of `host:port`.
///
/// # Errors
/// The host has no address.
pub async fn sockets(host: &str) -> Result<Vec<SocketAddr>, String> {
    let host = host.to_owned();
    let lookup = async {
        let permit = LOOKUPS.acquire().await;
        spawn_blocking(move || {
            let _permit = permit;
            Ok::<Vec<SocketAddr>, std::io::Error>(host.to_socket_addrs()?.collect())
        })
        .await?
    };
    let found = timeout(WAIT, lookup).await;
    let found = found.map_err(|_| "the resolver does not answer in time".to_owned())?;
    let mut found = found.map_err(|error| error.to_string())?;
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn only(
    found: &[IpAddr],
    last: Option<PerFamily<Option<IpAddr>>>,
) -> Result<PerFamily<Option<IpAddr>>, String> {
    if found.is_empty() {
        return Err("it has no address".to_owned());
    }
    let of = |family: &str, is_family: fn(&IpAddr) -> bool, last: Option<IpAddr>| {
        let mut same = found.iter().copied().filter(is_family);
        match (same.next(), same.next()) {
            (Some(_), Some(_)) => match last.filter(|last| found.contains(last)) {
                Some(last) => Ok(Some(last)),
                None => Err(format!("it has several {family} addresses; use a name with one")),
            },
            (only, _) => Ok(only),
        }
    };
    let last = last.unwrap_or_default();
    Ok(PerFamily { v4: of("IPv4", IpAddr::is_ipv4, last.v4)?, v6: of("IPv6", IpAddr::is_ipv6, last.v6)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_per_family_is_no_guess() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let (a, b, c) = (ip("203.0.113.1"), ip("203.0.113.2"), ip("2001:db8::1"));
        assert_eq!(only(&[a, c], None), Ok(PerFamily { v4: Some(a), v6: Some(c) }));
        assert_eq!(only(&[c], None), Ok(PerFamily { v4: None, v6: Some(c) }));
        assert!(only(&[a, b], None).unwrap_err().contains("several IPv4 addresses"));
        let last = PerFamily { v4: Some(b), v6: None };
        assert_eq!(
            only(&[a, b], Some(last)),
            Ok(last),
            "a second address is added before the first is removed"
        );
        assert!(only(&[], None).is_err());
    }

    #[tokio::test]
    async fn the_resolver_knows_this_machine() {
        let found = addresses("localhost", None).await.unwrap();
        assert_eq!(found.v4.or(found.v6).map(|ip| ip.is_loopback()), Some(true));
    }
}

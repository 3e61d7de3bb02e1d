//! What DNS says of the name in the URLs of relays, and what it should say.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Verdict;
use crate::livekit::relays::RelayStatus;

/// The addresses that clients reach a relay at: those that peers see, and those of listeners that name one.
pub fn addresses_of(status: &RelayStatus) -> BTreeSet<IpAddr> {
    let outside = |ip: IpAddr| {
        let known = status.relay_addresses.iter().find(|relay| relay.address == ip);
        known.and_then(|relay| relay.external).unwrap_or(ip)
    };
    let relays = status.relay_addresses.iter().map(|relay| relay.address);
    let listeners = status.listeners.iter().map(|listener| listener.address.ip());
    relays.chain(listeners.filter(|ip| !ip.is_unspecified())).map(outside).collect()
}

/// Judges what a name resolves to, given the addresses of all relays that it stands for.
pub fn judge(name: &str, resolved: &Result<Vec<IpAddr>, String>, relays: &BTreeSet<IpAddr>) -> Verdict {
    let found = match resolved {
        Err(why) => {
            return Verdict::Wrong(format!(
                "{name} does not resolve ({why}); add a DNS record with {}, or see why the resolver of this machine fails",
                list(relays)
            ));
        }
        Ok(found) if found.is_empty() => {
            return Verdict::Wrong(format!("{name} has no A or AAAA record; add one with {}", list(relays)));
        }
        Ok(found) => found.iter().copied().collect::<BTreeSet<IpAddr>>(),
    };
    let shown = list(&found);
    if found.iter().all(IpAddr::is_loopback) && !relays.iter().any(IpAddr::is_loopback) {
        return Verdict::Hint(format!(
            "{name} is {shown} by /etc/hosts of this machine; what others see has to be looked up there, or with `dig @9.9.9.9 {name}`"
        ));
    }
    let others: BTreeSet<IpAddr> = found.difference(relays).copied().collect();
    if others.is_empty() {
        return Verdict::Good(format!("{name} resolves to {shown}"));
    }
    if relays.is_empty() {
        return Verdict::Hint(format!(
            "{name} resolves to {shown}; which addresses the relay has is not known"
        ));
    }
    let expected = list(relays);
    if others.len() < found.len() {
        return Verdict::Wrong(format!(
            "{name} also resolves to {}, but the relay's addresses are {expected}: change the DNS record or relay.external_ip",
            list(&others)
        ));
    }
    Verdict::Wrong(format!(
        "{name} resolves to {shown}, but the relay's addresses are {expected}: change the DNS record or relay.external_ip"
    ))
}

fn list(ips: &BTreeSet<IpAddr>) -> String {
    match ips.is_empty() {
        true => "the address of the relay".into(),
        false => ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn judged(resolved: &[&str], relays: &[&str]) -> Verdict {
        judge("turn.example.org", &Ok(ips(resolved)), &ips(relays).into_iter().collect())
    }

    #[test]
    fn a_name_must_lead_to_the_relay() {
        let both = ["203.0.113.5", "2001:db8::5"];
        assert!(matches!(judged(&both, &both), Verdict::Good(_)));
        assert!(matches!(judged(&both[..1], &both), Verdict::Good(_)), "one family is enough");
        assert_eq!(
            judged(&["192.0.2.9"], &["203.0.113.5"]),
            Verdict::Wrong(
                "turn.example.org resolves to 192.0.2.9, but the relay's addresses are 203.0.113.5: change the DNS record or \
                 relay.external_ip"
                    .into()
            )
        );
        let Verdict::Wrong(also) = judged(&["203.0.113.5", "192.0.2.9"], &["203.0.113.5"]) else { panic!() };
        assert!(also.contains("also resolves to 192.0.2.9"), "{also}");
        let Verdict::Wrong(none) = judged(&[], &["203.0.113.5"]) else { panic!() };
        assert!(none.contains("no A or AAAA record; add one with 203.0.113.5"), "{none}");
        let silent = judge("turn.example.org", &Err("the resolver does not answer".into()), &BTreeSet::new());
        let Verdict::Wrong(silent) = silent else { panic!() };
        assert!(silent.contains("(the resolver does not answer)"), "{silent}");
    }

    /// Many systems name themselves in /etc/hosts, which is nothing that clients see.
    #[test]
    fn what_etc_hosts_says_proves_nothing() {
        assert!(matches!(judged(&["127.0.1.1"], &["203.0.113.5"]), Verdict::Hint(_)));
        assert!(matches!(judged(&["127.0.0.1"], &["127.0.0.1"]), Verdict::Good(_)));
    }
}

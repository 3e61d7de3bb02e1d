//! Where the relay is on the network at a moment: this machine's own addresses, which of them relay, and what is still
//! missing. A service may start before the network, and addresses change while it runs.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::addresses::{self, Chosen, Missing, Unusable, Why};
use super::external::{Known, Questions, Resolved};
use super::own::Own;
use crate::config::Settings;
use crate::config::external::{self, ExternalIp, Misfit};
use crate::config::settings::RelaySettings;
use crate::turn::External;

/// What the relay serves by that is the machine's and may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The addresses and ranges that are this machine's own.
    pub own: Own,
    /// The addresses that relay sockets can be bound to: the configured ones, otherwise at most one per family.
    pub relay: Vec<Chosen>,
    /// Their external addresses.
    pub external: External,
    /// An external address that fits none of them.
    pub misfit: Option<Misfit>,
    /// What would relay too, and why it does not.
    pub waiting: Vec<Waiting>,
    /// Listeners at addresses that this machine does not have.
    pub idle: Vec<(&'static str, SocketAddr)>,
    /// What `relay.external_ip` asks for.
    pub questions: Questions,
}

/// An address that cannot relay yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// One of the configuration.
    Configured(IpAddr, Missing),
    /// That of the default route of a family.
    Discovered(&'static str, Unusable),
    /// The inside address of an external one, while another address of its family relays.
    External(ExternalIp, IpAddr),
    /// An address whose external one is not known, and why.
    Unknown(IpAddr, String),
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Waiting::Configured(ip, why) => write!(f, "{ip}: {why}"),
            Waiting::Discovered(family, why) => write!(f, "{family}: {why}"),
            Waiting::Unknown(ip, why) => write!(f, "{ip}: {why}"),
            Waiting::External(entry, relay) => {
                write!(f, "{entry}: its inside address is not the one to relay with, {relay}")
            }
        }
    }
}

impl Place {
    /// Looks around. `before` are the addresses that relayed so far, `known` the external addresses that were asked for.
    pub fn look(settings: &Settings, before: &[Chosen], known: &Known) -> Place {
        let own = Own::read();
        let check = |ip| addresses::check(ip, &own);
        let (mut relay, mut waiting) = match settings.relay.addresses.is_empty() {
            true => discovered([addresses::discover_v4(), addresses::discover_v6()], before, &check),
            false => configured(&settings.relay, &check),
        };
        let addresses: Vec<IpAddr> = relay.iter().map(|chosen| chosen.address).collect();
        let Resolved { entries, unknown, questions } = known.resolve(&settings.relay, &addresses);
        relay.retain(|chosen| unknown.iter().all(|(ip, _)| *ip != chosen.address));
        let (external, misfit) = pair(&settings.relay, &entries, &relay);
        waiting.extend(late_external(&settings.relay, &relay));
        waiting.extend(unknown.into_iter().map(|(ip, why)| Waiting::Unknown(ip, why)));
        let listeners = settings.listener_addresses().into_iter();
        let listeners = listeners.map(|(transport, addr)| (transport.as_str(), addr));
        let http = settings.http.listen.iter().map(|addr| ("http", *addr));
        let is_idle = |addr: SocketAddr| !addr.ip().is_unspecified() && !own.may_contain(addr.ip());
        let admin = settings.admin.listen.iter().map(|addr| ("admin", *addr));
        let idle = listeners.chain(http).chain(admin).filter(|(_, addr)| is_idle(*addr)).collect();
        Place { own, relay, external, misfit, waiting, idle, questions }
    }

    /// The addresses that relay.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.relay.iter().map(|chosen| chosen.address).collect()
    }

    /// Why the relay cannot serve clients.
    ///
    /// # Errors
    /// There is no address to relay with.
    pub fn is_ready(&self) -> Result<(), String> {
        if !self.relay.is_empty() {
            return Ok(());
        }
        let reasons: Vec<_> = self.waiting.iter().map(ToString::to_string).collect();
        Err(format!("there is no address to relay with ({})", reasons.join("; ")))
    }
}

fn configured(
    settings: &RelaySettings,
    check: &dyn Fn(IpAddr) -> Result<(), Missing>,
) -> (Vec<Chosen>, Vec<Waiting>) {
    let (mut relay, mut waiting) = (Vec::new(), Vec::new());
    for &address in &settings.addresses {
        match check(address) {
            Ok(()) => relay.push(Chosen { address, why: Why::Configured }),
            Err(why) => waiting.push(Waiting::Configured(address, why)),
        }
    }
    (relay, waiting)
}

/// An address that relays already stays while there is none to replace it: a default route that is gone for a moment ends
/// nothing.
fn discovered(
    found: [Result<Chosen, Unusable>; 2],
    before: &[Chosen],
    check: &dyn Fn(IpAddr) -> Result<(), Missing>,
) -> (Vec<Chosen>, Vec<Waiting>) {
    let (mut relay, mut waiting) = (Vec::new(), Vec::new());
    for (family, found) in ["IPv4", "IPv6"].into_iter().zip(found) {
        let usable = |chosen: &Chosen| check(chosen.address).is_ok();
        let former = before.iter().find(|chosen| chosen.address.is_ipv4() == (family == "IPv4"));
        match (found, former) {
            (Ok(chosen), _) if usable(&chosen) => relay.push(chosen),
            (_, Some(former)) if usable(former) => relay.push(*former),
            (Err(why), _) => waiting.push(Waiting::Discovered(family, why)),
            (Ok(chosen), _) => waiting.push(Waiting::Discovered(family, Unusable::Gone(chosen.address))),
        }
    }
    (relay, waiting)
}

/// The external addresses whose inside address does not relay yet. While no address of the family relays, that is reported.
fn late_external(settings: &RelaySettings, relay: &[Chosen]) -> Vec<Waiting> {
    if !settings.addresses.is_empty() {
        return Vec::new();
    }
    let addresses: Vec<IpAddr> = relay.iter().map(|chosen| chosen.address).collect();
    let late = external::written(&settings.external_ip).into_iter().filter(|entry| entry.waits(&addresses));
    let same = |entry: &ExternalIp| addresses.iter().find(|ip| ip.is_ipv4() == entry.public.is_ipv4());
    late.filter_map(|entry| Some(Waiting::External(entry, *same(&entry)?))).collect()
}

/// The external addresses, and the first that does not fit. One whose relayed address is not there yet waits for it.
fn pair(settings: &RelaySettings, entries: &[ExternalIp], relay: &[Chosen]) -> (External, Option<Misfit>) {
    let discovered: Vec<IpAddr> = relay.iter().map(|chosen| chosen.address).collect();
    let relay = if settings.addresses.is_empty() { &discovered } else { &settings.addresses };
    let entries: Vec<ExternalIp> = entries.iter().filter(|entry| !entry.waits(relay)).copied().collect();
    match external::pair(&entries, relay) {
        Ok(external) => (external, None),
        Err(misfit) => {
            let mut fitting = Vec::new();
            for entry in entries {
                fitting.push(entry);
                if external::pair(&fitting, relay).is_err() {
                    fitting.pop();
                }
            }
            (external::pair(&fitting, relay).unwrap_or_default(), Some(misfit))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn chosen(text: &str) -> Chosen {
        Chosen { address: ip(text), why: Why::DefaultRoute }
    }

    /// A machine that has these addresses.
    fn has<'a>(addresses: &'a [&'a str]) -> impl Fn(IpAddr) -> Result<(), Missing> + 'a {
        |address| match addresses.iter().any(|text| ip(text) == address) {
            true => Ok(()),
            false => Err(Missing::NotHere),
        }
    }

    fn pair(settings: &RelaySettings, relay: &[Chosen]) -> (External, Option<Misfit>) {
        super::pair(settings, &external::written(&settings.external_ip), relay)
    }

    fn settings(addresses: &[&str], external: &[&str]) -> RelaySettings {
        let mut settings = Settings::default().relay;
        settings.addresses = addresses.iter().map(|text| ip(text)).collect();
        settings.external_ip = external.iter().map(|text| text.parse().unwrap()).collect();
        settings
    }

    #[test]
    fn configured_addresses_relay_once_the_machine_has_them() {
        let settings = settings(&["192.0.2.1", "2001:db8::1"], &[]);
        let (relay, waiting) = configured(&settings, &has(&["192.0.2.1"]));
        assert_eq!(relay, [Chosen { address: ip("192.0.2.1"), why: Why::Configured }]);
        assert_eq!(waiting[0].to_string(), "2001:db8::1: this machine does not have it");
        let (relay, waiting) = configured(&settings, &has(&["192.0.2.1", "2001:db8::1"]));
        assert_eq!((relay.len(), waiting.len()), (2, 0));
    }

    #[test]
    fn a_discovered_address_is_replaced_and_stays_while_there_is_no_other() {
        let none = Err(Unusable::NoRoute);
        let (old, new) = (chosen("192.0.2.1"), chosen("192.0.2.2"));
        let both = has(&["192.0.2.1", "192.0.2.2"]);
        assert_eq!(discovered([Ok(new), none], &[old], &both).0, [new]);
        let (relay, waiting) = discovered([none, none], &[old], &both);
        assert_eq!((relay, waiting.len()), (vec![old], 1), "the route is gone for a moment");
        let (relay, waiting) = discovered([none, none], &[old], &has(&[]));
        assert_eq!((relay.len(), waiting.len()), (0, 2), "the address is gone");
        assert_eq!(
            discovered([Ok(new), none], &[old], &has(&["192.0.2.1"])).0,
            [old],
            "the new one is not usable yet"
        );
        let (relay, waiting) = discovered([Ok(new), none], &[], &has(&[]));
        assert_eq!((relay.len(), waiting[0].to_string().contains("192.0.2.2")), (0, true));
    }

    /// External addresses wait for the addresses behind them; pairs of configured ones never change.
    #[test]
    fn external_addresses_wait_for_theirs() {
        let outside = |external: &External, local: &str| external.outside(SocketAddr::new(ip(local), 1)).ip();
        let late = settings(&[], &["203.0.113.5", "2001:db8:f::5"]);
        let (external, misfit) = pair(&late, &[chosen("10.0.0.5")]);
        assert_eq!((outside(&external, "10.0.0.5"), misfit), (ip("203.0.113.5"), None));
        let (external, misfit) = pair(&late, &[chosen("10.0.0.5"), chosen("fd00::5")]);
        assert_eq!((outside(&external, "fd00::5"), misfit), (ip("2001:db8:f::5"), None));
        let other = settings(&[], &["203.0.113.5/10.0.0.5", "2001:db8:f::5"]);
        let relay = [chosen("10.0.0.6"), chosen("fd00::5")];
        let (external, misfit) = pair(&other, &relay);
        assert_eq!((outside(&external, "10.0.0.6"), misfit), (ip("10.0.0.6"), None));
        assert_eq!(outside(&external, "fd00::5"), ip("2001:db8:f::5"), "the others stay");
        let waiting = late_external(&other, &relay);
        let inside = ExternalIp { public: ip("203.0.113.5"), local: Some(ip("10.0.0.5")) };
        assert_eq!(waiting, [Waiting::External(inside, ip("10.0.0.6"))]);
        assert!(late_external(&other, &[chosen("10.0.0.5")]).is_empty());
        // A contradiction is none that time resolves
        let twice = settings(&[], &["203.0.113.5", "203.0.113.6/10.0.0.5"]);
        let (external, misfit) = pair(&twice, &[chosen("10.0.0.5")]);
        assert!(misfit.unwrap().to_string().contains("10.0.0.5 would have two external addresses"));
        assert_eq!(outside(&external, "10.0.0.5"), ip("203.0.113.5"));
        let configured = settings(&["10.0.0.5"], &["203.0.113.5"]);
        assert_eq!(outside(&pair(&configured, &[]).0, "10.0.0.5"), ip("203.0.113.5"));
    }
}

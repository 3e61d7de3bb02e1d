//! From settings to the configuration of each layer below.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::external;
use super::listener::Listener;
use super::settings::Settings;
use super::sibling;
use crate::auth::Auth;
use crate::datapath::stream::StreamLimits;
use crate::datapath::{DatapathSnapshot, SpliceLimits, StreamService};
use crate::tls::Identities;
use crate::turn::bucket::{Rate, Rates};
use crate::turn::peers::{Cidr, Overlays, PeerRules, Rules};
use crate::turn::{
    Admission, AllocationLimits, ExemptSources, External, Families, Lifetimes, ListenerTable, Sibling,
    Transport,
};
use crate::wire::ChannelRange;
use crate::{auth, datapath, turn};

/// What depends on the machine and not on the settings.
#[derive(Clone, Debug, Default)]
pub struct Site {
    /// The listeners that this machine can open.
    pub listeners: Vec<(Transport, SocketAddr)>,
    /// Removed listeners, as they were (see [`Settings::recall`]): those of UDP serve their allocations, and connections of the
    /// others may live on.
    pub closing: Vec<Listener>,
    /// The relayed addresses, configured or discovered.
    pub relay: Vec<IpAddr>,
    /// Former relayed addresses that this machine still has: allocations may live there.
    pub former: Vec<IpAddr>,
    /// The external addresses of those that relay.
    pub external: External,
    /// The addresses and ranges that are this machine's own, as the kernel's local routing table has them.
    pub own: Vec<Cidr>,
    /// Whether `own` has ranges that are wider than the kernel's.
    pub widened: bool,
    /// Whether the relay drains.
    pub draining: bool,
    /// What programs have set over the peers of the settings.
    pub overlays: Overlays,
    /// CPUs that this process may use.
    pub cpus: usize,
}

impl Site {
    /// The listeners of one transport.
    pub fn over(&self, transport: Transport) -> Vec<SocketAddr> {
        self.listeners.iter().filter(|(one, _)| *one == transport).map(|(_, addr)| *addr).collect()
    }

    /// Whether clients reach a listener of this relay at this address, of this machine or external.
    fn serves(&self, transport: Transport, server: SocketAddr) -> bool {
        let ip = server.ip();
        let is_own = || {
            self.relay.iter().any(|local| *local == ip || self.outside(*local) == ip)
                || self.own.iter().any(|range| range.contains(ip))
        };
        self.over(transport).iter().any(|listener| {
            listener.port() == server.port()
                && listener.is_ipv4() == server.is_ipv4()
                && match listener.ip() {
                    any if any.is_unspecified() => is_own(),
                    one => one == ip || self.outside(one) == ip,
                }
        })
    }

    /// The external address of an address of this machine.
    pub fn outside(&self, local: IpAddr) -> IpAddr {
        self.external.outside(SocketAddr::new(local, 0)).ip()
    }
}

impl Settings {
    /// The configuration of `auth`.
    pub fn auth(&self) -> auth::AuthConfig {
        auth::AuthConfig {
            realm: self.auth.realm.clone(),
            users: self.auth.users.clone(),
            listed: self.auth.listed.clone(),
            secrets: self.auth.secrets.clone(),
            livekit_keys: self.auth.livekit_keys.clone(),
            livekit_two_part: self.auth.livekit_two_part,
            user_before_expiry: self.auth.user_before_expiry,
            max_lifetime: self.auth.max_lifetime,
            nonce_lifetime: self.auth.nonce_lifetime.into(),
        }
    }

    /// The configuration of `turn`.
    pub fn turn(&self, site: &Site) -> turn::TurnConfig {
        let limits = &self.limits;
        let peers = self.peers(site);
        turn::TurnConfig {
            admission: match site.draining {
                false => Admission::Open,
                true => Admission::Draining(self.siblings(site)),
            },
            families: self.families(site),
            lifetimes: Lifetimes {
                allocation_lifetime: limits.allocation_lifetime,
                max_allocation_lifetime: limits.max_allocation_lifetime,
                permission_lifetime: limits.permission_lifetime,
                channel_lifetime: limits.channel_lifetime,
            },
            limits: AllocationLimits {
                // The kernel selects the worker of a client, so one worker may get every allocation.
                allocations: unbounded(limits.allocations),
                permissions: size(limits.permissions),
                channels: size(limits.channels),
                new_peers: u32::try_from(limits.new_peers).unwrap_or(u32::MAX),
                bandwidth: limits.bandwidth,
                ..AllocationLimits::default()
            },
            rates: self.rates(),
            channels: self.channels(),
            external: site.external.clone(),
            listeners: self.listener_table(site, &peers),
            peers,
            software: Some(self.software.clone()).filter(|software| !software.is_empty()),
        }
    }

    /// The siblings that clients are sent to.
    fn siblings(&self, site: &Site) -> Arc<[Sibling]> {
        let is_here = |transport, server| site.serves(transport, server);
        self.siblings.iter().map(|one| sibling::resolve(one, is_here)).collect()
    }

    /// The peers of `[peers]`.
    fn peers(&self, site: &Site) -> PeerRules {
        PeerRules::new(Rules {
            allow: self.peers.allow.clone(),
            deny: self.peers.deny.clone(),
            nat64: self.peers.nat64.clone(),
            relay: site
                .relay
                .iter()
                .chain(&site.former)
                .flat_map(|ip| [Some(*ip), Some(site.outside(*ip)), site.external.former_of(*ip)])
                .flatten()
                .collect(),
            own: site.own.clone(),
            widened: site.widened,
            endpoints: self.endpoints(site),
            overlays: site.overlays.clone(),
        })
    }

    /// What differs between listeners. If anything does, all of them are in the table, because the exact address comes before a
    /// wildcard.
    fn listener_table(&self, site: &Site, common: &PeerRules) -> ListenerTable {
        let open = self.listeners().into_iter().map(|one| one.policy(common, false));
        let policies: Vec<_> = open.chain(site.closing.iter().map(|one| one.policy(common, true))).collect();
        match policies.iter().any(|one| one.closing || one.peers.is_some()) {
            true => ListenerTable::new(policies),
            false => ListenerTable::default(),
        }
    }

    /// The families of relayed addresses that there are, or will be: clients are refused with 508 for the time being, not
    /// with 440 for good, while a configured address is not on this machine or none has been discovered.
    fn families(&self, site: &Site) -> Families {
        let any =
            |is_family: fn(&IpAddr) -> bool| site.relay.iter().chain(&self.relay.addresses).any(is_family);
        match (any(IpAddr::is_ipv4), any(IpAddr::is_ipv6)) {
            (false, false) => Families { v4: true, v6: true },
            // The IPv4 address may wait until its external one is known
            (false, v6) if self.relay.addresses.is_empty() && external::asks(&self.relay.external_ip) => {
                Families { v4: true, v6 }
            }
            (v4, v6) => Families { v4, v6 },
        }
    }

    /// Every address and port that this process listens on.
    fn endpoints(&self, site: &Site) -> Vec<SocketAddr> {
        let clients = site.listeners.iter().map(|(_, addr)| *addr);
        let closing = site.closing.iter().filter(|one| !one.transport.is_stream()).map(|one| one.address);
        clients.chain(closing).chain(self.http.listen.iter().chain(&self.admin.listen).copied()).collect()
    }

    /// What the workers start with.
    pub fn datapath(&self, site: &Site) -> datapath::DatapathConfig {
        datapath::DatapathConfig {
            workers: if self.workers == 0 { site.cpus } else { size(self.workers) },
            gro: self.listen.gro,
            gso: self.listen.gso,
            steering: self.listen.steering,
            channels: self.channels(),
            mss: self.segment_sizes(),
        }
    }

    /// The largest TCP segment of each listener for streams that does not leave it to the kernel.
    pub fn segment_sizes(&self) -> HashMap<SocketAddr, u16> {
        let set = self.listeners().into_iter().filter(|one| one.transport.is_stream());
        set.map(|one| (one.address, one.service.mss)).filter(|(_, mss)| *mss > 0).collect()
    }

    fn channels(&self) -> ChannelRange {
        match self.listen.rfc5766_channels {
            false => ChannelRange::Rfc8656,
            true => ChannelRange::Rfc5766,
        }
    }

    /// What the workers serve by. `identities` are those of `[tls]`.
    pub fn snapshot(
        &self,
        generation: u64,
        site: &Site,
        auth: Arc<Auth>,
        identities: Option<Identities>,
    ) -> DatapathSnapshot {
        DatapathSnapshot {
            turn: Arc::new(turn::Snapshot { generation, auth, config: self.turn(site) }),
            relay: site.relay.clone(),
            ports: self.relay.ports.clone(),
            user_allocations: unbounded(self.limits.user_allocations),
            allocations: unbounded(self.limits.allocations),
            reservation_lifetime: self.limits.reservation_lifetime.into(),
            // The daemon knows how many files this process may open.
            descriptors: datapath::DescriptorRoom::UNBOUNDED,
            gather: Duration::from_micros(self.listen.gather),
            connections: self.connections(),
            splices: self.splices(),
            exempt: self.exempt_sources(),
            services: self.services(identities.is_some()),
            identities,
        }
    }

    /// What the listeners for streams serve.
    fn services(&self, has_identity: bool) -> HashMap<SocketAddr, Arc<StreamService>> {
        let streams = self.listeners().into_iter().filter(|one| one.transport.is_stream());
        streams.map(|one| (one.address, Arc::new(one.service.stream_service(has_identity)))).collect()
    }

    fn connections(&self) -> StreamLimits {
        let limits = &self.limits;
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        StreamLimits {
            connections: size(limits.connections),
            connections_per_source: size(limits.connections_per_source),
            client_queue: size(limits.client_queue),
            handshake_timeout: seconds(limits.handshake_timeout),
            first_message_timeout: seconds(limits.first_message_timeout),
            unfinished_message_timeout: seconds(limits.unfinished_message_timeout),
            idle_timeout: seconds(limits.idle_timeout),
        }
    }

    fn splices(&self) -> SpliceLimits {
        let limits = &self.limits;
        SpliceLimits {
            connections: size(limits.spliced_connections),
            connections_per_source: size(limits.spliced_connections_per_source),
            idle_timeout: Duration::from_secs(limits.spliced_idle_timeout.into()),
            connect_timeout: Duration::from_secs(limits.backend_connect_timeout.into()),
            // The daemon knows how many files this process may open.
            by_open_files: false,
        }
    }

    /// The sources whose limits are larger.
    pub fn exempt_sources(&self) -> ExemptSources {
        ExemptSources::new(&self.limits.exempt_sources)
    }

    /// The rate limits that all workers share.
    pub fn rates(&self) -> Rates {
        let limits = &self.limits;
        let number = |n: u64| u32::try_from(n).expect("the table bounds it");
        let rate = |burst, per_second| Rate { burst: number(burst), per_second: number(per_second) };
        Rates {
            challenges: rate(limits.unauthenticated_burst, limits.unauthenticated_rate),
            bindings: rate(limits.binding_burst, limits.binding_rate),
            new_allocations: rate(limits.new_allocations_burst, limits.new_allocations_rate),
            exempt: self.exempt_sources(),
        }
    }
}

/// A limit of which 0 is none.
fn unbounded(n: u64) -> usize {
    if n == 0 { usize::MAX } else { size(n) }
}

fn size(n: u64) -> usize {
    usize::try_from(n).expect("the table bounds it")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(relay: &[&str]) -> Site {
        Site {
            listeners: vec![
                (Transport::Udp, "0.0.0.0:3478".parse().unwrap()),
                (Transport::Tcp, "0.0.0.0:3479".parse().unwrap()),
            ],
            relay: relay.iter().map(|text| text.parse().unwrap()).collect(),
            own: vec!["127.0.0.0/8".parse().unwrap()],
            cpus: 3,
            ..Site::default()
        }
    }

    #[test]
    fn families_are_those_of_the_relayed_addresses() {
        let families = |relay| Settings::default().turn(&site(relay)).families;
        assert_eq!(families(&["192.0.2.1"]), Families { v4: true, v6: false });
        assert_eq!(families(&["2001:db8::1", "192.0.2.1"]), Families { v4: true, v6: true });
        // RFC 8656 §7.2: 440 is for a family that the server does not support.
        assert_eq!(families(&[]), Families { v4: true, v6: true });
        let mut settings = Settings::default();
        settings.relay.addresses = vec!["2001:db8::1".parse().unwrap()];
        assert_eq!(settings.turn(&site(&[])).families, Families { v4: false, v6: true });
    }

    #[test]
    fn defaults_are_those_of_the_layers() {
        let turn = Settings::default().turn(&site(&["192.0.2.1"]));
        assert_eq!((turn.limits, turn.lifetimes), (AllocationLimits::default(), Lifetimes::default()));
        assert_eq!(turn.software, None);
        assert_eq!(Settings::default().connections(), StreamLimits::default());
        assert_eq!(Settings::default().splices(), SpliceLimits::default());
    }

    #[test]
    fn every_endpoint_is_refused_as_a_peer() {
        let mut settings = Settings::default();
        settings.peers.allow = vec!["127.0.0.0/8".parse().unwrap()];
        settings.admin.listen = vec!["127.0.0.1:9643".parse().unwrap()];
        let peers = settings.turn(&site(&["192.0.2.1"])).peers;
        let scope = peers.judge("127.0.0.1".parse().unwrap(), &External::default()).unwrap();
        let may = |port| scope.check(port, |_| true).is_ok();
        assert!(!may(3478) && !may(3479) && !may(9641) && !may(9643) && may(9642));
        // Wildcard listeners or not, and at addresses that nobody listed
        let scope = peers.judge("127.0.0.5".parse().unwrap(), &External::default()).unwrap();
        assert!([3478, 3479, 9641, 9643].iter().all(|port| scope.check(*port, |_| true).is_err()));
    }

    /// RFC 8656 §21: peers cannot be the relay itself, by its own or its external address.
    #[test]
    fn an_endpoint_behind_a_nat_is_refused_by_both_addresses() {
        let mut settings = Settings::default();
        settings.peers.allow = vec!["0.0.0.0/0".parse().unwrap(), "203.0.113.5/32".parse().unwrap()];
        for listener in ["10.0.0.5:3478", "0.0.0.0:3478"] {
            let site = Site {
                listeners: vec![(Transport::Tcp, listener.parse().unwrap())],
                relay: vec!["10.0.0.5".parse().unwrap()],
                external: External::new(vec![("10.0.0.5".parse().unwrap(), "203.0.113.5".parse().unwrap())]),
                own: vec!["10.0.0.5".parse().unwrap()],
                ..Site::default()
            };
            let turn = settings.turn(&site);
            for ip in ["10.0.0.5", "203.0.113.5"] {
                let scope = turn.peers.judge(ip.parse().unwrap(), &turn.external);
                let may = scope.is_ok_and(|scope| scope.check(3478, |_| true).is_ok());
                assert!(!may, "{ip} at {listener}");
            }
        }
    }

    /// RFC 8656 §9, §21: an allocation is reached by the inside and the outside name of its address, also at an address that
    /// does not relay any more; a server there is not.
    #[test]
    fn allocations_are_reached_by_every_name() {
        let [inside, outside, former] =
            ["10.0.0.5", "203.0.113.5", "10.0.0.4"].map(|ip| ip.parse::<IpAddr>().unwrap());
        let site = Site {
            former: vec![former],
            external: External::new(vec![(inside, outside)]),
            own: vec!["10.0.0.4/31".parse().unwrap()],
            ..site(&["10.0.0.5"])
        };
        let turn = Settings::default().turn(&site);
        for ip in [inside, outside, former] {
            let scope = turn.peers.judge(ip, &turn.external).unwrap();
            let may = |live: bool| scope.check(50_000, |_| live).is_ok();
            assert_eq!((may(true), may(false)), (true, false), "{ip}");
        }
    }

    #[test]
    fn zero_workers_means_one_per_cpu() {
        let mut settings = Settings::default();
        assert_eq!(settings.datapath(&site(&[])).workers, 3);
        settings.workers = 2;
        assert_eq!(settings.datapath(&site(&[])).workers, 2);
    }
}

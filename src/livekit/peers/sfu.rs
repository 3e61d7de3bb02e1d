//! What LiveKit's own configuration (livekit.yaml) says about the addresses and ports of its media, and about Redis. Defaults and
//! precedence are LiveKit's (`rtcconfig.Validate` and `NewWebRTCConfig` in its sources).

use std::net::IpAddr;
use std::ops::RangeInclusive;

use saphyr::{LoadableYamlNode as _, Yaml};

use crate::auth::Secret;
use crate::turn::peers::Cidr;

/// The ports of LiveKit without settings.
pub const DEFAULT_PORTS: RangeInclusive<u16> = 50_000..=60_000;

/// The port of `livekit-server --dev`.
pub const DEV_PORT: u16 = 7882;

/// What a configuration says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SfuConfig {
    /// `rtc.node_ip`, one of each family at most.
    pub node_ips: Vec<IpAddr>,
    /// The UDP ports of media.
    pub ports: RangeInclusive<u16>,
    /// `rtc.use_external_ip`: LiveKit asks a STUN server for its external addresses.
    pub use_external_ip: bool,
    /// `rtc.advertise_internal_ip`: those of the machine, too.
    pub advertise_internal_ip: bool,
    /// `rtc.interfaces` and `rtc.ips`: which addresses of the machine are used.
    pub filter: Filter,
    /// `port`: where the API listens.
    pub api_port: u16,
    /// `redis`
    pub redis: Option<RedisConfig>,
}

/// Which addresses of the machine LiveKit uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// If there are any, no other interfaces.
    pub interfaces: Vec<String>,
    /// Not these.
    pub not_interfaces: Vec<String>,
    /// If there are any, no other addresses.
    pub ips: Vec<Cidr>,
    /// Not these.
    pub not_ips: Vec<Cidr>,
}

/// How LiveKit reaches Redis.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// `host:port`
    pub address: String,
    /// The user of Redis' access control lists.
    pub username: String,
    /// Its password.
    pub password: Option<Secret>,
    /// The number of the database.
    pub database: u16,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// Sentinels or a cluster, which are not asked.
    pub is_several: bool,
}

impl PartialEq for RedisConfig {
    fn eq(&self, other: &RedisConfig) -> bool {
        let of = |one: &RedisConfig| {
            let password = one.password.as_ref().map(|password| password.as_bytes().to_vec());
            (one.address.clone(), one.username.clone(), password, one.database, one.tls, one.is_several)
        };
        of(self) == of(other)
    }
}

impl Eq for RedisConfig {}

impl Filter {
    /// Whether LiveKit uses an address of an interface.
    pub fn passes(&self, interface: &str, ip: IpAddr) -> bool {
        let named = |list: &[String]| list.iter().any(|name| name == interface);
        let within = |list: &[Cidr]| list.iter().any(|range| range.contains(ip));
        (self.interfaces.is_empty() || named(&self.interfaces))
            && !named(&self.not_interfaces)
            && (self.ips.is_empty() || within(&self.ips))
            && !within(&self.not_ips)
    }
}

impl SfuConfig {
    /// Reads a configuration.
    ///
    /// # Errors
    /// What is wrong with it, without quoting it: it has secrets.
    pub fn read(text: &str) -> Result<SfuConfig, String> {
        let documents = Yaml::load_from_str(text)
            .map_err(|error| format!("line {} is not YAML", error.marker().line()))?;
        let root = documents.into_iter().next().unwrap_or(Yaml::BadValue);
        let rtc = root.as_mapping_get("rtc");
        let is_dev = flag(Some(&root), "development");
        let number = |key| value(rtc, key).and_then(|text| text.parse::<u16>().ok()).unwrap_or(0);
        let (first, last) = (number("port_range_start"), number("port_range_end"));
        let mux = value(rtc, "udp_port").filter(|text| text != "0");
        let ports = match (first, last, mux) {
            (1.., 1.., _) if first <= last => first..=last,
            (1.., 1.., _) => return Err("rtc.port_range_end is less than rtc.port_range_start".into()),
            (_, _, Some(mux)) => ports(&mux).ok_or("rtc.udp_port is neither a port nor a range")?,
            (0, ..) if is_dev => DEV_PORT..=DEV_PORT,
            _ => DEFAULT_PORTS,
        };
        let node_ip = value(rtc, "node_ip").unwrap_or_default();
        let node_ips = node_ip.split(',').map(str::trim).filter(|text| !text.is_empty());
        let node_ips = node_ips.map(|text| text.parse().map_err(|_| "rtc.node_ip is not an address"));
        let (interfaces, ips) = (get(rtc, "interfaces"), get(rtc, "ips"));
        let ranges = |key| list(ips, key).iter().filter_map(|text| range(text)).collect();
        Ok(SfuConfig {
            node_ips: node_ips.collect::<Result<_, _>>()?,
            ports,
            use_external_ip: flag(rtc, "use_external_ip"),
            advertise_internal_ip: flag(rtc, "advertise_internal_ip"),
            filter: Filter {
                interfaces: list(interfaces, "includes"),
                not_interfaces: list(interfaces, "excludes"),
                ips: ranges("includes"),
                not_ips: ranges("excludes"),
            },
            api_port: value(Some(&root), "port").and_then(|port| port.parse().ok()).unwrap_or(7880),
            redis: redis(get(Some(&root), "redis")),
        })
    }
}

fn redis(section: Option<&Yaml<'_>>) -> Option<RedisConfig> {
    let is_several =
        ["sentinel_addresses", "cluster_addresses"].iter().any(|key| !list(section, key).is_empty());
    let address = value(section, "address").filter(|address| !address.is_empty());
    if address.is_none() && !is_several {
        return None;
    }
    let text = |key| value(section, key).unwrap_or_default();
    Some(RedisConfig {
        address: address.unwrap_or_default(),
        username: text("username"),
        password: Some(text("password")).filter(|password| !password.is_empty()).map(Secret::new),
        database: text("db").parse().unwrap_or(0),
        tls: flag(section, "use_tls") || flag(get(section, "tls"), "enabled"),
        is_several,
    })
}

/// `7882` or `7882-7892`
fn ports(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port != 0);
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some(first..=last)
}

/// A range in CIDR notation; LiveKit takes those whose address is inside, like `10.0.0.7/24`.
fn range(text: &str) -> Option<Cidr> {
    let (address, len) = text.split_once('/')?;
    Cidr::new(address.parse().ok()?, len.parse().ok()?)
}

fn get<'a>(section: Option<&'a Yaml<'a>>, key: &str) -> Option<&'a Yaml<'a>> {
    section?.as_mapping_get(key)
}

fn value(section: Option<&Yaml<'_>>, key: &str) -> Option<String> {
    text_of(section?.as_mapping_get(key)?)
}

fn flag(section: Option<&Yaml<'_>>, key: &str) -> bool {
    value(section, key).as_deref() == Some("true")
}

fn list(section: Option<&Yaml<'_>>, key: &str) -> Vec<String> {
    let found = section.and_then(|section| section.as_mapping_get(key)).and_then(|list| list.as_vec());
    found.into_iter().flatten().filter_map(text_of).collect()
}

fn text_of(yaml: &Yaml<'_>) -> Option<String> {
    let number = yaml.as_integer().map(|number| number.to_string());
    let text = || yaml.as_str().map(str::to_owned);
    number.or_else(text).or_else(|| yaml.as_bool().map(|flag| flag.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports_of(text: &str) -> RangeInclusive<u16> {
        SfuConfig::read(text).unwrap().ports
    }

    /// The precedence of LiveKit: a range before the multiplexed port, and the defaults of each mode.
    #[test]
    fn the_ports_are_those_that_livekit_takes() {
        for (text, ports) in [
            ("", 50_000..=60_000),
            ("port: 7880\nrtc:\n  tcp_port: 7881\n", 50_000..=60_000),
            ("rtc:\n  port_range_start: 40000\n  port_range_end: 41000\n", 40_000..=41_000),
            ("rtc:\n  udp_port: 7882\n", 7882..=7882),
            ("rtc:\n  udp_port: 7882-7892\n", 7882..=7892),
            ("rtc: {udp_port: \"7882 - 7892\"}\n", 7882..=7892),
            ("rtc:\n  udp_port: 7882\n  port_range_start: 1000\n  port_range_end: 2000\n", 1000..=2000),
            ("development: true\n", 7882..=7882),
            ("development: true\nrtc:\n  port_range_start: 1000\n  port_range_end: 2000\n", 1000..=2000),
        ] {
            assert_eq!(ports_of(text), ports, "{text}");
        }
        for text in [
            "rtc:\n  udp_port: many\n",
            "rtc:\n  port_range_start: 2000\n  port_range_end: 1000\n",
            "rtc:\n  node_ip: sfu.example.org\n",
            "rtc: [\n",
        ] {
            assert!(SfuConfig::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_and_redis_are_read() {
        let text = "rtc:\n  node_ip: 203.0.113.7, 2001:db8::7\n  use_external_ip: true\n  interfaces:\n    excludes: [docker0]\n  ips:\n    includes:\n    - 10.0.0.0/24\nredis:\n  address: 10.0.0.5:6379\n  password: hunter2\n  db: 3\n";
        let config = SfuConfig::read(text).unwrap();
        assert_eq!(format!("{:?}", config.node_ips), "[203.0.113.7, 2001:db8::7]");
        assert!(config.use_external_ip && !config.advertise_internal_ip);
        assert!(config.filter.passes("eth0", "10.0.0.9".parse().unwrap()));
        assert!(!config.filter.passes("docker0", "10.0.0.9".parse().unwrap()));
        assert!(!config.filter.passes("eth0", "10.0.1.9".parse().unwrap()));
        let redis = config.redis.clone().unwrap();
        assert_eq!((redis.address.as_str(), redis.database, redis.tls), ("10.0.0.5:6379", 3, false));
        assert_eq!(redis.password.unwrap().as_bytes(), b"hunter2");
        assert!(!format!("{config:?}").contains("hunter2"));
        assert_eq!(SfuConfig::read("redis: {}\n").unwrap().redis, None);
        let sentinels = "redis:\n  sentinel_addresses: [a:26379]\n";
        assert!(SfuConfig::read(sentinels).unwrap().redis.unwrap().is_several);
    }
}

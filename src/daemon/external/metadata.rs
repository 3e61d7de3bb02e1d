//! Asks the metadata service of a cloud for public addresses. Each cloud is asked in its own way; those that this machine is not in
//! do not answer, or refuse.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hyper::Method;
use serde_json::Value;
use tokio::task::JoinSet;

use super::http::{self, Failure, Header};

/// Public addresses by the inside address that they belong to.
pub type Pairs = BTreeMap<IpAddr, IpAddr>;

/// The address of the service in every cloud.
const V4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), 80);

/// That of AWS over IPv6: fd00:ec2::254.
const V6: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)), 80);

/// The most interfaces and addresses of an interface that are asked for.
const MOST: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cloud {
    Aws,
    Google,
    Azure,
    Hetzner,
}

impl Cloud {
    fn name(self) -> &'static str {
        match self {
            Cloud::Aws => "AWS",
            Cloud::Google => "Google Cloud",
            Cloud::Azure => "Azure",
            Cloud::Hetzner => "Hetzner",
        }
    }

    async fn ask(self, server: SocketAddr, locals: &[IpAddr]) -> Result<Pairs, Failure> {
        match self {
            Cloud::Aws => aws(server, locals).await,
            Cloud::Google => google(server, locals).await,
            Cloud::Azure => azure(server, locals).await,
            Cloud::Hetzner => hetzner(server, locals).await,
        }
    }
}

/// The public addresses of these IPv4 addresses, with the name of the cloud that knows them.
///
/// # Errors
/// No cloud knows any; what was tried.
pub async fn ask(locals: &[IpAddr]) -> Result<(Pairs, &'static str), String> {
    let mut asked = JoinSet::new();
    for (cloud, server) in
        [(Cloud::Aws, V4), (Cloud::Google, V4), (Cloud::Azure, V4), (Cloud::Hetzner, V4), (Cloud::Aws, V6)]
    {
        let locals = locals.to_vec();
        asked.spawn(async move { (cloud, cloud.ask(server, &locals).await) });
    }
    let mut refusals = Vec::new();
    while let Some(answer) = asked.join_next().await {
        let Ok((cloud, answer)) = answer else { continue };
        match answer {
            Ok(mut pairs) => {
                pairs.retain(|local, _| locals.contains(local));
                if !pairs.is_empty() {
                    // Dropping the set ends the others.
                    return Ok((pairs, cloud.name()));
                }
                refusals.push((cloud, "has no public address for it".to_owned()));
            }
            Err(Failure::Refused(why)) => refusals.push((cloud, why)),
            Err(Failure::Silent(_)) => {}
        }
    }
    if refusals.is_empty() {
        return Err(format!("no metadata service answers at {}", V4.ip()));
    }
    refusals.sort();
    let said: Vec<_> = refusals.iter().map(|(cloud, why)| format!("{} {why}", cloud.name())).collect();
    Err(format!("no metadata service knows it ({})", said.join("; ")))
}

/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-categories.html>, with the token of IMDSv2.
async fn aws(server: SocketAddr, locals: &[IpAddr]) -> Result<Pairs, Failure> {
    let ttl = Some(("X-aws-ec2-metadata-token-ttl-seconds", "60"));
    let token = http::ask(server, Method::PUT, "/latest/api/token", ttl).await?;
    let token = Some(("X-aws-ec2-metadata-token", token.trim()));
    let mut pairs = Pairs::new();
    const MACS: &str = "/latest/meta-data/network/interfaces/macs/";
    // Every interface, and every secondary address, may have its own public one.
    for mac in words(&optional(server, MACS, token).await?) {
        let path = format!("{MACS}{mac}/ipv4-associations/");
        for public in words(&optional(server, &path, token).await?) {
            let Ok(public) = public.parse::<Ipv4Addr>() else { continue };
            for local in words(&optional(server, &format!("{path}{public}"), token).await?) {
                add(&mut pairs, &local, &public.to_string());
            }
        }
    }
    if !locals.iter().all(|local| pairs.contains_key(local)) {
        let public = optional(server, "/latest/meta-data/public-ipv4", token).await?;
        let local = optional(server, "/latest/meta-data/local-ipv4", token).await?;
        add_primary(&mut pairs, locals, &local, &public);
    }
    Ok(pairs)
}

/// <https://cloud.google.com/compute/docs/metadata/predefined-metadata-keys>
async fn google(server: SocketAddr, locals: &[IpAddr]) -> Result<Pairs, Failure> {
    let flavor = Some(("Metadata-Flavor", "Google"));
    const INTERFACES: &str = "/computeMetadata/v1/instance/network-interfaces/";
    let listed = http::ask(server, Method::GET, INTERFACES, flavor).await;
    let mut interfaces = match listed {
        Ok(text) => words(&text),
        Err(Failure::Silent(why)) => return Err(Failure::Silent(why)),
        Err(Failure::Refused(_)) => Vec::new(),
    };
    if interfaces.is_empty() {
        interfaces.push("0".to_owned());
    }
    let mut pairs = Pairs::new();
    let mut refusal = None;
    for interface in interfaces {
        let path = format!("{INTERFACES}{interface}/access-configs/0/external-ip");
        match http::ask(server, Method::GET, &path, flavor).await {
            Ok(public) => {
                let local = optional(server, &format!("{INTERFACES}{interface}/ip"), flavor).await?;
                add_primary(&mut pairs, locals, &local, &public);
            }
            Err(Failure::Silent(why)) => return Err(Failure::Silent(why)),
            Err(why) => refusal = Some(why),
        }
    }
    match refusal {
        Some(why) if pairs.is_empty() => Err(why),
        _ => Ok(pairs),
    }
}

/// <https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service>; the public address of a load balancer is in a
/// document of its own.
async fn azure(server: SocketAddr, locals: &[IpAddr]) -> Result<Pairs, Failure> {
    let header = Some(("Metadata", "true"));
    let network = "/metadata/instance/network?api-version=2021-02-01&format=json";
    let network = match http::ask(server, Method::GET, network, header).await {
        Err(Failure::Silent(why)) => return Err(Failure::Silent(why)),
        network => network,
    };
    let mut pairs = azure_network(network.as_deref().unwrap_or_default());
    if pairs.is_empty() {
        // The address alone, which older services have, too
        let path = "/metadata/instance/network/interface/0/ipv4/ipAddress/0/publicIpAddress\
                    ?api-version=2017-08-01&format=text";
        add_primary(&mut pairs, locals, "", &optional(server, path, header).await?);
    }
    if pairs.is_empty() {
        network?;
    }
    if !locals.iter().all(|local| pairs.contains_key(local)) {
        let path = "/metadata/loadbalancer?api-version=2021-02-01&format=json";
        let found = azure_load_balancer(&optional(server, path, header).await?);
        for (local, public) in found {
            pairs.entry(local).or_insert(public);
        }
    }
    Ok(pairs)
}

fn azure_network(text: &str) -> Pairs {
    let mut pairs = Pairs::new();
    let network: Value = serde_json::from_str(text).unwrap_or_default();
    for interface in list(&network["interface"]) {
        for address in list(&interface["ipv4"]["ipAddress"]) {
            add(&mut pairs, string(&address["privateIpAddress"]), string(&address["publicIpAddress"]));
        }
    }
    pairs
}

fn azure_load_balancer(text: &str) -> Pairs {
    let mut pairs = Pairs::new();
    let balancer: Value = serde_json::from_str(text).unwrap_or_default();
    for address in list(&balancer["loadbalancer"]["publicIpAddresses"]) {
        add(&mut pairs, string(&address["privateIpAddress"]), string(&address["frontendIpAddress"]));
    }
    pairs
}

/// <https://docs.hetzner.cloud/#server-metadata>
async fn hetzner(server: SocketAddr, locals: &[IpAddr]) -> Result<Pairs, Failure> {
    let public = http::ask(server, Method::GET, "/hetzner/v1/metadata/public-ipv4", None).await?;
    let mut pairs = Pairs::new();
    // A server has its public address itself.
    let local =
        if locals.iter().any(|local| local.to_string() == public.trim()) { public.trim() } else { "" };
    add_primary(&mut pairs, locals, local, &public);
    Ok(pairs)
}

/// The same as [`http::ask`]; what the service does not have is empty.
async fn optional(server: SocketAddr, path: &str, header: Option<Header<'_>>) -> Result<String, Failure> {
    match http::ask(server, Method::GET, path, header).await {
        Err(Failure::Refused(_)) => Ok(String::new()),
        other => other,
    }
}

fn add(pairs: &mut Pairs, local: &str, public: &str) {
    if let (Ok(local), Ok(public)) = (local.trim().parse::<Ipv4Addr>(), public.trim().parse::<Ipv4Addr>()) {
        pairs.entry(local.into()).or_insert(public.into());
    }
}

/// Adds the public address of an interface. If the service does not say which inside address it belongs to, it is that of the only
/// one that there is.
fn add_primary(pairs: &mut Pairs, locals: &[IpAddr], local: &str, public: &str) {
    match (locals, local.trim()) {
        ([only], "") => add(pairs, &only.to_string(), public),
        (_, local) => add(pairs, local, public),
    }
}

/// The lines of a list, some of which end with a slash. They become parts of paths.
fn words(text: &str) -> Vec<String> {
    let is_plain = |word: &&str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":.-_".contains(&byte))
    };
    let words = text.lines().map(|line| line.trim().trim_end_matches('/'));
    words.filter(is_plain).take(MOST).map(str::to_owned).collect()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten().take(MOST)
}

fn string(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_documents_of_azure() {
        let network = r#"{"interface":[{"ipv4":{"ipAddress":[
            {"privateIpAddress":"10.0.0.4","publicIpAddress":"203.0.113.4"},
            {"privateIpAddress":"10.0.0.5","publicIpAddress":""}],
            "subnet":[{"address":"10.0.0.0","prefix":"24"}]},"ipv6":{"ipAddress":[]},"macAddress":"000D3AF806EC"}]}"#;
        assert_eq!(azure_network(network), Pairs::from([(ip("10.0.0.4"), ip("203.0.113.4"))]));
        let balancer = r#"{"loadbalancer":{"publicIpAddresses":[
            {"frontendIpAddress":"203.0.113.5","privateIpAddress":"10.0.0.5"}],"inboundRules":[],"outboundRules":[]}}"#;
        assert_eq!(azure_load_balancer(balancer), Pairs::from([(ip("10.0.0.5"), ip("203.0.113.5"))]));
        for text in ["", "[]", "{", r#"{"interface":{}}"#, r#"{"interface":[{"ipv4":{"ipAddress":[7]}}]}"#] {
            assert!(azure_network(text).is_empty() && azure_load_balancer(text).is_empty(), "{text}");
        }
    }

    /// Which of several inside addresses a public one belongs to is never guessed.
    #[test]
    fn a_public_address_alone_is_that_of_the_only_one() {
        let pairs = |locals: &[IpAddr], local: &str| {
            let mut pairs = Pairs::new();
            add_primary(&mut pairs, locals, local, "203.0.113.4\n");
            pairs
        };
        let (one, two) = (ip("10.0.0.4"), ip("10.0.0.5"));
        let mapped = Pairs::from([(one, ip("203.0.113.4"))]);
        assert_eq!(pairs(&[one], ""), mapped);
        assert_eq!(pairs(&[one, two], "10.0.0.4"), mapped);
        assert_eq!(pairs(&[one, two], ""), Pairs::new());
        assert!(!pairs(&[two], "10.0.0.4").contains_key(&two));
    }

    #[test]
    fn lists_are_bounded_and_plain() {
        assert_eq!(words("0e:49:61:0f:c3:11/\n\n ../../x\n a b\n0/"), ["0e:49:61:0f:c3:11", "0"]);
        assert_eq!(words(&"1\n".repeat(1000)).len(), MOST);
    }
}

//! Asks Redis for the nodes of a distributed deployment.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, IntoConnectionInfo, RedisError, ServerErrorKind};

use super::sfu::RedisConfig;
use crate::auth::Secret;
use crate::livekit::settings::PeerSettings;

/// Time for a connection, and for an answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The hash of nodes.
const NODES: &str = "nodes";

/// Where Redis is. `Debug` shows no password.
#[derive(Clone, Debug)]
pub struct Target {
    /// Without a password.
    pub url: String,
    password: Option<Secret>,
}

/// A connection that is made again when it breaks.
pub struct NodeStore {
    pub target: Target,
    connection: Option<MultiplexedConnection>,
}

impl Target {
    /// The Redis server of the settings, otherwise that of LiveKit's configuration.
    ///
    /// # Errors
    /// LiveKit's configuration names servers that are not asked.
    pub fn new(settings: &PeerSettings, config: Option<&RedisConfig>) -> Result<Option<Target>, String> {
        if !settings.redis.is_empty() {
            let password = settings.redis_password.clone();
            return Ok(Some(Target { url: settings.redis.clone(), password }));
        }
        let Some(config) = config else { return Ok(None) };
        if config.is_several {
            return Err("LiveKit's configuration names sentinels or a cluster of Redis, which the sidecar does not ask; set \
                        peers.redis to the server that has the hash \"nodes\", or list the addresses of all nodes in \
                        peers.addresses"
                .into());
        }
        let scheme = if config.tls { "rediss" } else { "redis" };
        let user = if config.username.is_empty() { String::new() } else { format!("{}@", config.username) };
        let port = if config.address.rsplit_once(':').is_some() { "" } else { ":6379" };
        let url = format!("{scheme}://{user}{}{port}/{}", config.address, config.database);
        let password = settings.redis_password.clone().or_else(|| config.password.clone());
        Ok(Some(Target { url, password }))
    }

    /// Whether it is the same server.
    pub fn is_like(&self, other: &Target) -> bool {
        let password = |target: &Target| target.password.as_ref().map(|one| one.as_bytes().to_vec());
        self.url == other.url && password(self) == password(other)
    }

    /// Host and port, without a user.
    fn shown(&self) -> &str {
        let rest = self.url.split_once("://").map_or(&*self.url, |(_, rest)| rest);
        rest.rsplit_once('@').map_or(rest, |(_, rest)| rest)
    }
}

impl NodeStore {
    pub fn new(target: Target) -> NodeStore {
        NodeStore { target, connection: None }
    }

    /// The entries of all nodes.
    ///
    /// # Errors
    /// What is wrong, as one sentence with the fix.
    pub async fn nodes(&mut self) -> Result<Vec<Vec<u8>>, String> {
        let answer = self.ask().await;
        if answer.is_err() {
            self.connection = None;
        }
        answer.map_err(|error| sentence(&error, self.target.shown()))
    }

    async fn ask(&mut self) -> Result<Vec<Vec<u8>>, RedisError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(connect(&self.target).await?),
        };
        let pairs: Vec<(Vec<u8>, Vec<u8>)> = redis::cmd("HGETALL").arg(NODES).query_async(connection).await?;
        Ok(pairs.into_iter().map(|(_, value)| value).collect())
    }
}

async fn connect(target: &Target) -> Result<MultiplexedConnection, RedisError> {
    let mut info = target.url.as_str().into_connection_info()?;
    if let Some(password) =
        target.password.as_ref().and_then(|password| str::from_utf8(password.as_bytes()).ok())
    {
        let settings = info.redis_settings().clone().set_password(password);
        info = info.set_redis_settings(settings);
    }
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(TIMEOUT))
        .set_response_timeout(Some(TIMEOUT));
    Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await
}

/// What is wrong. The server's own words may have anything, so they are not repeated.
fn sentence(error: &RedisError, at: &str) -> String {
    let what = match error.kind() {
        ErrorKind::AuthenticationFailed => {
            return format!(
                "Redis at {at} refuses the password; write the right one into the file of peers.redis_password_file"
            );
        }
        ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask) => {
            return format!(
                "Redis at {at} is a cluster and has the nodes on another server; set peers.redis to the one that has the hash \
                 \"nodes\""
            );
        }
        ErrorKind::Server(_) | ErrorKind::Extension if error.code() == Some("NOAUTH") => {
            return format!(
                "Redis at {at} requires a password; write it into a file, and its name as peers.redis_password_file"
            );
        }
        ErrorKind::Io if error.is_timeout() => "has not answered in time",
        ErrorKind::Io if error.is_connection_refusal() => "refuses the connection",
        ErrorKind::Io => "cannot be reached",
        _ => "has not answered as Redis does",
    };
    format!(
        "Redis at {at} {what}; correct peers.redis, or see whether it runs and a firewall lets this machine connect"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::livekit::peers::sfu::SfuConfig;

    #[test]
    fn the_settings_precede_livekits_configuration() {
        let yaml = "redis:\n  address: 10.0.0.5:6379\n  username: me\n  password: hunter2\n  db: 2\n  use_tls: true\n";
        let config = SfuConfig::read(yaml).unwrap().redis;
        let of_yaml = Target::new(&PeerSettings::default(), config.as_ref()).unwrap().unwrap();
        assert_eq!(
            (of_yaml.url.as_str(), of_yaml.shown()),
            ("rediss://me@10.0.0.5:6379/2", "10.0.0.5:6379/2")
        );
        assert!(!format!("{of_yaml:?}").contains("hunter2"));
        let settings = PeerSettings { redis: "redis://10.0.0.9:6379/0".into(), ..PeerSettings::default() };
        let own = Target::new(&settings, config.as_ref()).unwrap().unwrap();
        assert_eq!(own.url, "redis://10.0.0.9:6379/0");
        assert!(!own.is_like(&of_yaml) && own.password.is_none());
        assert!(Target::new(&PeerSettings::default(), None).unwrap().is_none());
        let several = SfuConfig::read("redis:\n  cluster_addresses: [a:6379]\n").unwrap().redis;
        assert!(Target::new(&PeerSettings::default(), several.as_ref()).unwrap_err().contains("peers.redis"));
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_a_sentence() {
        let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let target = Target { url: format!("redis://{unused}/0"), password: Some(Secret::new("hunter2")) };
        let error = NodeStore::new(target).nodes().await.unwrap_err();
        assert!(
            error.contains(&unused.to_string()) && error.contains("; ") && !error.contains("hunter2"),
            "{error}"
        );
    }
}

//! Whether a relay accepts the credentials that clients get.

use serde_json::Value;

use super::Verdict;
use crate::livekit::probe::failure::Failure;
use crate::livekit::probe::targets::ProbeTarget;

/// What the sidecar and LiveKit make of the shared secret.
pub fn of_shared_secret(
    outcome: &Result<(), Failure>,
    target: &ProbeTarget,
    ttl: u64,
    auth: &Value,
) -> Verdict {
    let max_lifetime = auth["max_lifetime"].as_u64();
    match (outcome, max_lifetime) {
        (Ok(()), _) => Verdict::Good("the relay accepts a credential of the shared secret".into()),
        (Err(Failure::Unauthorized), _) if auth["shared_secrets"] == 0 => Verdict::Wrong(
            "the relay has no shared secret; add the file of credentials.secret_file to auth.secret_files of the relay, and run \
             `hairpin ctl reload`"
                .into(),
        ),
        (Err(Failure::Unauthorized), Some(most)) if ttl > most => Verdict::Wrong(format!(
            "credentials.ttl is {ttl} s, more than the relay accepts ({most} s); lower credentials.ttl, or raise auth.max_lifetime \
             of the relay"
        )),
        (Err(Failure::Unauthorized), _) => Verdict::Wrong(
            "the relay refuses a credential of the first shared secret; put the same secret into auth.secret_files of the relay, and \
             run `hairpin ctl reload`"
                .into(),
        ),
        (Err(failure), _) => Verdict::Wrong(failure.sentence(target)),
    }
}

/// What LiveKit issues for its own TURN server.
pub fn of_livekit(outcome: &Result<(), Failure>, target: &ProbeTarget, key: &str) -> Verdict {
    match outcome {
        Ok(()) => Verdict::Good(format!("the relay accepts what LiveKit issues with the API key {key}")),
        Err(Failure::Unauthorized) => Verdict::Wrong(format!(
            "the relay refuses what LiveKit issues with the API key {key}; put the same key and secret into auth.livekit_keys_file of \
             the relay, and run `hairpin ctl reload`"
        )),
        Err(failure) => Verdict::Wrong(failure.sentence(target)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::livekit::ice_url::ClientTransport;

    fn wrong(outcome: Result<(), Failure>, ttl: u64, auth: Value) -> String {
        let target = ProbeTarget {
            transport: ClientTransport::Udp,
            address: "192.0.2.1:3478".parse().unwrap(),
            name: String::new(),
            shown: String::new(),
            relay_ports: None,
            is_elsewhere: false,
        };
        match of_shared_secret(&outcome, &target, ttl, &auth) {
            Verdict::Wrong(said) => said,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_refused_is_explained_by_what_the_relay_says() {
        let refused = || Err(Failure::Unauthorized);
        let auth = |secrets: u64| json!({ "shared_secrets": secrets, "max_lifetime": 3600 });
        assert!(wrong(refused(), 60, auth(0)).starts_with("the relay has no shared secret; add"));
        let long = wrong(refused(), 14_400, auth(1));
        assert!(long.contains("14400 s, more than the relay accepts (3600 s)"), "{long}");
        assert!(wrong(refused(), 60, auth(1)).contains("put the same secret into"));
        assert!(wrong(refused(), 60, Value::Null).contains("put the same secret into"));
        assert!(wrong(Err(Failure::Silent), 60, auth(1)).contains("nothing comes back"));
    }
}

//! LiveKit: whether it answers, takes the API key, and has the same time.

use super::clock;
use super::{Finding, Verdict};
use crate::livekit::server::{Liveness, Server, ServerError};
use crate::livekit::settings::LiveKitSettings;

/// Asks LiveKit as the sidecar does.
pub async fn look(settings: &LiveKitSettings) -> Vec<Finding> {
    let shown = if settings.api_url.is_empty() { &settings.url } else { &settings.api_url };
    let server = match Server::new(settings) {
        Ok(server) => server,
        Err(error) => return vec![Finding::new("livekit", shown, Verdict::Wrong(error.to_string()))],
    };
    let alive = server.live().await;
    let mut findings = vec![Finding::new("livekit", shown, liveness(&alive))];
    // What does not answer has no opinion of the key.
    if alive.is_ok() {
        let rooms = server.rooms().await.map(|rooms| rooms.len());
        findings.push(Finding::new("livekit-key", shown, key(&rooms)));
    }
    if let Some(ahead) = server.clock_offset() {
        findings.push(Finding::new("clock", "livekit", clock::judge("LiveKit", ahead)));
    }
    findings
}

fn liveness(alive: &Result<Liveness, ServerError>) -> Verdict {
    match alive {
        Ok(Liveness::Ready) => Verdict::Good("it answers".into()),
        Ok(Liveness::Stale) => Verdict::Wrong(STALE.into()),
        Err(error) => Verdict::Wrong(error.to_string()),
    }
}

fn key(rooms: &Result<usize, ServerError>) -> Verdict {
    match rooms {
        Ok(rooms) => Verdict::Good(format!("it takes the API key; rooms: {rooms}")),
        Err(error) => Verdict::Wrong(error.to_string()),
    }
}

/// What a LiveKit says that answers `GET /` with 406.
pub const STALE: &str = "LiveKit answers, but its own figures are old (406), as after a lack of CPU time or of Redis; see its log";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_livekit_that_lags_behind_is_no_healthy_one() {
        assert!(matches!(liveness(&Ok(Liveness::Ready)), Verdict::Good(_)));
        assert_eq!(liveness(&Ok(Liveness::Stale)), Verdict::Wrong(STALE.into()));
        let timeout = ServerError::Timeout { at: "https://livekit.example.org".into() };
        assert!(
            matches!(liveness(&Err(timeout.clone())), Verdict::Wrong(said) if said.contains("has not responded"))
        );
        assert!(matches!(key(&Err(timeout)), Verdict::Wrong(_)));
    }
}

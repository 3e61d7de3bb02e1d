//! Runs the command that restarts LiveKit, and sees whether LiveKit comes back.
//!
//! The exit status of the command says little: LiveKit ends with status 0 if it cannot read its configuration, and one that is told to end
//! serves its participants on for hours. So a connection is held that the old process closes when it ends, and the new one must
//! answer `GET /`.

use std::fmt;
use std::io;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use hyper::{Method, StatusCode};
use tokio::time::{Instant, sleep};

use super::endpoint::{Endpoint, Held};
use crate::daemon::service_manager::SOCKET_VARIABLE;

/// How often LiveKit is asked.
const INTERVAL: Duration = Duration::from_millis(250);

/// How long LiveKit has to answer before it is believed to stay: it ends right after its start if a secret cannot be read.
const STEADY: Duration = Duration::from_secs(1);

/// How long after the command a restart may begin without being missed.
const SETTLE: Duration = Duration::from_secs(3);

/// What has become of LiveKit.
#[derive(Debug)]
pub enum Outcome {
    /// It answers.
    Back {
        /// Whether the process before has ended, as far as its connection shows.
        is_new: bool,
        /// The exit status of the command; `None` if it still runs.
        status: Option<ExitStatus>,
    },
    /// It does not answer in time.
    Missing {
        /// What happened last.
        last: String,
        /// The exit status of the command; `None` if it still runs.
        status: Option<ExitStatus>,
    },
}

/// Runs a command of the shell and waits until LiveKit answers, for `wait` at most. The command is not ended.
///
/// # Errors
///
/// There is no shell.
pub async fn restart(livekit: &Endpoint, command: &str, wait: Duration) -> io::Result<Outcome> {
    let deadline = Instant::now() + wait;
    let mut before = match livekit.hold().await {
        Ok(Some(held)) => Before::Lives(held),
        Ok(None) => Before::Unknown,
        Err(_) => Before::Ended,
    };
    let mut child = Command::new("/bin/sh")
        .arg("-c")
        .arg(command)
        .env_remove(SOCKET_VARIABLE)
        .stdin(Stdio::null())
        .spawn()?;
    let mut ended: Option<(Instant, ExitStatus)> = None;
    let mut answering: Option<Instant> = None;
    let mut last = "it has not ended".to_owned();
    loop {
        if ended.is_none() {
            ended = child.try_wait().ok().flatten().map(|status| (Instant::now(), status));
        }
        if matches!(&before, Before::Lives(held) if held.is_closed()) {
            before = Before::Ended;
        }
        let is_new = matches!(before, Before::Ended);
        let is_settled = ended.is_some_and(|(at, _)| at.elapsed() >= SETTLE);
        if is_new || is_settled {
            match answer(livekit).await {
                Ok(()) => {
                    let since = *answering.get_or_insert_with(Instant::now);
                    if since.elapsed() >= STEADY {
                        return Ok(Outcome::Back { is_new, status: ended.map(|(_, status)| status) });
                    }
                }
                Err(error) => {
                    (answering, last) = (None, error);
                    // A server that serves one connection at a time would serve none while this is held.
                    if !is_new {
                        before = Before::Unknown;
                    }
                }
            }
        }
        if Instant::now() >= deadline {
            return Ok(Outcome::Missing { last, status: ended.map(|(_, status)| status) });
        }
        sleep(INTERVAL).await;
    }
}

/// The LiveKit process before the command.
enum Before {
    /// It holds a connection that it would close if it ended.
    Lives(Held),
    /// It has ended, or was not there.
    Ended,
    /// It closes every connection at once.
    Unknown,
}

/// Asks LiveKit whether it lives. 406 is what it says while its own figures are old, as right after a start.
async fn answer(livekit: &Endpoint) -> Result<(), String> {
    match livekit.request(Method::GET, "/", None, None).await? {
        (StatusCode::OK | StatusCode::NOT_ACCEPTABLE, _) => Ok(()),
        (status, _) => Err(format!("{} responds with {status}", livekit.shown())),
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (status, sentence) = match self {
            Outcome::Back { is_new: true, status } => (status, "LiveKit is back".to_owned()),
            Outcome::Back { is_new: false, status } => (
                status,
                "LiveKit answers, but nothing shows that it was restarted: it may wait for its participants to leave, and has the \
                 old configuration until then"
                    .to_owned(),
            ),
            Outcome::Missing { last, status } => {
                (status, format!("LiveKit does not answer: {last}; see its log, which says what is wrong with its configuration"))
            }
        };
        match status {
            Some(status) if status.success() => f.write_str(&sentence),
            Some(status) => write!(f, "{sentence} (the command has ended with {status})"),
            None => write!(f, "{sentence} (the command still runs)"),
        }
    }
}

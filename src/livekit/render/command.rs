//! `hairpin-livekit render` from its arguments to its exit status.

use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::arguments::{Mode, RenderArgs};
use super::endpoint::Endpoint;
use super::file::Existing;
use super::mediamtx::{self, MediaMtx};
use super::restart::{self, Outcome};
use super::sections::{self, Rendered, SecretSource, Takeover};
use super::servers::{self, Server};
use super::yaml::{self, Edited, Section};
use super::{diff, kinds, secret};
use crate::admin::client::Failure;
use crate::auth::Secret;
use crate::daemon::service_manager::SOCKET_VARIABLE;
use crate::daemon::{self, MISTAKES};
use crate::livekit::ice_url::ClientTransport;
use crate::livekit::relays::{Relay, RelayStatus};
use crate::livekit::settings::{RelaySettings, Settings};

/// The environment variable with `user:password` for MediaMTX's API.
const CREDENTIALS: &str = "HAIRPIN_MEDIAMTX_CREDENTIALS";

/// LiveKit's port, if its configuration names none.
const LIVEKIT_PORT: u16 = 7880;

/// Renders with these settings, those of `--config` if there was one.
pub fn run(args: &RenderArgs, settings: Option<Settings>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&Failure::new(error.to_string())),
    };
    let relay = || Settings { relays: vec![RelaySettings::default()], ..Settings::default() };
    let render = Render { args, settings: settings.unwrap_or_else(relay) };
    match runtime.block_on(render.carry_out()) {
        Ok(code) => code,
        Err(failure) => failed(&failure),
    }
}

fn failed(failure: &Failure) -> ExitCode {
    note(&format!("hairpin-livekit: {}", failure.message));
    if failure.is_usage { MISTAKES.into() } else { ExitCode::FAILURE }
}

/// What is being rendered.
struct Render<'a> {
    args: &'a RenderArgs,
    settings: Settings,
}

/// What has come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Done {
    /// There was nothing to do.
    Current,
    /// The section is where it was wanted.
    Changed,
    /// It is not, and the reason was printed.
    Failed,
}

/// What the relays have said.
#[derive(Default)]
struct Told {
    urls: Vec<String>,
    statuses: Vec<RelayStatus>,
}

impl Render<'_> {
    async fn carry_out(&self) -> Result<ExitCode, Failure> {
        let args = self.args;
        if args.api.is_some() && args.mode != Mode::Mediamtx {
            return Err(Failure::usage("--api is MediaMTX's; add --mode mediamtx"));
        }
        let target = self.target()?;
        let told = self.told().await?;
        let servers = servers::all(told.urls.clone(), args.domain.as_deref()).map_err(Failure::usage)?;
        if servers.is_empty() {
            return Err(Failure::new(
                "the relay tells no URLs for clients; see `hairpin ctl status`, or name them with --url",
            ));
        }
        let existing = target
            .as_deref()
            .map(Existing::read)
            .transpose()
            .map_err(|error| Failure::new(format!("{error:#}")))?;
        let node_ip = existing.as_ref().and_then(|existing| node_ip(&existing.bytes));
        let rendered = self.rendered(&servers, &told, node_ip)?;
        let mut done = Done::Current;
        match (&existing, &target) {
            (Some(existing), Some(path)) => done = self.write_to(path, existing, &rendered).await?,
            _ if args.api.is_some() => {}
            _ => {
                self.print(&rendered.section);
                done = Done::Changed;
            }
        }
        if let (Some(url), true) = (&args.api, done != Done::Failed || args.check) {
            done = done.max(self.register(url, &rendered.section).await?);
        }
        if done == Done::Changed {
            rendered.notes.iter().for_each(|one| note(&format!("note: {one}")));
        }
        Ok(if done == Done::Failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    /// The file that is written or checked.
    fn target(&self) -> Result<Option<PathBuf>, Failure> {
        let args = self.args;
        if args.write && args.mode == Mode::Mediamtx {
            return Err(Failure::usage("--write is about LiveKit's file; name MediaMTX's with --into"));
        }
        let known = self.settings.livekit.config_file.clone().filter(|_| args.mode != Mode::Mediamtx);
        if args.write && known.is_none() {
            return Err(Failure::usage("livekit.config_file is not set; name LiveKit's file with --into"));
        }
        let target = args.into.clone().or_else(|| known.filter(|_| args.write || args.check));
        if target.is_none() && args.check && args.api.is_none() {
            return Err(Failure::usage("name the file that --check is about with --into"));
        }
        Ok(target)
    }

    /// The URLs of the relays, and what else they say.
    async fn told(&self) -> Result<Told, Failure> {
        if !self.args.url.is_empty() {
            return Ok(Told { urls: self.args.url.clone(), ..Told::default() });
        }
        let mut told = Told::default();
        for settings in &self.settings.relays {
            let relay = Relay::new(settings.clone())?;
            if settings.urls.is_empty() {
                let status = relay.status().await.map_err(|failure| Failure {
                    message: format!("{}; or name the URLs for clients with --url", failure.message),
                    ..failure
                })?;
                told.urls.extend(status.ice_urls.clone());
                told.statuses.push(status);
            } else {
                told.urls.extend(settings.urls.clone());
            }
        }
        Ok(told)
    }

    fn rendered(
        &self,
        servers: &[Server],
        told: &Told,
        node_ip: Option<IpAddr>,
    ) -> Result<Rendered, Failure> {
        match self.args.mode {
            Mode::TurnServers => {
                Ok(sections::turn_servers(servers, &self.source()?, self.settings.credentials.ttl))
            }
            Mode::Turn => {
                let named = |server: &&Server| server.transport == ClientTransport::Tls && server.is_named();
                let tls = servers.iter().filter(named).max_by_key(|server| server.port == 443);
                let named = tls.or_else(|| servers.iter().find(|server| server.is_named()));
                let domain = self.args.domain.clone().or_else(|| named.map(|server| server.host.clone()));
                let domain = domain.ok_or_else(|| {
                    Failure::usage(
                        "LiveKit needs a name for TURN over TLS; give that of the relay with --domain",
                    )
                })?;
                let listeners =
                    told.statuses.iter().flat_map(|status| &status.listeners).filter_map(|listener| {
                        Some((ClientTransport::from_name(&listener.transport)?, listener.address))
                    });
                let listeners = listeners.collect();
                let relaying = told.statuses.iter().flat_map(|status| &status.relay_addresses);
                let addresses = relaying.map(|one| (one.address, one.external)).collect();
                Ok(sections::turn(&Takeover {
                    domain,
                    node_ip,
                    servers: servers.to_vec(),
                    listeners,
                    addresses,
                }))
            }
            Mode::Mediamtx => Ok(sections::mediamtx(servers, &self.secret()?)),
        }
    }

    /// What LiveKit makes credentials from.
    fn source(&self) -> Result<SecretSource, Failure> {
        let file = self.args.secret_file.as_ref().or(self.settings.credentials.secret_file.as_ref());
        match file {
            Some(file) if !self.args.inline => {
                let file = std::path::absolute(file).unwrap_or_else(|_| file.clone());
                let first = self.settings.credentials.secrets.first();
                secret::check_for_livekit(&file, first)
                    .map_err(Failure::new)?
                    .iter()
                    .for_each(|one| note(&format!("note: {one}")));
                Ok(SecretSource::File(file))
            }
            _ => self.secret().map(SecretSource::Inline),
        }
    }

    fn secret(&self) -> Result<Secret, Failure> {
        if let Some(file) = &self.args.secret_file {
            return secret::first_in(file).map_err(Failure::new);
        }
        self.settings.credentials.secrets.first().cloned().ok_or_else(|| {
            Failure::usage("there is no shared secret; name the relay's with --secret-file, or the sidecar's configuration with --config")
        })
    }

    fn print(&self, section: &Section) {
        let _ = io::stdout().lock().write_all(section.print().as_bytes());
    }

    async fn write_to(&self, path: &Path, existing: &Existing, rendered: &Rendered) -> Result<Done, Failure> {
        let (shown, section) = (path.display(), &rendered.section);
        let name =
            section.parent.map_or(section.key.to_owned(), |parent| format!("{parent}.{}", section.key));
        let edited = yaml::text(&existing.bytes).and_then(|text| {
            let outline = yaml::outline(text)?;
            kinds::check(text, &outline, self.args.mode.kind())?;
            yaml::edit(text, section).map(|edited| (text, edited))
        });
        let (text, Edited { old, new, text: edited }) = match edited {
            Ok(edited) => edited,
            Err(refusal) if self.args.check => return Err(Failure::new(format!("{shown}: {refusal}"))),
            Err(refusal) => {
                note(&format!(
                    "hairpin-livekit: {shown}: {refusal}; nothing was written: paste this section"
                ));
                self.print(section);
                return Ok(Done::Failed);
            }
        };
        let Some(edited) = edited else {
            say(&format!("{shown}: {name} is current"));
            return Ok(Done::Current);
        };
        if self.args.check {
            say(&format!("{shown}: {name} is not current"));
            diff::lines(old.as_ref(), &new).iter().for_each(|line| say(line));
            return Ok(Done::Failed);
        }
        existing.replace(&edited).map_err(|error| Failure::new(format!("{error:#}")))?;
        if section.has_secret() && existing.is_open() {
            note(&format!(
                "note: {shown} has the secret now, and others may read it; use `chmod o= {shown}`"
            ));
        }
        match (&self.args.run, self.args.mode) {
            (Some(command), _) => {
                say(&format!("{shown}: {name} was written"));
                self.restart(command, text).await
            }
            (None, Mode::Mediamtx) => {
                say(&format!("{shown}: {name} was written; MediaMTX reads it within seconds"));
                Ok(Done::Changed)
            }
            (None, Mode::TurnServers | Mode::Turn) => {
                say(&format!(
                    "{shown}: {name} was written; restart LiveKit, which reads it only at its start"
                ));
                Ok(Done::Changed)
            }
        }
    }

    /// Runs the command, and sees what becomes of the server.
    async fn restart(&self, command: &str, text: &str) -> Result<Done, Failure> {
        let failed = |error: io::Error| Failure::new(format!("the command cannot be run: {error}"));
        if self.args.mode == Mode::Mediamtx && self.args.livekit_url.is_none() {
            let mut shell = std::process::Command::new("/bin/sh");
            let shell = shell.arg("-c").arg(command).env_remove(SOCKET_VARIABLE);
            let status = shell.status().map_err(failed)?;
            return match status.success() {
                true => Ok(Done::Changed),
                false => Err(Failure::new(format!(
                    "the file was written, but the command has ended with {status}"
                ))),
            };
        }
        let livekit = self.livekit(text)?;
        let outcome = restart::restart(&livekit, command, self.args.wait).await.map_err(failed)?;
        match &outcome {
            Outcome::Back { .. } => {
                say(&outcome.to_string());
                Ok(Done::Changed)
            }
            Outcome::Missing { .. } => Err(Failure::new(outcome.to_string())),
        }
    }

    /// Where LiveKit answers.
    fn livekit(&self, text: &str) -> Result<Endpoint, Failure> {
        let of = &self.settings.livekit;
        let ca_file = self.args.ca_file.as_deref().or(of.ca_file.as_deref());
        let named = [
            ("--livekit-url", self.args.livekit_url.as_deref()),
            ("livekit.api_url", Some(&*of.api_url)),
            ("livekit.url", Some(&*of.url)),
        ];
        match named.into_iter().find_map(|(label, url)| Some((label, url.filter(|url| !url.is_empty())?))) {
            Some((label, url)) => Endpoint::of(label, url, ca_file),
            None => Ok(Endpoint::local(port(text).unwrap_or(LIVEKIT_PORT))),
        }
    }

    /// Gives the section to a running MediaMTX, or looks whether it has it.
    async fn register(&self, url: &str, section: &Section) -> Result<Done, Failure> {
        let endpoint = Endpoint::of("--api", url, self.args.ca_file.as_deref())?;
        let shown = endpoint.shown();
        if !endpoint.is_private() && !self.args.check {
            note(&format!(
                "note: the shared secret goes to {shown} without TLS, where others on that network could read it"
            ));
        }
        let server = MediaMtx::new(endpoint, self.credentials()?.as_deref());
        let (now, wanted) = (server.servers().await.map_err(Failure::new)?, section.value());
        if mediamtx::is_equal(&now, &wanted) {
            say(&format!("MediaMTX at {shown}: {} is current", section.key));
            return Ok(Done::Current);
        }
        if self.args.check {
            say(&format!("MediaMTX at {shown}: {} is not current", section.key));
            diff::lines(Some(&now), &wanted).iter().for_each(|line| say(line));
            return Ok(Done::Failed);
        }
        server.set(&wanted).await.map_err(Failure::new)?;
        say(&format!("MediaMTX at {shown}: {} was set; its next start reads its file", section.key));
        Ok(Done::Changed)
    }

    fn credentials(&self) -> Result<Option<String>, Failure> {
        if let Some(file) = &self.args.api_credentials {
            let wrong = |why: String| Failure::usage(format!("{}: {why}", file.display()));
            let text =
                std::fs::read_to_string(file).map_err(|error| wrong(format!("cannot be read: {error}")))?;
            let line = text.lines().map(str::trim).find(|line| line.contains(':') && !line.starts_with('#'));
            return line
                .map(|line| Some(line.to_owned()))
                .ok_or_else(|| wrong("write `user:password` into it".into()));
        }
        Ok(daemon::variable(CREDENTIALS)
            .and_then(|text| text.into_string().ok())
            .filter(|text| !text.is_empty()))
    }
}

/// LiveKit's `rtc.node_ip`.
fn node_ip(bytes: &[u8]) -> Option<IpAddr> {
    let outline = yaml::outline(yaml::text(bytes).ok()?).ok()?;
    let (_, rtc) = outline.root.get("rtc")?;
    // Two families are separated by a comma.
    rtc.get("node_ip")?.1.scalar()?.split(',').next()?.trim().parse().ok()
}

/// LiveKit's `port`.
fn port(text: &str) -> Option<u16> {
    yaml::outline(text).ok()?.root.get("port")?.1.scalar()?.parse().ok()
}

fn say(line: &str) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

fn note(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

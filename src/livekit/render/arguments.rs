//! What can be written after `hairpin-livekit render`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, ValueEnum};

use super::kinds::Kind;
use crate::admin::times::duration;

/// Print the section that registers the relay, or write it into the configuration of LiveKit or MediaMTX
#[derive(Args)]
#[command(group = ArgGroup::new("target").args(["into", "write"]))]
#[command(after_help = "\
Examples:
  hairpin-livekit render --config hairpin-livekit.toml
  hairpin-livekit render --config hairpin-livekit.toml --into /etc/livekit.yaml --run 'systemctl restart livekit'
  hairpin-livekit render --config hairpin-livekit.toml --into /etc/livekit.yaml --check
  hairpin-livekit render --config hairpin-livekit.toml --mode turn --domain turn.example.org
  hairpin-livekit render --secret-file secret --mode mediamtx --into mediamtx.yml --api http://127.0.0.1:9997

Files in block style are edited, and everything but the section stays as it is, comments included. Flow style ({...}, [...]) where
something has to change, anchors, tags, templates, several documents, ConfigMaps and Helm values are not edited: the section is
printed, to be pasted.

LiveKit reads its configuration once, at its start, and SIGHUP ends it. A restart that lets it finish (SIGTERM) takes until the last
participant has left. docs/livekit.md says more.")]
pub struct RenderArgs {
    /// The configuration of the sidecar.
    // Its help is no doc comment, where rustdoc would take the brackets for a link; so are others below.
    #[arg(
        long,
        value_name = "FILE",
        help = "The configuration of the sidecar [default: that of this machine, otherwise none: then the relay is the one of this \
                machine, and --secret-file has its secret]"
    )]
    pub config: Option<PathBuf>,
    /// Which section
    #[arg(long, value_enum, value_name = "MODE", default_value_t = Mode::TurnServers)]
    pub mode: Mode,
    /// Write the section into this file instead of printing it: LiveKit's livekit.yaml, or mediamtx.yml
    #[arg(long, value_name = "FILE")]
    pub into: Option<PathBuf>,
    /// The same for the file that livekit.config_file names
    #[arg(long)]
    pub write: bool,
    /// Change nothing: the exit status is 0 if the section in the file is current, otherwise 1, and what would change is printed
    /// without secrets
    #[arg(long)]
    pub check: bool,
    /// Run this command with /bin/sh if the file has changed, and wait until LiveKit answers again. That, and not the exit
    /// status of the command, decides about success
    #[arg(long, value_name = "COMMAND", requires = "target", conflicts_with = "check")]
    pub run: Option<String>,
    /// How long LiveKit may take to answer again
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "60s")]
    pub wait: Duration,
    /// Where LiveKit answers.
    #[arg(
        long,
        value_name = "URL",
        help = "Where LiveKit answers, for --run [default: that of the configuration, or the port in \
        the file on this machine]"
    )]
    pub livekit_url: Option<String>,
    /// The file with the shared secret.
    #[arg(
        long,
        value_name = "FILE",
        help = "The file with the shared secret and nothing else, at the path that LiveKit sees, because LiveKit reads it, too \
        [default: that of the configuration]"
    )]
    pub secret_file: Option<PathBuf>,
    /// Write the shared secret itself (`secret`) instead of the path of its file (`secret_file`), which needs LiveKit 1.13
    #[arg(long)]
    pub inline: bool,
    /// The name of the relay, instead of the hosts in its URLs. One name for several relays gives one entry for all
    #[arg(long, value_name = "NAME", value_parser = super::servers::domain)]
    pub domain: Option<String>,
    /// An ICE URL of the relay, like turn:turn.example.org:3478?transport=udp, instead of those that it tells. May be repeated
    #[arg(long, value_name = "URL")]
    pub url: Vec<String>,
    /// With --mode mediamtx: give the section to a running MediaMTX, whose API is at this URL
    #[arg(long, value_name = "URL")]
    pub api: Option<String>,
    /// A file with `user:password` for that API; otherwise HAIRPIN_MEDIAMTX_CREDENTIALS has them, or none are needed
    #[arg(long, value_name = "FILE", requires = "api")]
    pub api_credentials: Option<PathBuf>,
    /// Authorities for certificates.
    #[arg(
        long,
        value_name = "FILE",
        help = "Certificates of authorities for --api and --livekit-url, as PEM [default: those of \
        this machine]"
    )]
    pub ca_file: Option<PathBuf>,
}

/// Which section is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// `rtc.turn_servers` of LiveKit: credentials from the relay's shared secret
    TurnServers,
    /// `turn` of LiveKit: credentials of LiveKit's own, which the relay verifies with auth.livekit_keys_file
    Turn,
    /// `webrtcICEServers2` of MediaMTX: credentials from the relay's shared secret
    Mediamtx,
}

impl Mode {
    /// The kind of file that has the section.
    pub fn kind(self) -> Kind {
        match self {
            Mode::TurnServers | Mode::Turn => Kind::LiveKit,
            Mode::Mediamtx => Kind::MediaMtx,
        }
    }
}

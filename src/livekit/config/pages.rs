//! Pages made from the table: `docs/livekit-configuration.md` and `conf/hairpin-livekit.toml`. Tests fail when these files are out
//! of date; `HAIRPIN_WRITE_PAGES=1 cargo test --lib livekit::config::pages` writes them.

use super::table::TABLES;
use crate::config::pages::{reference_of, sample_of};

/// `docs/livekit-configuration.md`.
pub fn reference() -> String {
    reference_of(&TABLES, REFERENCE_HEAD)
}

/// `conf/hairpin-livekit.toml`.
pub fn sample() -> String {
    sample_of(&TABLES, SAMPLE_HEAD)
}

const REFERENCE_HEAD: &str = "\
# Configuration of the LiveKit sidecar

This page is generated from the table of settings (`src/livekit/config/table.rs`).

`hairpin-livekit init` writes a configuration, and [livekit.md](livekit.md) describes what to do with it. Every command takes
`--config FILE`; without it, `/etc/hairpin/hairpin-livekit.toml` is used if it exists, otherwise `hairpin-livekit.toml` in the working
directory. The file is [TOML](https://toml.io), and `conf/hairpin-livekit.toml` is a sample with every setting.
`hairpin-livekit check` reports every mistake in it, with its line and how to fix it, before it tries anything else.

Secrets, tokens and passwords come from files, the shared secret also from the configuration or from the environment variable
`HAIRPIN_LIVEKIT_SECRET`. They are never command line arguments, which every user of the machine could read. No message shows them: a
value that may be a secret appears as `***`. A file that every user of the machine may read although it contains a secret causes a
warning. Relative paths start at the folder of the configuration.

SIGHUP reads the file again, with everything that it names, and the log names each setting that has changed. All of them hold at
once. A file with a mistake changes nothing: the log has every mistake with its line, and the sidecar goes on as before. A reload
forgets no revocation and nothing that the sidecar knows about rooms. SIGTERM and SIGINT stop the sidecar; the relays keep their peers
and revocations.

A list with one element may be written without brackets.
";

const SAMPLE_HEAD: &str = "\
# Sample configuration of hairpin-livekit with every setting, commented out. The values are the defaults, or examples where the
# default is empty. `hairpin-livekit init` writes a configuration for this machine, `hairpin-livekit check` reports the mistakes
# in one, and docs/livekit-configuration.md is the reference.
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::pages::assert_current;

    #[test]
    fn the_reference_is_up_to_date() {
        assert_current("docs/livekit-configuration.md", &reference());
    }

    #[test]
    fn the_sample_is_up_to_date() {
        assert_current("conf/hairpin-livekit.toml", &sample());
    }
}

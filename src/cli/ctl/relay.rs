//! Which relay the arguments and the environment name.

use std::fs;

use super::arguments::CtlArgs;
use crate::admin::client::{Failure, Target, connector, token_in};
use crate::daemon;

/// The environment variable with the token.
const TOKEN: &str = "HAIRPIN_ADMIN_TOKEN";

/// The relay of these arguments.
pub fn target(args: &CtlArgs) -> Result<Target, Failure> {
    if let Some(url) = &args.url {
        return Target::url("--url", url, || connector(args.ca_file.as_deref()), || token(args));
    }
    match (&args.socket, &args.config) {
        (None, Some(file)) => Target::of_configuration(file),
        (socket, _) => Ok(Target::socket(socket.clone())),
    }
}

/// The token, which is never an argument.
fn token(args: &CtlArgs) -> Result<String, Failure> {
    let (text, place) = match &args.token_file {
        Some(file) => {
            let text = fs::read_to_string(file)
                .map_err(|error| Failure::usage(format!("{} cannot be read: {error}", file.display())))?;
            (text, file.display().to_string())
        }
        None => {
            let text = daemon::variable(TOKEN).ok_or_else(|| {
                Failure::usage(format!(
                    "there is no token; name the file that has it with --token-file, or set {TOKEN} in the environment"
                ))
            })?;
            (text.into_string().unwrap_or_default(), TOKEN.to_owned())
        }
    };
    token_in(&text).ok_or_else(|| Failure::usage(format!("{place} has no token; write it alone on a line")))
}

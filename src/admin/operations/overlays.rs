//! Overlays: what programs say about peers.

use serde_json::Value;

use crate::admin::json;
use crate::admin::request::Fields;
use crate::admin::response::Failure;
use crate::daemon::control::Control;
use crate::daemon::overlays::OverlayError;
use crate::turn::peers::OverlayMode;

/// Sets the overlay of an owner.
pub async fn set(control: &Control, owner: &str, mut body: Fields) -> Result<Value, Failure> {
    let mode =
        body.parsed("mode", |mode| OverlayMode::of(mode).ok_or_else(|| "write add or only".to_owned()))?;
    let addresses = body.texts("addresses")?;
    body.finish(&["mode", "addresses"])?;
    let addresses = addresses.ok_or_else(|| Failure::bad_request("addresses is missing"))?;
    let mode = mode.unwrap_or(OverlayMode::Add);
    let set = control.set_overlay(owner, mode, &addresses).await.map_err(failure)?;
    let mut value = json::overlay(&set.overlay);
    value["replaced"] = set.replaced.into();
    value["warnings"] = set.warnings.into();
    Ok(value)
}

/// Removes the overlay of an owner.
pub async fn clear(control: &Control, owner: &str) -> Result<Value, Failure> {
    control.clear_overlay(owner).await.map(|overlay| json::overlay(&overlay)).map_err(failure)
}

fn failure(error: OverlayError) -> Failure {
    let said = error.to_string();
    match error {
        OverlayError::Invalid(_) => Failure::bad_request(said),
        OverlayError::Full(_) | OverlayError::Failed(_) => Failure::refused(said),
        OverlayError::Unknown(_) => Failure::not_found(said),
        OverlayError::Stopping(_) => Failure::unavailable(said),
    }
}

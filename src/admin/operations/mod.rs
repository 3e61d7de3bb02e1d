//! What each operation does. It reads its parameters first, and acts only if all of them are understood.

mod allocations;
mod overlays;
mod revocations;

use serde_json::{Value, json};

use super::json;
use super::request::{Call, Fields};
use super::response::Failure;
use super::routes::Operation;
use crate::config::tokens::Scope;
use crate::daemon::control::{Control, STOPPING};

/// Carries out a call of somebody who may do as much as `scope`.
pub async fn carry_out(control: Control, call: Call, scope: Scope) -> Result<Value, Failure> {
    let Call { route, query, mut body } = call;
    match route.operation {
        Operation::Status => {
            nothing(query, body)?;
            status(&control, scope).await
        }
        Operation::Reload => {
            nothing(query, body)?;
            reload(&control).await
        }
        Operation::Drain => {
            query.finish(&[])?;
            let deadline = body.duration("deadline")?;
            body.finish(&["deadline"])?;
            let report = control.drain(deadline).await.map_err(Failure::unavailable)?;
            Ok(json!({ "already": report.already, "draining": json::drain(&report.status) }))
        }
        Operation::Undrain => {
            nothing(query, body)?;
            let was_draining = control.undrain().await.map_err(Failure::unavailable)?;
            Ok(json!({ "was_draining": was_draining }))
        }
        Operation::ListAllocations => {
            body.finish(&[])?;
            allocations::list(&control, query).await
        }
        Operation::ShowAllocation => {
            nothing(query, body)?;
            allocations::show(&control, &route.subject).await
        }
        Operation::EndAllocation => {
            nothing(query, body)?;
            allocations::end(&control, &route.subject).await
        }
        Operation::EndUser => {
            nothing(query, body)?;
            allocations::end_user(&control, route.subject).await
        }
        Operation::ListPeers => {
            nothing(query, body)?;
            let status = control.status().await.map_err(Failure::unavailable)?;
            Ok(json::peer_rules(&status))
        }
        Operation::SetPeers => {
            query.finish(&[])?;
            overlays::set(&control, &route.subject, body).await
        }
        Operation::ClearPeers => {
            nothing(query, body)?;
            overlays::clear(&control, &route.subject).await
        }
        Operation::ListRevocations => {
            body.finish(&[])?;
            revocations::list(&control, query).await
        }
        Operation::ShowRevocation => {
            nothing(query, body)?;
            revocations::show(&control, &route.subject).await
        }
        Operation::Revoke => {
            query.finish(&[])?;
            revocations::revoke(&control, body).await
        }
        Operation::ProbeCredentials => {
            nothing(query, body)?;
            let made = control.probe_credential().map_err(Failure::unavailable)?;
            Ok(json::probe_credential(&made))
        }
        Operation::Unrevoke => {
            nothing(query, body)?;
            revocations::unrevoke(&control, &route.subject).await
        }
    }
}

/// Checks that a call has no parameters.
fn nothing(query: Fields, body: Fields) -> Result<(), Failure> {
    query.finish(&[])?;
    body.finish(&[])
}

async fn status(control: &Control, scope: Scope) -> Result<Value, Failure> {
    let status = control.status().await.map_err(Failure::unavailable)?;
    Ok(json::status(&status, control.drain_status(), scope))
}

async fn reload(control: &Control) -> Result<Value, Failure> {
    match control.reload().await {
        Ok(report) => Ok(json!({
            "changed": report.changed.iter().map(json::change).collect::<Vec<_>>(),
            "warnings": report.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "certificates": report.certificates,
        })),
        Err(error) if error.what == STOPPING => Err(Failure::unavailable(error.what)),
        Err(error) => {
            let findings = error.findings.iter().map(ToString::to_string).collect::<Vec<_>>();
            Err(Failure::refused(error.to_string()).with("findings", findings.into()))
        }
    }
}

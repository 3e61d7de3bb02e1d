//! The admin API: HTTP and JSON, for `hairpin ctl` and for programs. docs/api.md describes it.
//!
//! - `access`: who calls, and whether they may
//! - `routes`: which request is which operation; docs/openapi.yaml has the same list
//! - `request`: the bodies and parameters of requests; `response`: errors and results
//! - `operations`: what each operation does; `json`: how results are written
//! - `audit`: the log of changing calls
//! - [`client`]: asks a relay, for programs that use this API
//! - [`times`]: durations and times as people write them; [`percent`]: names in paths and queries
//!
//! The sockets are the daemon's, which passes requests with their [`Caller`].

mod access;
mod audit;
pub mod client;
mod json;
mod operations;
pub mod percent;
mod request;
mod response;
mod routes;
pub mod times;

use std::sync::{Arc, PoisonError, RwLock};

use hyper::Request;
use hyper::body::{Body, Bytes, Incoming};

use crate::config::settings::AdminSettings;
use crate::config::tokens::Scope;
use crate::daemon::admin::{Api, Caller, Pending};
use crate::daemon::control::Control;
use access::{Access, Who};
use response::Failure;

pub use response::VERSION;

/// The API of a relay.
struct Admin {
    control: Control,
    access: RwLock<Arc<Access>>,
}

/// Makes the API of the relay that `control` gives orders to.
pub fn api(control: Control) -> Arc<dyn Api> {
    Arc::new(Admin { control, access: RwLock::default() })
}

impl Api for Admin {
    fn configure(&self, settings: &AdminSettings) {
        let mut access = self.access.write().unwrap_or_else(PoisonError::into_inner);
        *access = Arc::new(access.renewed(settings));
    }

    fn call(&self, caller: Caller, request: Request<Incoming>) -> Pending {
        let access = self.access.read().unwrap_or_else(PoisonError::into_inner).clone();
        let control = self.control.clone();
        Box::pin(async move {
            match respond(control, &access, caller, request).await {
                Ok(value) => response::ok(&value),
                Err(failure) => failure.into_response(),
            }
        })
    }
}

async fn respond<B: Body<Data = Bytes>>(
    control: Control,
    access: &Access,
    caller: Caller,
    request: Request<B>,
) -> Result<serde_json::Value, Failure>
where
    B::Error: ToString,
{
    let (head, body) = request.into_parts();
    let who = access.identify(caller, &head)?;
    let route = routes::find(&head.method, head.uri.path())?;
    if route.needs_admin() && who.scope() != Scope::Admin {
        // Whoever may not call need not send a body.
        let outcome = Err(Failure::read_only());
        audit::write(&who, &route.action(), route.session(), &outcome);
        return outcome;
    }
    let call = request::Call::new(route.clone(), &head, body).await;
    if !route.changes() {
        return operations::carry_out(control, call?, who.scope()).await;
    }
    // A changing call is carried out to its end and audited, also if the client does not wait.
    completed(change(control, who, route, call)).await
}

/// Carries out a call to its end, even if the caller does not wait, and even if it panics.
async fn completed(
    call: impl Future<Output = Result<serde_json::Value, Failure>> + Send + 'static,
) -> Result<serde_json::Value, Failure> {
    let failed = |_| Err(Failure::internal("the call has failed; this is a bug in hairpin"));
    tokio::spawn(call).await.unwrap_or_else(failed)
}

/// Carries out a changing call, and writes its audit line.
async fn change(
    control: Control,
    who: Who,
    route: routes::Route,
    call: Result<request::Call, Failure>,
) -> Result<serde_json::Value, Failure> {
    let action = call.as_ref().map_or_else(|_| route.action(), request::Call::action);
    let session = route.session();
    let outcome = match call {
        Err(failure) => Err(failure),
        Ok(call) => completed(operations::carry_out(control, call, who.scope())).await,
    };
    audit::write(&who, &action, session, &outcome);
    outcome
}

#[cfg(test)]
mod tests;

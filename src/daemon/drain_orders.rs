//! Orders to drain a running relay, and to take that back.

use std::time::Duration;

use tracing::{error, info, warn};

use super::drain::{Drain, DrainEnd, DrainReport};
use super::relay::RunningRelay;

impl RunningRelay {
    /// Takes no new allocations from now on. `by` is who asked; without a `deadline`, that of the settings is used.
    pub(super) async fn drain(&mut self, by: &str, deadline: Option<Duration>) -> DrainReport {
        let is_on = matches!(self.draining.watch().now(), Drain::On(_));
        if is_on {
            let report = self.draining.begin(deadline, self.allocations());
            info!("{by}: {report}");
            return report;
        }
        let default = self.settings().drain_deadline;
        let deadline = deadline.or((default > 0).then(|| Duration::from_secs(default)));
        // Health checks fail first, so that balancers send nobody else.
        self.draining.begin(deadline, self.allocations());
        if let Err(error) = self.admit(false).await {
            error!("{by}: a part of the relay makes new allocations until it responds: {error:#}");
        }
        // Allocations that were made until now count.
        let report = self.draining.begin(None, self.allocations());
        let report = DrainReport { already: false, ..report };
        info!("{by}: {report}");
        if self.settings().siblings.is_empty() {
            warn!(
                "clients that ask for an allocation are refused with 508, because there is no [[sibling]] to send them to; they \
                 try the next URL that they have"
            );
        }
        report
    }

    /// Takes new allocations again. Returns whether the relay was draining.
    pub(super) async fn undrain(&mut self, by: &str) -> bool {
        if !self.draining.take_back() {
            info!("{by}: the relay does not drain; nothing has changed");
            return false;
        }
        if let Err(error) = self.admit(true).await {
            error!("{by}: a part of the relay makes no new allocations until it responds: {error:#}");
        }
        info!("{by}: the relay drains no more, and makes new allocations");
        true
    }

    /// Waits until a drain has ended, and says so.
    pub(super) async fn drain_ended(&self) -> DrainEnd {
        self.draining.ended(|| self.allocations()).await
    }
}

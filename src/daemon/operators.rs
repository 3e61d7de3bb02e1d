//! What serves operators beside the main loop. Their calls are in `control_operators`.

use std::sync::{Arc, Weak};

use super::revocations::RevokedUsers;
use crate::datapath::Workers;

/// What serves operators.
#[derive(Clone)]
pub(super) struct Operators {
    /// They end with the relay, whoever still has a handle.
    pub(super) workers: Weak<Workers>,
    pub(super) revoked: Arc<RevokedUsers>,
}

#[cfg(test)]
impl Operators {
    /// Those of a relay that is stopping.
    pub(super) fn none() -> Operators {
        Operators { workers: Weak::new(), revoked: RevokedUsers::none() }
    }
}

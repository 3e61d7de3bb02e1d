//! What the tasks of one thread of stages share.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::config::StageConfig;
use super::handshake_queue::HandshakeQueue;
use crate::datapath::line_budget::LineBudgets;
use crate::datapath::splice::splicer::Splicer;
use crate::datapath::stream::admission::Admission;
use crate::datapath::stream::incoming::Incoming;
use crate::datapath::stream::stats::StreamCounters;

/// Takes connections that have passed their stages.
pub(in crate::datapath) trait Sink: Clone + Send + 'static {
    /// Hands a connection over; waits while too many wait already.
    fn take(&self, incoming: Incoming) -> impl Future<Output = ()>;
}

/// What the tasks of the thread share.
pub(super) struct StageContext<S> {
    pub(super) worker: usize,
    pub(super) admission: Arc<Admission>,
    pub(super) counters: Arc<Mutex<StreamCounters>>,
    pub(super) config: RefCell<Arc<StageConfig>>,
    pub(super) log: RefCell<LineBudgets>,
    /// Takes connections for other servers.
    pub(super) splicer: Arc<Splicer>,
    /// Whose handshake it is.
    pub(super) handshakes: HandshakeQueue,
    pub(super) sink: S,
}

impl<S> StageContext<S> {
    /// What they serve by at this moment.
    pub(super) fn config(&self) -> Arc<StageConfig> {
        self.config.borrow().clone()
    }

    pub(super) fn counters(&self) -> MutexGuard<'_, StreamCounters> {
        // Integers alone: whatever was written is a value.
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Shared by the tasks of one thread.
pub(super) type SharedContext<S> = Rc<StageContext<S>>;

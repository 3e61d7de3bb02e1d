//! What operators ask of one worker, and what is left to do of it after a pass.

use tokio::sync::oneshot;

use crate::turn::{AllocationName, EndStep, ListStep, ListedStep, Totals};

/// What an operator asks of a worker.
pub(in crate::datapath) enum OperatorRequest {
    List(ListStep, oneshot::Sender<ListedStep>),
    /// The totals of these allocations, and when they were read.
    Totals(Vec<AllocationName>, oneshot::Sender<(u64, Vec<(AllocationName, Totals)>)>),
    /// End allocations; replies how many when all have ended.
    End(EndStep, oneshot::Sender<u64>),
}

/// Allocations that a worker ends, a few per pass.
pub(super) struct Ending {
    pub(super) step: EndStep,
    pub(super) ended: u64,
    pub(super) reply: oneshot::Sender<u64>,
}

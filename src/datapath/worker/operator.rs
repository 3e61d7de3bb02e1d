//! What operators ask of all workers: to list allocations, and to end some. Nothing of it is on the packet path.
//!
//! A worker carries out a bounded step per pass and then serves packets again. Steps of a list are asked for one after the
//! other by whoever lists; a worker that is to end allocations goes on by itself, whether or not anybody still waits. A worker
//! that does not answer is left out and named.
//!
//! Rates are differences of the totals that an allocation has anyway: they are read twice, a second apart.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::budget::Budget;
use super::commands::{WorkerCommand, WorkerSender};
use super::operator_request::{Ending, OperatorRequest};
use super::state::Worker;
use super::{WorkerThread, Workers};
use crate::datapath::clock;
use crate::turn::{
    AllocationName, AllocationRow, CloseReason, EndStep, ListStep, ListedStep, SECOND, Selector, Snapshot,
    Totals,
};

/// How long a worker may take to carry out a step.
const SILENT: Duration = Duration::from_secs(3);

/// The time slice for what operators have ended in one pass, in nanoseconds.
const SLICE: u64 = 2_000_000;

/// How long one call lists; what is left is on the next page.
const LISTING: Duration = Duration::from_secs(2);

/// The time over which rates are measured.
const RATED: Duration = Duration::from_secs(1);

/// The most allocations on a page, and with their peers.
const PAGE: usize = 1000;
const PAGE_WITH_PEERS: usize = 100;

/// How many totals are read in one step.
const TOTALS: usize = 256;

/// What an operator wants to see.
#[derive(Clone, Debug, Default)]
pub struct AllocationQuery {
    /// Which allocations.
    pub selector: Selector,
    /// The page goes on behind this one.
    pub after: Option<AllocationName>,
    /// The most allocations on the page: at most 1,000, or 100 with peers.
    pub limit: usize,
    /// Whether to list permissions and channels.
    pub peers: bool,
    /// Whether to measure rates, which takes a second.
    pub rates: bool,
}

/// Some allocations of all workers, in the order of their creation.
#[derive(Clone, Debug, Default)]
pub struct AllocationPage {
    /// The allocations.
    pub rows: Vec<RatedAllocation>,
    /// Where the next page goes on; `None` after the last one. A page may be short, even empty, and not the last.
    pub next: Option<AllocationName>,
    /// Workers that gave no answer, and whose allocations are missing.
    pub silent: Vec<usize>,
}

/// An allocation with its rates.
#[derive(Clone, Debug)]
pub struct RatedAllocation {
    /// The allocation.
    pub row: AllocationRow,
    /// What it relays per second now, if that was measured and it has not ended meanwhile.
    pub rates: Option<Totals>,
}

/// Allocations were ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndedAllocations {
    /// How many.
    pub ended: u64,
    /// Workers that gave no answer. They end theirs as soon as they go on.
    pub silent: Vec<usize>,
}

impl Workers {
    /// What the workers serve by.
    pub fn serving(&self) -> Arc<Snapshot> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn serve(&self, snapshot: Arc<Snapshot>) {
        *self.serving.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
    }

    /// A page of allocations. It takes at most a few seconds, however many there are and whatever the workers do.
    pub async fn list(&self, query: &AllocationQuery) -> AllocationPage {
        let limit = query.limit.clamp(1, if query.peers { PAGE_WITH_PEERS } else { PAGE });
        let step = ListStep {
            selector: Arc::new(query.selector.clone()),
            after: query.after,
            limit,
            peers: query.peers,
        };
        let until = Instant::now() + LISTING;
        let walks = self.each(|sender| walk(sender, step.clone(), until)).await;
        let mut page = AllocationPage::default();
        let mut rows = Vec::new();
        for (worker, listed) in walks {
            match listed {
                None => page.silent.push(worker),
                Some(listed) => {
                    // Beyond this, a worker may have more.
                    page.next = page.next.into_iter().chain(listed.next).min();
                    rows.extend(listed.rows.into_iter().map(|row| (worker, row)));
                }
            }
        }
        rows.retain(|(_, row)| page.next.is_none_or(|next| row.name <= next));
        rows.sort_unstable_by_key(|(_, row)| row.name);
        if rows.len() > limit {
            rows.truncate(limit);
            page.next = rows.last().map(|(_, row)| row.name);
        }
        let rates = if query.rates { self.rates(&rows).await } else { Vec::new() };
        let mut rates = rates.into_iter();
        page.rows =
            rows.into_iter().map(|(_, row)| RatedAllocation { row, rates: rates.next().flatten() }).collect();
        page
    }

    /// Ends the allocations that are selected, and the connections of their clients.
    pub async fn end(&self, selector: Selector, reason: CloseReason) -> EndedAllocations {
        let step = EndStep { selector: Arc::new(selector), after: None, reason };
        let mut all = EndedAllocations::default();
        let pings = |worker| self.ping(WorkerThread { worker, stages: false });
        let mut replies = Vec::new();
        for (worker, handle) in self.handles.iter().enumerate() {
            let (reply, replied) = oneshot::channel();
            let (sender, request) = (handle.commands.clone(), OperatorRequest::End(step.clone(), reply));
            // It must arrive even if nobody waits any more.
            tokio::spawn(async move { sender.send(WorkerCommand::Operator(request)).await });
            replies.push((worker, replied));
        }
        for (worker, mut replied) in replies {
            let ended = loop {
                match timeout(SILENT, &mut replied).await {
                    // A worker that has panicked has no allocations.
                    Ok(ended) => break Some(ended.unwrap_or(0)),
                    Err(_) if timeout(SILENT, pings(worker)).await.is_ok_and(|took| took.is_some()) => {}
                    Err(_) => break None,
                }
            };
            match ended {
                Some(ended) => all.ended += ended,
                None => all.silent.push(worker),
            }
        }
        all
    }

    /// The rates of these allocations, in their order.
    async fn rates(&self, rows: &[(usize, AllocationRow)]) -> Vec<Option<Totals>> {
        if rows.is_empty() {
            return Vec::new();
        }
        sleep(RATED).await;
        let mut names = vec![Vec::new(); self.handles.len()];
        rows.iter().for_each(|(worker, row)| names[*worker].push(row.name));
        let mut names = names.into_iter();
        let read = self.each(|sender| totals(sender, names.next().unwrap_or_default())).await;
        let read: HashMap<_, _> = read.into_iter().flat_map(|(_, totals)| totals).collect();
        rows.iter().map(|(_, row)| rate(row, read.get(&row.name)?)).collect()
    }

    /// What each worker answers, by its number.
    async fn each<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        mut ask: impl FnMut(WorkerSender) -> F,
    ) -> Vec<(usize, T)> {
        let mut answers = JoinSet::new();
        for (worker, handle) in self.handles.iter().enumerate() {
            let answer = ask(handle.commands.clone());
            answers.spawn(async move { (worker, answer.await) });
        }
        let mut answers = answers.join_all().await;
        answers.sort_unstable_by_key(|(worker, _)| *worker);
        answers
    }
}

/// Lists step by step, until there are enough allocations or it has taken long enough. `None`: the worker does not answer.
async fn walk(sender: WorkerSender, mut step: ListStep, until: Instant) -> Option<ListedStep> {
    let mut all = ListedStep::default();
    loop {
        let listed = ask(&sender, |reply| OperatorRequest::List(step.clone(), reply)).await?;
        step.limit -= listed.rows.len();
        all.rows.extend(listed.rows);
        all.next = listed.next;
        if all.next.is_none() || step.limit == 0 || Instant::now() >= until {
            return Some(all);
        }
        step.after = all.next;
    }
}

/// Reads totals, and when that was. Allocations that have ended are left out.
async fn totals(sender: WorkerSender, names: Vec<AllocationName>) -> Vec<(AllocationName, (u64, Totals))> {
    let mut all = Vec::new();
    for names in names.chunks(TOTALS) {
        let request = |reply| OperatorRequest::Totals(names.to_vec(), reply);
        let Some((at, totals)) = ask(&sender, request).await else { break };
        all.extend(totals.into_iter().map(|(name, totals)| (name, (at, totals))));
    }
    all
}

/// Asks a worker. `None`: it does not answer.
async fn ask<T>(
    sender: &WorkerSender,
    request: impl FnOnce(oneshot::Sender<T>) -> OperatorRequest,
) -> Option<T> {
    let (reply, replied) = oneshot::channel();
    let asked = async {
        sender.send(WorkerCommand::Operator(request(reply))).await;
        replied.await
    };
    timeout(SILENT, asked).await.ok()?.ok()
}

/// What an allocation has relayed per second since its row was made.
fn rate(row: &AllocationRow, (at, now): &(u64, Totals)) -> Option<Totals> {
    let time = u128::from(at.checked_sub(row.read_at).filter(|time| *time > 0)?);
    let per_second = |now: u64, before: u64| {
        ((u128::from(now.saturating_sub(before)) * u128::from(SECOND) + time / 2) / time) as u64
    };
    let before = &row.totals;
    Some(Totals {
        to_peer_packets: per_second(now.to_peer_packets, before.to_peer_packets),
        to_peer_bytes: per_second(now.to_peer_bytes, before.to_peer_bytes),
        to_client_packets: per_second(now.to_client_packets, before.to_client_packets),
        to_client_bytes: per_second(now.to_client_bytes, before.to_client_bytes),
    })
}

impl Worker {
    /// Carries out a request, or its first step.
    pub(super) fn operate(&mut self, request: OperatorRequest) {
        // Whoever waits for a reply may have stopped waiting.
        match request {
            OperatorRequest::List(step, reply) => drop(reply.send(self.core.list(self.now, &step))),
            OperatorRequest::Totals(names, reply) => {
                drop(reply.send((self.now.mono, self.core.totals(&names))));
            }
            OperatorRequest::End(step, reply) => self.end_some(Ending { step, ended: 0, reply }),
        }
        // A list ends what has expired.
        self.drain();
    }

    /// Goes on with what operators have ended, at most one step of each and within a time slice.
    pub(super) fn continue_ending(&mut self) {
        let mut budget = Budget::new(SLICE);
        for _ in 0..self.ending.len() {
            let Some(ending) = self.ending.pop_front() else { return };
            self.end_some(ending);
            budget.check(clock::mono());
            if budget.is_exhausted() {
                break;
            }
        }
        if !self.ending.is_empty() {
            // The rest is for the next pass.
            self.waker.wake();
        }
    }

    fn end_some(&mut self, mut ending: Ending) {
        self.unpublished = true;
        let ended = self.core.end(self.now, &ending.step);
        self.drain();
        ending.ended += ended.ended;
        match ended.next {
            None => drop(ending.reply.send(ending.ended)),
            Some(next) => {
                ending.step.after = Some(next);
                self.ending.push_back(ending);
                // The rest is for the next pass.
                self.waker.wake();
            }
        }
    }
}

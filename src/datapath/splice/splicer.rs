//! Takes connections from the stages and runs them until they end: one per process, which outlives the restart of a worker.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use socket2::SockRef;
use tokio::runtime::{self, Handle, Runtime};
use tracing::error;

use super::backend::Backend;
use super::backends::Backends;
use super::limits::SpliceLimits;
use super::loops::OwnConnections;
use super::pools::Pools;
use super::request::SpliceRequest;
use super::stats::{SpliceFailure, SpliceStats};
use super::{connection, log};
use crate::datapath::descriptors::{DescriptorRoom, Descriptors};
use crate::datapath::line_budget::LineBudget;
use crate::datapath::stream::admission::{Admission, Admitted};
use crate::datapath::sys;
use crate::turn::ExemptSources;

/// The most threads: they move bytes, and have a tenth of a worker's weight.
const THREADS: usize = 4;

/// The most threads that look up names, over all backends.
const LOOKUP_THREADS: usize = 256;

/// How long connections have to notice that the process ends.
const SHUTDOWN: Duration = Duration::from_secs(1);

/// Runs the connections that go to backends.
pub(in crate::datapath) struct Splicer {
    admission: Arc<Admission>,
    descriptors: Arc<Descriptors>,
    limits: Mutex<SpliceLimits>,
    backends: Backends,
    pools: Arc<Pools>,
    own: Arc<OwnConnections>,
    /// The lines about connections that made room.
    displaced: Mutex<LineBudget>,
    runtime: Mutex<Threads>,
}

/// The runtime.
enum Threads {
    /// Nothing has needed it yet.
    None,
    Running(Runtime),
    /// The process ends.
    Stopped,
}

impl Splicer {
    /// There are no connections yet, and no threads.
    pub(in crate::datapath) fn new(limits: SpliceLimits, exempt: ExemptSources) -> Arc<Splicer> {
        let descriptors = Descriptors::new(room(limits));
        Arc::new(Splicer {
            admission: Admission::new(limits, exempt, descriptors.clone()),
            descriptors,
            limits: Mutex::new(limits),
            backends: Backends::default(),
            pools: Arc::new(Pools::new(SpliceLimits::PIPES)),
            own: Arc::default(),
            displaced: Mutex::default(),
            runtime: Mutex::new(Threads::None),
        })
    }

    /// Serves new connections by these limits, and has these backends. Connections to others go on.
    pub(in crate::datapath) fn apply<'a>(
        &self,
        limits: SpliceLimits,
        exempt: ExemptSources,
        backends: impl Iterator<Item = &'a Backend>,
    ) {
        let mut backends = backends.peekable();
        if backends.peek().is_some() {
            // Before the first client waits for it. If it fails, the first client tries again, and the log says so.
            let _ = self.handle();
        }
        self.backends.configure(backends);
        self.descriptors.set_room(room(limits));
        self.admission.set_limits(limits, exempt);
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    /// Takes a connection over. It returns at once; whatever becomes of the connection is counted and logged here.
    pub(in crate::datapath) fn splice(&self, request: SpliceRequest) {
        let state = self.backends.get(&request.splice.backend);
        if self.own.lead_to(&request.socket) {
            let error = format!("backend {} leads back to this relay", state.name);
            log::failed(&request.splice, &state, SpliceFailure::Loop, &error);
            // The connection that led here ends at once, too.
            let _ = SockRef::from(&request.socket).set_linger(Some(Duration::ZERO));
            return;
        }
        let Admitted { permit, displaced, displaces } =
            match self.admission.admit(request.splice.client.0.ip()) {
                Ok(admitted) => admitted,
                Err(refusal) => return log::refused(&request.splice, &state, refusal),
            };
        if let Some(displacing) = displaces {
            log::displaced(&mut self.displaced.lock().unwrap_or_else(PoisonError::into_inner), displacing);
        }
        let handle = match self.handle() {
            Ok(Some(handle)) => handle,
            Ok(None) => return,
            Err(error) => {
                let error = format!("there are no threads for it: {error}");
                log::failed(&request.splice, &state, SpliceFailure::System, &error);
                return;
            }
        };
        let limits = *self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        let (pools, own) = (self.pools.clone(), self.own.clone());
        handle.spawn(async move {
            connection::run(request, displaced, state, limits, pools, own).await;
            drop(permit);
        });
    }

    /// What is counted.
    pub(in crate::datapath) fn stats(&self) -> SpliceStats {
        SpliceStats { connections: self.admission.total(), backends: self.backends.stats() }
    }

    /// Resets every connection. It blocks for a second at most.
    pub(in crate::datapath) fn stop(&self) {
        let running = std::mem::replace(&mut *self.runtime(), Threads::Stopped);
        let Threads::Running(runtime) = running else { return };
        log::cut(self.admission.total());
        // tokio allows no waiting on a thread of another runtime.
        let ending = thread::Builder::new().name("splice-stop".into()).spawn(move || {
            runtime.shutdown_timeout(SHUTDOWN);
        });
        match ending {
            Ok(thread) => drop(thread.join()),
            Err(error) => {
                error!(%error, "connections to backends end with the process: there is no thread to reset them")
            }
        }
    }

    #[cfg(test)]
    pub(super) fn pools(&self) -> &Pools {
        &self.pools
    }

    /// The runtime, which is started if it does not run yet. `None`: the process ends.
    fn handle(&self) -> io::Result<Option<Handle>> {
        let mut threads = self.runtime();
        match &*threads {
            Threads::Running(runtime) => Ok(Some(runtime.handle().clone())),
            Threads::Stopped => Ok(None),
            Threads::None => {
                let runtime = start()?;
                let handle = runtime.handle().clone();
                *threads = Threads::Running(runtime);
                Ok(Some(handle))
            }
        }
    }

    fn runtime(&self) -> MutexGuard<'_, Threads> {
        // Every change is a single assignment.
        self.runtime.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Splicer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn start() -> io::Result<Runtime> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS);
    runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .max_blocking_threads(LOOKUP_THREADS)
        .thread_name("splice")
        .on_thread_start(sys::yield_to_workers)
        .enable_all()
        .build()
}

/// Descriptors are set apart for these connections, so that they take none of TURN's and leave none to it.
fn room(limits: SpliceLimits) -> DescriptorRoom {
    DescriptorRoom { lowers_connections: limits.by_open_files, ..DescriptorRoom::UNBOUNDED }
}

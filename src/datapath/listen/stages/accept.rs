//! Accepting connections, and their admission.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task;
use tokio::time::sleep;
use tracing::error;

use super::context::{SharedContext, Sink};
use super::pending::PendingConnection;
use crate::datapath::listen::group::ListenerGroup;
use crate::datapath::stream::admission::Admitted;
use crate::datapath::stream::incoming::OpenConnection;
use crate::datapath::stream::stats::StreamCounters;
use crate::datapath::sys;
use crate::turn::{ClientAddr, FiveTuple, Transport, Via};

/// How long accepting pauses when this process has no file descriptors or memory left.
const PAUSE: Duration = Duration::from_millis(100);

/// The tasks that accept connections, and the listeners that they hold.
#[derive(Default)]
pub(super) struct Listeners(HashMap<(Transport, SocketAddr), (task::AbortHandle, Weak<TcpListener>)>);

impl Listeners {
    /// Accepts connections from this worker's listener of a group; a group for datagrams has none.
    pub(super) fn listen<S: Sink>(
        &mut self,
        context: &SharedContext<S>,
        group: &ListenerGroup,
    ) -> io::Result<()> {
        let Some(listener) = group.listener(context.worker) else { return Ok(()) };
        let listener = TcpListener::from_std(listener.try_clone()?)?;
        let (listener, addr) = (Rc::new(listener), group.local_addr());
        let (context, held) = (context.clone(), Rc::downgrade(&listener));
        let accept = move || accept(context.clone(), listener.clone(), addr);
        let task = task::spawn_local(restart_after_panics(accept));
        self.0.insert((group.transport(), addr), (task.abort_handle(), held));
        Ok(())
    }

    /// Stops accepting connections; the listener is closed when this returns.
    pub(super) async fn unlisten(&mut self, transport: Transport, addr: SocketAddr) {
        let Some((accepting, held)) = self.0.remove(&(transport, addr)) else { return };
        accepting.abort();
        // The tasks end, and drop it, when the runtime comes to them.
        while held.strong_count() > 0 {
            task::yield_now().await;
        }
    }
}

/// Runs a task again and again: if it panics, nobody else would notice that its work is not done any more.
async fn restart_after_panics<T: Future<Output = ()> + 'static>(task: impl Fn() -> T) {
    loop {
        // A set ends its tasks when this one is aborted.
        let mut set = tokio::task::JoinSet::new();
        set.spawn_local(task());
        match set.join_next().await {
            Some(Err(error)) if error.is_panic() => {
                error!("accepting connections panicked; it starts again");
                sleep(PAUSE).await;
            }
            _ => return,
        }
    }
}

/// Accepts connections until the listener is removed.
async fn accept<S: Sink>(context: SharedContext<S>, listener: Rc<TcpListener>, addr: SocketAddr) {
    loop {
        let (socket, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // accept(2): other errors are those of the new connection.
                if let Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) = error.raw_os_error()
                {
                    context.counters().accept_paused += 1;
                    sleep(PAUSE).await;
                }
                continue;
            }
        };
        // RFC 8656 §5: the server's side is the address that the client asked, never a wildcard.
        let Ok(server) = socket.local_addr() else { continue };
        let tuple = FiveTuple {
            client: ClientAddr(sys::address::normalize(client)),
            server: sys::address::normalize(server),
            // Until its first bytes say something else.
            transport: Transport::Tcp,
            via: Via::Direct,
        };
        admit(&context, socket, tuple, addr);
    }
}

/// Starts the stages of a connection to a listener, or closes it.
fn admit<S: Sink>(context: &SharedContext<S>, socket: TcpStream, tuple: FiveTuple, listener: SocketAddr) {
    let config = context.config();
    let service = config.service(listener);
    let source = tuple.client.0.ip();
    let admitted = match service.proxies.contains(source) {
        true => context.admission.admit_proxied(source),
        false => context.admission.admit(source),
    };
    match admitted {
        Ok(Admitted { permit, displaced, displaces }) => {
            if let Some(displacing) = displaces {
                context.log_displaced(displacing);
            }
            let open = OpenConnection::new(context.counters.clone(), tuple.transport);
            let pending = PendingConnection::new(socket, tuple, permit, open, (service, config));
            task::spawn_local(context.clone().pass_stages(pending, displaced));
        }
        Err(refusal) => {
            let index = StreamCounters::index(tuple.transport);
            let mut counters = context.counters();
            counters.accepted[index] += 1;
            counters.refused[index][refusal.why] += 1;
            drop(counters);
            context.log_refused(&tuple, None, refusal);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::runtime;

    use super::*;

    #[test]
    fn a_task_that_panics_starts_again() {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let runs = Rc::new(Cell::new(0));
        let counted = runs.clone();
        let task = move || {
            let runs = counted.clone();
            async move {
                runs.set(runs.get() + 1);
                assert!(runs.get() == 3, "it fails, as this test wants it to");
            }
        };
        tokio::task::LocalSet::new().block_on(&runtime, restart_after_panics(task));
        assert_eq!(runs.get(), 3);
    }
}

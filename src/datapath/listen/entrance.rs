//! The way in: connections are accepted within a budget, admitted or closed at once, and TLS ones shake hands.

use std::io;
use std::sync::Arc;

use crate::datapath::event_source::EventSource;
use crate::datapath::listen::accept::{Accepted, Acceptor};
use crate::datapath::listen::admission::Admission;
use crate::datapath::listen::handshake::{Handshaken, Handshakes};
use crate::datapath::stream::Incoming;
use crate::datapath::stream::stats::StreamCounters;
use crate::datapath::sys::epoll::{Epoll, Interest};
use crate::turn::Transport;

/// Connections that a listener may deliver in one pass.
const BUDGET: usize = 32;

/// A worker's listeners for streams, and what is on its way from them.
pub(in crate::datapath) struct Entrance<'g> {
    acceptors: Vec<Acceptor<'g>>,
    handshakes: Option<Handshakes>,
    admission: Arc<Admission>,
}

impl<'g> Entrance<'g> {
    /// `handshakes` are needed where there is a TLS listener.
    pub(in crate::datapath) fn new(
        acceptors: Vec<Acceptor<'g>>,
        handshakes: Option<Handshakes>,
        admission: Arc<Admission>,
    ) -> Entrance<'g> {
        Entrance { acceptors, handshakes, admission }
    }

    /// Lets the worker hear of connections.
    pub(in crate::datapath) fn watch(&self, epoll: &Epoll) -> io::Result<()> {
        let mut acceptors = self.acceptors.iter().enumerate();
        acceptors.try_for_each(|(place, acceptor)| epoll.add(acceptor.socket(), EventSource::Acceptor(place)))
    }

    /// Accepts what waits at a listener; `ready` takes those that need no handshake.
    pub(in crate::datapath) fn accept(
        &mut self,
        now: u64,
        place: usize,
        epoll: &Epoll,
        counters: &mut StreamCounters,
        mut ready: impl FnMut(Incoming),
    ) {
        let acceptor = &mut self.acceptors[place];
        for _ in 0..BUDGET {
            let (socket, tuple) = match acceptor.accept(now) {
                Accepted::Connection(socket, tuple) => (socket, tuple),
                Accepted::Gone => continue,
                Accepted::Nothing => return,
                Accepted::Exhausted => {
                    counters.accept_paused += 1;
                    let nothing = Interest { read: false, write: false };
                    let _ = epoll.set(acceptor.socket(), EventSource::Acceptor(place), nothing);
                    return;
                }
            };
            let transport = StreamCounters::place(tuple.transport);
            counters.accepted[transport] += 1;
            let places = match self.admission.admit(tuple.client.0.ip()) {
                Ok(places) => places,
                Err(refusal) => {
                    counters.refused[transport][refusal as usize] += 1;
                    continue;
                }
            };
            match &mut self.handshakes {
                Some(handshakes) if tuple.transport == Transport::Tls => {
                    handshakes.begin(socket, tuple, places);
                }
                _ => ready(Incoming { socket, tls: None, tuple, places }),
            }
        }
    }

    /// When a pause ends.
    pub(in crate::datapath) fn poll_timeout(&self) -> Option<u64> {
        self.acceptors.iter().filter_map(|acceptor| acceptor.paused).min()
    }

    /// Ends pauses.
    pub(in crate::datapath) fn handle_timeout(&mut self, now: u64, epoll: &Epoll) {
        for (place, acceptor) in self.acceptors.iter_mut().enumerate() {
            if acceptor.paused.is_some_and(|until| until <= now) {
                acceptor.paused = None;
                let reading = Interest { read: true, write: false };
                let _ = epoll.set(acceptor.socket(), EventSource::Acceptor(place), reading);
            }
        }
    }

    /// A handshake that has ended, if there is one; the worker's bell rings for it.
    pub(in crate::datapath) fn handshaken(&mut self) -> Option<Handshaken> {
        self.handshakes.as_mut()?.poll()
    }
}

//! Carries out the outputs of the core.

use super::log::{Log, OfClient};
use super::loopback;
use super::state::Worker;
use crate::datapath::listen::steering::QueueKind;
use crate::datapath::relay::table::Opening;
use crate::datapath::stream::stats::ConnectionEnd;
use crate::turn::{FiveTuple, Output, Totals, Transport};

impl Worker {
    /// Carries out every output of the core, and tells it the answers to its questions. Returns whether there was anything
    /// but lines for the log about a flood: those do not cost a look at the clock per packet.
    pub(super) fn drain(&mut self) -> bool {
        let mut any = false;
        while let Some(output) = self.core.poll_output() {
            any |= !matches!(output, Output::Withheld { .. } | Output::NestedDropped { .. });
            match output {
                Output::Reply { to, message } => self.reply(&to, &message),
                Output::Ask { ticket, ask } => {
                    let opening = Opening { now: self.now.mono, poll: &self.poll, log: &mut self.socket_log };
                    let answer = self.relays.answer(ask, opening);
                    self.reservation_expiry = self.resources.reservations.next_expiry();
                    self.core.answered(self.now, ticket, answer);
                }
                Output::CloseRelay(socket) => {
                    // Data that the client has sent before leaves by this socket.
                    self.flush();
                    self.relays.close(socket.into());
                }
                Output::Opened(opened) => {
                    self.relays.set_owner(&opened);
                    self.streams.allocation_opened(self.now.mono, &opened.tuple, opened.session);
                    self.log.opened(self.now.mono, &opened, self.connection(&opened.tuple));
                    if !opened.is_probe {
                        loopback::warn_once(&opened.tuple);
                    }
                    self.count_allocation(&opened.tuple, true);
                }
                Output::Closed(mut closed) => {
                    let (now, streams) = (self.now.mono, &mut self.counters.streams);
                    let unsent = self.streams.allocation_closed(now, &closed.tuple, &self.poll, streams);
                    closed.totals.subtract(&Totals {
                        to_client_packets: unsent.packets,
                        to_client_bytes: unsent.bytes,
                        ..Totals::default()
                    });
                    if closed.reason.is_by_operator() {
                        self.streams.end_client(self.now.mono, &closed.tuple, ConnectionEnd::Operator);
                    }
                    self.log.closed(self.now.mono, &closed, self.connection(&closed.tuple));
                    self.count_allocation(&closed.tuple, false);
                }
                Output::Refused(refused) => {
                    self.log.refused(self.now.mono, &refused, self.connection(&refused.tuple));
                }
                Output::Withheld { from, response, limit } => {
                    let session = || self.core.session(&from);
                    self.log.withheld(self.now.mono, &from, response, limit, session);
                }
                Output::NestedDropped { from } => self.log.nested_dropped(self.now.mono, &from),
                Output::ClosedPortDropped(dropped) => self.log.closed_port_dropped(self.now.mono, &dropped),
                Output::PermissionLapsed { relay, peer } => {
                    if let Some(session) = self.core.session_of(relay.allocation) {
                        Log::permission_lapsed(session, peer);
                    }
                }
                // They are for a forwarding table in the kernel; this worker forwards itself.
                Output::ChannelBound(_)
                | Output::ChannelUnbound { .. }
                | Output::PermissionRestored { .. } => {}
            }
        }
        any
    }

    pub(super) fn connection(&self, tuple: &FiveTuple) -> OfClient {
        OfClient(if tuple.transport.is_stream() { self.streams.of_client(tuple) } else { None })
    }

    /// A listener for datagrams that is being removed closes after its last allocation.
    fn count_allocation(&self, tuple: &FiveTuple, begins: bool) {
        if tuple.transport == Transport::Udp
            && let Some(listener) = self.listeners.values().find(|one| one.serves(tuple, QueueKind::Data))
        {
            listener.count_allocation(begins);
        }
    }
}

//! The way of what clients send over streams: into the arena like a batch of datagrams, cut into messages, judged by the
//! core, and out with everybody else's.

use std::ops::Range;

use super::PacketPath;
use crate::datapath::stream::{self, StreamId, stats::ConnectionEnd};
use crate::datapath::sys::epoll::{Epoll, Readiness};
use crate::turn::{FiveTuple, Now, Tos};

/// How often one connection may be read in one pass.
const BUDGET: usize = 4;

/// Runs of messages after which it is not read again in this pass: the smallest ones are no burden for everybody else.
const RUNS: usize = 64;

/// Runs of messages that one pass may take from all connections.
const RUNS_A_PASS: usize = 4096;

impl PacketPath<'_> {
    /// Whether this pass may read more connections.
    pub(in crate::datapath) fn has_time(&mut self) -> bool {
        let has_time = self.runs < RUNS_A_PASS;
        self.unfinished |= !has_time;
        has_time
    }

    /// Serves a connection that an event is about. `after` is called after each reading, to do what the core asks for.
    pub(in crate::datapath) fn serve_stream(
        &mut self,
        now: Now,
        id: StreamId,
        event: Readiness,
        epoll: &Epoll,
        mut after: impl FnMut(&mut Self),
    ) {
        if !self.streams.event(id, event, &mut self.counters.streams) {
            return;
        }
        let mut again = false;
        let mut budget = BUDGET;
        // What is decrypted already is no event's matter, so it is taken in whole; there is a record or two of it.
        while budget > 0 || again {
            budget = budget.saturating_sub(1);
            let Some((tuple, tos)) = self.streams.client(id) else { return };
            if self.arena.free() == 0 {
                self.send();
            }
            let (got, end) = match self.streams.read(id, self.arena.whole(), again) {
                Ok(read) => read,
                Err(why) => {
                    self.streams.end(now.mono, id, why);
                    return;
                }
            };
            if got.len > 0 {
                self.alone += 1;
                let start = self.arena.take_whole();
                let runs = self.stream_batch(now, id, &tuple, tos, start..start + end);
                self.runs += runs;
                if runs >= RUNS {
                    budget = 0;
                }
                after(self);
                self.relieve_streams(now, epoll);
            }
            if got.ended && !got.more {
                self.streams.end(now.mono, id, ConnectionEnd::Client);
                return;
            }
            again = got.more;
            if !again && got.drained && !event.ends {
                return;
            }
        }
    }

    /// Writes what waits for clients before anything is dropped that they could take.
    pub(in crate::datapath) fn relieve_streams(&mut self, now: Now, epoll: &Epoll) {
        if self.streams.is_filling() {
            self.streams.flush(now.mono, epoll, &mut self.counters.streams);
        }
    }

    /// Messages, and perhaps the beginning of another, in the arena. Returns how many runs they made.
    fn stream_batch(
        &mut self,
        now: Now,
        id: StreamId,
        tuple: &FiveTuple,
        tos: Tos,
        batch: Range<usize>,
    ) -> usize {
        let (mut at, mut runs) = (batch.start, 0);
        loop {
            let rest = &self.arena.memory()[at..batch.end];
            match stream::next(rest) {
                Ok(Some(run)) => {
                    self.client_run(now, tuple, tos, run.segment_size, at..at + run.len);
                    at += run.len;
                    runs += 1;
                }
                Ok(None) => {
                    self.streams.cut(now.mono, id, at > batch.start, rest);
                    return runs;
                }
                // RFC 8656 §12: nothing that follows can be understood
                Err(_) => {
                    self.streams.cut(now.mono, id, at > batch.start, &[]);
                    self.streams.end(now.mono, id, ConnectionEnd::Unframed);
                    return runs;
                }
            }
        }
    }
}

//! Connections through a worker: read into the arena like a batch of datagrams, split into messages, judged by the core,
//! and sent with everything else.

use std::ops::Range;

use super::budget::Budget;
use super::state::Worker;
use crate::datapath::clock;
use crate::datapath::poll::{Readiness, StreamId};
use crate::datapath::stream::{self, stats::ConnectionEnd};
use crate::turn::{FiveTuple, Tos};

/// The time slice of one connection in one pass, in nanoseconds.
const SLICE: u64 = 500_000;

/// A read that takes longer than this, with all that follows from it, makes the next one smaller; one that takes less than a
/// quarter makes it larger.
const EXPENSIVE: u64 = 200_000;

/// Reads of one connection in one pass.
const READS: usize = 4;

impl Worker {
    /// Serves a connection that has an event.
    pub(super) fn serve_stream(&mut self, id: StreamId, event: Readiness, budget: &mut Budget) {
        if !self.streams.event(self.now.mono, id, event, &self.poll, &mut self.counters.streams) {
            return;
        }
        let mut slice = Budget::new(SLICE);
        let mut reads = 0;
        let mut again = false;
        // What is decrypted already is taken whole, since no event reports it: it is a record or two.
        while again || reads < READS && !slice.is_exhausted() {
            reads += 1;
            let Some((tuple, tos)) = self.streams.client(id) else { return };
            if self.arena.free() == 0 {
                self.send();
            }
            let started = clock::mono();
            let (outcome, end) = match self.streams.read(id, self.arena.whole(), again) {
                Ok(read) => read,
                Err(why) => {
                    self.streams.end(self.now.mono, id, why);
                    return;
                }
            };
            if outcome.len > 0 {
                self.pass.unjoined += 1;
                let start = self.arena.take_whole();
                self.stream_batch(id, &tuple, tos, start..start + end, &mut slice);
                self.relieve_streams();
            }
            let now = clock::mono();
            let took = now.saturating_sub(started);
            if outcome.len > 0 && !(EXPENSIVE / 4..=EXPENSIVE).contains(&took) {
                self.streams.adapt_read_size(id, took > EXPENSIVE);
            }
            slice.check(now);
            budget.check(now);
            // Its responses cannot leave: what it has sent, and whether it has closed its side, is for later.
            if self.streams.client(id).is_none() {
                return;
            }
            if outcome.ended && !outcome.more {
                self.streams.end(self.now.mono, id, ConnectionEnd::Client);
                return;
            }
            again = outcome.more;
            if !again && outcome.drained && !event.ends {
                return;
            }
        }
        self.pass.unfinished = true;
    }

    /// Writes what is queued for clients before anything is dropped that they could take.
    pub(super) fn relieve_streams(&mut self) {
        if self.streams.is_filling() {
            self.streams.flush(self.now.mono, &self.poll, &mut self.counters.streams);
        }
    }

    /// Writes what is queued for clients, and closes the connections that end after the core was told.
    pub(super) fn close_streams(&mut self) {
        self.streams.flush(self.now.mono, &self.poll, &mut self.counters.streams);
        while let Some((id, tuple)) = self.streams.poll_ended() {
            // RFC 8656 §5: an allocation lives no longer than its client's connection
            self.core.client_gone(self.now, &tuple);
            self.drain();
            self.streams.close(self.now.mono, id, &self.poll, &mut self.counters.streams);
        }
    }

    /// Stops reading a connection if its responses cannot leave, and keeps the rest of what was read.
    fn pause(&mut self, id: StreamId, rest: Range<usize>) -> bool {
        let now = self.now.mono;
        let rest = &self.arena.memory()[rest];
        let paused = self.streams.pause(now, id, rest, &self.poll, &mut self.counters.streams);
        if paused {
            self.streams.split(now, id, true, &[]);
        }
        paused
    }

    /// Messages, and perhaps the start of another, in the arena.
    fn stream_batch(
        &mut self,
        id: StreamId,
        tuple: &FiveTuple,
        tos: Tos,
        batch: Range<usize>,
        slice: &mut Budget,
    ) {
        let now = self.now.mono;
        let mut at = batch.start;
        let channels = self.core.channels();
        let mut allocated = false;
        loop {
            // A message of this batch may have been an Allocate.
            allocated = allocated || self.streams.had_allocation(id);
            let rest = &self.arena.memory()[at..batch.end];
            match stream::next(rest, channels, allocated) {
                Ok(Some(run)) => {
                    let is_data = channels.is_channel_data(rest);
                    self.client_messages(tuple, tos, run.segment_size, at..at + run.len, slice);
                    at += run.len;
                    if !is_data && self.pause(id, at..batch.end) {
                        return;
                    }
                }
                Ok(None) => return self.streams.split(now, id, at > batch.start, rest),
                // RFC 8656 §12: nothing that follows can be understood
                Err(error) => {
                    let (why, detail) = ConnectionEnd::not_turn(error);
                    let (session, client) = (self.core.session(tuple), self.connection(tuple));
                    self.log.not_turn(now, tuple, (why, &detail), session, client);
                    self.streams.split(now, id, at > batch.start, &[]);
                    return self.streams.end(now, id, why);
                }
            }
        }
    }
}

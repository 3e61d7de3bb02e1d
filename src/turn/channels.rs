//! The channels of an allocation by number: each ChannelData message looks here.
//!
//! A sorted vector, because most clients bind one or two, which take less memory here than in any map, and because clients
//! choose the numbers, so that a hash would have to be keyed.

use super::PeerAddr;
use super::snapshot::Verdict;

/// Channels are added one by one up to this number, without room for more.
const FEW: usize = 4;

/// A channel binding.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) peer: PeerAddr,
    /// A copy of the peer's verdict, so that ChannelData needs one lookup.
    pub(super) verdict: Verdict,
    pub(super) expires: u64,
}

/// Channels, sorted by number.
#[derive(Debug, Default)]
pub(super) struct Channels(Vec<(u16, Channel)>);

impl Channels {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn get(&self, number: u16) -> Option<&Channel> {
        let at = self.find(number).ok()?;
        Some(&self.0[at].1)
    }

    pub(super) fn get_mut(&mut self, number: u16) -> Option<&mut Channel> {
        let at = self.find(number).ok()?;
        Some(&mut self.0[at].1)
    }

    /// Adds a channel; returns the one that had the number.
    pub(super) fn insert(&mut self, number: u16, channel: Channel) -> Option<Channel> {
        match self.find(number) {
            Ok(at) => Some(std::mem::replace(&mut self.0[at].1, channel)),
            Err(at) => {
                if self.0.len() < FEW {
                    self.0.reserve_exact(1);
                }
                self.0.insert(at, (number, channel));
                None
            }
        }
    }

    pub(super) fn remove(&mut self, number: u16) -> Option<Channel> {
        let at = self.find(number).ok()?;
        Some(self.0.remove(at).1)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u16, &Channel)> {
        self.0.iter().map(|(number, channel)| (*number, channel))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Channel> {
        self.0.iter_mut().map(|(_, channel)| channel)
    }

    fn find(&self, number: u16) -> Result<usize, usize> {
        self.0.binary_search_by_key(&number, |&(number, _)| number)
    }
}

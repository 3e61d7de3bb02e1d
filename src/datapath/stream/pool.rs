//! Spare buffers of a worker. A connection has a buffer only while it has something to buffer, so connections share a few
//! buffers, and a busy worker allocates none.

/// The maximum number of spare buffers.
const MAX_SPARE: usize = 64;

/// The maximum capacity of a spare buffer: enough for an unfinished message of any length.
const MAX_CAPACITY: usize = 1 << 17;

/// The spare buffers.
#[derive(Default)]
pub struct Pool {
    spare: Vec<Vec<u8>>,
}

impl Pool {
    /// Takes an empty buffer.
    pub(in crate::datapath) fn take(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// Returns a buffer that is no longer needed.
    pub(in crate::datapath) fn put(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < MAX_SPARE && (1..=MAX_CAPACITY).contains(&buffer.capacity()) {
            buffer.clear();
            self.spare.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_reused_and_bounded() {
        let mut pool = Pool::default();
        pool.put(vec![1, 2, 3]);
        let buffer = pool.take();
        assert!(buffer.is_empty() && buffer.capacity() >= 3);
        assert_eq!(pool.take().capacity(), 0);
        pool.put(Vec::with_capacity(MAX_CAPACITY + 1));
        (0..MAX_SPARE + 9).for_each(|_| pool.put(vec![0]));
        assert_eq!(pool.spare.len(), MAX_SPARE);
    }
}

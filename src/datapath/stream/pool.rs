//! Spare buffers of a worker. A connection has a buffer only while something waits in it; so buffers pass from one to the
//! next, and a busy worker allocates none.

/// Buffers that lie here at most.
const MOST: usize = 64;

/// What a buffer that lies here has room for at most: an unfinished message of any length.
const ROOM: usize = 1 << 17;

/// The buffers.
#[derive(Default)]
pub struct Pool {
    spare: Vec<Vec<u8>>,
}

impl Pool {
    /// An empty buffer.
    pub(in crate::datapath) fn take(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// A buffer that is needed no more.
    pub(in crate::datapath) fn put(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < MOST && (1..=ROOM).contains(&buffer.capacity()) {
            buffer.clear();
            self.spare.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_and_have_a_bound() {
        let mut pool = Pool::default();
        pool.put(vec![1, 2, 3]);
        let buffer = pool.take();
        assert!(buffer.is_empty() && buffer.capacity() >= 3);
        assert_eq!(pool.take().capacity(), 0);
        pool.put(Vec::with_capacity(ROOM + 1));
        (0..MOST + 9).for_each(|_| pool.put(vec![0]));
        assert_eq!(pool.spare.len(), MOST);
    }
}

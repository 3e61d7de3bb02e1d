//! The hash of tables whose keys clients choose, such as addresses: SipHash-1-3 with random keys.
//!
//! Hashes that multiply and fold, such as foldhash, ahash without AES and wyhash, have inputs that collide whatever the
//! seed, so that a few thousand addresses can share a bucket. SipHash is a pseudorandom function: without its keys nobody
//! finds collisions faster than by chance. It is std's hash too, but std takes each integer apart into bytes. This hasher
//! takes whole words, and an address or a 5-tuple packs itself into as few as possible.

use std::fmt;
use std::hash::{BuildHasher, Hasher};

use rand::Rng;

/// Makes hashers with the same random keys.
#[derive(Clone, Copy)]
pub struct KeyedState {
    keys: [u64; 2],
}

impl KeyedState {
    /// Draws the keys, 128 bits.
    pub fn from_rng(rng: &mut impl Rng) -> KeyedState {
        KeyedState { keys: [rng.next_u64(), rng.next_u64()] }
    }
}

impl fmt::Debug for KeyedState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyedState(***)")
    }
}

impl BuildHasher for KeyedState {
    type Hasher = WordHasher;

    #[inline]
    fn build_hasher(&self) -> WordHasher {
        let [k0, k1] = self.keys;
        let state = [
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ];
        WordHasher { state, len: 0 }
    }
}

/// SipHash-1-3 of 64-bit words. Shorter integers count as a word.
pub struct WordHasher {
    state: [u64; 4],
    /// The number of bytes.
    len: u64,
}

impl WordHasher {
    #[inline]
    fn compress(&mut self, word: u64) {
        self.state[3] ^= word;
        self.round();
        self.state[0] ^= word;
    }

    #[inline]
    fn round(&mut self) {
        let [mut v0, mut v1, mut v2, mut v3] = self.state;
        v0 = v0.wrapping_add(v1);
        v2 = v2.wrapping_add(v3);
        v1 = v1.rotate_left(13) ^ v0;
        v3 = v3.rotate_left(16) ^ v2;
        v0 = v0.rotate_left(32).wrapping_add(v3);
        v2 = v2.wrapping_add(v1);
        v1 = v1.rotate_left(17) ^ v2;
        v3 = v3.rotate_left(21) ^ v0;
        v2 = v2.rotate_left(32);
        self.state = [v0, v1, v2, v3];
    }
}

impl Hasher for WordHasher {
    #[inline]
    fn write_u64(&mut self, word: u64) {
        self.len = self.len.wrapping_add(8);
        self.compress(word);
    }

    #[inline]
    fn write_u32(&mut self, n: u32) {
        self.write_u64(n.into());
    }

    #[inline]
    fn write_u16(&mut self, n: u16) {
        self.write_u64(n.into());
    }

    #[inline]
    fn write_u8(&mut self, n: u8) {
        self.write_u64(n.into());
    }

    #[inline]
    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }

    #[inline]
    fn write_u128(&mut self, n: u128) {
        self.write_u64(n as u64);
        self.write_u64((n >> 64) as u64);
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.compress(u64::from_le_bytes(word));
        }
        self.len = self.len.wrapping_add(bytes.len() as u64);
    }

    #[inline]
    fn finish(&self) -> u64 {
        let mut last = WordHasher { state: self.state, len: self.len };
        last.compress(self.len << 56);
        last.state[2] ^= 0xFF;
        last.round();
        last.round();
        last.round();
        last.state.into_iter().fold(0, |hash, part| hash ^ part)
    }
}

#[cfg(test)]
mod tests {
    use std::hash::DefaultHasher;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// std's hasher is SipHash-1-3 with keys of zero.
        #[test]
        fn it_is_siphash_1_3(words in prop::collection::vec(any::<u64>(), 0..40)) {
            let (mut ours, mut std) = (KeyedState { keys: [0, 0] }.build_hasher(), DefaultHasher::new());
            for word in words {
                ours.write_u64(word);
                std.write_u64(word);
                prop_assert_eq!(ours.finish(), std.finish());
            }
        }
    }

    /// However similar the addresses that clients choose, no bucket gets more than chance gives it.
    #[test]
    fn similar_addresses_are_spread() {
        const BUCKETS: usize = 1 << 14;
        let state = KeyedState { keys: [0x0123_4567_89AB_CDEF, 0xFEDC_BA98_7654_3210] };
        let patterns: [fn(u128) -> u128; 5] =
            [|n| n, |n| n << 64, |n| n << 114, |n| n << 64 | n, |n| n << 96 | (n ^ 0xFFFF) << 32];
        for pattern in patterns {
            let mut low = vec![0; BUCKETS];
            let mut high = vec![0; BUCKETS];
            for n in 0..10_000 {
                let mut hasher = state.build_hasher();
                hasher.write_u128(pattern(n));
                let hash = hasher.finish() as usize;
                low[hash % BUCKETS] += 1;
                high[hash >> 50] += 1;
            }
            assert!(low.into_iter().chain(high).all(|count: u32| count <= 10));
        }
    }

    #[test]
    fn both_keys_matter_and_are_not_printed() {
        let hash = |keys| KeyedState { keys }.hash_one(7_u64);
        let hashes = [hash([0, 0]), hash([1, 0]), hash([0, 1])];
        assert!(hashes[0] != hashes[1] && hashes[1] != hashes[2] && hashes[0] != hashes[2]);
        assert_eq!(format!("{:?}", KeyedState { keys: [1234, 5678] }), "KeyedState(***)");
    }
}

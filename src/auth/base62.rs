//! The base62 of LiveKit's credentials. It is not that of a large number in base 62: the input is one big-endian bit string,
//! read from its least significant end.
//!
//! ```text
//! digit 0-61      the low bits that it stands for
//! xxxxxx          six, unless bits 1 to 4 are all set
//! .1111x          five: 62 and 63 are no digits, so the sixth bit is left for the next digit
//! last digit      as many as it has
//! ```

const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Six bits with all of these stand for five.
const COMPACT: u8 = 0b01_1110;

/// The text of `bytes`.
pub(super) fn encode(bytes: &[u8]) -> String {
    digits(bytes).map(char::from).collect()
}

/// The bytes of `text`, in the end of `buffer`. Returns `None` for what [`encode`] does not make, and if there is no room.
pub(super) fn decode<'b>(text: &str, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    let last = text.len().checked_sub(1)?;
    let (mut bits, mut held, mut at) = (0_u16, 0, buffer.len());
    for (n, c) in text.bytes().enumerate() {
        let digit = value(c)?;
        bits |= u16::from(digit) << held;
        held += match digit {
            _ if n == last => u8::BITS - digit.leading_zeros(),
            _ if digit & COMPACT == COMPACT => 5,
            _ => 6,
        };
        if held >= 8 {
            at = at.checked_sub(1)?;
            buffer[at] = bits as u8;
            (bits, held) = (bits >> 8, held - 8);
        }
    }
    if held > 0 {
        at = at.checked_sub(1)?;
        buffer[at] = bits as u8;
    }
    // A credential has one name, although other texts would decode to the same bytes.
    let bytes = &buffer[at..];
    digits(bytes).eq(text.bytes()).then_some(bytes)
}

fn digits(bytes: &[u8]) -> impl Iterator<Item = u8> {
    let mut rest = bytes.iter().rev();
    let (mut bits, mut held) = (0_u16, 0);
    std::iter::from_fn(move || {
        if held < 6
            && let Some(byte) = rest.next()
        {
            bits |= u16::from(*byte) << held;
            held += 8;
        }
        if held == 0 {
            return None;
        }
        let six = (bits & 0x3F) as u8;
        let is_compact = six & COMPACT == COMPACT;
        let is_last = held + 8 * rest.len() <= 6;
        let (digit, taken) = match is_compact {
            true if !is_last || six > 0x1F => (six & 0x1F, 5),
            _ => (six, 6),
        };
        (bits, held) = (bits >> taken, held.saturating_sub(taken));
        Some(ALPHABET[usize::from(digit)])
    })
}

fn value(c: u8) -> Option<u8> {
    match c {
        b'A'..=b'Z' => Some(c - b'A'),
        b'a'..=b'z' => Some(c - b'a' + 26),
        b'0'..=b'9' => Some(c - b'0' + 52),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(text: &str) -> Option<Vec<u8>> {
        decode(text, &mut [0; 576]).map(<[u8]>::to_vec)
    }

    /// Vectors of LiveKit's encoder.
    #[test]
    fn the_vectors_of_livekit() {
        for (bytes, text) in [
            (&b"Hello"[..], "vxGblhE"),
            (b"a", "hB"),
            (&[0, 1], "BAA"),
            (&[0xFF; 4], "ffffffD"),
            (b"APITestKey|PA_valid|2000000000", "wADMwADMwADMywHZpxWY29VQQxXeKbJ6mrMqSCqgA"),
            (b"APITestKey|PA_valid", "klGbhZ3XBBFfyrslobuyoKJoCC"),
        ] {
            assert_eq!(encode(bytes), text);
            assert_eq!(decoded(text).as_deref(), Some(bytes), "{text}");
        }
    }

    /// Names of strangers: other characters, nothing, and texts that decode to the bytes of another text.
    #[test]
    fn what_the_encoder_does_not_make_is_refused() {
        for text in ["", "a-b", "a b", "1700000000:alice", "h\u{E9}", "hB\0", "AAAAA=", "h", "vxGblh"] {
            assert_eq!(decoded(text), None, "{text:?}");
        }
        assert_eq!(decode("vxGblhE", &mut [0; 4]), None, "there is no room");
        assert_eq!(decode("vxGblhE", &mut [0; 5]), Some(&b"Hello"[..]));
    }

    proptest! {
        #[test]
        fn bytes_round_trip(bytes in proptest::collection::vec(any::<u8>(), 1..300)) {
            let text = encode(&bytes);
            prop_assert!(text.len() <= bytes.len() * 8 / 5 + 2);
            prop_assert_eq!(decoded(&text), Some(bytes));
        }

        #[test]
        fn bytes_with_many_equal_bits_round_trip(bytes in "[\0\u{1}?\u{1E}\u{7F}|~]{1,60}") {
            prop_assert_eq!(decoded(&encode(bytes.as_bytes())), Some(bytes.into_bytes()));
        }

        /// Whatever a client sends: no panic, and what is decoded is what was encoded.
        #[test]
        fn hostile_text_is_decoded_or_refused(text in "\\PC*|[A-Za-z0-9]{0,800}") {
            if let Some(bytes) = decoded(&text) {
                prop_assert_eq!(encode(&bytes), text);
            }
        }
    }
}

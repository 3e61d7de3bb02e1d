//! The first bytes of every payload, which identify the packet.
//!
//! ```text
//! 0       4          8                  16
//! +-------+----------+-------------------+
//! | path  | sequence | time of sending   |
//! +-------+----------+-------------------+
//! ```

/// The length of a stamp.
pub const STAMP: usize = 16;
/// The bit of the path field that tells its direction; the others are the flow's index.
const TO_CLIENT: u32 = 1 << 31;

pub struct Stamp {
    pub path: Path,
    pub sequence: u32,
    /// Nanoseconds of the generator's clock.
    pub sent: u64,
}

/// One direction of a flow.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Path {
    pub flow: usize,
    pub to_client: bool,
}

impl Path {
    /// The path with this number: even numbers lead to peers, odd ones to clients.
    pub fn from_index(index: usize) -> Path {
        Path { flow: index / 2, to_client: index % 2 == 1 }
    }

    pub fn index(self) -> usize {
        2 * self.flow + usize::from(self.to_client)
    }
}

impl Stamp {
    pub fn write(&self) -> [u8; STAMP] {
        let direction = if self.path.to_client { TO_CLIENT } else { 0 };
        let mut bytes = [0; STAMP];
        bytes[..4].copy_from_slice(&(self.path.flow as u32 | direction).to_be_bytes());
        bytes[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[8..].copy_from_slice(&self.sent.to_be_bytes());
        bytes
    }

    pub fn read(payload: &[u8]) -> Option<Stamp> {
        let (path, rest) = payload.split_first_chunk()?;
        let (sequence, rest) = rest.split_first_chunk()?;
        let (sent, _) = rest.split_first_chunk()?;
        let path = u32::from_be_bytes(*path);
        Some(Stamp {
            path: Path { flow: (path & !TO_CLIENT) as usize, to_client: path & TO_CLIENT != 0 },
            sequence: u32::from_be_bytes(*sequence),
            sent: u64::from_be_bytes(*sent),
        })
    }
}

//! Randomness from the operating system: the seeds and keys that everything else is given.

use std::io;

use rand::TryRng;
use rand::rngs::SysRng;

/// So many random bytes.
///
/// # Errors
///
/// Returns an error if the operating system provides no random bytes.
pub fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    SysRng.try_fill_bytes(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

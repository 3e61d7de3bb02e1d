//! Randomness from the operating system, for seeds and keys.

use std::io;

use rand::TryRng;
use rand::rngs::SysRng;

/// Random bytes.
///
/// # Errors
///
/// Returns an error if the operating system provides no random bytes.
pub fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    SysRng.try_fill_bytes(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

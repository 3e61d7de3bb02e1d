//! Bodies of messages, read as a whole.

use std::future::poll_fn;
use std::pin::pin;

use hyper::body::{Body, Bytes};

/// Why a body cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// It is longer than it may be.
    TooLong,
    /// The connection has failed.
    CutOff(String),
}

/// The bytes of a body, `most` at the most.
///
/// # Errors
/// It is longer, or has not arrived as a whole.
pub async fn bytes<B>(body: B, most: usize) -> Result<Vec<u8>, BodyError>
where
    B: Body<Data = Bytes>,
    B::Error: ToString,
{
    let mut body = pin!(body);
    // Whoever announces too much need not send it.
    if body.size_hint().lower() > most as u64 {
        return Err(BodyError::TooLong);
    }
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
        let frame = frame.map_err(|error| BodyError::CutOff(error.to_string()))?;
        if let Ok(data) = frame.into_data() {
            if bytes.len() + data.len() > most {
                return Err(BodyError::TooLong);
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes)
}

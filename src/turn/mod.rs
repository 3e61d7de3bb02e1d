//! The TURN server.

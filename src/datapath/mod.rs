//! The fast plane.

//! The slow plane.

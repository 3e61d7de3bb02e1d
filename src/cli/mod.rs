//! Words a person types.

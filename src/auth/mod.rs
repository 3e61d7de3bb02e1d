//! Who is this?

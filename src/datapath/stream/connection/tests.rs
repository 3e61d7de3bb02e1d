//! Tests of connections without sockets, in virtual time.

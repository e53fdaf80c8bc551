//! tests: attacks.

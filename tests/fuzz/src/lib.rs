//! tests: fuzz.

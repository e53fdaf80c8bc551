//! tests: laptop.

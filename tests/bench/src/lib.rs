//! tests: bench.

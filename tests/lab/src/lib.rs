//! tests: lab.

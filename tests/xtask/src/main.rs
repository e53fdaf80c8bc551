//! `cargo xtask`: the one door for people.

fn main() {}

//! One tunnel, behind one trait.

//! Proof that the laptop is in the office.

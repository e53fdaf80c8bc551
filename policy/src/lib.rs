//! The signed policy: schema, checks, verification.

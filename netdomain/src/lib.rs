//! The network domain: gate and uplink.

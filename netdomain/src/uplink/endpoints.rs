//! What of the policy the uplink needs: where it may connect to, and over which kinds of uplink.

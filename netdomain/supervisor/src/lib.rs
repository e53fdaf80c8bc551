//! Starts the domains, restarts what dies, passes fresh sockets.

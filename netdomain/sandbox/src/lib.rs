//! Closes a process in: namespaces, capabilities, Landlock, seccomp.

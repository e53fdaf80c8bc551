//! The virtual machine monitor that runs the work OS.

//! Virtio 1.2 devices behind modern virtio-pci.

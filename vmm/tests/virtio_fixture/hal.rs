//! `virtio-drivers`' view of the machine's memory.

use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::Mutex;

use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend as _};

use super::ram;

/// First page given out: address zero stands for failure in `virtio-drivers`.
const FIRST: u64 = 0x10_0000;

struct Pages {
    next: u64,
    free: BTreeMap<usize, Vec<u64>>,
}

static PAGES: Mutex<Pages> = Mutex::new(Pages {
    next: FIRST,
    free: BTreeMap::new(),
});

/// Takes zeroed pages of guest memory.
pub fn take_pages(pages: usize) -> u64 {
    let mut state = PAGES.lock().unwrap();
    let reused = state.free.get_mut(&pages).and_then(Vec::pop);
    let address = reused.unwrap_or_else(|| {
        let address = state.next;
        state.next += (pages * PAGE_SIZE) as u64;
        address
    });
    let zeros = vec![0; pages * PAGE_SIZE];
    ram().write_slice(&zeros, GuestAddress(address)).unwrap();
    address
}

pub fn give_pages(address: u64, pages: usize) {
    let mut state = PAGES.lock().unwrap();
    state.free.entry(pages).or_default().push(address);
}

pub struct RamHal;

// SAFETY: pages come from the mapping of guest memory, page-aligned, each to one owner at a time;
// `share` copies into such pages.
unsafe impl Hal for RamHal {
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let address = take_pages(pages);
        let pointer = ram().get_host_address(GuestAddress(address)).unwrap();
        (address, NonNull::new(pointer).unwrap())
    }

    unsafe fn dma_dealloc(paddr: PhysAddr, _vaddr: NonNull<u8>, pages: usize) -> i32 {
        give_pages(paddr, pages);
        0
    }

    unsafe fn mmio_phys_to_virt(_paddr: PhysAddr, _size: usize) -> NonNull<u8> {
        unreachable!("BARs are reached through the bus");
    }

    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> PhysAddr {
        let address = take_pages(buffer.len().div_ceil(PAGE_SIZE));
        if direction != BufferDirection::DeviceToDriver {
            // SAFETY: the caller gives a valid buffer that nobody else touches meanwhile.
            let bytes = unsafe { buffer.as_ref() };
            ram().write_slice(bytes, GuestAddress(address)).unwrap();
        }
        address
    }

    unsafe fn unshare(paddr: PhysAddr, mut buffer: NonNull<[u8]>, direction: BufferDirection) {
        if direction != BufferDirection::DriverToDevice {
            // SAFETY: the caller gives a valid buffer that nobody else touches meanwhile.
            let bytes = unsafe { buffer.as_mut() };
            ram().read_slice(bytes, GuestAddress(paddr)).unwrap();
        }
        give_pages(paddr, buffer.len().div_ceil(PAGE_SIZE));
    }
}

//! An allocator that keeps one block of each small size at hand.
//!
//! gotatun takes a buffer from the allocator for each packet that it seals
//! (`Session::format_packet_data` of 0.10.2) and cannot be given one; it is free again before the next
//! packet is sealed. glibc's own cache ends at 1,032 bytes, below a full packet, so each of them would be
//! cut off the heap and merged back into it. Here the next packet gets the block of the last one, and no
//! allocator is asked.

use std::{
    alloc::{GlobalAlloc, Layout},
    cell::Cell,
    ptr,
};

/// The smallest block, and how many sizes there are, each twice the one before: 128 bytes to 2 KiB, from
/// an acknowledgement to a full packet with its overhead. A request is rounded up to its block, which
/// wastes less than half of it.
const SMALLEST: usize = 128;
const SIZES: usize = 5;
/// Below this nothing is kept: smaller than the smallest packet that was sealed.
const LEAST: usize = 65;
/// What the system's allocator aligns to by itself on 64-bit machines.
const ALIGN: usize = 16;

thread_local! {
    /// One block of each size that the thread gave back last, or null. A thread that ends forgets at
    /// most 4 KiB.
    static KEPT: [Cell<*mut u8>; SIZES] = const { [const { Cell::new(ptr::null_mut()) }; SIZES] };
}

/// Keeps blocks at hand that come from `A`.
#[derive(Debug)]
pub struct Recycling<A>(pub A);

/// Which block a request is served with, and how that is asked for; `None` where none is kept.
fn block(layout: Layout) -> Option<(usize, Layout)> {
    if layout.size() < LEAST || layout.align() > ALIGN {
        return None;
    }
    let size = layout.size().next_power_of_two().max(SMALLEST);
    let place = (size / SMALLEST).ilog2() as usize;
    let block = Layout::from_size_align(size, ALIGN).ok()?;
    (place < SIZES).then_some((place, block))
}

/// Takes what is kept and leaves this instead.
fn swap(place: usize, with: *mut u8) -> *mut u8 {
    KEPT.with(|kept| kept[place].replace(with))
}

// SAFETY: each pointer that is given out comes from `A` with the layout that `block` makes of the
// request's, or with the request's own, and is given back to `A` with the same one, since `block` is a
// function of the layout. What is kept was given back to us and is given out to one caller only: `swap`
// takes it out. The cells belong to one thread and need no destructor, so they are there as long as
// the thread is; nothing here panics.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Recycling<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some((place, block)) = block(layout) else {
            // SAFETY: the caller's contract is the same.
            return unsafe { self.0.alloc(layout) };
        };
        let kept = swap(place, ptr::null_mut());
        if kept.is_null() {
            // SAFETY: `block` is at least `SMALLEST` bytes long.
            unsafe { self.0.alloc(block) }
        } else {
            kept
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if block(layout).is_none() {
            // SAFETY: the caller's contract is the same.
            return unsafe { self.0.alloc_zeroed(layout) };
        }
        // SAFETY: the caller's contract is the same.
        let at = unsafe { self.alloc(layout) };
        if !at.is_null() {
            // SAFETY: the block is at least as long as the request.
            unsafe { ptr::write_bytes(at, 0, layout.size()) };
        }
        at
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        let Some((place, block)) = block(layout) else {
            // SAFETY: it came from `A` with this layout.
            return unsafe { self.0.dealloc(at, layout) };
        };
        // The one that was used last is the one that is in the processor's cache.
        let older = swap(place, at);
        if !older.is_null() {
            // SAFETY: it came from `A` with this block's layout, and nobody else has it.
            unsafe { self.0.dealloc(older, block) };
        }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's contract: with the old alignment, `size` does not overflow.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (block(layout), block(wanted)) {
            // SAFETY: it came from `A` with this layout, and the caller's contract is the same.
            (None, None) => unsafe { self.0.realloc(at, layout, size) },
            (Some((one, _)), Some((other, _))) if one == other => at,
            _ => {
                // SAFETY: the caller's contract: `size` is not zero.
                let new = unsafe { self.alloc(wanted) };
                if !new.is_null() {
                    // SAFETY: both are as long as the shorter of the two requests, and two.
                    unsafe { ptr::copy_nonoverlapping(at, new, layout.size().min(size)) };
                    // SAFETY: it came from here with this layout.
                    unsafe { self.dealloc(at, layout) };
                }
                new
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::alloc::System;

    use proptest::prelude::*;

    use super::*;

    const ALLOCATOR: Recycling<System> = Recycling(System);

    #[test]
    fn a_request_fits_its_block_and_wastes_less_than_half() {
        for size in 0..5000 {
            let layout = Layout::from_size_align(size, 8).unwrap();
            match block(layout) {
                Some((place, block)) => {
                    assert_eq!(block.size(), SMALLEST << place);
                    assert!(size <= block.size() && block.size() < size * 2);
                }
                None => assert!(!(LEAST..=2048).contains(&size), "{size}"),
            }
        }
        assert!(block(Layout::from_size_align(100, 64).unwrap()).is_none());
    }

    #[test]
    fn the_last_block_is_the_next_one() {
        let layout = Layout::from_size_align(1452, 1).unwrap();
        // SAFETY: each pointer is used within its layout and given back once with it.
        unsafe {
            let one = ALLOCATOR.alloc(layout);
            one.write_bytes(7, 1452);
            ALLOCATOR.dealloc(one, layout);
            let again = ALLOCATOR.alloc_zeroed(layout);
            assert_eq!(again, one);
            assert!(
                (0..1452).all(|at| *again.add(at) == 0),
                "nothing of the last packet"
            );
            let other = ALLOCATOR.alloc(layout);
            assert_ne!(other, again, "one block for one owner");
            ALLOCATOR.dealloc(again, layout);
            ALLOCATOR.dealloc(other, layout);
        }
    }

    /// A block with its owner's mark in every byte.
    #[derive(Debug)]
    struct Owned {
        at: *mut u8,
        layout: Layout,
        mark: u8,
    }

    impl Owned {
        fn whole(&self) -> bool {
            // SAFETY: the block is as long as its layout, and written.
            unsafe { std::slice::from_raw_parts(self.at, self.layout.size()) }
                .iter()
                .all(|byte| *byte == self.mark)
        }

        fn fill(&self) {
            // SAFETY: the block is as long as its layout.
            unsafe { self.at.write_bytes(self.mark, self.layout.size()) };
        }
    }

    proptest! {
        /// Whatever is taken, resized and given back in whatever order: nobody writes into what another
        /// one owns.
        #[test]
        fn owners_never_share(steps in prop::collection::vec((0u8..4, 1usize..5000, any::<prop::sample::Index>()), 1..120)) {
            let mut owned: Vec<Owned> = Vec::new();
            for (number, (kind, size, which)) in steps.into_iter().enumerate() {
                let mark = u8::try_from(number).unwrap();
                if kind < 2 || owned.is_empty() {
                    let layout = Layout::from_size_align(size, [1, 8, 16, 64][size % 4]).unwrap();
                    // SAFETY: the size is not zero.
                    let at = unsafe { if kind == 0 { ALLOCATOR.alloc(layout) } else { ALLOCATOR.alloc_zeroed(layout) } };
                    prop_assert!(at.addr().is_multiple_of(layout.align()));
                    let one = Owned { at, layout, mark };
                    if kind == 1 {
                        prop_assert!(Owned { at, layout, mark: 0 }.whole(), "zeroed");
                    }
                    one.fill();
                    owned.push(one);
                    continue;
                }
                let one = owned.swap_remove(which.index(owned.len()));
                prop_assert!(one.whole());
                if kind == 2 {
                    // SAFETY: it is given back once, with its layout.
                    unsafe { ALLOCATOR.dealloc(one.at, one.layout) };
                } else {
                    // SAFETY: it is ours, with this layout, and the size is not zero.
                    let at = unsafe { ALLOCATOR.realloc(one.at, one.layout, size) };
                    let layout = Layout::from_size_align(size, one.layout.align()).unwrap();
                    let kept = Layout::from_size_align(size.min(one.layout.size()), 1).unwrap();
                    prop_assert!(Owned { at, layout: kept, mark: one.mark }.whole(), "what was there is");
                    let one = Owned { at, layout, mark };
                    one.fill();
                    owned.push(one);
                }
                prop_assert!(owned.iter().all(Owned::whole));
            }
            for one in owned {
                // SAFETY: it is given back once, with its layout.
                unsafe { ALLOCATOR.dealloc(one.at, one.layout) };
            }
        }
    }
}

//! Entry points for fuzzers: arbitrary bytes as rings, as requests and as register accesses. None
//! of them may panic, whatever the bytes.

use std::sync::Arc;

use super::console::{Console, PortSettings};
use super::gpu::Gpu;
use super::input::Tablet;
use super::net::{Net, Settings};
use super::regs::QueuePlace;
use super::rng::Rng;
use super::{Chain, Device, GuestRam, Io, VirtQueue, VirtioPci};
use crate::display::surface::Surface;
use crate::display::vram::Vram;
use crate::pci::{Nowhere, PciDevice as _};
use crate::worker::{Serve as _, Turn};
use sekisho_seatlink::Mode;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend as _};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Guest memory of a fuzzed machine.
const RAM_LEN: usize = 64 * 1024;
/// Entries of each fuzzed queue, so that few bytes say much.
const SIZE: u16 = 16;
/// Bytes from one queue's rings to the next: table, available and used ring.
const STRIDE: u64 = 0x400;
/// More turns than any input may cause. The most is the console's: 16 chains of 16 buffers of
/// 64 KiB on each of two ports, 128 KiB a turn.
const TURNS: usize = 512;

/// Reads `data` as guest memory with one virtqueue at address 0x100 and walks its chains.
///
/// # Panics
/// If a chain that was taken for good has more buffers than the queue has entries, or a buffer
/// outside memory: what a fuzzer is to find.
pub fn virtqueue(data: &[u8]) {
    let Some((ram, mut queues)) = machine(data, 1) else {
        return;
    };
    let mut chain = Chain::default();
    for queue in &mut queues {
        for _ in 0..=SIZE {
            if !matches!(queue.pop(&ram, &mut chain), Ok(true)) {
                return;
            }
            let pieces = [chain.readable(), chain.writable()].concat();
            assert!(pieces.len() <= usize::from(SIZE));
            for piece in pieces {
                let length = usize::try_from(piece.len).unwrap_or(usize::MAX);
                assert!(ram.check_range(piece.address, length));
            }
            let mut bytes = [0; 64];
            let read = chain.read_at(&ram, 0, &mut bytes);
            chain.write_at(&ram, 0, &bytes[..read]);
            if queue.push(&ram, chain.head(), 0).is_err() {
                return;
            }
        }
    }
}

/// Reads `data` as guest memory with the queues of a device and lets the device work on it. The
/// first byte chooses device and features.
///
/// # Panics
/// If the device finds no end, or shows what lies outside its memory: what a fuzzer is to find.
pub fn device(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else {
        return;
    };
    let features = if choice & 4 == 0 { u64::MAX } else { 0 };
    if choice & 8 != 0 {
        return graphics(features, data);
    }
    match choice & 3 {
        0 => drive(Rng::new(), features, data),
        1 => {
            let port = |id, name: &str| PortSettings {
                id,
                name: name.into(),
                backend: None,
            };
            if let Ok(console) = Console::new(vec![port(0, "zero"), port(1, "one")]) {
                drive(console, features, data);
            }
        }
        // Without a link, and with one whose other end is never read.
        2 => drive(Net::new(Settings::new([2; 6], 1420)), features, data),
        _ => {
            let mut net = Net::new(Settings::new([2; 6], 1420));
            if let Ok((ours, _theirs)) = sekisho_framelink::pair()
                && net.attach(ours).is_ok()
            {
                drive(net, features, data);
            }
        }
    }
}

/// Reads `data` as what a person does with the tablet, in a first part whose length the first byte
/// gives, and then as guest memory with its queues; the configuration is asked for with the same bytes.
///
/// # Panics
/// If the device finds no end: what a fuzzer is to find.
pub fn tablet(data: &[u8]) {
    let Some((length, data)) = data.split_first() else {
        return;
    };
    let Some((acts, memory)) = data.split_at_checked(usize::from(*length) * 3) else {
        return;
    };
    let mut tablet = Tablet::new();
    let Some((ram, mut queues)) = machine(memory, tablet.queue_sizes().len()) else {
        return;
    };
    tablet.activate(0);
    for act in acts.chunks_exact(3) {
        let [kind, low, high] = act else {
            return;
        };
        let value = u16::from_le_bytes([*low, *high]);
        match kind & 7 {
            0 => tablet.at(value, u16::from(*kind) << 8),
            1 => drop(tablet.button(0x110 + value % 8, kind & 8 != 0)),
            2 => tablet.wheel(i32::from(value.cast_signed())),
            3 => tablet.all_up(),
            4 => tablet.write_config(usize::from(*kind >> 3), &[*low, *high]),
            5 => tablet.read_config(usize::from(value), &mut [0; 8]),
            _ => {
                tablet.notified(usize::from(value));
                let (ram, queues) = (&ram, &mut queues[..]);
                if tablet.turn(&mut Io { ram, queues }).is_err() {
                    return;
                }
            }
        }
    }
    drive_on(&mut tablet, &ram, &mut queues);
}

fn graphics(features: u64, data: &[u8]) {
    // Its memory is kept for ever; so all cards of a thread have the same.
    thread_local! {
        static SURFACE: Option<Arc<Surface>> = {
            let memory = Vram::new(1 << 20).ok().map(Arc::new);
            let wake = EventFd::new(EFD_NONBLOCK).ok();
            let surface = memory.zip(wake).map(|(memory, wake)| Surface::new(memory, wake));
            surface.and_then(Result::ok).map(Arc::new)
        };
    }
    if let (Some(surface), Some(mode)) = (SURFACE.with(Clone::clone), Mode::new(64, 64)) {
        drive(Gpu::new(mode, Arc::clone(&surface)), features, data);
        if let Some((scanout, memory)) = surface.picture() {
            assert!(scanout.end() <= memory.cells().len() as u64);
        }
        surface.release();
    }
}

/// Reads `data` as accesses to configuration space and BAR of a device, eight bytes each.
pub fn registers(data: &[u8]) {
    let ram = GuestRam::from_ranges(&[(GuestAddress(0), RAM_LEN)]);
    let Ok(ram) = ram else {
        return;
    };
    let Ok(mut function) = VirtioPci::new(Rng::new(), ram, Arc::new(Nowhere)) else {
        return;
    };
    // As a driver's first step: without bus mastering nothing would ever be served.
    function.write_config(4, &[6, 0]);
    for access in data.chunks_exact(8) {
        let [kind, low, high, length, value @ ..] = access else {
            return;
        };
        let offset = u16::from_le_bytes([*low, *high]);
        let length = 1_usize << (length & 3);
        let mut wide = [0; 8];
        wide[..4].copy_from_slice(value);
        let dword = length.min(4 - usize::from(offset & 3).min(3)).min(4);
        let config = offset & 0xfff;
        match kind & 3 {
            0 => function.read_bar(0, offset.into(), &mut wide[..length]),
            1 => function.write_bar(0, offset.into(), &wide[..length]),
            2 => function.read_config(config, &mut wide[..dword]),
            _ => function.write_config(config, &wide[..dword]),
        }
        if kind & 4 != 0 {
            function.serve();
        }
    }
}

fn drive<D: Device>(mut device: D, features: u64, data: &[u8]) {
    let count = device.queue_sizes().len();
    let Some((ram, mut queues)) = machine(data, count) else {
        return;
    };
    device.activate(device.features() & features);
    for index in 0..count {
        device.notified(index);
    }
    drive_on(&mut device, &ram, &mut queues);
}

fn drive_on(device: &mut impl Device, ram: &GuestRam, queues: &mut [VirtQueue]) {
    for _ in 0..TURNS {
        if !matches!(device.turn(&mut Io { ram, queues }), Ok(Turn::More)) {
            return;
        }
    }
    panic!("the device works without end");
}

fn machine(data: &[u8], queues: usize) -> Option<(GuestRam, Vec<VirtQueue>)> {
    let ram = GuestRam::from_ranges(&[(GuestAddress(0), RAM_LEN)]).ok()?;
    let data = data.get(..RAM_LEN - 0x100).unwrap_or(data);
    ram.write_slice(data, GuestAddress(0x100)).ok()?;
    let place = |index: u64| {
        let base = 0x100 + index * STRIDE;
        QueuePlace {
            size: SIZE,
            descriptors: base,
            driver: base + 0x100,
            device: base + 0x200,
        }
    };
    let mut enabled = Vec::new();
    for index in (0..).take(queues) {
        let mut queue = VirtQueue::new(SIZE).ok()?;
        queue.enable(&ram, &place(index), index % 2 == 0).ok()?;
        enabled.push(queue);
    }
    Some((ram, enabled))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::noise;

    /// Rings that are mostly right, so that what is wrong lies deep: small indices, addresses and
    /// lengths inside memory.
    fn nearly_right(seed: u64) -> Vec<u8> {
        let mut data = noise(seed, 0x2800);
        data[0] &= 0x0f;
        let rings = &mut data[1..];
        for queue in rings.chunks_mut(0x400) {
            for descriptor in queue[..0x100].chunks_mut(16) {
                descriptor[2..8].fill(0);
                descriptor[9..12].fill(0);
                descriptor[12] &= 0x03;
                descriptor[13] = 0;
                descriptor[14] &= 0x0f;
                descriptor[15] = 0;
            }
            queue[0x100..0x104].copy_from_slice(&[0, 0, 16, 0]);
            for head in queue[0x104..0x124].chunks_mut(2) {
                head[0] &= 0x0f;
                head[1] = 0;
            }
        }
        data
    }

    #[test]
    fn noise_neither_panics_nor_runs_without_end() {
        for seed in 1..400 {
            let plain = noise(seed, 0x1800);
            let right = nearly_right(seed);
            for data in [&plain, &right] {
                virtqueue(&data[1..]);
                device(data);
                tablet(data);
            }
            registers(&plain);
        }
    }
}

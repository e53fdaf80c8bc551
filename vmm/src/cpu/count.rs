//! What processors leave the guest for, counted: each thread has its own numbers, so that counting is an
//! addition in its own cache line.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvm_ioctls::VcpuExit;

/// The names of `KVM_EXIT_*` that are told apart (Linux `Documentation/virt/kvm/api.rst`, `struct kvm_run`;
/// ports and memory by their direction).
const KINDS: [&str; 9] = [
    "io_in",
    "io_out",
    "mmio_read",
    "mmio_write",
    "hyperv",
    "hlt",
    "intr",
    "irq_window_open",
    "other",
];

/// How often a kind of exit was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// KVM's name for it.
    pub kind: &'static str,
    /// Since the VMM started.
    pub exits: u64,
}

/// One processor's numbers, which its own thread alone writes.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Tally([AtomicU64; KINDS.len()]);

impl Tally {
    fn add(&self, kind: usize) {
        if let Some(count) = self.0.get(kind) {
            count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }

    /// Counts an exit.
    pub(super) fn exit(&self, exit: &VcpuExit<'_>) {
        self.add(match exit {
            VcpuExit::IoIn(..) => 0,
            VcpuExit::IoOut(..) => 1,
            VcpuExit::MmioRead(..) => 2,
            VcpuExit::MmioWrite(..) => 3,
            VcpuExit::Hyperv => 4,
            VcpuExit::Hlt => 5,
            VcpuExit::Intr => 6,
            VcpuExit::IrqWindowOpen => 7,
            _ => 8,
        });
    }

    /// Counts a way out by a signal of ours.
    pub(super) fn interrupted(&self) {
        self.add(6);
    }
}

/// All processors' numbers.
#[derive(Debug, Default)]
pub struct Counts(Mutex<Vec<Arc<Tally>>>);

impl Counts {
    /// Numbers for one more processor.
    pub(super) fn join(&self) -> Arc<Tally> {
        let tally = Arc::<Tally>::default();
        self.lock().push(Arc::clone(&tally));
        tally
    }

    /// The sums, kinds that were never seen included.
    pub fn sums(&self) -> Vec<Count> {
        let all = self.lock();
        let sum = |(index, kind)| Count {
            kind,
            exits: (all.iter())
                .filter_map(|tally| tally.0.get(index))
                .map(|count: &AtomicU64| count.load(Ordering::Relaxed))
                .sum(),
        };
        KINDS.into_iter().enumerate().map(sum).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Tally>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_are_summed_over_processors_by_their_kind() {
        let counts = Counts::default();
        let (first, second) = (counts.join(), counts.join());
        first.exit(&VcpuExit::IoOut(0x80, &[0]));
        second.exit(&VcpuExit::IoOut(0x80, &[0]));
        second.exit(&VcpuExit::MmioWrite(0, &[0]));
        second.exit(&VcpuExit::Debug(
            kvm_bindings::kvm_debug_exit_arch::default(),
        ));
        first.interrupted();
        let sums = counts.sums();
        let of = |kind: &str| sums.iter().find(|count| count.kind == kind).unwrap().exits;
        assert_eq!((of("io_out"), of("io_in")), (2, 0));
        assert_eq!((of("mmio_write"), of("other"), of("intr")), (1, 1, 1));
    }
}

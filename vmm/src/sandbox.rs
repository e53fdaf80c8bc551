//! How the VMM closes itself in: nothing can be opened any more, and each kind of thread keeps
//! only the system calls of its work.

use sekisho_sandbox::{
    BARE, EVENTS, FILES, Filter, FilterError, Is, Limits, MESSAGES, Rule, Sandbox,
};
use sekisho_sandbox::{Enforced, SandboxError};

/// Descriptors: an event for each vector and queue of at most 30 devices, a duplicate of each
/// source in the I/O thread, and what the machine file names.
const MAX_FILES: u64 = 2048;

/// Kinds of threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thread {
    /// Waits for the supervisor, the terminal and the end of the guest.
    Main,
    /// Runs one processor.
    Vcpu,
    /// Serves the virtio queues.
    Io,
    /// Carries the serial port's output to its file or terminal.
    Serial,
    /// Moves the screen's memory in the guest's address space.
    Memory,
    /// Carries commands to swtpm and answers back.
    Tpm,
    /// Reads and writes one disk image that is more than its bytes.
    Image,
}

// Numbers of `linux/kvm.h`, as the x86 `_IO`, `_IOR` and `_IOW` macros make them.
const KVM_RUN: u32 = 0xae80;
const KVM_GET_CLOCK: u32 = 0x8030_ae7c;
const KVM_SET_CLOCK: u32 = 0x4030_ae7b;
const KVM_KVMCLOCK_CTRL: u32 = 0xaead;
const KVM_GET_REGS: u32 = 0x8090_ae81;
const KVM_GET_SREGS: u32 = 0x8138_ae83;
const KVM_IRQ_LINE: u32 = 0x4008_ae61;
const KVM_GET_DIRTY_LOG: u32 = 0x4010_ae42;
const KVM_SET_USER_MEMORY_REGION: u32 = 0x4020_ae46;
const KVM_SET_GSI_ROUTING: u32 = 0x4008_ae6a;
const KVM_IOEVENTFD: u32 = 0x4040_ae79;

const fn ioctl(request: u32) -> Rule {
    Rule::allow(libc::SYS_ioctl).when(1, Is::Int(request))
}

/// Waiting until a descriptor takes more: standard output may be a pipe that does not block.
const WRITABLE: &[Rule] = &[Rule::allow(libc::SYS_poll), Rule::allow(libc::SYS_ppoll)];
/// Legacy interrupts; the I/O thread raises those of keyboard and mouse.
const LINES: &[Rule] = &[ioctl(KVM_IRQ_LINE)];
/// MSI-X vectors and doorbells move when the guest moves them, also when a reset that waited for
/// the I/O thread ends.
const VECTORS: &[Rule] = &[ioctl(KVM_SET_GSI_ROUTING), ioctl(KVM_IOEVENTFD)];
/// Running the guest, telling it that it was stopped, and telling where it crashed.
const GUEST: &[Rule] = &[
    ioctl(KVM_RUN),
    ioctl(KVM_KVMCLOCK_CTRL),
    ioctl(KVM_GET_REGS),
    ioctl(KVM_GET_SREGS),
];
/// The guest's clock, over a pause.
const CLOCK: &[Rule] = &[ioctl(KVM_GET_CLOCK), ioctl(KVM_SET_CLOCK)];
/// What the host says of its battery, mains and lid, in files that are open.
const SUPPLIES: &[Rule] = &[Rule::allow(libc::SYS_pread64)];
/// The flash chip keeps what the processor gives it.
const FLASH: &[Rule] = &[Rule::allow(libc::SYS_pwrite64)];
/// The terminal gets its settings back, and is asked for them where standard output is closed.
const TERMINAL: &[Rule] = &[ioctl(0x5401), ioctl(0x5402), ioctl(0x5404)];
/// The disks' rings, made before the sandbox closed.
const RINGS: &[Rule] = &[Rule::allow(libc::SYS_io_uring_enter)];

/// What the guest has drawn.
const DRAWN: &[Rule] = &[ioctl(KVM_GET_DIRTY_LOG)];
/// Where the guest has put the screen's memory.
const SLOTS: &[Rule] = &[ioctl(KVM_SET_USER_MEMORY_REGION)];
/// Who looks at the screen comes by a socket.
const VIEWERS: &[Rule] = &[Rule::allow(libc::SYS_accept4)];
/// swtpm's two sockets, and the bell that processors ring.
const SWTPM: &[Rule] = &[
    Rule::allow(libc::SYS_poll),
    Rule::allow(libc::SYS_ppoll),
    Rule::allow(libc::SYS_read),
    Rule::allow(libc::SYS_recvfrom),
    Rule::allow(libc::SYS_sendto),
    Rule::allow(libc::SYS_sendmsg),
];
/// What `imago` does with an open file.
const IMAGES: &[Rule] = &[
    Rule::allow(libc::SYS_preadv),
    Rule::allow(libc::SYS_pwritev),
    Rule::allow(libc::SYS_fallocate),
    Rule::allow(libc::SYS_ftruncate),
    Rule::allow(libc::SYS_fsync),
];

/// The system calls of a kind of thread.
pub fn filter(thread: Thread) -> Result<Filter, FilterError> {
    match thread {
        Thread::Main => Filter::new(
            "main",
            &[
                BARE, EVENTS, MESSAGES, LINES, VECTORS, TERMINAL, VIEWERS, CLOCK, SUPPLIES,
            ],
        ),
        Thread::Vcpu => Filter::new("vcpu", &[BARE, GUEST, LINES, VECTORS, FLASH]),
        Thread::Io => Filter::new(
            "virtio",
            &[BARE, EVENTS, MESSAGES, FILES, RINGS, LINES, VECTORS, DRAWN],
        ),
        Thread::Serial => Filter::new("serial", &[BARE, WRITABLE]),
        Thread::Memory => Filter::new("memory", &[BARE, SLOTS]),
        Thread::Tpm => Filter::new("tpm", &[BARE, SWTPM]),
        Thread::Image => Filter::new("image", &[BARE, IMAGES]),
    }
}

/// Closes the process in, as `user` where one is given. Before any thread is started.
pub fn enter(user: Option<u32>) -> Result<Enforced, SandboxError> {
    let mut limits = Limits::default();
    limits.files = MAX_FILES;
    one_heap();
    let mut sandbox = Sandbox::closed().limits(limits);
    if let Some(user) = user {
        sandbox = sandbox.user(user, user);
    }
    sandbox.enter()
}

/// All threads share the main heap. When one of glibc's heaps for threads shrinks, it opens a file under
/// `/proc`, which no filter here allows.
fn one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets a number in the allocator, under the allocator's own lock.
    let done = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    #[cfg(target_env = "gnu")]
    debug_assert_eq!(done, 1, "glibc knows the option");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_filter_compiles() {
        for thread in [
            Thread::Main,
            Thread::Vcpu,
            Thread::Io,
            Thread::Serial,
            Thread::Memory,
            Thread::Tpm,
            Thread::Image,
        ] {
            filter(thread).unwrap();
        }
    }

    /// The numbers above are the header's.
    #[test]
    fn ioctl_numbers_are_those_of_the_header() {
        let number = |direction: u32, size: usize, nr: u32| {
            direction << 30 | u32::try_from(size).unwrap() << 16 | 0xae << 8 | nr
        };
        let read = |size, nr| number(2, size, nr);
        let write = |size, nr| number(1, size, nr);
        assert_eq!(
            KVM_GET_REGS,
            read(size_of::<kvm_bindings::kvm_regs>(), 0x81)
        );
        assert_eq!(
            KVM_GET_SREGS,
            read(size_of::<kvm_bindings::kvm_sregs>(), 0x83)
        );
        let clock = size_of::<kvm_bindings::kvm_clock_data>();
        assert_eq!(KVM_GET_CLOCK, read(clock, 0x7c));
        assert_eq!(KVM_SET_CLOCK, write(clock, 0x7b));
        assert_eq!(
            KVM_IRQ_LINE,
            write(size_of::<kvm_bindings::kvm_irq_level>(), 0x61)
        );
        assert_eq!(
            KVM_GET_DIRTY_LOG,
            write(size_of::<kvm_bindings::kvm_dirty_log>(), 0x42)
        );
        assert_eq!(
            KVM_SET_USER_MEMORY_REGION,
            write(size_of::<kvm_bindings::kvm_userspace_memory_region>(), 0x46)
        );
        assert_eq!(
            KVM_SET_GSI_ROUTING,
            write(size_of::<kvm_bindings::kvm_irq_routing>(), 0x6a)
        );
        assert_eq!(
            KVM_IOEVENTFD,
            write(size_of::<kvm_bindings::kvm_ioeventfd>(), 0x79)
        );
    }
}

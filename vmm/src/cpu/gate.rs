//! The gate that each processor passes before it runs the guest: while it is shut no instruction of the
//! guest is executed.

use std::os::unix::thread::RawPthread;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use signal_hook::consts::SIGUSR1;
use thiserror::Error;

/// A processor comes out of the guest within microseconds, and out of a device within milliseconds; one that
/// moves the screen's memory or waits for a file of variables on a slow disk takes longer.
const LIMIT: Duration = Duration::from_secs(5);
/// A signal that comes between the look at the gate and `KVM_RUN` does nothing: it is sent again.
const AGAIN: Duration = Duration::from_millis(2);

/// Processors do not come to the gate.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0} processors of the guest do not stop")]
pub struct Stuck(pub usize);

struct Processor {
    thread: RawPthread,
    waits: bool,
}

/// The gate, open at first.
#[derive(Default)]
pub struct Gate {
    /// Read at each exit; changed under the lock.
    shut: AtomicBool,
    processors: Mutex<Vec<Processor>>,
    changed: Condvar,
}

impl Gate {
    /// Registers the calling thread as one that passes.
    pub fn enter(self: Arc<Self>) -> Pass {
        // SAFETY: it has no preconditions.
        let thread = unsafe { libc::pthread_self() };
        self.lock().push(Processor {
            thread,
            waits: false,
        });
        Pass { gate: self, thread }
    }

    /// Shuts the gate and waits until every processor stands at it. Fails where one does not come; the gate
    /// is open then.
    pub fn shut(&self) -> Result<(), Stuck> {
        self.shut_within(LIMIT)
    }

    fn shut_within(&self, limit: Duration) -> Result<(), Stuck> {
        let deadline = Instant::now() + limit;
        let mut processors = self.lock();
        self.shut.store(true, Ordering::Release);
        loop {
            let mut running = 0;
            for processor in processors.iter().filter(|processor| !processor.waits) {
                running += 1;
                // SAFETY: a thread takes itself off the list, which is locked, before it ends.
                unsafe { libc::pthread_kill(processor.thread, SIGUSR1) };
            }
            if running == 0 {
                return Ok(());
            }
            if Instant::now() >= deadline {
                drop(processors);
                self.open();
                return Err(Stuck(running));
            }
            let waited = self.changed.wait_timeout(processors, AGAIN);
            processors = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Opens the gate.
    pub fn open(&self) {
        let processors = self.lock();
        self.shut.store(false, Ordering::Release);
        drop(processors);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Processor>> {
        self.processors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn set_waits(processors: &mut [Processor], thread: RawPthread, waits: bool) {
        for processor in processors {
            if processor.thread == thread {
                processor.waits = waits;
            }
        }
    }
}

/// A processor's leave to pass, on its own thread.
pub struct Pass {
    gate: Arc<Gate>,
    thread: RawPthread,
}

impl Pass {
    /// Waits while the gate is shut; tells whether it was.
    pub fn wait(&self) -> bool {
        if !self.gate.shut.load(Ordering::Acquire) {
            return false;
        }
        let mut processors = self.gate.lock();
        Gate::set_waits(&mut processors, self.thread, true);
        self.gate.changed.notify_all();
        while self.gate.shut.load(Ordering::Acquire) {
            let woken = self.gate.changed.wait(processors);
            processors = woken.unwrap_or_else(PoisonError::into_inner);
        }
        Gate::set_waits(&mut processors, self.thread, false);
        true
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let thread = self.thread;
        self.gate
            .lock()
            .retain(|processor| processor.thread != thread);
        self.gate.changed.notify_all();
    }
}

/// Lets the signal that takes a processor out of the guest do nothing else. Once, before any runs.
pub fn prepare() -> std::io::Result<()> {
    // SAFETY: an empty handler is safe in a signal's context.
    unsafe { signal_hook::low_level::register(SIGUSR1, || {}) }.map(drop)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::thread;

    use super::*;

    #[test]
    fn nothing_runs_behind_a_shut_gate() {
        prepare().unwrap();
        let gate = Arc::new(Gate::default());
        let count = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let processors: Vec<_> = (0..3)
            .map(|_| {
                let (gate, count, stop) = (gate.clone(), count.clone(), stop.clone());
                thread::spawn(move || {
                    let pass = gate.enter();
                    let mut times = 0;
                    while !stop.load(Ordering::Relaxed) {
                        times += u32::from(pass.wait());
                        // As a processor in the guest, before and after which it does something.
                        thread::sleep(Duration::from_millis(1));
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    times
                })
            })
            .collect();
        while count.load(Ordering::Relaxed) < 10 {
            thread::yield_now();
        }
        gate.shut().unwrap();
        let before = count.load(Ordering::Relaxed);
        thread::sleep(Duration::from_millis(30));
        assert_eq!(count.load(Ordering::Relaxed), before);
        gate.open();
        while count.load(Ordering::Relaxed) < before + 10 {
            thread::yield_now();
        }
        stop.store(true, Ordering::Relaxed);
        for processor in processors {
            assert_eq!(processor.join().unwrap(), 1);
        }
        assert_eq!(gate.shut(), Ok(()), "nobody is left to wait for");
    }

    #[test]
    fn a_processor_that_does_not_come_leaves_the_gate_open() {
        prepare().unwrap();
        let gate = Arc::new(Gate::default());
        let (told, wait) = std::sync::mpsc::channel::<()>();
        let (ready, started) = std::sync::mpsc::channel();
        let stuck = {
            let gate = gate.clone();
            thread::spawn(move || {
                let pass = gate.enter();
                ready.send(()).unwrap();
                let _ = wait.recv();
                pass.wait()
            })
        };
        started.recv().unwrap();
        let limit = Duration::from_millis(20);
        assert_eq!(gate.shut_within(limit), Err(Stuck(1)));
        told.send(()).unwrap();
        assert!(!stuck.join().unwrap(), "the gate is open");
    }
}

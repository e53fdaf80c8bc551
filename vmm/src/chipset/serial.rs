//! COM1: a 16550A by `vm-superio`, with its output in a file or on the terminal.

use std::convert::Infallible;
use std::io::Write;

use vm_superio::Trigger;
use vm_superio::serial::{NoEvents, Serial};

use crate::bus::BusDevice;
use crate::irq::Line;

/// Ports of a 16550.
pub const PORTS: u64 = 8;

/// The interrupt output as `vm-superio` drives it.
struct Edge(Box<dyn Line>);

impl Trigger for Edge {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.0.pulse();
        Ok(())
    }
}

/// The serial port. Output that cannot be written is lost, as on a wire with nobody at its end.
pub struct SerialPort(Serial<Edge, NoEvents, Box<dyn Write + Send>>);

impl SerialPort {
    /// A port that interrupts by `line` and writes to `out`.
    pub fn new(line: Box<dyn Line>, out: Box<dyn Write + Send>) -> Self {
        Self(Serial::new(Edge(line), out))
    }

    /// Bytes that [`SerialPort::receive`] takes now.
    pub fn room(&self) -> usize {
        self.0.fifo_capacity()
    }

    /// Hands received bytes to the guest; gives how many were taken.
    pub fn receive(&mut self, bytes: &[u8]) -> usize {
        self.0.enqueue_raw_bytes(bytes).unwrap_or(0)
    }
}

impl BusDevice for SerialPort {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if let ([byte], Ok(offset)) = (data, u8::try_from(offset)) {
            *byte = self.0.read(offset);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let ([byte], Ok(offset)) = (data, u8::try_from(offset)) {
            let _ = self.0.write(offset, *byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Out(Arc<Mutex<Vec<u8>>>);

    impl Write for Out {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[derive(Clone, Default)]
    struct Count(Arc<AtomicU32>);

    impl Line for Count {
        fn set(&self, high: bool) {
            self.0.fetch_add(high.into(), Ordering::Relaxed);
        }
    }

    #[test]
    fn bytes_go_out_and_come_in() {
        let (out, line) = (Out::default(), Count::default());
        let mut port = SerialPort::new(Box::new(line.clone()), Box::new(out.clone()));
        port.write(0, b"x");
        assert_eq!(*out.0.lock().unwrap(), b"x");

        port.write(1, &[1]);
        assert_eq!(port.receive(b"in"), 2);
        assert_eq!(line.0.load(Ordering::Relaxed), 1);
        let mut byte = [0xff];
        port.read(5, &mut byte);
        assert_eq!(byte[0] & 1, 1, "data ready");
        port.read(0, &mut byte);
        assert_eq!(&byte, b"i");
    }

    #[test]
    fn wide_accesses_are_not_for_a_16550() {
        let mut port = SerialPort::new(Box::new(Count::default()), Box::new(Out::default()));
        let mut word = [0xff; 2];
        port.read(0, &mut word);
        assert_eq!(word, [0xff; 2]);
        port.write(0, &[1, 2]);
    }
}

//! Machine code of guests. Each piece means the same in 64-bit mode, as a bzImage starts, and in
//! 32-bit mode, as PVH does.

pub const COM1: u16 = 0x3f8;
pub const PM1_STATUS: u16 = 0x600;
pub const PM1_ENABLE: u16 = 0x602;
pub const PM1_CONTROL: u16 = 0x604;
pub const POWER_BUTTON: u16 = 1 << 8;
const SLEEP_ENABLE: u16 = 1 << 13;

/// Machine code of a guest.
#[derive(Default)]
pub struct Code(pub Vec<u8>);

impl Code {
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// `mov dx, port`
    pub fn port(self, port: u16) -> Self {
        self.raw(&[0x66, 0xba]).raw(&port.to_le_bytes())
    }

    /// Writes one byte to a port.
    pub fn out8(self, port: u16, value: u8) -> Self {
        self.port(port).raw(&[0xb0, value, 0xee])
    }

    /// Writes two bytes to a port.
    pub fn out16(self, port: u16, value: u16) -> Self {
        self.port(port)
            .raw(&[0x66, 0xb8])
            .raw(&value.to_le_bytes())
            .raw(&[0x66, 0xef])
    }

    /// Writes four bytes to a port.
    pub fn out32(self, port: u16, value: u32) -> Self {
        self.port(port)
            .raw(&[0xb8])
            .raw(&value.to_le_bytes())
            .raw(&[0xef])
    }

    /// Reads a byte from a port and writes it to COM1.
    pub fn echo8(self, port: u16) -> Self {
        self.port(port).raw(&[0xec]).port(COM1).raw(&[0xee])
    }

    /// Reads a byte from a memory address below 2 GiB (or, sign-extended, the top 2 GiB) and
    /// writes it to COM1.
    pub fn echo_memory(self, address: u32) -> Self {
        // mov ebx, address; mov al, [rbx]
        self.raw(&[0xbb])
            .raw(&address.to_le_bytes())
            .raw(&[0x8a, 0x03])
            .port(COM1)
            .raw(&[0xee])
    }

    /// Writes four bytes to a memory address below 4 GiB.
    pub fn store32(self, address: u32, value: u32) -> Self {
        // mov ebx, address; mov dword [rbx], value
        self.raw(&[0xbb])
            .raw(&address.to_le_bytes())
            .raw(&[0xc7, 0x03])
            .raw(&value.to_le_bytes())
    }

    /// Writes two bytes to a memory address below 4 GiB.
    pub fn store16(self, address: u32, value: u16) -> Self {
        // mov ebx, address; mov word [rbx], value
        self.raw(&[0xbb])
            .raw(&address.to_le_bytes())
            .raw(&[0x66, 0xc7, 0x03])
            .raw(&value.to_le_bytes())
    }

    /// Writes `value` to `count` times four bytes from a memory address below 4 GiB on.
    pub fn fill32(self, address: u32, count: u32, value: u32) -> Self {
        // mov edi, address; mov ecx, count; mov eax, value; rep stosd
        self.raw(&[0xbf])
            .raw(&address.to_le_bytes())
            .raw(&[0xb9])
            .raw(&count.to_le_bytes())
            .raw(&[0xb8])
            .raw(&value.to_le_bytes())
            .raw(&[0xf3, 0xab])
    }

    pub fn print(self, text: &str) -> Self {
        text.bytes().fold(self, |code, byte| code.out8(COM1, byte))
    }

    /// Reads a 16-bit port until one of these bits is set.
    pub fn wait_for(self, port: u16, bits: u16) -> Self {
        // again: in ax, dx; pause; test ax, bits; jz again
        self.port(port)
            .raw(&[0x66, 0xed, 0xf3, 0x90, 0x66, 0xa9])
            .raw(&bits.to_le_bytes())
            .raw(&[0x74, 0xf6])
    }

    pub fn switch_off(self) -> Self {
        self.out16(PM1_CONTROL, SLEEP_ENABLE).raw(&[0xf4])
    }

    /// Writes the byte at `offset` from what `rbx` points to to COM1.
    pub fn echo_rbx(self, offset: u8) -> Self {
        // mov al, [rbx + offset]
        self.raw(&[0x8a, 0x43, offset]).port(COM1).raw(&[0xee])
    }

    /// Writes the byte that a pointer at `offset` from what `rbx` points to leads to to COM1.
    pub fn echo_behind_rbx(self, offset: u8) -> Self {
        // mov esi, [rbx + offset]; mov al, [rsi]
        self.raw(&[0x8b, 0x73, offset, 0x8a, 0x06])
            .port(COM1)
            .raw(&[0xee])
    }

    /// Goes on with what the pointer at `offset` from what `rbx` points to leads to.
    pub fn follow_rbx(self, offset: u8) -> Self {
        // mov ebx, [rbx + offset]
        self.raw(&[0x8b, 0x5b, offset])
    }

    /// Writes `byte` to COM1 `count` times.
    pub fn print_many(self, byte: u8, count: u32) -> Self {
        // mov ecx, count; mov al, byte; again: out dx, al; dec ecx; jnz again
        self.port(COM1)
            .raw(&[0xb9])
            .raw(&count.to_le_bytes())
            .raw(&[0xb0, byte, 0xee, 0xff, 0xc9, 0x75, 0xfb])
    }

    /// Reads a byte from `port` into memory at `address` and the bytes behind it, `count` times by
    /// one instruction.
    pub fn string_in(self, port: u16, address: u32, count: u32) -> Self {
        // mov edi, address; mov ecx, count; rep insb
        self.port(port)
            .raw(&[0xbf])
            .raw(&address.to_le_bytes())
            .raw(&[0xb9])
            .raw(&count.to_le_bytes())
            .raw(&[0xf3, 0x6c])
    }
}

//! The serial port and the way out of the CPU emulator.

use core::fmt;
use core::fmt::Write;

use crate::cpu;

const COM1: u16 = 0x3f8;
const LINE_STATUS: u16 = COM1 + 5;
const LINE_CONTROL: u16 = COM1 + 3;
const TRANSMITTER_IDLE: u8 = 0x60;
const SHUTDOWN_PORT: u16 = 0x8900;

/// The serial port COM1.
pub(crate) struct Console;

impl Console {
    /// Sets eight data bits; without it the log is garbage.
    pub(crate) fn start() {
        // SAFETY: a write to COM1's line control register touches no memory.
        unsafe { cpu::out8(LINE_CONTROL, 3) };
    }

    fn wait() {
        // SAFETY: a read of COM1's line status register touches no memory.
        while unsafe { cpu::in8(LINE_STATUS) } & TRANSMITTER_IDLE != TRANSMITTER_IDLE {}
    }
}

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            Self::wait();
            // SAFETY: a write to COM1's data register touches no memory.
            unsafe { cpu::out8(COM1, byte) };
        }
        Ok(())
    }
}

/// Prints a line on the serial port.
#[macro_export]
macro_rules! log {
    ($($argument:tt)*) => {{
        use core::fmt::Write as _;
        // The port cannot fail.
        let _ = writeln!($crate::console::Console, $($argument)*);
    }};
}

/// Ends the emulation after the last byte has left the serial port.
pub(crate) fn power_off() -> ! {
    Console::wait();
    for byte in b"Shutdown" {
        // SAFETY: the emulator's shutdown port touches no memory.
        unsafe { cpu::out8(SHUTDOWN_PORT, *byte) };
    }
    loop {
        // SAFETY: with interrupts off the CPU stays here.
        unsafe { cpu::halt() };
    }
}

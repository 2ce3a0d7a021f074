//! Traces of a guest's first touches, conversions and discards.
//!
//! A trace is text: a comment line with the size of the guest's memory, then one event a line in the order in
//! which they happened.
//!
//! ```text
//! # gpatrace v1 name=boot ram=0x40000000 page=4096
//! T t_ms gpa r|w|x p|s vN rwx   the guest touches a page that is not mapped
//! C t_ms gpa len                the guest converts a private range to shared
//! D t_ms gpa len                the host takes a range back
//! M t_ms text                   marker
//! ```

mod line;

use std::io::BufRead;
use std::io::Read;

pub use line::LineError;

/// Longest line that is read, in bytes.
const MAX_LINE: u64 = 4096;
/// Most events of one trace.
const MAX_EVENTS: usize = 1 << 26;

/// Kind of a memory access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Data read.
    Read,
    /// Data write.
    Write,
    /// Instruction fetch.
    Execute,
}

/// Something that happened to the guest's memory. Addresses have no SHARED bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A vCPU touches a 4 KiB page that is not mapped at that moment.
    Touch {
        /// The page.
        gpa: u64,
        /// The first access.
        access: Access,
        /// Whether the page is accessed as shared memory.
        shared: bool,
        /// The vCPU, as recorded.
        vcpu: u32,
    },
    /// The guest converts a range from private to shared.
    Convert {
        /// First byte.
        gpa: u64,
        /// Size in bytes.
        len: u64,
    },
    /// The host takes a range back: balloon or free page reporting.
    Discard {
        /// First byte.
        gpa: u64,
        /// Size in bytes.
        len: u64,
    },
}

/// A whole trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// What the header calls it, if it does.
    pub name: Option<String>,
    /// Size of the guest's memory in bytes, from GPA 0 on.
    pub ram: u64,
    /// The events in order.
    pub events: Vec<Event>,
    /// Markers: the number of events before each, and its text.
    pub markers: Vec<(usize, String)>,
}

/// Why a trace cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// Reading failed; a truncated gzip stream is one cause.
    #[error("cannot read line {line}")]
    Read {
        /// Where it failed, counted from 1.
        line: usize,
        /// What the system or the decompressor said.
        #[source]
        source: std::io::Error,
    },
    /// A line says something impossible.
    #[error("line {line}")]
    Line {
        /// Which, counted from 1.
        line: usize,
        /// What is wrong with it.
        #[source]
        source: LineError,
    },
    /// There is no event.
    #[error("it has no events")]
    Empty,
    /// There are more events than fit.
    #[error("it has more than {MAX_EVENTS} events")]
    TooManyEvents,
}

impl Trace {
    /// Reads a trace to its end.
    pub fn parse(mut reader: impl BufRead) -> Result<Self, TraceError> {
        let mut trace = Self {
            name: None,
            ram: 0,
            events: Vec::new(),
            markers: Vec::new(),
        };
        let mut header_ram = None;
        let mut bytes = Vec::new();
        for number in 1.. {
            let in_line = |source| TraceError::Line {
                line: number,
                source,
            };
            bytes.clear();
            (&mut reader)
                .take(MAX_LINE + 1)
                .read_until(b'\n', &mut bytes)
                .map_err(|source| TraceError::Read {
                    line: number,
                    source,
                })?;
            if bytes.is_empty() {
                break;
            }
            if bytes.len() as u64 > MAX_LINE {
                return Err(in_line(LineError::TooLong));
            }
            let text = str::from_utf8(&bytes).map_err(|_| in_line(LineError::NotText))?;
            match line::parse(text.trim_end(), header_ram).map_err(in_line)? {
                line::Line::Nothing => {}
                line::Line::Header { name, ram } => {
                    trace.name = name;
                    header_ram = ram;
                }
                line::Line::Marker(text) => {
                    trace.markers.push((trace.events.len(), text.to_owned()))
                }
                line::Line::Event(event) => {
                    if trace.events.len() == MAX_EVENTS {
                        return Err(TraceError::TooManyEvents);
                    }
                    trace.events.push(event);
                }
            }
        }
        if trace.events.is_empty() {
            return Err(TraceError::Empty);
        }
        trace.ram = header_ram.unwrap_or_else(|| trace.highest().next_multiple_of(1 << 21));
        Ok(trace)
    }

    /// Number of vCPUs that appear: one more than the highest.
    pub fn vcpus(&self) -> u32 {
        let vcpus = self.events.iter().map(|event| match event {
            Event::Touch { vcpu, .. } => vcpu + 1,
            Event::Convert { .. } | Event::Discard { .. } => 1,
        });
        vcpus.max().unwrap_or(1)
    }

    fn highest(&self) -> u64 {
        let ends = self.events.iter().map(|event| match *event {
            Event::Touch { gpa, .. } => gpa + line::PAGE,
            Event::Convert { gpa, len } | Event::Discard { gpa, len } => gpa + len,
        });
        ends.max().unwrap_or(0)
    }
}

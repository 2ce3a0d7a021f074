//! Ids by which an error names the operand it is about.

use core::fmt;

tdx_codegen_macros::operands!();

/// What an error status is about, from RAX bits 31:0.
///
/// Open: ids that no table knows are kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct OperandId(u32);

impl OperandId {
    /// The id with this number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// Intel's name, if the id has one.
    pub const fn name(self) -> Option<&'static str> {
        let mut i = 0;
        while i < OPERAND_IDS.len() {
            if OPERAND_IDS[i].0 == self.0 {
                return Some(OPERAND_IDS[i].1);
            }
            i += 1;
        }
        None
    }
}

impl fmt::Debug for OperandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "OperandId({name})"),
            None => write!(f, "OperandId({:#x})", self.0),
        }
    }
}

impl fmt::Display for OperandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "operand {}", self.0),
        }
    }
}

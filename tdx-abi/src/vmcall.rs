//! What guest and host say to each other by TDG.VP.VMCALL.
//!
//! Source: Intel, Guest-Host-Communication Interface for TDX, "TDG.VP.VMCALL sub-functions".

use core::fmt;

/// Number of a sub-function of TDG.VP.VMCALL, in R11.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Vmcall(u64);

tdx_codegen_macros::vmcalls!();

/// What is known of a sub-function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VmcallRow {
    /// Number in R11.
    pub number: u64,
    /// Name, such as `MAP_GPA`.
    pub name: &'static str,
    /// Registers that the guest passes, with what they hold.
    pub inputs: &'static [(&'static str, &'static str)],
    /// Registers that the host returns, with what they hold.
    pub outputs: &'static [(&'static str, &'static str)],
}

impl Vmcall {
    /// The sub-function with this number.
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// The number in R11.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// What is known of the sub-function; `None` for numbers that the GHCI does not define.
    pub fn row(self) -> Option<&'static VmcallRow> {
        let position = VMCALLS.binary_search_by_key(&self.0, |row| row.number);
        position.ok().and_then(|position| VMCALLS.get(position))
    }

    /// Its name, such as `MAP_GPA`.
    pub fn name(self) -> Option<&'static str> {
        self.row().map(|row| row.name)
    }
}

impl fmt::Debug for Vmcall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vmcall({self})")
    }
}

impl fmt::Display for Vmcall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "sub-function {:#x}", self.0),
        }
    }
}

//! Status codes: what RAX says after a call.

use core::fmt;

use crate::format::StatusBits;
use crate::module::Module;
use crate::module::Modules;
use crate::operand::OperandId;

tdx_codegen_macros::statuses!(area = core);
#[cfg(feature = "connect")]
tdx_codegen_macros::statuses!(area = connect);
#[cfg(feature = "migration")]
tdx_codegen_macros::statuses!(area = migration);
#[cfg(feature = "guest")]
tdx_codegen_macros::statuses!(area = guest);
#[cfg(feature = "seamldr")]
tdx_codegen_macros::statuses!(area = seamldr);

/// How to make a call again that did not complete.
///
/// Exhaustive: these are the three ways that the ABI knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retry {
    /// Something was locked or not available: the same call, later.
    Busy,
    /// An interrupt came and nothing was done: the same call.
    Restartable,
    /// An interrupt came and part of the work is done: a call with the registers as returned.
    Resumable,
}

/// What RAX bits 31:0 hold beside a status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Low {
    /// 0.
    None,
    /// An [`OperandId`].
    Operand,
    /// A level.
    Level,
    /// A VM exit reason.
    ExitReason,
    /// A count.
    Count,
    /// Part of a metadata field id.
    Field,
    /// Something that the code's documentation describes.
    Detail,
}

/// A code with what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StatusRow {
    /// Name without `TDX_`.
    pub name: &'static str,
    /// Value.
    pub value: u64,
    /// Modules that have it.
    pub modules: Modules,
    /// How to call again.
    pub retry: Option<Retry>,
    /// What bits 31:0 hold.
    pub low: Low,
}

impl StatusRow {
    const fn new(
        name: &'static str,
        value: u64,
        modules: u32,
        retry: Option<Retry>,
        low: Low,
    ) -> Self {
        Self {
            name,
            value,
            modules: Modules::from_bits(modules),
            retry,
            low,
        }
    }

    /// Whether `module` has the code.
    pub const fn is_in(&self, module: Module) -> bool {
        self.modules.contains(module)
    }
}

const fn find(table: &[StatusRow], value: u64) -> Option<&StatusRow> {
    let (mut low, mut high) = (0, table.len());
    while low < high {
        let middle = low + (high - low) / 2;
        if table[middle].value < value {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if low < table.len() && table[low].value == value {
        Some(&table[low])
    } else {
        None
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident)*) => {
        $($(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(u64);

        impl $name {
            /// The number.
            pub const fn value(self) -> u64 {
                self.0
            }


            /// The name without `TDX_`, if the code has one.
            pub const fn name(self) -> Option<&'static str> {
                match self.row() {
                    Some(row) => Some(row.name),
                    None => None,
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => write!(f, "{}({name})", stringify!($name)),
                    None => write!(f, "{}({:#x})", stringify!($name), self.0),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "{:#018x}", self.0),
                }
            }
        })*
    };
}

codes! {
    /// Status code of the TDX module: RAX with bits 31:0 cleared.
    ///
    /// Open: codes that no table knows are kept.
    StatusCode
    /// What P-SEAMLDR returns in RAX.
    SeamldrStatus
    /// What Linux reports for a call that did not reach the callee.
    LinuxStatus
}

impl StatusCode {
    /// What is known of the code.
    ///
    /// Leaves that import a TD may set FATAL and HOST_RECOVERABILITY_HINT in any code: a code that is not known as it
    /// is, is looked up without them.
    pub const fn row(self) -> Option<&'static StatusRow> {
        match find(STATUS_CODES, self.0) {
            Some(row) => Some(row),
            None => find(STATUS_CODES, self.plain()),
        }
    }

    /// The number without FATAL and HOST_RECOVERABILITY_HINT.
    #[inline]
    const fn plain(self) -> u64 {
        self.bits()
            .with_fatal(false)
            .with_host_recoverability_hint(false)
            .into_bits()
    }

    /// The code in the upper half of `rax`.
    pub const fn new(rax: u64) -> Self {
        Self(StatusBits::from_bits(rax).with_low(0).into_bits())
    }

    const fn bits(self) -> StatusBits {
        StatusBits::from_bits(self.0)
    }

    /// Whether the call failed. Codes that are no error may still carry information.
    pub const fn is_error(self) -> bool {
        self.bits().error()
    }

    /// Whether calling again in the same way is pointless.
    pub const fn is_non_recoverable(self) -> bool {
        self.bits().non_recoverable()
    }

    /// Whether the TD cannot be continued.
    pub const fn is_fatal(self) -> bool {
        self.bits().fatal()
    }

    /// Whether the host may recover by itself, in answers to a cross-TD exit.
    pub const fn host_recoverability_hint(self) -> bool {
        self.bits().host_recoverability_hint()
    }

    /// The class of the code.
    pub const fn class(self) -> u8 {
        self.bits().class()
    }

    /// How to make the call again, if that is worth it.
    #[inline]
    pub const fn retry(self) -> Option<Retry> {
        Self::retry_of(self.plain())
    }
}

impl SeamldrStatus {
    /// What is known of the status.
    pub const fn row(self) -> Option<&'static StatusRow> {
        find(SEAMLDR_STATUSES, self.0)
    }

    /// The status in `rax`.
    pub const fn new(rax: u64) -> Self {
        Self(rax)
    }

    /// Whether the call failed: everything but 0.
    pub const fn is_error(self) -> bool {
        self.0 != 0
    }

    /// How to make the call again, if that is worth it.
    #[inline]
    pub const fn retry(self) -> Option<Retry> {
        Self::retry_of(self.0)
    }
}

impl LinuxStatus {
    /// What is known of the status.
    pub const fn row(self) -> Option<&'static StatusRow> {
        find(LINUX_STATUSES, self.0)
    }

    /// The status with this value.
    pub const fn new(value: u64) -> Self {
        Self(value)
    }
}

/// RAX after a call of the TDX module: a code, and 32 bits that say more.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
#[must_use]
pub struct Status(u64);

impl Status {
    /// RAX as returned.
    pub const fn from_rax(rax: u64) -> Self {
        Self(rax)
    }

    /// `code` with bits 31:0 equal to 0.
    pub const fn of(code: StatusCode) -> Self {
        Self(code.0)
    }

    /// `code` about `operand`.
    pub const fn with_operand(code: StatusCode, operand: OperandId) -> Self {
        Self(code.0 | operand.number() as u64)
    }

    /// `code` with `detail` in bits 31:0.
    pub const fn with_detail(code: StatusCode, detail: u32) -> Self {
        Self(code.0 | detail as u64)
    }

    /// RAX.
    pub const fn rax(self) -> u64 {
        self.0
    }

    /// The code.
    pub const fn code(self) -> StatusCode {
        StatusCode::new(self.0)
    }

    /// Bits 31:0.
    pub const fn low(self) -> u32 {
        StatusBits::from_bits(self.0).low()
    }

    /// Bits 31:0 as an operand id, whether or not the code says that they are one.
    pub const fn operand(self) -> OperandId {
        OperandId::new(self.low())
    }

    /// Whether the call failed.
    pub const fn is_error(self) -> bool {
        self.code().is_error()
    }

    /// How to make the call again, if that is worth it.
    #[inline]
    pub const fn retry(self) -> Option<Retry> {
        self.code().retry()
    }
}

impl From<StatusCode> for Status {
    fn from(code: StatusCode) -> Self {
        Self::of(code)
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Status({self})")
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let low = self.low();
        match self.code().row() {
            None => write!(f, "{:#018x}", self.0),
            Some(row) => match row.low {
                Low::None if low == 0 => f.write_str(row.name),
                Low::Operand => write!(f, "{} ({})", row.name, self.operand()),
                Low::Level => write!(f, "{} (level {low})", row.name),
                Low::ExitReason => write!(f, "{} (exit reason {low:#x})", row.name),
                Low::Count => write!(f, "{} ({low})", row.name),
                Low::None | Low::Field | Low::Detail => write!(f, "{} ({low:#x})", row.name),
            },
        }
    }
}

use core::fmt;

use crate::Features;
use crate::OperandId;
use crate::Registers;
use crate::Retry;
use crate::SEAMLDR_CALL;
use crate::Status;
use crate::leaf::SeamcallLeaf;
use crate::leaf::TdcallLeaf;
use crate::status::SeamldrStatus;

/// Why a SEAMCALL or TDCALL never reached the callee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// CF was 1 after the instruction (VMfailInvalid): no module is loaded, or P-SEAMLDR is busy.
    VmFailInvalid,
    /// #UD: the CPU has no SEAM, or VMX is off.
    InvalidOpcode,
    /// #GP: the instruction is not allowed in this state.
    GeneralProtection,
}

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::VmFailInvalid => "VMfailInvalid: no module is loaded, or P-SEAMLDR is busy",
            Self::InvalidOpcode => "#UD: no SEAM on this CPU, or VMX is off",
            Self::GeneralProtection => "#GP: the instruction is not allowed in this state",
        })
    }
}

/// Executes SEAMCALL.
pub trait Seamcall {
    /// Passes `registers` to the callee that RAX bit 63 selects, and returns what it left in them.
    ///
    /// On a trap `registers` are unchanged.
    fn seamcall(&self, registers: &mut Registers) -> Result<(), Trap>;

    /// The same for a leaf that reads and writes no register but RAX, RCX, RDX and R8 to R13.
    #[inline(always)]
    fn seamcall_short(&self, registers: &mut Registers) -> Result<(), Trap> {
        self.seamcall(registers)
    }

    /// The same for a leaf of this [`Leaf::REACH`]; what lies beyond need neither be loaded nor read back.
    #[inline(always)]
    fn seamcall_within(&self, registers: &mut Registers, reach: Reach) -> Result<(), Trap> {
        match reach {
            Reach::All => self.seamcall(registers),
            _ => self.seamcall_short(registers),
        }
    }
}

/// Executes TDCALL.
pub trait Tdcall {
    /// Passes `registers` to the TDX module, and returns what it left in them.
    ///
    /// On a trap `registers` are unchanged.
    fn tdcall(&self, registers: &mut Registers) -> Result<(), Trap>;

    /// The same for a leaf that reads and writes no register but RAX, RCX, RDX and R8 to R13.
    #[inline(always)]
    fn tdcall_short(&self, registers: &mut Registers) -> Result<(), Trap> {
        self.tdcall(registers)
    }

    /// The same for a leaf of this [`Leaf::REACH`]; what lies beyond need neither be loaded nor read back.
    #[inline(always)]
    fn tdcall_within(&self, registers: &mut Registers, reach: Reach) -> Result<(), Trap> {
        match reach {
            Reach::All => self.tdcall(registers),
            _ => self.tdcall_short(registers),
        }
    }
}

impl<T: Seamcall + ?Sized> Seamcall for &T {
    #[inline(always)]
    fn seamcall(&self, registers: &mut Registers) -> Result<(), Trap> {
        (**self).seamcall(registers)
    }

    #[inline(always)]
    fn seamcall_short(&self, registers: &mut Registers) -> Result<(), Trap> {
        (**self).seamcall_short(registers)
    }

    #[inline(always)]
    fn seamcall_within(&self, registers: &mut Registers, reach: Reach) -> Result<(), Trap> {
        (**self).seamcall_within(registers, reach)
    }
}

impl<T: Tdcall + ?Sized> Tdcall for &T {
    #[inline(always)]
    fn tdcall(&self, registers: &mut Registers) -> Result<(), Trap> {
        (**self).tdcall(registers)
    }

    #[inline(always)]
    fn tdcall_short(&self, registers: &mut Registers) -> Result<(), Trap> {
        (**self).tdcall_short(registers)
    }

    #[inline(always)]
    fn tdcall_within(&self, registers: &mut Registers, reach: Reach) -> Result<(), Trap> {
        (**self).tdcall_within(registers, reach)
    }
}

/// How many registers a leaf has, in the order RAX, RCX, RDX, R8, R9, and so on.
///
/// Whatever its reach, a leaf may write RAX, RCX, RDX and R8 to R11. Exhaustive: these are the cases of which code is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Reads none beyond RCX.
    Rcx,
    /// Reads none beyond RDX.
    Rdx,
    /// Reads none beyond R8.
    R8,
    /// Reads none beyond R9.
    R9,
    /// Reads none beyond R11.
    R11,
    /// Reads and writes none beyond R13.
    R13,
    /// Reads or writes RBX, RBP, RSI, RDI, R14 or R15.
    All,
}

/// What every call of a leaf has in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    name: &'static str,
    rax: u64,
    features: Features,
    reach: Reach,
}

impl Signature {
    /// A leaf of this name that is called with this RAX and these registers.
    pub const fn new(name: &'static str, rax: u64, reach: Reach) -> Self {
        Self {
            name,
            rax,
            features: Features::EMPTY,
            reach,
        }
    }

    /// The same of a leaf that only modules with these features have.
    #[must_use]
    pub const fn needing(self, features: Features) -> Self {
        Self { features, ..self }
    }
}

/// Who executes a leaf: [`Host`] or [`Guest`].
pub trait Caller {}

/// The host, by SEAMCALL.
#[derive(Debug)]
pub enum Host {}

/// The guest, by TDCALL.
#[derive(Debug)]
pub enum Guest {}

impl Caller for Host {}

impl Caller for Guest {}

/// One leaf function with its inputs, which a call uses up and a refusal gives back.
pub trait Leaf: Sized {
    /// Name, RAX, registers and features.
    const SIGNATURE: Signature;
    /// Intel's name, such as `TDH.MEM.PAGE.AUG`.
    const NAME: &'static str = Self::SIGNATURE.name;
    /// RAX of the call: leaf number, version in bits 23:16, bit 63 for P-SEAMLDR.
    const RAX: u64 = Self::SIGNATURE.rax;
    /// Features without which no module has the leaf.
    const FEATURES: Features = Self::SIGNATURE.features;
    /// The registers that a call must pass.
    const REACH: Reach = Self::SIGNATURE.reach;
    /// Whether the leaf reads or writes a register beside RAX, RCX, RDX and R8 to R13.
    const ALL_REGISTERS: bool = matches!(Self::REACH, Reach::All);
    /// Who calls it.
    type Caller: Caller;
    /// What the leaf returns on success.
    type Output;

    /// The registers of the call; those that the leaf does not read are 0.
    fn encode(&self) -> Registers;

    /// What `registers` hold after success.
    fn output(self, registers: &Registers) -> Self::Output;

    /// What `registers` say after the call. Inputs come back with an error.
    #[inline(always)]
    fn decode(self, registers: &Registers) -> Result<Success<Self::Output>, Refused<Self>> {
        let error = if Self::RAX & SEAMLDR_CALL == 0 {
            CallError::of_module(registers)
        } else {
            CallError::of_seamldr(registers)
        };
        match error {
            Some(error) => Err(Refused { leaf: self, error }),
            None => Ok(Success {
                status: Status::from_rax(registers.rax),
                output: self.output(registers),
            }),
        }
    }

    /// What became of a call: [`decode`](Self::decode), or the inputs back with the trap.
    #[inline(always)]
    fn finish(
        self,
        registers: &Registers,
        called: Result<(), Trap>,
    ) -> Result<Success<Self::Output>, Refused<Self>> {
        match called {
            Ok(()) => self.decode(registers),
            Err(trap) => Err(Refused {
                leaf: self,
                error: CallError::Trap(trap),
            }),
        }
    }
}

/// A leaf that the host calls.
pub trait HostLeaf: Leaf<Caller = Host> {
    /// The leaf's number, with what modules allow; types of P-SEAMLDR's leaves have a `LEAF` of their own, which goes first.
    const LEAF: SeamcallLeaf = SeamcallLeaf::new(Self::RAX as u16);

    /// Calls the leaf.
    ///
    /// # Errors
    ///
    /// The call did not complete; the inputs come back.
    #[inline(always)]
    fn call(
        self,
        backend: &(impl Seamcall + ?Sized),
    ) -> Result<Success<Self::Output>, Refused<Self>> {
        let mut registers = self.encode();
        let called = backend.seamcall_within(&mut registers, Self::REACH);
        self.finish(&registers, called)
    }
}

/// A leaf that the guest calls.
pub trait GuestLeaf: Leaf<Caller = Guest> {
    /// The leaf's number, with what modules allow.
    const LEAF: TdcallLeaf = TdcallLeaf::new(Self::RAX as u16);

    /// Calls the leaf.
    ///
    /// # Errors
    ///
    /// The call did not complete; the inputs come back.
    #[inline(always)]
    fn call(
        self,
        backend: &(impl Tdcall + ?Sized),
    ) -> Result<Success<Self::Output>, Refused<Self>> {
        let mut registers = self.encode();
        let called = backend.tdcall_within(&mut registers, Self::REACH);
        self.finish(&registers, called)
    }
}

impl<L: Leaf<Caller = Host>> HostLeaf for L {}

impl<L: Leaf<Caller = Guest>> GuestLeaf for L {}

/// A completed leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Success<T> {
    /// Success, or success with information.
    pub status: Status,
    /// The output operands.
    pub output: T,
}

impl<T> Success<T> {
    /// What the callee has to say beside success.
    pub const fn information(&self) -> Option<Status> {
        if self.status.rax() == 0 {
            None
        } else {
            Some(self.status)
        }
    }
}

/// A leaf that did not complete, with its inputs (and the pages among them).
#[must_use]
pub struct Refused<L> {
    /// The inputs.
    pub leaf: L,
    /// What went wrong.
    pub error: CallError,
}

impl<L: Leaf> Refused<L> {
    /// How to make the call again, if that is worth it.
    pub const fn retry(&self) -> Option<Retry> {
        match self.error {
            CallError::Retry(retry, _) => Some(retry),
            CallError::Trap(_) | CallError::Failed(_) => None,
        }
    }

    /// What the callee returned; `None` if it was not reached.
    pub const fn failure(&self) -> Option<&Failure> {
        self.error.failure()
    }
}

/// With the registers that the call passed.
impl<L: Leaf> fmt::Debug for Refused<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused")
            .field("leaf", &L::NAME)
            .field("passed", &self.leaf.encode())
            .field("error", &self.error)
            .finish()
    }
}

impl<L: Leaf> fmt::Display for Refused<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", L::NAME, self.error)
    }
}

/// Why a leaf did not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The instruction trapped.
    Trap(Trap),
    /// The same call, or its continuation, may succeed later.
    Retry(Retry, Failure),
    /// The callee returned an error.
    Failed(Failure),
}

impl CallError {
    /// What the callee returned; `None` if it was not reached.
    pub const fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Trap(_) => None,
            Self::Retry(_, failure) | Self::Failed(failure) => Some(failure),
        }
    }

    /// The status, if the callee was reached.
    pub const fn status(&self) -> Option<Status> {
        match self.failure() {
            Some(failure) => Some(failure.status),
            None => None,
        }
    }

    /// The error in what the TDX module left in `registers`; `None` if it is none.
    #[inline(always)]
    pub(crate) const fn of_module(registers: &Registers) -> Option<Self> {
        let status = Status::from_rax(registers.rax);
        if !status.is_error() {
            return None;
        }
        let failure = Failure::of(registers);
        match status.retry() {
            Some(retry) => Some(Self::Retry(retry, failure)),
            None => Some(Self::Failed(failure)),
        }
    }

    /// The error in what P-SEAMLDR left in `registers`; `None` if it is none.
    #[inline(always)]
    pub(crate) const fn of_seamldr(registers: &Registers) -> Option<Self> {
        let status = SeamldrStatus::new(registers.rax);
        if !status.is_error() {
            return None;
        }
        let failure = Failure::of(registers);
        match status.retry() {
            Some(retry) => Some(Self::Retry(retry, failure)),
            None => Some(Self::Failed(failure)),
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trap(trap) => trap.fmt(f),
            Self::Retry(_, failure) | Self::Failed(failure) => failure.status.fmt(f),
        }
    }
}

/// What the callee left in the registers that may say more about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the registers")]
pub struct Failure {
    /// RAX.
    pub status: Status,
    pub rcx: u64,
    pub rdx: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
}

impl Failure {
    const fn of(registers: &Registers) -> Self {
        Self {
            status: Status::from_rax(registers.rax),
            rcx: registers.rcx,
            rdx: registers.rdx,
            r8: registers.r8,
            r9: registers.r9,
            r10: registers.r10,
            r11: registers.r11,
        }
    }

    /// The operand that the error is about, if the status says that there is one.
    pub const fn operand(&self) -> Option<OperandId> {
        match self.status.code().row() {
            Some(row) if matches!(row.low, crate::status::Low::Operand) => {
                Some(self.status.operand())
            }
            _ => None,
        }
    }

    /// The status as P-SEAMLDR means it.
    pub const fn seamldr_status(&self) -> SeamldrStatus {
        SeamldrStatus::new(self.status.rax())
    }
}

use crate::Registers;

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

/// Executes SEAMCALL.
pub trait Seamcall {
    /// Passes `registers` to the callee that RAX bit 63 selects, and returns what it left in them.
    ///
    /// On a trap `registers` are unchanged.
    fn seamcall(&self, registers: &mut Registers) -> Result<(), Trap>;
}

/// Executes TDCALL.
pub trait Tdcall {
    /// Passes `registers` to the TDX module, and returns what it left in them.
    ///
    /// On a trap `registers` are unchanged.
    fn tdcall(&self, registers: &mut Registers) -> Result<(), Trap>;
}

impl<T: Seamcall + ?Sized> Seamcall for &T {
    #[inline(always)]
    fn seamcall(&self, registers: &mut Registers) -> Result<(), Trap> {
        (**self).seamcall(registers)
    }
}

/// One leaf function with its inputs.
pub trait Leaf: Sized {
    /// Intel's name, such as `TDH.MEM.PAGE.AUG`.
    const NAME: &'static str;
    /// RAX of the call: leaf number, version in bits 23:16, bit 63 for P-SEAMLDR.
    const RAX: u64;
    /// What the leaf returns on success.
    type Output;

    /// The registers of the call; those that the leaf does not read are 0.
    fn encode(&self) -> Registers;

    /// What `registers` say after the call. Inputs come back with an error.
    fn decode(self, registers: &Registers) -> Result<Success<Self::Output>, Refused<Self>>;
}

/// A completed leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Success<T> {
    /// RAX as returned: success, or success with information. Becomes a typed status.
    pub rax: u64,
    /// The output operands.
    pub output: T,
}

/// A leaf that did not complete, with its inputs (and the pages among them).
#[derive(Debug, PartialEq, Eq)]
pub struct Refused<L> {
    /// The inputs.
    pub leaf: L,
    /// What went wrong.
    pub error: CallError,
}

/// Why a leaf did not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The instruction trapped.
    Trap(Trap),
    /// The callee returned an error; the registers carry its status in RAX and details elsewhere.
    Status(Registers),
}

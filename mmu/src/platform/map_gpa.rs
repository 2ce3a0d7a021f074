use tdx_abi::Gpa;
use tdx_abi::Level;
use tdx_abi::SharedBit;
use tdx_abi::format::TdVmcallStatus;

/// The guest's request to make a range of its memory private or shared: `TDG.VP.VMCALL<MapGPA>`.
///
/// The guest chooses every bit of both fields. Source: Intel, Guest-Host-Communication Interface for
/// TDX, `TDG.VP.VMCALL<MapGPA>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapGpa {
    /// R12: first byte, whose SHARED bit says what the range shall become.
    pub start: Gpa,
    /// R13: size in bytes.
    pub size: u64,
}

/// What the guest is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapGpaReply {
    /// All of the range is converted.
    Done,
    /// The range is converted up to this address (SHARED bit as in the request); the guest calls
    /// again for the rest.
    Retry(Gpa),
    /// The range is empty, overflows, or is not memory of this guest.
    Invalid(Gpa),
    /// Start or size is not a multiple of 4 KiB.
    Misaligned(Gpa),
}

impl MapGpaReply {
    /// R10 of the reply: the status.
    pub const fn r10(self) -> u64 {
        self.status().into_bits()
    }

    const fn status(self) -> TdVmcallStatus {
        match self {
            Self::Done => TdVmcallStatus::SUCCESS,
            Self::Retry(_) => TdVmcallStatus::RETRY,
            Self::Invalid(_) => TdVmcallStatus::INVALID_OPERAND,
            Self::Misaligned(_) => TdVmcallStatus::ALIGN_ERROR,
        }
    }

    /// R11 of the reply: the address where conversion stopped, 0 if it did not.
    pub const fn r11(self) -> u64 {
        match self {
            Self::Done => 0,
            Self::Retry(gpa) | Self::Invalid(gpa) | Self::Misaligned(gpa) => gpa.bits(),
        }
    }
}

impl MapGpa {
    /// Checks the request and converts at most `budget` bytes of it.
    ///
    /// `is_memory` tells whether the guest has memory from `start` (without the SHARED bit) for `size`
    /// bytes. `convert` gets such a range and whether it shall become shared; it returns how many
    /// bytes it converted from the start on, which may be fewer than asked for. A `budget` below
    /// 4 KiB counts as 4 KiB. An error of `convert` is the VMM's own trouble and ends the request.
    pub fn serve<E>(
        self,
        shared_bit: SharedBit,
        is_memory: impl FnOnce(u64, u64) -> bool,
        budget: u64,
        convert: impl FnOnce(u64, u64, bool) -> Result<u64, E>,
    ) -> Result<MapGpaReply, E> {
        let page = Level::Pt.size();
        let to_shared = self.start.bits() & shared_bit.mask() != 0;
        let start = self.start.bits() & !shared_bit.mask();
        if !start.is_multiple_of(page) || !self.size.is_multiple_of(page) {
            return Ok(MapGpaReply::Misaligned(self.start));
        }
        let in_range = start
            .checked_add(self.size)
            .is_some_and(|end| end <= shared_bit.mask());
        if self.size == 0 || !in_range || !is_memory(start, self.size) {
            return Ok(MapGpaReply::Invalid(self.start));
        }
        let step = self.size.min(budget.max(page) & !(page - 1));
        let converted = convert(start, step, to_shared)?.min(step);
        if converted == self.size {
            return Ok(MapGpaReply::Done);
        }
        Ok(MapGpaReply::Retry(Gpa::new(self.start.bits() + converted)))
    }
}

//! Walking a GPA list: one leaf call per list, interrupted between entries where an interrupt is pending.

use crate::abi::OperandId;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::frame::Frame;
use crate::module::Call;
use crate::module::Outcome;
use tdx_abi::format::GpaListEntry;
use tdx_abi::format::GpaListInfo;
use tdx_abi::format::GpaListOperation;
use tdx_abi::format::GpaListStatus;

/// Why an entry was not carried out.
pub(crate) enum Refusal {
    /// The leaf says so in the entry and goes on.
    Entry(GpaListStatus),
    /// The same, with an entry that has changed already.
    Changed(GpaListEntry, GpaListStatus),
    /// The entry cannot be one: the leaf fails.
    Invalid,
}

impl From<GpaListStatus> for Refusal {
    fn from(status: GpaListStatus) -> Self {
        Self::Entry(status)
    }
}

/// Counts what a call has done with its list.
pub(crate) struct Progress {
    info: GpaListInfo,
    next: u16,
    problems: u32,
    /// Whether RAX tells the problems.
    rax_counts: bool,
}

/// Runs a leaf on the GPA list in RCX. Where the list stands is returned in RCX, whatever the outcome; version 1, which the
/// newer modules have, returns in R8 how many entries failed.
pub(crate) fn run(
    call: &mut Call<'_>,
    leaf: impl FnOnce(&mut Call<'_>, &mut Progress) -> Result<Status, Status>,
) -> Outcome {
    let mut progress = Progress {
        rax_counts: call.core.rules().lists.rax_counts_errors,
        ..Progress::new(GpaListInfo::from_bits(call.regs.rcx))
    };
    let result = call
        .check_version()
        .and_then(|()| leaf(call, &mut progress));
    call.regs.rcx = progress.rcx();
    if call.version > 0 {
        call.regs.r8 = progress.problems.into();
    }
    Err(result.unwrap_or_else(|status| status))
}

/// What to do after an entry.
pub(crate) enum Next {
    /// Go on with the entry of this index.
    Entry(usize),
    /// All entries are done, or an interrupt is pending.
    Return(Status),
}

impl Progress {
    /// Begins with the first entry that `info` names.
    const fn new(info: GpaListInfo) -> Self {
        Self {
            info,
            next: info.first_entry(),
            problems: 0,
            rax_counts: true,
        }
    }

    /// The entry that is being processed.
    pub(crate) const fn index(&self) -> usize {
        self.next as usize
    }

    /// Counts an entry that was not carried out although it should have been.
    pub(crate) fn refused(&mut self, status: GpaListStatus) {
        if status != GpaListStatus::SKIPPED {
            self.problems += 1;
        }
    }

    /// Whether the entry being processed is the last one.
    pub(crate) const fn is_last(&self) -> bool {
        self.next >= self.info.last_entry()
    }

    /// Goes to the next entry; `interrupted` between two entries ends the call.
    pub(crate) fn advance(&mut self, interrupted: impl FnOnce() -> bool) -> Next {
        let last = self.is_last();
        if !last && !interrupted() {
            self.next += 1;
            return Next::Entry(self.index());
        }
        // Past entry 511 the index wraps to 0.
        self.next += 1;
        Next::Return(if last {
            let told = if self.rax_counts { self.problems } else { 0 };
            Status::with_detail(StatusCode::SUCCESS, told)
        } else {
            Status::of(StatusCode::INTERRUPTED_RESUMABLE)
        })
    }

    /// RCX as it is returned, whatever the outcome.
    pub(crate) const fn rcx(&self) -> u64 {
        self.info.with_first_entry(self.next).into_bits()
    }

    /// RCX with the next entry to be processed.
    pub(crate) const fn info(&self) -> GpaListInfo {
        self.info.with_first_entry(self.next)
    }
}

/// Carries out a list of entries on one GPA each, for BLOCKW and RESTORE: NOP and CANCEL are skipped.
pub(crate) fn each(
    progress: &mut Progress,
    list: &Frame,
    gpa_is_private: impl Fn(u64) -> bool,
    interrupted: impl Fn() -> bool,
    mut carry_out: impl FnMut(u64) -> Result<(), GpaListStatus>,
) -> Result<Status, Status> {
    let mut index = progress.index();
    loop {
        let entry = GpaListEntry::from_bits(list.load(index * 8));
        let outcome = if is_nop_or_cancel(entry) {
            if is_valid(entry) {
                Err(Refusal::Entry(GpaListStatus::SKIPPED))
            } else {
                Err(Refusal::Invalid)
            }
        } else if !is_valid(entry) || !gpa_is_private(entry.gpa().bits()) {
            Err(Refusal::Invalid)
        } else {
            carry_out(entry.gpa().bits()).map_err(Refusal::Entry)
        };
        let entry = match outcome {
            Ok(()) => entry.with_status(GpaListStatus::SUCCESS),
            Err(Refusal::Entry(status)) => {
                progress.refused(status);
                failed(entry, status)
            }
            Err(Refusal::Changed(entry, status)) => {
                progress.refused(status);
                failed(entry, status)
            }
            Err(Refusal::Invalid) => {
                list.store(
                    index * 8,
                    failed(entry, GpaListStatus::GPA_LIST_ENTRY_INVALID).into_bits(),
                );
                return Err(invalid_entry());
            }
        };
        list.store(index * 8, entry.into_bits());
        match progress.advance(&interrupted) {
            Next::Entry(next) => index = next,
            Next::Return(status) => return Ok(status),
        }
    }
}

/// The error for an entry that cannot be one.
pub(crate) const fn invalid_entry() -> Status {
    Status::with_operand(StatusCode::OPERAND_INVALID, OperandId::GPA_LIST_ENTRY)
}

/// Whether no reserved bit of an entry is set and its level is 4 KiB.
pub(crate) const fn is_valid(entry: GpaListEntry) -> bool {
    entry.is_reserved_valid() && entry.level() == 0
}

/// An entry as it is returned when it was not carried out.
pub(crate) const fn failed(entry: GpaListEntry, status: GpaListStatus) -> GpaListEntry {
    entry
        .with_operation(GpaListOperation::NOP)
        .with_status(status)
}

/// Whether the operation of an entry is NOP.
pub(crate) fn is_nop(entry: GpaListEntry) -> bool {
    entry.operation() == GpaListOperation::NOP
}

/// Whether BLOCKW and RESTORE leave an entry alone.
fn is_nop_or_cancel(entry: GpaListEntry) -> bool {
    is_nop(entry) || entry.operation() == GpaListOperation::CANCEL
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_list_info_and_entries_take_apart() {
        // RCX of the first EXPORT.BLOCKW recorded from the module: ten entries at 0x1a0130000.
        let info = GpaListInfo::from_bits(0x0480_0001_a013_0000);
        assert_eq!((info.first_entry(), info.last_entry()), (0, 9));
        assert_eq!(info.hpa().bits(), 0x1_a013_0000);
        assert_eq!(info.with_first_entry(10).into_bits(), 0x0480_0001_a013_0050);
        // An entry that came back as SEPT_ENTRY_STATE_INCORRECT.
        let entry = GpaListEntry::from_bits(0x0010_0000_0000_8000);
        assert_eq!(entry.operation(), GpaListOperation::MIGRATE);
        assert_eq!(
            failed(entry, GpaListStatus::SEPT_ENTRY_STATE_INCORRECT).into_bits(),
            0x0400_0000_0000_8000
        );
    }
}

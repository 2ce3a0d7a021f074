//! Walking a GPA list: one leaf call per list, interrupted between entries where an interrupt is pending.

use super::wire::EntryStatus;
use super::wire::GpaListEntry;
use super::wire::GpaListInfo;
use super::wire::operation;
use crate::abi::OperandId;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::frame::Frame;

/// Why an entry was not carried out.
pub(crate) enum Refusal {
    /// The leaf says so in the entry and goes on.
    Entry(EntryStatus),
    /// The entry cannot be one: the leaf fails.
    Invalid,
}

impl From<EntryStatus> for Refusal {
    fn from(status: EntryStatus) -> Self {
        Self::Entry(status)
    }
}

/// Counts what a call has done with its list.
pub(crate) struct Progress {
    info: GpaListInfo,
    next: u64,
    problems: u32,
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
    pub(crate) const fn new(info: GpaListInfo) -> Self {
        Self {
            info,
            next: info.first_entry(),
            problems: 0,
        }
    }

    /// The entry that is being processed.
    pub(crate) const fn index(&self) -> usize {
        self.next as usize
    }

    /// Counts an entry that was not carried out although it should have been.
    pub(crate) fn refused(&mut self, status: EntryStatus) {
        if status != EntryStatus::Skipped {
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
            Status::with_detail(StatusCode::SUCCESS, self.problems)
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
    mut carry_out: impl FnMut(u64) -> Result<(), EntryStatus>,
) -> Result<Status, Status> {
    let mut index = progress.index();
    loop {
        let entry = GpaListEntry::from_bits(list.load(index * 8));
        let outcome = if entry.is_nop_or_cancel() {
            if entry.is_valid() {
                Err(Refusal::Entry(EntryStatus::Skipped))
            } else {
                Err(Refusal::Invalid)
            }
        } else if !entry.is_valid() || !gpa_is_private(entry.gpa_page() << 12) {
            Err(Refusal::Invalid)
        } else {
            carry_out(entry.gpa_page() << 12).map_err(Refusal::Entry)
        };
        let entry = match outcome {
            Ok(()) => entry.with_status(0),
            Err(Refusal::Entry(status)) => {
                progress.refused(status);
                entry.failed(status)
            }
            Err(Refusal::Invalid) => {
                list.store(
                    index * 8,
                    entry.failed(EntryStatus::GpaListEntryInvalid).into_bits(),
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

/// Whether the operation of an entry is NOP.
pub(crate) const fn is_nop(entry: GpaListEntry) -> bool {
    entry.operation() == operation::NOP
}

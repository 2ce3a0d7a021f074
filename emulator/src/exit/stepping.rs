//! The defence against zero-stepping: a VMM that lets one instruction fault on private pages again and again.
//!
//! Source: `src/td_transitions/td_exit_stepping.c` of the TDX module 1.5.01.

use super::Guest;
use crate::core::Core;
use crate::lock::Mode;
use crate::lock::Sharex;
use crate::structures::Structure;
use crate::structures::Tdcs;
use crate::structures::Tdvps;
use crate::structures::tdcs;
use crate::structures::tdvps;
use crate::structures::vmcs::encoding;
use crate::translate;
use crate::translate::Translation;

/// EPT violations of one instruction after which their addresses are logged (`STEPPING_EPF_THRESHOLD`).
const THRESHOLD: u8 = 6;
/// NOTIFY_ENABLES: the guest wants to be told of a suspected attack.
const NOTIFY_EPT_FAULTS: u64 = 1;
/// Read, write and execute.
const RWX: u64 = 7;

/// Whether the vCPU may be entered.
#[derive(Debug)]
pub(crate) enum Filter<'m> {
    /// Yes.
    Enter(Option<Sharex<'m>>),
    /// Yes, and the guest wants a #VE that tells it of the faults.
    Notify(Option<Sharex<'m>>),
    /// No: the access to this guest-physical address would fault once more.
    WouldFault(u64),
    /// The Secure-EPT tree is locked.
    Busy,
}

/// Decides at TD entry. On [`Filter::Enter`] and [`Filter::Notify`] the tree stays locked until the entry.
pub(crate) fn at_entry<'m>(core: &'m Core, tdcs: Tdcs<'m>, tdvps: Tdvps<'m>) -> Filter<'m> {
    let count = tdvps
        .get(tdvps::LAST_EPF_GPA_LIST_IDX)
        .min(tdvps::EPF_GPA_LIST_SIZE);
    if count == 0 {
        return Filter::Enter(None);
    }
    let Some(lock) = Sharex::acquire(tdcs.lock_word(tdcs::SEPT_LOCK), Mode::Exclusive) else {
        return Filter::Busy;
    };
    for index in 0..usize::from(count) {
        let gpa = tdvps.get(tdvps::LAST_EPF_GPA_LIST.nth(index));
        match translate::private(core, tdcs, gpa, RWX).outcome {
            Translation::Mapped(_) | Translation::Convertible => {}
            Translation::Violation | Translation::Misconfigured => return Filter::WouldFault(gpa),
        }
    }
    if tdcs.get(tdcs::NOTIFY_ENABLES) & NOTIFY_EPT_FAULTS != 0 {
        Filter::Notify(Some(lock))
    } else {
        Filter::Enter(Some(lock))
    }
}

impl Guest<'_> {
    /// Forgets what was counted once the guest has made progress.
    pub(crate) fn note_progress(&self) {
        if self.vmcs.read(encoding::GUEST_RIP) != self.inside.rip_at_entry {
            self.tdvps.set(tdvps::LAST_EPF_GPA_LIST_IDX, 0);
            self.tdvps.set(tdvps::POSSIBLY_EPF_STEPPING, 0);
        }
    }

    /// Counts an EPT violation on a private address that is about to become a TD exit.
    pub(crate) fn log_violation(&self, gpa: u64) {
        self.note_progress();
        let tdvps = self.tdvps;
        let count = tdvps.get(tdvps::POSSIBLY_EPF_STEPPING);
        if count < THRESHOLD {
            tdvps.set(tdvps::POSSIBLY_EPF_STEPPING, count + 1);
            return;
        }
        let length = tdvps.get(tdvps::LAST_EPF_GPA_LIST_IDX);
        let logged = (0..usize::from(length))
            .any(|index| tdvps.get(tdvps::LAST_EPF_GPA_LIST.nth(index)) == gpa);
        if length < tdvps::EPF_GPA_LIST_SIZE && !logged {
            tdvps.set(tdvps::LAST_EPF_GPA_LIST.nth(length.into()), gpa);
            tdvps.set(tdvps::LAST_EPF_GPA_LIST_IDX, length + 1);
        }
    }
}

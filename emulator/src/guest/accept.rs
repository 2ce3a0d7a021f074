//! TDG.MEM.PAGE.ACCEPT

use tdx_abi::Level;

use super::Outcome;
use crate::abi::OperandId;
use crate::abi::SeptState;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::abi::TdcallLeaf;
use crate::exit::Guest;
use crate::exit::Stop;
use crate::exit::ept_violation::EXTENDED_ACCEPT;
use crate::exit::ept_violation::refused_entry_exit;
use crate::exit::gpr;
use crate::module::mem::entry::Mapping;
use crate::sept;
use crate::sept::SeptEntry;
use crate::structures::Structure;
use crate::structures::tdcs;

/// 4 KiB pages in a 2 MiB page.
const PAGES_OF_2M: u64 = 512;

impl Guest<'_> {
    /// TDG.MEM.PAGE.ACCEPT: zeroes a pending page and lets the guest use it.
    ///
    /// A 2 MiB page is done page by page; an interrupt makes the guest execute the call again.
    pub(super) fn page_accept(&self) -> Outcome {
        let invalid = Status::with_operand(StatusCode::OPERAND_INVALID, OperandId::RCX);
        let mapping = Mapping::decode(self.register(gpr::RCX), Level::Pt, Level::Pd);
        let Mapping { gpa, level } = mapping.ok_or(invalid)?;
        if !self.core.is_valid_gpa(gpa, self.tdcs.get(tdcs::GPAW), true) {
            return Err(invalid.into());
        }
        let found = sept::walk(self.core.memory(), self.tdcs.root(), gpa, level);
        let refuse =
            |entry: SeptEntry| refused_entry_exit(gpa, level, entry, found.level, EXTENDED_ACCEPT);
        let accepted = Status::with_detail(StatusCode::PAGE_ALREADY_ACCEPTED, found.level as u32);
        if found.level != level {
            if is_accessible_leaf(found.entry) {
                return Err(accepted.into());
            }
            return Err(refuse(found.entry).into());
        }
        let lock = found
            .cell
            .lock_guest()
            .map_err(|code| Status::with_operand(code, OperandId::RCX))?;
        let entry = lock.get();
        if entry.state() != SeptState::Free && !found.entry.is_leaf() {
            return Err(
                Status::with_detail(StatusCode::PAGE_SIZE_MISMATCH, found.level as u32).into(),
            );
        }
        if is_accessible_leaf(entry) {
            return Err(accepted.into());
        }
        let allowed = TdcallLeaf::TDG_MEM_PAGE_ACCEPT.sept_states(self.core.module());
        if !allowed.is_some_and(|states| states.contains(entry.state())) {
            drop(lock);
            return Err(refuse(entry).into());
        }
        let (entry, done) = self.initialize(entry, level);
        if !done {
            lock.set_and_release(entry);
            return Err(Stop::Reexecute.into());
        }
        let state = match entry.state() {
            SeptState::Pending => SeptState::Mapped,
            _ => SeptState::ExportedDirty,
        };
        let entry = entry.with_rwx().with_state(state);
        for vm in (1..=self.tdcs.l2_vms()).filter(|&vm| entry.is_aliased(vm)) {
            let alias = sept::walk(self.core.memory(), self.tdcs.l2_root(vm), gpa, level);
            if alias.level == level {
                alias.cell.set(alias.cell.get().l2_unblocked());
            }
        }
        lock.set_and_release(entry);
        Ok(())
    }

    /// Zeroes what is left of the page until an interrupt is pending; whether all of it is done now.
    fn initialize(&self, entry: SeptEntry, level: Level) -> (SeptEntry, bool) {
        let frame = |entry: SeptEntry| entry.address() >> 12;
        if level == Level::Pt {
            self.core.memory().fill(frame(entry), 0);
            self.core.claim(frame(entry) << 12, self.tdr);
            return (entry, true);
        }
        let mut entry = entry;
        loop {
            // The counter takes the place of the address bits that a 2 MiB page does not need.
            self.core.memory().fill(frame(entry), 0);
            self.core.claim(frame(entry) << 12, self.tdr);
            let count = entry.accept_counter() + 1;
            if count == PAGES_OF_2M {
                return (entry.with_accept_counter(0), true);
            }
            entry = entry.with_accept_counter(count);
            if self.interrupt_pending() {
                return (entry, false);
            }
        }
    }
}

/// Whether the guest can already access the page that an entry maps.
fn is_accessible_leaf(entry: SeptEntry) -> bool {
    entry.state().guest_accessible_leaf()
}

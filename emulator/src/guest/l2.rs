//! TDG.VP.ENTER, TDG.VP.INVEPT and TDG.VP.INVVPID
//!
//! The emulated CPU caches translations of guest-physical addresses only, so that what concerns linear ones does nothing.

use tdx_abi::format::GlaListEntry;
use tdx_abi::format::GlaListInfo;
use tdx_abi::format::InvVpidFlags;
use tdx_abi::format::L2EnterFlags;

use super::Failure;
use super::Outcome;
use super::memory::Use;
use crate::abi::OperandId;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::exit::Guest;
use crate::exit::Leave;
use crate::exit::Stop;
use crate::exit::TdExit;
use crate::exit::gpr;
use crate::metadata::interrupt_is_pending;
use crate::structures::Structure;
use crate::structures::tdcs;
use crate::structures::tdvps;

/// RCX of TDG.VP.ENTER: all translations of the L2 VM go.
const INVEPT_SINGLE_CONTEXT: u8 = 1;
/// Alignment of the L2 VM's registers in memory.
const STATE_ALIGNMENT: u64 = 256;
/// L2_DEBUG_CTLS.TD_EXIT_ON_L1_TO_L2.
const TD_EXIT_ON_L1_TO_L2: u64 = 1;
/// Entries of a page that lists linear addresses.
const GLA_LIST_ENTRIES: u16 = 512;
/// Linear address bits of the CPU, with five-level paging.
const LINEAR_BITS: u32 = 57;
const PAGE_SHIFT: u32 = 12;

impl Guest<'_> {
    /// TDG.VP.ENTER: on success the L2 VM runs.
    pub(super) fn l2_enter(&mut self) -> Outcome {
        let state = self.register(gpr::RDX);
        let wide = self.tdcs.get(tdcs::GPAW);
        if !state.is_multiple_of(STATE_ALIGNMENT) || !self.core.is_valid_gpa(state, wide, true) {
            return Err(invalid(OperandId::RDX));
        }
        let flags = L2EnterFlags::from_bits(self.register(gpr::RCX));
        let vm = usize::from(flags.vm());
        if !self.is_l2_vm(vm) || !flags.is_reserved_valid() {
            return Err(invalid(OperandId::RCX));
        }
        if self.tdvps.get(tdvps::L2_VAPIC_GPA.nth(vm)) == tdvps::NULL_PA {
            return Err(invalid(OperandId::L2_VAPIC_GPA));
        }
        if interrupt_is_pending(self.tdvps) {
            return Err(Status::of(StatusCode::PENDING_INTERRUPT).into());
        }
        let debug = self.tdvps.get(tdvps::L2_DEBUG_CTLS.nth(vm));
        if debug & TD_EXIT_ON_L1_TO_L2 != 0 {
            let exit = TdExit::bare(StatusCode::TD_EXIT_BEFORE_L2_ENTRY);
            return Err(Leave::Async(exit).into());
        }
        if self.tdvps.get(tdvps::L2_ENTER_GUEST_STATE_GPA.nth(vm)) != state {
            let (gpa, hpa) = (
                tdvps::L2_ENTER_GUEST_STATE_GPA.nth(vm),
                tdvps::L2_ENTER_GUEST_STATE_HPA.nth(vm),
            );
            self.tdvps.set(gpa, state);
            self.tdvps.set(hpa, tdvps::NULL_PA);
        }
        self.enter_l2(vm)?;
        if flags.invept() == INVEPT_SINGLE_CONTEXT {
            self.lp.tlb.flush_l2(self.inside.tdr, vm);
        }
        Err(Stop::EnteredL2.into())
    }

    /// TDG.VP.INVEPT: drops the translations of the L2 VMs of a mask.
    pub(super) fn invept(&mut self) -> Outcome {
        let vms = self.register(gpr::RCX);
        if vms & 1 != 0 || vms >> (self.tdcs.l2_vms() + 1) != 0 {
            return Err(invalid(OperandId::RCX));
        }
        for vm in (1..=self.tdcs.l2_vms()).filter(|vm| vms >> vm & 1 != 0) {
            self.lp.tlb.flush_l2(self.inside.tdr, vm);
        }
        Ok(())
    }

    /// TDG.VP.INVVPID: the same for linear addresses of one L2 VM; an interrupt makes the guest execute the
    /// call again for the rest of a list.
    pub(super) fn invvpid(&self) -> Outcome {
        let flags = InvVpidFlags::from_bits(self.register(gpr::RCX));
        if !self.is_l2_vm(flags.vm().into()) || !flags.is_reserved_valid() {
            return Err(invalid(OperandId::RCX));
        }
        let operand = self.register(gpr::RDX);
        if !flags.list() {
            return check_range(operand);
        }
        let mut list = GlaListInfo::from_bits(operand);
        let end = list.first_entry() + list.num_entries();
        if !list.is_reserved_valid() || end > GLA_LIST_ENTRIES {
            return Err(invalid(OperandId::RDX));
        }
        let gpa = list.list().bits();
        let page = self
            .translate(gpa, Use::Read, true)
            .map_err(|failure| failure.with_operand(OperandId::RDX))?;
        while list.num_entries() > 0 {
            let entry = u64::from(list.first_entry());
            check_range(self.core.memory().read_u64(page + 8 * entry))?;
            // Past entry 511 the index wraps to 0.
            list = list
                .with_first_entry((list.first_entry() + 1) % GLA_LIST_ENTRIES)
                .with_num_entries(list.num_entries() - 1);
            if self.interrupt_pending() {
                self.set_register(gpr::RDX, list.into_bits());
                return Err(Stop::Reexecute.into());
            }
        }
        self.set_register(gpr::RDX, list.into_bits());
        Ok(())
    }

    fn is_l2_vm(&self, vm: usize) -> bool {
        (1..=self.tdcs.l2_vms()).contains(&vm)
    }
}

/// Checks that INVVPID would take every address of a range.
fn check_range(entry: u64) -> Outcome {
    let entry = GlaListEntry::from_bits(entry);
    let canonical = (0..=u64::from(entry.last())).all(|page| {
        let address = (entry.base().wrapping_add(page) << PAGE_SHIFT).cast_signed();
        let unused = i64::BITS - LINEAR_BITS;
        address << unused >> unused == address
    });
    if canonical {
        Ok(())
    } else {
        Err(Status::of(StatusCode::GLA_NOT_CANONICAL).into())
    }
}

fn invalid(operand: OperandId) -> Failure {
    Status::with_operand(StatusCode::OPERAND_INVALID, operand).into()
}

//! What the memory leaves have in common: from their operands to a locked Secure-EPT entry.

use tdx_abi::Level;
use tdx_abi::sept::SeptStates;

use super::super::Call;
use super::super::check::LEAVES;
use super::super::check::LockedTdcs;
use super::super::check::LockedTdr;
use crate::abi::Module;
use crate::abi::OperandId;
use crate::abi::SeamcallLeaf;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::core::Core;
use crate::lock::Mode;
use crate::lock::Sharex;
use crate::pamt::Entry;
use crate::sept;
use crate::sept::EntryCell;
use crate::sept::EntryLock;
use crate::sept::Found;
use crate::sept::SeptEntry;
use crate::structures::Structure;
use crate::structures::Tdcs;
use crate::structures::tdcs;

/// Lowest and highest level that a leaf accepts; the highest is the root's where none is given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Levels(pub Level, pub Option<Level>);

/// The operand that gives a guest-physical address and a level: 2:0 level, 51:12 address, others 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mapping {
    /// The address.
    pub gpa: u64,
    /// The level.
    pub level: Level,
}

impl Mapping {
    /// The operand's parts, if the level is between those and the address aligned to it.
    #[inline]
    pub(crate) fn decode(raw: u64, lowest: Level, highest: Level) -> Option<Self> {
        let gpa = raw & 0x000f_ffff_ffff_f000;
        let level = Level::new((raw & 7) as u8)?;
        let legal = raw & !0x000f_ffff_ffff_f007 == 0
            && level >= lowest
            && level <= highest
            && gpa & (level.size() - 1) == 0;
        legal.then_some(Self { gpa, level })
    }
}

/// A Secure-EPT entry found and locked, with all locks above it.
#[derive(Debug)]
pub(crate) struct Opened<'m> {
    /// The lock on the entry.
    pub lock: EntryLock<'m>,
    _tree: Sharex<'m>,
    /// The TD's control structure, OP_STATE locked.
    pub tdcs: LockedTdcs<'m>,
    /// The TD.
    pub tdr: LockedTdr<'m>,
    /// The entry's value, read under its lock.
    pub entry: SeptEntry,
    /// The guest-physical address asked for.
    pub gpa: u64,
    /// The entry's level.
    pub level: Level,
}

impl<'m> Opened<'m> {
    /// Takes RCX as mapping and RDX as TDR, checks, locks and walks; RCX and RDX become 0, or the entry's details where it fails on one.
    #[inline(always)]
    pub(crate) fn open(
        call: &mut Call<'m>,
        leaf: SeamcallLeaf,
        levels: Levels,
        tree: Mode,
    ) -> Result<Self, Status> {
        Self::open_with(call, leaf, levels, tree, |_| Ok(()))
    }

    /// [`Self::open`] with a check between OP_STATE and mapping.
    #[inline(always)]
    pub(crate) fn open_with(
        call: &mut Call<'m>,
        leaf: SeamcallLeaf,
        Levels(lowest, highest): Levels,
        tree: Mode,
        check: impl FnOnce(Tdcs<'m>) -> Result<(), Status>,
    ) -> Result<Self, Status> {
        let core: &'m Core = call.core;
        let (rcx, rdx) = (call.regs.rcx, call.regs.rdx);
        call.regs.rcx = 0;
        call.regs.rdx = 0;
        let tdr = core.lock_tdr(rdx, OperandId::RDX, Mode::Shared)?;
        let tdcs = core.lock_tdcs(*tdr, Some(Mode::Shared), leaf)?;
        check(*tdcs)?;
        let invalid = Status::with_operand(StatusCode::OPERAND_INVALID, OperandId::RCX);
        let highest = highest.unwrap_or_else(|| tdcs.root_level());
        let Mapping { gpa, level } = Mapping::decode(rcx, lowest, highest).ok_or(invalid)?;
        if !core.is_valid_gpa(gpa, tdcs.get(tdcs::GPAW), true) {
            return Err(invalid);
        }
        let tree = Sharex::acquire(tdcs.lock_word(tdcs::SEPT_LOCK), tree).ok_or(
            Status::with_operand(StatusCode::OPERAND_BUSY, OperandId::SEPT_TREE),
        )?;
        let found = sept::walk(core.memory(), tdcs.root(), gpa, level);
        if found.level != level {
            set_details(call, found.entry, found.level);
            return Err(Status::with_operand(
                StatusCode::EPT_WALK_FAILED,
                OperandId::RCX,
            ));
        }
        let lock = found.cell.lock_host().map_err(|code| {
            set_details(call, found.entry, level);
            Status::with_operand(code, OperandId::RCX)
        })?;
        let entry = lock.get();
        Ok(Self {
            lock,
            _tree: tree,
            tdcs,
            tdr,
            entry,
            gpa,
            level,
        })
    }

    /// Puts the entry's details into RCX and RDX.
    pub(crate) fn details(&self, call: &mut Call<'_>) {
        set_details(call, self.entry, self.level);
    }

    /// Puts the entry's details into RCX and RDX and returns the status with operand RCX.
    pub(crate) fn refuse(&self, call: &mut Call<'_>, code: StatusCode) -> Status {
        self.details(call);
        Status::with_operand(code, OperandId::RCX)
    }

    /// Checks that the entry's state allows the leaf.
    #[inline]
    pub(crate) fn require(&self, call: &mut Call<'_>, leaf: SeamcallLeaf) -> Result<(), Status> {
        if is_allowed(call.core, leaf, self.entry) {
            Ok(())
        } else {
            Err(self.refuse(call, StatusCode::EPT_ENTRY_STATE_INCORRECT))
        }
    }

    /// Checks that the entry is a leaf and its state allows the leaf function.
    pub(crate) fn require_leaf(
        &self,
        call: &mut Call<'_>,
        leaf: SeamcallLeaf,
    ) -> Result<(), Status> {
        if self.entry.is_leaf() && is_allowed(call.core, leaf, self.entry) {
            Ok(())
        } else {
            Err(self.refuse(call, StatusCode::EPT_ENTRY_STATE_INCORRECT))
        }
    }

    /// Whether an entry in this state has to be blocked and tracked first.
    pub(crate) fn needs_tracking(&self, entry: SeptEntry) -> bool {
        entry.state().tlb_tracking_required() && self.tdcs.op_state().tlb_tracking_required()
    }

    /// Checks that the entry is blocked and out of all TLBs, where that is needed.
    pub(crate) fn require_tracked(
        &self,
        call: &mut Call<'_>,
        entry: SeptEntry,
        pamt: &Entry,
        operand: OperandId,
    ) -> Result<(), Status> {
        if !self.needs_tracking(entry) {
            return Ok(());
        }
        if !entry.state().any_blocked() {
            set_details(call, entry, self.level);
            return Err(Status::with_operand(
                StatusCode::GPA_RANGE_NOT_BLOCKED,
                OperandId::RCX,
            ));
        }
        if !self.tdcs.is_tlb_tracked(pamt.bepoch()) {
            return Err(Status::with_operand(
                StatusCode::TLB_TRACKING_NOT_DONE,
                operand,
            ));
        }
        Ok(())
    }

    /// Walks the Secure-EPT of L2 VM `vm` to the entry's level.
    pub(crate) fn l2_walk(&self, core: &'m Core, vm: usize) -> Result<Found<'m>, Status> {
        let found = sept::walk(core.memory(), self.tdcs.l2_root(vm), self.gpa, self.level);
        if found.level == self.level {
            Ok(found)
        } else {
            Err(super::super::check::with_l2_details(
                StatusCode::L2_SEPT_WALK_FAILED,
                vm,
                found.level,
            ))
        }
    }

    /// [`Self::l2_walk`] that puts the entry's details into RCX and RDX where it fails.
    pub(crate) fn l2_walk_with_details(
        &self,
        call: &mut Call<'m>,
        vm: usize,
    ) -> Result<Found<'m>, Status> {
        self.l2_walk(call.core, vm).inspect_err(|_| {
            let found = sept::walk(
                call.core.memory(),
                self.tdcs.l2_root(vm),
                self.gpa,
                self.level,
            );
            let debug = self.tdcs.has_attribute(tdcs::ATTRIBUTES_DEBUG);
            (call.regs.rcx, call.regs.rdx) = found.entry.l2_details(vm, debug, found.level);
        })
    }

    /// Calls `change` for the counterpart of the entry in the Secure-EPT of each L2 VM that has one.
    pub(crate) fn for_each_alias(
        &self,
        core: &'m Core,
        entry: SeptEntry,
        change: impl Fn(EntryCell<'m>),
    ) {
        for vm in (1..=self.tdcs.l2_vms()).filter(|&vm| entry.is_aliased(vm)) {
            if let Ok(found) = self.l2_walk(core, vm) {
                change(found.cell);
            }
        }
    }
}

/// Puts an entry's details into RCX and RDX.
pub(crate) fn set_details(call: &mut Call<'_>, entry: SeptEntry, level: Level) {
    (call.regs.rcx, call.regs.rdx) = entry.details(level);
}

/// Whether an entry's state allows a SEAMCALL leaf.
#[inline]
pub(crate) fn is_allowed(core: &Core, leaf: SeamcallLeaf, entry: SeptEntry) -> bool {
    SEPT_STATES[core.module() as usize]
        .get(usize::from(leaf.number()))
        .is_some_and(|states| states.contains(entry.state()))
}

/// States of entries on which a leaf may act, by module and the leaf's number.
static SEPT_STATES: [[SeptStates; LEAVES]; Module::COUNT] = [
    sept_states_of(Module::V1_5_01),
    sept_states_of(Module::V1_5_34),
    sept_states_of(Module::V2_0_18),
];

const fn sept_states_of(module: Module) -> [SeptStates; LEAVES] {
    let mut table = [SeptStates::from_bits(0); LEAVES];
    let mut number = 0;
    while number < table.len() {
        if let Some(states) = SeamcallLeaf::new(number as u16).sept_states(module) {
            table[number] = states;
        }
        number += 1;
    }
    table
}

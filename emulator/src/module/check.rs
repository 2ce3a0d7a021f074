//! Checks and locks that many leaves begin with.
//!
//! Source of the order of checks and of the errors: `src/common/helpers/helpers.c` of the TDX module.

use core::ops::Deref;

use tdx_abi::Level;
use tdx_abi::op_state::OpStates;

use crate::abi::Module;
use crate::abi::OperandId;
use crate::abi::SeamcallLeaf;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::abi::TdcallLeaf;
use crate::config::Range;
use crate::core::Core;
use crate::dynamic_pamt;
use crate::lock::Mode;
use crate::lock::SharexHp;
use crate::lock::Side;
use crate::pamt::Entry;
use crate::pamt::PageType;
use crate::pamt::Walked;
use crate::structures::Structure;
use crate::structures::Tdcs;
use crate::structures::Tdr;
use crate::structures::Tdvps;
use crate::structures::tdcs;
use crate::structures::tdr;
use crate::structures::tdr::Lifecycle;
use crate::structures::tdvps;

/// A TD with its TDR locked.
#[derive(Debug)]
pub(crate) struct LockedTdr<'m> {
    tdr: Tdr<'m>,
    _lock: Walked<'m>,
}

impl<'m> Deref for LockedTdr<'m> {
    type Target = Tdr<'m>;
    fn deref(&self) -> &Self::Target {
        &self.tdr
    }
}

/// A TDCS, with OP_STATE locked if the leaf locks it.
#[derive(Debug)]
pub(crate) struct LockedTdcs<'m> {
    tdcs: Tdcs<'m>,
    _lock: Option<SharexHp<'m>>,
}

impl<'m> Deref for LockedTdcs<'m> {
    type Target = Tdcs<'m>;
    fn deref(&self) -> &Self::Target {
        &self.tdcs
    }
}

/// A PAMT entry locked without the entries above it, of a page that another structure refers to.
#[derive(Debug)]
pub(crate) struct Implicit<'m> {
    /// The entry.
    pub entry: &'m Entry,
    /// The lock on it.
    pub lock: SharexHp<'m>,
    node: Option<&'m Entry>,
}

impl Implicit<'_> {
    /// Makes the page free; returns what is to be set in its address if it was the last in use of its 2 MiB range.
    pub(crate) fn free(&self) -> u64 {
        self.entry.set_page_type(PageType::Nda);
        dynamic_pamt::uncount(self.node)
    }
}

impl Core {
    /// Checks the address of a private page: aligned to `alignment` (a power of two), KeyID 0, below 2^MAXPA.
    #[inline]
    pub(crate) fn check_hpa(&self, hpa: u64, alignment: u64) -> Result<(), StatusCode> {
        if hpa & (alignment - 1) != 0 || self.key_id(hpa) != 0 || !self.is_below_max_pa(hpa) {
            return Err(StatusCode::OPERAND_INVALID);
        }
        Ok(())
    }

    /// Checks the address of shared memory of `size` bytes: below 2^MAXPA, not in SEAMRR, no private KeyID.
    pub(crate) fn check_shared_hpa(&self, hpa: u64, size: u64) -> Result<(), StatusCode> {
        let range = Range {
            base: self.without_key_id(hpa),
            size,
        };
        if !self.is_below_max_pa(hpa)
            || range.overlaps(self.config.seamrr)
            || self.key_id(hpa) >= self.config.first_private_key_id
        {
            return Err(StatusCode::OPERAND_INVALID);
        }
        Ok(())
    }

    /// [`Self::check_shared_hpa`] of memory that is aligned to its size, a power of two.
    pub(crate) fn check_shared_hpa_aligned(&self, hpa: u64, size: u64) -> Result<(), StatusCode> {
        if hpa & (size - 1) != 0 {
            return Err(StatusCode::OPERAND_INVALID);
        }
        self.check_shared_hpa(hpa, size)
    }

    /// Locks the page of size `level` at `hpa`, which must be of type `expected`.
    #[inline(always)]
    pub(crate) fn lock_page_of(
        &self,
        hpa: u64,
        operand: OperandId,
        mode: Mode,
        expected: PageType,
        level: Level,
        side: Side,
    ) -> Result<Walked<'_>, Status> {
        let fail = |code| Status::with_operand(code, operand);
        self.check_hpa(hpa, level.size()).map_err(fail)?;
        let block = self
            .global
            .block(hpa)
            .ok_or_else(|| fail(StatusCode::OPERAND_ADDR_RANGE_ERROR))?;
        let walked = block.walk(hpa, mode, level, side).map_err(fail)?;
        let page_type = walked.entry.page_type();
        let wanted_free = expected == PageType::Nda;
        if walked.level != level {
            let missing_pair = block.bitmap().is_some()
                && walked.level == Level::Pd
                && page_type == PageType::Nda
                && wanted_free;
            return Err(fail(if missing_pair {
                StatusCode::MISSING_PAMT_PAGE_PAIR
            } else {
                StatusCode::PAGE_METADATA_INCORRECT
            }));
        }
        let holds_entries = || block.bitmap().is_some_and(|bitmap| bitmap.has(hpa));
        if page_type != expected || (wanted_free && holds_entries()) {
            return Err(fail(StatusCode::PAGE_METADATA_INCORRECT));
        }
        Ok(walked)
    }

    /// Locks the free page that holds the 4 KiB at `hpa`, at whatever size the PAMT has it.
    ///
    /// So the memory of a 2 MiB page that was removed can be written back without a PAMT page pair for its range.
    pub(crate) fn lock_free_of_any_size(
        &self,
        hpa: u64,
        operand: OperandId,
        mode: Mode,
    ) -> Result<Walked<'_>, Status> {
        let fail = |code| Status::with_operand(code, operand);
        self.check_hpa(hpa, Level::Pt.size()).map_err(fail)?;
        let block = self
            .global
            .block(hpa)
            .ok_or_else(|| fail(StatusCode::OPERAND_ADDR_RANGE_ERROR))?;
        let walked = block.walk(hpa, mode, Level::Pt, Side::Host).map_err(fail)?;
        let holds_entries = block.bitmap().is_some_and(|bitmap| bitmap.has(hpa));
        if walked.entry.page_type() != PageType::Nda || holds_entries {
            return Err(fail(StatusCode::PAGE_METADATA_INCORRECT));
        }
        Ok(walked)
    }

    /// Locks the 4 KiB page at `hpa`, which must be of type `expected`.
    pub(crate) fn lock_page(
        &self,
        hpa: u64,
        operand: OperandId,
        mode: Mode,
        expected: PageType,
    ) -> Result<Walked<'_>, Status> {
        self.lock_page_of(hpa, operand, mode, expected, Level::Pt, Side::Host)
    }

    /// Locks the free page of 4 KiB or 2 MiB at `hpa` exclusively.
    #[inline(always)]
    pub(crate) fn lock_free_range(
        &self,
        hpa: u64,
        operand: OperandId,
        level: Level,
    ) -> Result<Walked<'_>, Status> {
        let walked = self.lock_page_of(
            hpa,
            operand,
            Mode::Exclusive,
            PageType::Nda,
            level,
            Side::Host,
        )?;
        let free = level != Level::Pd
            || self
                .global
                .block(hpa)
                .is_some_and(|block| block.is_2m_range_free(hpa));
        if free {
            Ok(walked)
        } else {
            Err(Status::with_operand(
                StatusCode::PAGE_METADATA_INCORRECT,
                operand,
            ))
        }
    }

    /// Locks the TDR at `hpa`.
    #[inline(always)]
    pub(crate) fn lock_tdr(
        &self,
        hpa: u64,
        operand: OperandId,
        mode: Mode,
    ) -> Result<LockedTdr<'_>, Status> {
        let lock = self.lock_page(hpa, operand, mode, PageType::Tdr)?;
        Ok(LockedTdr {
            tdr: self.tdr(hpa),
            _lock: lock,
        })
    }

    /// The PAMT entry of a page that another structure refers to.
    #[inline]
    pub(crate) fn implicit(&self, hpa: u64, level: Level) -> Result<&Entry, Status> {
        match self.global.block(self.without_key_id(hpa)) {
            Some(block) => Ok(block.entry(self.without_key_id(hpa), level)),
            None => Err(Status::of(StatusCode::OPERAND_ADDR_RANGE_ERROR)),
        }
    }

    /// With Dynamic PAMT, the node above the entry of the 4 KiB page at `hpa`.
    pub(crate) fn pamt_node(&self, hpa: u64) -> Option<&Entry> {
        let hpa = self.without_key_id(hpa);
        self.global.block(hpa)?.node(hpa)
    }

    /// Locks the PAMT entry of a page that another structure refers to.
    #[inline(always)]
    pub(crate) fn lock_implicit(
        &self,
        hpa: u64,
        operand: OperandId,
        mode: Mode,
        level: Level,
    ) -> Result<Implicit<'_>, Status> {
        let hpa = self.without_key_id(hpa);
        let block = self
            .global
            .block(hpa)
            .ok_or(Status::of(StatusCode::OPERAND_ADDR_RANGE_ERROR))?;
        let entry = block.entry(hpa, level);
        let lock = SharexHp::acquire(entry.lock(), mode, Side::Host)
            .map_err(|code| Status::with_operand(code, operand))?;
        let node = if level == Level::Pt {
            block.node(hpa)
        } else {
            None
        };
        Ok(Implicit { entry, lock, node })
    }

    /// A status that in newer modules tells the state that is not the right one.
    pub(crate) fn state_incorrect(&self, code: StatusCode, state: u32) -> Status {
        if self.rules().statuses_tell_states {
            Status::with_detail(code, state)
        } else {
            Status::of(code)
        }
    }

    /// The status of a leaf that the TD's OP_STATE does not allow.
    pub(crate) fn op_state_incorrect(&self, tdcs: Tdcs<'_>) -> Status {
        self.state_incorrect(StatusCode::OP_STATE_INCORRECT, tdcs.op_state() as u32)
    }

    /// The status of a leaf that the vCPU's state does not allow.
    pub(crate) fn vcpu_state_incorrect(&self, tdvps: Tdvps<'_>) -> Status {
        let state = tdvps.get(tdvps::STATE);
        self.state_incorrect(StatusCode::VCPU_STATE_INCORRECT, state.into())
    }

    /// Whether the TD's OP_STATE allows a SEAMCALL leaf.
    #[inline]
    pub(crate) fn is_op_state_allowed(&self, leaf: SeamcallLeaf, tdcs: Tdcs<'_>) -> bool {
        OP_STATES[self.module() as usize]
            .get(usize::from(leaf.number()))
            .is_some_and(|states| states.contains(tdcs.op_state()))
    }

    /// Maps the TDCS of a TD in which `leaf` is allowed, and locks OP_STATE in `mode`, if any.
    #[inline(always)]
    pub(crate) fn lock_tdcs<'m>(
        &'m self,
        tdr: Tdr<'m>,
        mode: Option<Mode>,
        leaf: SeamcallLeaf,
    ) -> Result<LockedTdcs<'m>, Status> {
        self.lock_tdcs_where(tdr, mode, Side::Host, |tdcs| {
            self.is_op_state_allowed(leaf, tdcs)
        })
    }

    /// Maps the TDCS of a TD whose state allows it to be bound as a service TD, OP_STATE locked shared.
    pub(crate) fn lock_service_tdcs<'m>(&'m self, tdr: Tdr<'m>) -> Result<LockedTdcs<'m>, Status> {
        self.lock_tdcs_where(tdr, Some(Mode::Shared), Side::Host, |tdcs| {
            tdcs.op_state().servtd_bind_allowed()
        })
    }

    /// Maps the TDCS of another TD on which a guest's `leaf` is allowed, OP_STATE locked shared.
    pub(crate) fn lock_target_tdcs<'m>(
        &'m self,
        tdr: Tdr<'m>,
        leaf: TdcallLeaf,
    ) -> Result<LockedTdcs<'m>, Status> {
        self.lock_tdcs_where(tdr, Some(Mode::Shared), Side::Guest, |tdcs| {
            leaf.op_states(self.module())
                .is_some_and(|states| states.contains(tdcs.op_state()))
        })
    }

    #[inline(always)]
    fn lock_tdcs_where<'m>(
        &'m self,
        tdr: Tdr<'m>,
        mode: Option<Mode>,
        side: Side,
        is_allowed: impl FnOnce(Tdcs<'m>) -> bool,
    ) -> Result<LockedTdcs<'m>, Status> {
        let tdcs = self.buildable(tdr)?;
        let lock = mode
            .map(|mode| SharexHp::acquire(tdcs.lock_word(tdcs::OP_STATE_LOCK), mode, side))
            .transpose()
            .map_err(|code| Status::with_operand(code, OperandId::OP_STATE))?;
        if !is_allowed(tdcs) {
            return Err(self.op_state_incorrect(tdcs));
        }
        Ok(LockedTdcs { tdcs, _lock: lock })
    }

    /// The TDCS of a TD that is not fatal and has its key and at least the pages of a TD without L2 VMs.
    #[inline(always)]
    pub(crate) fn buildable<'m>(&'m self, tdr: Tdr<'m>) -> Result<Tdcs<'m>, Status> {
        if tdr.get(tdr::FATAL) {
            return Err(fatal(StatusCode::TD_FATAL));
        }
        if !tdr.is(Lifecycle::KeysConfigured) {
            return Err(Status::of(StatusCode::TD_KEYS_NOT_CONFIGURED));
        }
        if !tdr.has_tdcs(0) {
            return Err(Status::of(StatusCode::TDCS_NOT_ALLOCATED));
        }
        Ok(self.tdcs(tdr))
    }
}

/// Leaf numbers are below this.
pub(crate) const LEAVES: usize = 192;

/// OP_STATEs in which a leaf may be called, by module and the leaf's number.
static OP_STATES: [[OpStates; LEAVES]; Module::COUNT] = [
    op_states_of(Module::V1_5_01),
    op_states_of(Module::V1_5_34),
    op_states_of(Module::V2_0_18),
];

const fn op_states_of(module: Module) -> [OpStates; LEAVES] {
    let mut table = [OpStates::from_bits(0); LEAVES];
    let mut number = 0;
    while number < table.len() {
        if let Some(states) = SeamcallLeaf::new(number as u16).op_states(module) {
            table[number] = states;
        }
        number += 1;
    }
    table
}

/// A status with the FATAL bit.
pub(crate) const fn fatal(code: StatusCode) -> Status {
    Status::from_rax(code.value() | 1 << 61)
}

/// A status whose low half tells VM number and level.
pub(crate) fn with_l2_details(code: StatusCode, vm: usize, level: Level) -> Status {
    Status::with_detail(code, (vm as u32) << 16 | level as u32)
}

/// The operand id of the register `count` after R8.
pub(crate) const fn operand_r8_plus(count: usize) -> OperandId {
    match count {
        0 => OperandId::R8,
        1 => OperandId::R9,
        2 => OperandId::R10,
        _ => OperandId::R11,
    }
}

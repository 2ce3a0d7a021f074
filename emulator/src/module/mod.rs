//! The TDX module: SEAMCALL leaves.

pub(crate) mod check;
pub(crate) mod mem;
pub(crate) mod mng;
pub(crate) mod mr;
pub(crate) mod phymem;
pub(crate) mod rd_wr;
pub(crate) mod sys;
pub(crate) mod vp;

use core::sync::atomic::Ordering;

use tdx_abi::Registers;

use crate::abi::Module;
use crate::abi::OperandId;
use crate::abi::SeamcallLeaf;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::core::Core;
use crate::fault::Calls;
use crate::fault::Effect;
use crate::global::SysState;
use crate::lp::LpSlot;
use crate::lp::LpState;
use crate::migration;
use crate::servtd;

/// A SEAMCALL being executed.
pub(crate) struct Call<'a> {
    pub core: &'a Core,
    pub slot: &'a LpSlot,
    pub lp: &'a mut LpState,
    /// The caller's registers: inputs until the leaf overwrites them with outputs.
    pub regs: &'a mut Registers,
    /// Version of the leaf that was called.
    pub version: u8,
    /// Highest version of the leaf that the module has; 0 of one that it does not have.
    latest: u8,
}

/// How a leaf ends: success, or any other status, informational ones included.
pub(crate) type Outcome = Result<(), Status>;

impl Call<'_> {
    /// Refuses a version that the module does not have; for leaves that have versions, which do so in their own place.
    pub(crate) fn check_version(&self) -> Outcome {
        if self.version > self.latest {
            return Err(Status::with_operand(
                StatusCode::OPERAND_INVALID,
                OperandId::RAX,
            ));
        }
        Ok(())
    }

    /// Whether an interrupt waits for the host on this LP; bit 0 counts only while the host takes interrupts.
    pub(crate) fn interrupt_pending(&self) -> bool {
        const INTR: u64 = 1;
        let masked = if self.core.config.host_interrupts_enabled {
            0
        } else {
            INTR
        };
        self.slot.interrupts_pending.load(Ordering::Acquire) & !masked != 0
            || self.slot.has_fault_interrupt()
    }
}

/// Whether the guest now runs on the LP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ran {
    /// The SEAMCALL returned.
    Returned,
    /// TDH.VP.ENTER entered the TD: the registers are the guest's.
    EnteredTd,
}

/// Leaves that are legal before the module is ready.
const BEFORE_READY: [SeamcallLeaf; 9] = [
    SeamcallLeaf::TDH_SYS_INFO,
    SeamcallLeaf::TDH_SYS_RD,
    SeamcallLeaf::TDH_SYS_RDALL,
    SeamcallLeaf::TDH_SYS_INIT,
    SeamcallLeaf::TDH_SYS_LP_INIT,
    SeamcallLeaf::TDH_SYS_CONFIG,
    SeamcallLeaf::TDH_SYS_KEY_CONFIG,
    SeamcallLeaf::TDH_SYS_LP_SHUTDOWN,
    SeamcallLeaf::TDH_SYS_UPDATE,
];

/// Executes the SEAMCALL in `regs` on an LP.
pub(crate) fn seamcall(core: &Core, slot: &LpSlot, lp: &mut LpState, regs: &mut Registers) -> Ran {
    let leaf = SeamcallLeaf::new(regs.rax as u16);
    core.counters.count_seamcall(leaf.number());
    let mut call = Call {
        core,
        slot,
        lp,
        version: (regs.rax >> 16) as u8,
        latest: leaf.max_version(core.module()).unwrap_or(0),
        regs,
    };
    let admitted = admit(&call, leaf).and_then(|()| suffer_fault(&call, leaf));
    let outcome = match admitted {
        Ok(()) if leaf == SeamcallLeaf::TDH_VP_ENTER => {
            // A kick from here on finds the LP in the TD, or makes it leave at once.
            slot.in_guest.store(true, Ordering::SeqCst);
            match vp::enter::enter(&mut call) {
                Ok(()) => {
                    slot.fault_interrupt.store(false, Ordering::Relaxed);
                    return Ran::EnteredTd;
                }
                Err(status) => {
                    slot.leave_guest();
                    Err(status)
                }
            }
        }
        Ok(()) => dispatch(&mut call, leaf),
        Err(status) => Err(status),
    };
    slot.fault_interrupt.store(false, Ordering::Relaxed);
    let status = outcome.err().unwrap_or(Status::of(StatusCode::SUCCESS));
    call.regs.rax = status.rax();
    Ran::Returned
}

/// Lets a fault that is in force strike the call.
fn suffer_fault(call: &Call<'_>, leaf: SeamcallLeaf) -> Outcome {
    match call.core.faults.on(Calls::Host(leaf)) {
        Some(Effect::Status(status)) => return Err(status),
        Some(Effect::Interrupt) => call.slot.fault_interrupt.store(true, Ordering::Relaxed),
        None => {}
    }
    Ok(())
}

/// Whether a leaf is one of TDX Connect that the module has, and which it does not offer on a platform without it, such
/// as this one. To other modules its number is as unknown as any.
const fn is_tdx_connect(leaf: SeamcallLeaf, module: Module) -> bool {
    let number = leaf.number();
    matches!(module, Module::V2_0_18)
        && number >= SeamcallLeaf::TDH_IOMMU_SETREG.number()
        && number <= SeamcallLeaf::TDH_DEVIF_MT_RD.number()
}

/// Checks RAX and the module's own state.
fn admit(call: &Call<'_>, leaf: SeamcallLeaf) -> Outcome {
    let invalid = Status::with_operand(StatusCode::OPERAND_INVALID, OperandId::RAX);
    if call.regs.rax >> 24 != 0 || is_tdx_connect(leaf, call.core.module()) {
        return Err(invalid);
    }
    // Leaves that have versions bound them themselves.
    if call.latest == 0 {
        call.check_version()?;
    }
    let state = call.core.global.sys_state();
    if state == SysState::Shutdown && leaf != SeamcallLeaf::TDH_SYS_LP_SHUTDOWN {
        return Err(Status::of(StatusCode::SYS_SHUTDOWN));
    }
    if state != SysState::Ready && !BEFORE_READY.contains(&leaf) {
        return Err(Status::of(StatusCode::SYS_NOT_READY));
    }
    Ok(())
}

fn dispatch(call: &mut Call<'_>, leaf: SeamcallLeaf) -> Outcome {
    let invalid = Status::with_operand(StatusCode::OPERAND_INVALID, OperandId::RAX);
    if !leaf.dispatched(call.core.module()) {
        return Err(invalid);
    }
    match leaf {
        SeamcallLeaf::TDH_MNG_ADDCX => mng::addcx(call),
        SeamcallLeaf::TDH_MNG_CREATE => mng::create(call),
        SeamcallLeaf::TDH_MNG_INIT => mng::init::init(call),
        SeamcallLeaf::TDH_MNG_KEY_CONFIG => mng::key_config(call),
        SeamcallLeaf::TDH_MNG_KEY_FREEID => mng::key_freeid(call),
        SeamcallLeaf::TDH_MNG_KEY_RECLAIMID => Ok(()),
        SeamcallLeaf::TDH_MNG_VPFLUSHDONE => mng::vpflushdone(call),
        SeamcallLeaf::TDH_MNG_RD => rd_wr::mng_rd(call),
        SeamcallLeaf::TDH_MNG_WR => rd_wr::mng_wr(call),
        SeamcallLeaf::TDH_VP_RD => rd_wr::vp_rd(call),
        SeamcallLeaf::TDH_VP_WR => rd_wr::vp_wr(call),
        SeamcallLeaf::TDH_SYS_RD => rd_wr::sys_rd(call),
        SeamcallLeaf::TDH_SYS_RDALL => rd_wr::sys_rdall(call),
        SeamcallLeaf::TDH_SYS_INFO => sys::info::info(call),
        SeamcallLeaf::TDH_VP_CREATE => vp::create(call),
        SeamcallLeaf::TDH_VP_ADDCX => vp::addcx(call),
        SeamcallLeaf::TDH_VP_INIT => vp::init::init(call),
        SeamcallLeaf::TDH_VP_FLUSH => vp::flush(call),
        SeamcallLeaf::TDH_MEM_PAGE_ADD => mem::page_add::page_add(call),
        SeamcallLeaf::TDH_MEM_PAGE_AUG => mem::page_aug(call),
        SeamcallLeaf::TDH_MEM_PAGE_REMOVE => mem::page_remove(call),
        SeamcallLeaf::TDH_MEM_PAGE_RELOCATE => mem::page_relocate(call),
        SeamcallLeaf::TDH_MEM_PAGE_DEMOTE => mem::demote::page_demote(call),
        SeamcallLeaf::TDH_MEM_PAGE_PROMOTE => mem::promote::page_promote(call),
        SeamcallLeaf::TDH_MEM_RANGE_BLOCK => mem::range_block(call),
        SeamcallLeaf::TDH_MEM_RANGE_UNBLOCK => mem::range_unblock(call),
        SeamcallLeaf::TDH_MEM_SEPT_ADD => mem::sept_add::sept_add(call),
        SeamcallLeaf::TDH_MEM_SEPT_RD => mem::sept_rd(call),
        SeamcallLeaf::TDH_MEM_SEPT_REMOVE => mem::sept_remove::sept_remove(call),
        SeamcallLeaf::TDH_MEM_TRACK => mem::track(call),
        SeamcallLeaf::TDH_MEM_RD => mem::rd_wr::rd(call),
        SeamcallLeaf::TDH_MEM_WR => mem::rd_wr::wr(call),
        SeamcallLeaf::TDH_MR_EXTEND => mr::extend(call),
        SeamcallLeaf::TDH_MR_FINALIZE => mr::finalize(call),
        SeamcallLeaf::TDH_PHYMEM_CACHE_WB => phymem::cache_wb(call),
        SeamcallLeaf::TDH_PHYMEM_PAGE_RDMD => phymem::page_rdmd(call),
        SeamcallLeaf::TDH_PHYMEM_PAGE_RECLAIM => phymem::page_reclaim(call),
        SeamcallLeaf::TDH_PHYMEM_PAGE_WBINVD => phymem::page_wbinvd(call),
        SeamcallLeaf::TDH_PHYMEM_PAMT_ADD => phymem::pamt::add(call),
        SeamcallLeaf::TDH_PHYMEM_PAMT_REMOVE => phymem::pamt::remove(call),
        SeamcallLeaf::TDH_SERVTD_BIND => servtd::binding::bind(call),
        SeamcallLeaf::TDH_SERVTD_PREBIND => servtd::binding::prebind(call),
        SeamcallLeaf::TDH_MIG_STREAM_CREATE => migration::session::stream_create(call),
        SeamcallLeaf::TDH_EXPORT_ABORT => migration::session::export_abort(call),
        SeamcallLeaf::TDH_EXPORT_BLOCKW => migration::block_write::blockw(call),
        SeamcallLeaf::TDH_EXPORT_MEM => migration::export_memory::mem(call),
        SeamcallLeaf::TDH_EXPORT_PAUSE => migration::session::export_pause(call),
        SeamcallLeaf::TDH_EXPORT_RESTORE => migration::block_write::restore(call),
        SeamcallLeaf::TDH_EXPORT_STATE_IMMUTABLE => migration::export_state::immutable(call),
        SeamcallLeaf::TDH_EXPORT_STATE_TD => migration::export_state::td(call),
        SeamcallLeaf::TDH_EXPORT_STATE_VP => migration::export_state::vp(call),
        SeamcallLeaf::TDH_EXPORT_TRACK => migration::session::export_track(call),
        SeamcallLeaf::TDH_EXPORT_UNBLOCKW => migration::block_write::unblockw(call),
        SeamcallLeaf::TDH_IMPORT_ABORT => migration::session::import_abort(call),
        SeamcallLeaf::TDH_IMPORT_COMMIT => migration::session::import_commit(call),
        SeamcallLeaf::TDH_IMPORT_END => migration::session::import_end(call),
        SeamcallLeaf::TDH_IMPORT_MEM => migration::import_memory::mem(call),
        SeamcallLeaf::TDH_IMPORT_STATE_IMMUTABLE => migration::import_state::immutable(call),
        SeamcallLeaf::TDH_IMPORT_STATE_TD => migration::import_state::td(call),
        SeamcallLeaf::TDH_IMPORT_STATE_VP => migration::import_state::vp(call),
        SeamcallLeaf::TDH_IMPORT_TRACK => migration::session::import_track(call),
        SeamcallLeaf::TDH_SYS_INIT => sys::init(call),
        SeamcallLeaf::TDH_SYS_LP_INIT => sys::lp_init(call),
        SeamcallLeaf::TDH_SYS_CONFIG => sys::config::config(call),
        SeamcallLeaf::TDH_SYS_KEY_CONFIG => sys::key_config(call),
        SeamcallLeaf::TDH_SYS_TDMR_INIT => sys::tdmr_init(call),
        SeamcallLeaf::TDH_SYS_LP_SHUTDOWN => Ok(()),
        SeamcallLeaf::TDH_SYS_SHUTDOWN => sys::update::shutdown(call),
        SeamcallLeaf::TDH_SYS_UPDATE => sys::update::update(call),
        _ => Err(invalid),
    }
}

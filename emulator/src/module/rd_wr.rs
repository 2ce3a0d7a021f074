//! TDH.MNG.RD/WR, TDH.VP.RD/WR, TDH.SYS.RD and TDH.SYS.RDALL

use tdx_abi::Level;

use super::Call;
use super::Outcome;
use super::vp;
use crate::abi::OperandId;
use crate::abi::SeamcallLeaf;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::lock::Mode;
use crate::metadata::Access;
use crate::metadata::Context;
use crate::metadata::ContextCode;
use crate::metadata::id::Id;
use crate::migration::metadata_list;
use crate::pamt::PageType;
use crate::structures::Tdcs;
use crate::structures::tdcs;

/// The operands that the leaves share.
#[derive(Clone, Copy)]
struct Operands {
    write: bool,
    returns_next: bool,
    structure: u64,
    id: u64,
    value: u64,
    mask: u64,
}

impl Operands {
    /// Takes the operands and sets the outputs to what errors return.
    fn take(call: &mut Call<'_>, write: bool) -> Result<Self, Status> {
        let returns_next = !write && call.version > 0;
        let regs = &mut *call.regs;
        let operands = Self {
            write,
            returns_next,
            structure: regs.rcx,
            id: regs.rdx,
            value: regs.r8,
            mask: regs.r9,
        };
        if returns_next {
            regs.rdx = Id::NONE.bits();
        }
        regs.r8 = 0;
        call.check_version()?;
        Ok(operands)
    }

    fn access(self, tdcs: Tdcs<'_>) -> Access {
        let debug = tdcs.has_attribute(tdcs::ATTRIBUTES_DEBUG);
        if self.write {
            Access::HostWrite { debug }
        } else {
            Access::HostRead { debug }
        }
    }

    /// Reads or writes the element.
    fn apply(
        self,
        call: &mut Call<'_>,
        metadata: &Context<'_>,
        context: ContextCode,
        access: Access,
    ) -> Outcome {
        let id = Id::new(self.id).with_context_code(context as u8);
        if self.returns_next && id.is_none() {
            call.regs.rdx = metadata.next_element(context, id, access).bits();
            return Err(Status::of(StatusCode::METADATA_FIRST_FIELD_ID_IN_CONTEXT));
        }
        id.check_single_element()?;
        let value = if self.write {
            metadata.write_element(context, id, access, self.value, self.mask)?
        } else {
            metadata.read_element(context, id, access)?
        };
        if self.returns_next {
            call.regs.rdx = metadata.next_element(context, id, access).bits();
        }
        call.regs.r8 = value;
        Ok(())
    }
}

/// TDH.MNG.RD; version 1 also returns the next field id.
pub(crate) fn mng_rd(call: &mut Call<'_>) -> Outcome {
    mng(call, false, SeamcallLeaf::TDH_MNG_RD)
}

/// TDH.MNG.WR
pub(crate) fn mng_wr(call: &mut Call<'_>) -> Outcome {
    mng(call, true, SeamcallLeaf::TDH_MNG_WR)
}

fn mng(call: &mut Call<'_>, write: bool, leaf: SeamcallLeaf) -> Outcome {
    let core = call.core;
    let operands = Operands::take(call, write)?;
    let tdr = core.lock_tdr(operands.structure, OperandId::RCX, Mode::Shared)?;
    let tdcs = core.lock_tdcs(*tdr, Some(Mode::Shared), leaf)?;
    let metadata = Context {
        core,
        tdr: Some(*tdr),
        tdcs: Some(*tdcs),
        tdvps: None,
    };
    operands.apply(call, &metadata, ContextCode::Td, operands.access(*tdcs))
}

/// TDH.VP.RD; version 1 also returns the next field id.
pub(crate) fn vp_rd(call: &mut Call<'_>) -> Outcome {
    vcpu(call, false, SeamcallLeaf::TDH_VP_RD)
}

/// TDH.VP.WR
pub(crate) fn vp_wr(call: &mut Call<'_>) -> Outcome {
    vcpu(call, true, SeamcallLeaf::TDH_VP_WR)
}

fn vcpu(call: &mut Call<'_>, write: bool, leaf: SeamcallLeaf) -> Outcome {
    let core = call.core;
    let operands = Operands::take(call, write)?;
    let tdvpr = operands.structure;
    let page = core.lock_page(tdvpr, OperandId::RCX, Mode::Shared, PageType::Tdvpr)?;
    let owner = page.entry.owner();
    let _td = core.lock_implicit(owner, OperandId::TDR, Mode::Shared, Level::Pt)?;
    let tdr = core.tdr(owner);
    let tdcs = core.lock_tdcs(tdr, Some(Mode::Shared), leaf)?;
    let tdvps = core.tdvps(tdvpr);
    if !tdvps.is_complete(tdcs.l2_vms()) {
        return Err(Status::of(StatusCode::TDCX_NUM_INCORRECT));
    }
    vp::associate(core, tdvps, *tdcs, call.lp.id, !write)?;
    let metadata = Context {
        core,
        tdr: Some(tdr),
        tdcs: Some(*tdcs),
        tdvps: Some(tdvps),
    };
    operands.apply(call, &metadata, ContextCode::Vcpu, operands.access(*tdcs))
}

/// TDH.SYS.RD, which always returns the next field id.
pub(crate) fn sys_rd(call: &mut Call<'_>) -> Outcome {
    let operands = Operands {
        returns_next: true,
        ..Operands::take(call, false)?
    };
    call.regs.rdx = Id::NONE.bits();
    if !call.lp.initialized {
        return Err(Status::of(StatusCode::SYS_LP_INIT_NOT_DONE));
    }
    let metadata = Context {
        core: call.core,
        tdr: None,
        tdcs: None,
        tdvps: None,
    };
    operands.apply(
        call,
        &metadata,
        ContextCode::System,
        Access::HostRead { debug: false },
    )
}

/// TDH.SYS.RDALL: a page of fields, from one on.
pub(crate) fn sys_rdall(call: &mut Call<'_>) -> Outcome {
    let (hpa, first) = (call.regs.rdx, Id::new(call.regs.r8));
    call.regs.r8 = Id::NONE.bits();
    if !call.lp.initialized {
        return Err(Status::of(StatusCode::SYS_LP_INIT_NOT_DONE));
    }
    call.core
        .check_shared_hpa_aligned(hpa, Level::Pt.size())
        .map_err(|code| Status::with_operand(code, OperandId::RDX))?;
    let access = Access::HostRead { debug: false };
    let (next, outcome) = metadata_list::dump_system(call.core, first, access, hpa);
    call.regs.r8 = next;
    outcome
}

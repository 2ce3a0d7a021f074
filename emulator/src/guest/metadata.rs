//! TDG.VM.RD/WR, TDG.VP.RD/WR, TDG.SYS.RD and TDG.SYS.RDALL

use tdx_abi::leaf::TdcallLeaf;

use super::Outcome;
use super::memory::Use;
use crate::abi::OperandId;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::exit::Guest;
use crate::exit::gpr;
use crate::metadata::Access;
use crate::metadata::Context;
use crate::metadata::ContextCode;
use crate::metadata::id::Id;
use crate::migration::metadata_list;
use crate::migration::metadata_list::PAGE_WORDS;

/// A read by the guest: where the next field id goes, and what is read.
#[derive(Clone, Copy)]
struct Read {
    context: ContextCode,
    id: u64,
    returns_next: bool,
}

impl Guest<'_> {
    /// TDG.VM.RD; version 1 also returns the next field id.
    pub(super) fn vm_rd(&self, version: u8) -> Outcome {
        let read = Read {
            context: ContextCode::Td,
            id: self.register(gpr::RDX),
            returns_next: version > 0,
        };
        self.clear_outputs(read.returns_next);
        self.check_version(TdcallLeaf::TDG_VM_RD, version)?;
        self.check_rcx()?;
        self.read(read)
    }

    /// TDG.VM.WR.
    pub(super) fn vm_wr(&self) -> Outcome {
        self.write(ContextCode::Td)
    }

    /// TDG.VP.RD, which always returns the next field id.
    pub(super) fn vp_rd(&self) -> Outcome {
        let read = Read {
            context: ContextCode::Vcpu,
            id: self.register(gpr::RDX),
            returns_next: true,
        };
        self.clear_outputs(true);
        self.check_rcx()?;
        self.read(read)
    }

    /// TDG.VP.WR.
    pub(super) fn vp_wr(&self) -> Outcome {
        self.write(ContextCode::Vcpu)
    }

    /// TDG.SYS.RD, which always returns the next field id.
    pub(super) fn sys_rd(&self) -> Outcome {
        let read = Read {
            context: ContextCode::System,
            id: self.register(gpr::RDX),
            returns_next: true,
        };
        self.clear_outputs(true);
        self.read(read)
    }

    /// TDG.SYS.RDALL: a page of fields, from one on.
    pub(super) fn sys_rdall(&self) -> Outcome {
        let (gpa, first) = (self.register(gpr::RDX), Id::new(self.register(gpr::R8)));
        self.set_register(gpr::R8, Id::NONE.bits());
        if gpa % (8 * PAGE_WORDS as u64) != 0 {
            return Err(invalid(OperandId::RDX).into());
        }
        let hpa = self
            .translate(gpa, Use::Write, true)
            .map_err(|failure| failure.with_operand(OperandId::RDX))?;
        let (next, outcome) = metadata_list::dump_system(self.core, first, Access::GuestRead, hpa);
        self.set_register(gpr::R8, next);
        Ok(outcome?)
    }

    fn clear_outputs(&self, with_next: bool) {
        if with_next {
            self.set_register(gpr::RDX, Id::NONE.bits());
        }
        self.set_register(gpr::R8, 0);
    }

    fn check_rcx(&self) -> Result<(), Status> {
        if self.register(gpr::RCX) == 0 {
            Ok(())
        } else {
            Err(invalid(OperandId::RCX))
        }
    }

    fn context(&self, context: ContextCode) -> Context<'_> {
        let td = context != ContextCode::System;
        let vcpu = context == ContextCode::Vcpu;
        Context {
            core: self.core,
            tdr: td.then_some(self.tdr),
            tdcs: td.then_some(self.tdcs),
            tdvps: vcpu.then_some(self.tdvps),
        }
    }

    fn read(
        &self,
        Read {
            context,
            id,
            returns_next,
        }: Read,
    ) -> Outcome {
        let id = Id::new(id).with_context_code(context as u8);
        let metadata = self.context(context);
        if returns_next && id.is_none() {
            let first = metadata.next_element(context, id, Access::GuestRead);
            self.set_register(gpr::RDX, first.bits());
            return Err(Status::of(StatusCode::METADATA_FIRST_FIELD_ID_IN_CONTEXT).into());
        }
        id.check_single_element()?;
        let value = metadata.read_element(context, id, Access::GuestRead)?;
        if returns_next {
            let next = metadata.next_element(context, id, Access::GuestRead);
            self.set_register(gpr::RDX, next.bits());
        }
        self.set_register(gpr::R8, value);
        Ok(())
    }

    fn write(&self, context: ContextCode) -> Outcome {
        let id = Id::new(self.register(gpr::RDX)).with_context_code(context as u8);
        let (value, mask) = (self.register(gpr::R8), self.register(gpr::R9));
        self.clear_outputs(false);
        self.check_rcx()?;
        id.check_single_element()?;
        let old =
            self.context(context)
                .write_element(context, id, Access::GuestWrite, value, mask)?;
        self.set_register(gpr::R8, old);
        Ok(())
    }
}

const fn invalid(operand: OperandId) -> Status {
    Status::with_operand(StatusCode::OPERAND_INVALID, operand)
}

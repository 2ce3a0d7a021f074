//! TDG.VP leaves that have to do with the vCPU alone.

use tdx_abi::leaf::TdcallLeaf;

use super::Outcome;
use crate::abi::OperandId;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::exit::Guest;
use crate::exit::Leave;
use crate::exit::gpr;
use crate::structures::Structure;
use crate::structures::tdcs;
use crate::structures::tdvps;

/// Registers that TDG.VP.VMCALL never passes: RAX, RCX, RSP.
const NEVER_PASSED: u64 = 1 | 1 << 1 | 1 << 4;
/// Bit of RBP in the register mask.
const RBP: u64 = 1 << 5;
/// Bits of TDG.VP.VMCALL's RCX that must be 0.
const VMCALL_RESERVED: u64 = !0 << 32;

impl Guest<'_> {
    /// TDG.VP.VMCALL: hands the registers that RCX selects to the VMM.
    pub(super) fn vmcall(&self) -> Outcome {
        let control = self.register(gpr::RCX);
        let no_rbp = self.tdcs.get(tdcs::CONFIG_FLAGS) & tdcs::CONFIG_NO_RBP_MOD != 0;
        let illegal = NEVER_PASSED | VMCALL_RESERVED | if no_rbp { RBP } else { 0 };
        if control & illegal != 0 {
            return Err(Status::with_operand(StatusCode::OPERAND_INVALID, OperandId::RCX).into());
        }
        Err(Leave::Vmcall(control).into())
    }

    /// TDG.VP.INFO.
    pub(super) fn info(&self) -> Outcome {
        /// R10: TDG.SYS.RD is available.
        const SYS_RD_AVAILABLE: u64 = 1;
        let vcpus = u64::from(self.tdcs.get(tdcs::MAX_VCPUS)) << 32
            | u64::from(self.tdcs.get(tdcs::NUM_VCPUS));
        self.set_register(
            gpr::RCX,
            self.core.gpa_width(self.tdcs.get(tdcs::GPAW)).into(),
        );
        self.set_register(gpr::RDX, self.tdcs.get(tdcs::ATTRIBUTES));
        self.set_register(gpr::R8, vcpus);
        self.set_register(gpr::R9, self.tdvps.get(tdvps::VCPU_INDEX).into());
        self.set_register(gpr::R10, SYS_RD_AVAILABLE);
        self.set_register(gpr::R11, 0);
        Ok(())
    }

    /// TDG.VP.VEINFO.GET. Version 1 also tells the category.
    pub(super) fn veinfo_get(&self, version: u8) -> Outcome {
        let outputs = [gpr::RCX, gpr::RDX, gpr::R8, gpr::R9, gpr::R10];
        for register in outputs {
            self.set_register(register, 0);
        }
        self.check_version(TdcallLeaf::TDG_VP_VEINFO_GET, version)?;
        if self.tdvps.get(tdvps::VE_VALID) == 0 {
            return Err(Status::of(StatusCode::NO_VALID_VE_INFO).into());
        }
        let length = u64::from(self.tdvps.get(tdvps::VE_INSTRUCTION_LENGTH));
        let information = u64::from(self.tdvps.get(tdvps::VE_INSTRUCTION_INFO));
        let category = if version > 0 {
            self.tdvps.get(tdvps::VE_CATEGORY)
        } else {
            0
        };
        let values = [
            u64::from(category) << 32 | u64::from(self.tdvps.get(tdvps::VE_EXIT_REASON)),
            self.tdvps.get(tdvps::VE_EXIT_QUALIFICATION),
            self.tdvps.get(tdvps::VE_GLA),
            self.tdvps.get(tdvps::VE_GPA),
            information << 32 | length,
        ];
        for (register, value) in outputs.into_iter().zip(values) {
            self.set_register(register, value);
        }
        self.tdvps.set(tdvps::VE_VALID, 0);
        Ok(())
    }

    /// TDG.VP.CPUIDVE.SET.
    pub(super) fn cpuidve_set(&self) -> Outcome {
        const SUPERVISOR: u64 = 1;
        const USER: u64 = 2;
        let control = self.register(gpr::RCX);
        if control & !(SUPERVISOR | USER) != 0 {
            return Err(Status::with_operand(StatusCode::OPERAND_INVALID, OperandId::RCX).into());
        }
        let (supervisor, user) = (control & SUPERVISOR != 0, control & USER != 0);
        let is_change = self.tdvps.get(tdvps::CPUID_SUPERVISOR_VE) != supervisor
            || self.tdvps.get(tdvps::CPUID_USER_VE) != user;
        // Only newer modules let the guest lock TD_CTLS (`tdg_vp_cpuidve_set.c`).
        if is_change && self.tdcs.get(tdcs::TD_CTLS) & tdcs::TD_CTLS_LOCK != 0 {
            return Err(Status::with_operand(StatusCode::OPERAND_INVALID, OperandId::RCX).into());
        }
        self.tdvps.set(tdvps::CPUID_SUPERVISOR_VE, supervisor);
        self.tdvps.set(tdvps::CPUID_USER_VE, user);
        Ok(())
    }
}

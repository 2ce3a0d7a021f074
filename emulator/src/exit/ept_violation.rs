//! EPT violations and misconfigurations.

use tdx_abi::Level;
use tdx_abi::format::ExtendedExitQualificationType;

use super::After;
use super::Guest;
use super::Leave;
use super::Stop;
use super::TdExit;
use super::event;
use super::reason;
use crate::abi::StatusCode;
use crate::sept;
use crate::sept::SeptEntry;
use crate::structures::Structure;
use crate::structures::tdcs;
use crate::structures::vmcs::encoding;
use tdx_abi::format::VeCategory;

/// Exit qualification: data write, instruction fetch, linear address valid, NMI unblocking, shadow stack.
const DATA_WRITE: u64 = 1 << 1;
const INSTRUCTION_FETCH: u64 = 1 << 2;
const PERMISSIONS_SHIFT: u32 = 3;
pub(crate) const GLA_VALID: u64 = 1 << 7;
const SHADOW_STACK: u64 = 1 << 13;
/// Bits 12:7, which the VMM does not see.
const HIDDEN: u64 = 0x3f << 7;
/// Page-fault error code: present, write, user, reserved bit, instruction fetch, shadow stack.
const PFEC_PRESENT: u64 = 1;
const PFEC_WRITE: u64 = 1 << 1;
const PFEC_USER: u64 = 1 << 2;
const PFEC_RESERVED: u64 = 1 << 3;
const PFEC_FETCH: u64 = 1 << 4;
const PFEC_SHADOW_STACK: u64 = 1 << 6;
/// Extended exit qualification: type in bits 3:0, details in bits 63:32.
const EXTENDED_INFO_SHIFT: u32 = 32;
pub(crate) const EXTENDED_PENDING: u64 =
    ExtendedExitQualificationType::PENDING_EPT_VIOLATION.into_bits() as u64;
/// Details of a failed TDG.MEM.PAGE.ACCEPT.
pub(crate) const EXTENDED_ACCEPT: u64 = ExtendedExitQualificationType::ACCEPT.into_bits() as u64;
const PAGE_OFFSET: u64 = 0xfff;

impl Guest<'_> {
    /// Handles an EPT violation that the guest's own access caused.
    pub(crate) fn ept_violation(
        &mut self,
        exit_reason: u64,
        qualification: u64,
    ) -> Result<After, Leave> {
        let vmcs = self.vmcs;
        if qualification & reason::NMI_UNBLOCKING != 0 {
            event::block_nmi(vmcs);
        }
        let gpa = vmcs.read(encoding::GUEST_PHYSICAL_ADDRESS);
        let gla = vmcs.read(encoding::GUEST_LINEAR_ADDRESS);
        let wide = self.tdcs.get(tdcs::GPAW);
        if gpa >> self.core.gpa_width(wide) != 0 && qualification & GLA_VALID != 0 {
            self.inject_pf(gla, self.reserved_bit_fault(qualification))?;
            return Ok(After::Done);
        }
        let mut extended = 0;
        if !self.core.is_shared(gpa, wide) {
            let found = sept::walk(self.core.memory(), self.tdcs.root(), gpa, Level::Pt);
            if found.entry.state().any_pending_and_guest_acceptable() {
                if !self.pending_exits() {
                    self.inject_ve(
                        Some(VeCategory::PENDING),
                        exit_reason,
                        qualification,
                        gpa,
                        gla,
                    );
                    return Ok(After::Done);
                }
                extended = EXTENDED_PENDING;
            }
            self.log_violation(gpa);
        }
        Err(ept_violation_exit(
            gpa,
            exit_reason,
            qualification,
            extended,
        ))
    }

    /// Handles an EPT misconfiguration, which only the shared EPT can have.
    pub(crate) fn ept_misconfiguration(&self, exit_reason: u64) -> Result<After, Leave> {
        let gpa = self.vmcs.read(encoding::GUEST_PHYSICAL_ADDRESS);
        if !self.core.is_shared(gpa, self.tdcs.get(tdcs::GPAW)) {
            return Err(Leave::Shutdown);
        }
        Err(misconfiguration_exit(gpa, exit_reason))
    }

    /// Whether an access to a pending page exits to the VMM, and not as #VE to the guest.
    pub(crate) fn pending_exits(&self) -> bool {
        self.tdcs.get(tdcs::TD_CTLS) & tdcs::TD_CTLS_PENDING_VE_DISABLE != 0
    }

    /// What a private access by a TDCALL comes to that an entry without permissions stopped: #VE or TD exit.
    pub(crate) fn private_access_refused(
        &self,
        gpa: u64,
        entry: SeptEntry,
        qualification: u64,
    ) -> Stop {
        let exit_reason = u64::from(reason::EPT_VIOLATION);
        if !entry.state().any_pending_and_guest_acceptable() {
            return Stop::Leave(ept_violation_exit(gpa, exit_reason, qualification, 0));
        }
        if self.pending_exits() {
            return Stop::Leave(ept_violation_exit(
                gpa,
                exit_reason,
                qualification,
                EXTENDED_PENDING,
            ));
        }
        self.inject_ve(
            Some(VeCategory::PENDING),
            exit_reason,
            qualification,
            gpa,
            0,
        );
        Stop::Injected
    }

    fn reserved_bit_fault(&self, qualification: u64) -> u64 {
        let when = |condition: bool, bit: u64| if condition { bit } else { 0 };
        PFEC_PRESENT
            | PFEC_RESERVED
            | when(qualification & DATA_WRITE != 0, PFEC_WRITE)
            | when(self.privilege_level() == 3, PFEC_USER)
            | when(qualification & INSTRUCTION_FETCH != 0, PFEC_FETCH)
            | when(qualification & SHADOW_STACK != 0, PFEC_SHADOW_STACK)
    }

    /// The guest's current privilege level: that of SS.
    pub(crate) fn privilege_level(&self) -> u64 {
        self.vmcs.read(encoding::GUEST_SS_ACCESS_RIGHTS) >> 5 & 3
    }
}

/// TD exit as the VMM sees an EPT violation.
pub(crate) fn ept_violation_exit(
    gpa: u64,
    exit_reason: u64,
    qualification: u64,
    extended: u64,
) -> Leave {
    let exit = TdExit::of(StatusCode::SUCCESS, exit_reason, qualification & !HIDDEN);
    Leave::Async(TdExit {
        extended,
        gpa: gpa & !PAGE_OFFSET,
        ..exit
    })
}

/// TD exit as the VMM sees an EPT misconfiguration.
pub(crate) fn misconfiguration_exit(gpa: u64, exit_reason: u64) -> Leave {
    let exit = TdExit::of(StatusCode::SUCCESS, exit_reason, 0);
    Leave::Async(TdExit {
        gpa: gpa & !PAGE_OFFSET,
        ..exit
    })
}

/// TD exit of TDG.MEM.PAGE.ACCEPT or TDG.MEM.PAGE.ATTR.WR, which stopped at `entry` of level `found`
/// when it asked for `requested`; `kind` is the type of the extended exit qualification.
pub(crate) fn refused_entry_exit(
    gpa: u64,
    requested: Level,
    entry: SeptEntry,
    found: Level,
    kind: u64,
) -> Leave {
    const FOUND_LEVEL_SHIFT: u32 = 3;
    const STATE_SHIFT: u32 = 6;
    const LEAF: u64 = 1 << 14;
    let qualification = DATA_WRITE | entry.permissions() << PERMISSIONS_SHIFT;
    let info = requested as u64
        | (found as u64) << FOUND_LEVEL_SHIFT
        | u64::from(entry.state().public_state()) << STATE_SHIFT
        | if entry.is_leaf() { LEAF } else { 0 };
    ept_violation_exit(
        gpa,
        reason::EPT_VIOLATION.into(),
        qualification,
        kind | info << EXTENDED_INFO_SHIFT,
    )
}

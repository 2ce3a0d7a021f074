//! Accesses to CR0 and CR4 that the guest/host masks make exit.

use super::Guest;
use super::reason;
use crate::cpu;
use crate::structures::Structure;
use crate::structures::tdcs;
use crate::structures::tdvps;
use crate::structures::vmcs::encoding;
use tdx_abi::format::VeCategory;

/// Qualification: register in bits 3:0, kind of access in bits 5:4, general-purpose register in bits
/// 11:8, source of LMSW in bits 31:16.
const KIND_SHIFT: u32 = 4;
const MOV_TO_CR: u64 = 0;
const LMSW: u64 = 3;
const GPR_SHIFT: u32 = 8;
const LMSW_SOURCE_SHIFT: u32 = 16;
const RSP: u64 = 4;
/// CR0 bits that LMSW can change: MP, EM, TS.
const LMSW_MASK: u64 = 0xe;
/// CR0 bits that LMSW of an L2 VM can change: PE too.
const L2_LMSW_MASK: u64 = 0xf;
const CR0_PE: u64 = 1;
const CR0_NE: u64 = 1 << 5;
const CR0_WP: u64 = 1 << 16;
const CR0_NW_CD: u64 = 3 << 29;
const CR0_PG: u64 = 1 << 31;
/// CR0 bits 28:19, 17 and 15:6, which a write leaves alone.
const CR0_IGNORED: u64 = 0x1ffa_ffc0;
const CR4_VMXE: u64 = 1 << 13;
const CR4_MCE: u64 = 1 << 6;
const CR4_CET: u64 = 1 << 23;

/// How a write to a control register ends.
enum Write {
    Done,
    GeneralProtection,
    VirtualizationException(VeCategory),
}

impl Guest<'_> {
    /// Emulates the access, or says that such an access was not expected.
    pub(crate) fn control_register(&self, qualification: u64) -> bool {
        let vmcs = self.vmcs;
        match qualification >> KIND_SHIFT & 3 {
            MOV_TO_CR => {}
            LMSW => {
                let source = qualification >> LMSW_SOURCE_SHIFT;
                let cr0 = vmcs.read(encoding::GUEST_CR0);
                vmcs.write(encoding::GUEST_CR0, cr0 & !LMSW_MASK | source & LMSW_MASK);
                return true;
            }
            _ => return false,
        }
        let value = match qualification >> GPR_SHIFT & 0xf {
            RSP => vmcs.read(encoding::GUEST_RSP),
            register => self.register(register as usize),
        };
        let write = match qualification & 0xf {
            0 => self.write_cr0(value, false),
            4 => self.write_cr4(value),
            _ => return false,
        };
        match write {
            Write::Done => {}
            Write::GeneralProtection => self.inject_gp(),
            Write::VirtualizationException(category) => self.inject_ve(
                Some(category),
                reason::CR_ACCESS.into(),
                qualification,
                0,
                0,
            ),
        }
        true
    }

    /// [`Self::control_register`] of an L2 VM: whether it is done, so that the L1 VM does not learn of it.
    pub(crate) fn l2_control_register(&self, qualification: u64) -> bool {
        let vmcs = self.vmcs;
        let tdvps = self.tdvps;
        let owned = |value: u64, mask: u64, shadow: u64| (value ^ shadow) & mask != 0;
        let cr0_mask = tdvps.get(tdvps::SHADOW_CR0_GUEST_HOST_MASK.nth(self.vm));
        let cr0_shadow = tdvps.get(tdvps::SHADOW_CR0_READ_SHADOW.nth(self.vm));
        let value = match qualification >> KIND_SHIFT & 3 {
            MOV_TO_CR => match qualification >> GPR_SHIFT & 0xf {
                RSP => vmcs.read(encoding::GUEST_RSP),
                register => self.register(register as usize),
            },
            LMSW => {
                let value = qualification >> LMSW_SOURCE_SHIFT & L2_LMSW_MASK;
                if owned(value, cr0_mask & L2_LMSW_MASK, cr0_shadow) {
                    return false;
                }
                // LMSW cannot clear PE.
                let cr0 = vmcs.read(encoding::GUEST_CR0);
                let value = value | cr0 & (CR0_PE | !L2_LMSW_MASK);
                vmcs.write(encoding::GUEST_CR0, value);
                return true;
            }
            _ => return false,
        };
        let write = match qualification & 0xf {
            0 if owned(value, cr0_mask, cr0_shadow) => return false,
            0 => self.write_cr0(value, true),
            4 => {
                let mask = tdvps.get(tdvps::SHADOW_CR4_GUEST_HOST_MASK.nth(self.vm));
                let shadow = tdvps.get(tdvps::SHADOW_CR4_READ_SHADOW.nth(self.vm));
                if owned(value, mask, shadow) {
                    return false;
                }
                self.write_cr4(value)
            }
            _ => return false,
        };
        match write {
            Write::Done => true,
            Write::GeneralProtection => {
                self.inject_gp();
                true
            }
            Write::VirtualizationException(_) => false,
        }
    }

    fn write_cr0(&self, value: u64, may_clear_pe: bool) -> Write {
        let must_be_one = cpu::CR0_FIXED0 & !CR0_PE & !CR0_PG;
        let illegal = !value & must_be_one != 0
            || value & !cpu::CR0_FIXED1 != 0
            || value & (CR0_PE | CR0_PG) == CR0_PG
            || value & CR0_WP == 0 && self.vmcs.read(encoding::GUEST_CR4) & CR4_CET != 0;
        if illegal {
            return Write::GeneralProtection;
        }
        let required = if may_clear_pe {
            CR0_NE
        } else {
            CR0_PE | CR0_NE
        };
        if value & required != required || value & CR0_NW_CD != 0 || value >> 32 != 0 {
            return Write::VirtualizationException(VeCategory::UNSUPPORTED_FEATURE);
        }
        let old = self.vmcs.read(encoding::GUEST_CR0);
        self.vmcs.write(
            encoding::GUEST_CR0,
            value & !CR0_IGNORED | old & CR0_IGNORED,
        );
        Write::Done
    }

    /// The guest writes legal CR4 bits without an exit, so that a write that exits is never done.
    fn write_cr4(&self, value: u64) -> Write {
        let xfam = self.tdvps.get(tdvps::XFAM);
        let pks = self.tdcs.has_attribute(tdcs::ATTRIBUTES_PKS);
        let illegal = !value & cpu::CR4_FIXED0 & !CR4_VMXE != 0
            || value & !cpu::CR4_FIXED1 != 0
            || value & crate::vcpu_init::cr4_not_offered(xfam, pks) != 0
            || value & CR4_CET != 0 && self.vmcs.read(encoding::GUEST_CR0) & CR0_WP == 0;
        if illegal {
            Write::GeneralProtection
        } else if value & CR4_MCE == 0 {
            // `write_guest_cr4` of `helpers.c`.
            Write::VirtualizationException(VeCategory::CONFIG_PARAVIRT)
        } else {
            Write::VirtualizationException(VeCategory::UNSUPPORTED_FEATURE)
        }
    }
}

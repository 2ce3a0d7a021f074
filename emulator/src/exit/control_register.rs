//! Accesses to CR0 and CR4 that the guest/host masks make exit.

use super::Guest;
use super::reason;
use crate::cpu;
use crate::structures::Structure;
use crate::structures::tdcs;
use crate::structures::tdvps;
use crate::structures::vmcs::encoding;

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
const CR0_PE: u64 = 1;
const CR0_NE: u64 = 1 << 5;
const CR0_WP: u64 = 1 << 16;
const CR0_NW_CD: u64 = 3 << 29;
const CR0_PG: u64 = 1 << 31;
/// CR0 bits 28:19, 17 and 15:6, which a write leaves alone.
const CR0_IGNORED: u64 = 0x1ffa_ffc0;
const CR4_VMXE: u64 = 1 << 13;
const CR4_CET: u64 = 1 << 23;

/// How a write to a control register ends.
enum Write {
    Done,
    GeneralProtection,
    VirtualizationException,
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
            0 => self.write_cr0(value),
            4 => self.write_cr4(value),
            _ => return false,
        };
        match write {
            Write::Done => {}
            Write::GeneralProtection => self.inject_gp(),
            Write::VirtualizationException => {
                self.inject_ve(reason::CR_ACCESS.into(), qualification, 0, 0)
            }
        }
        true
    }

    fn write_cr0(&self, value: u64) -> Write {
        let must_be_one = cpu::CR0_FIXED0 & !CR0_PE & !CR0_PG;
        let illegal = !value & must_be_one != 0
            || value & !cpu::CR0_FIXED1 != 0
            || value & (CR0_PE | CR0_PG) == CR0_PG
            || value & CR0_WP == 0 && self.vmcs.read(encoding::GUEST_CR4) & CR4_CET != 0;
        if illegal {
            return Write::GeneralProtection;
        }
        if value & (CR0_PE | CR0_NE) != CR0_PE | CR0_NE
            || value & CR0_NW_CD != 0
            || value >> 32 != 0
        {
            return Write::VirtualizationException;
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
        } else {
            Write::VirtualizationException
        }
    }
}

//! CPUID in a TD.

use super::Guest;
use super::gpr;
use super::reason;
use crate::cpuid;
use crate::metadata::cpuid_leaf_index;
use crate::structures::Structure;
use crate::structures::tdcs;
use crate::structures::tdvps;
use crate::structures::vmcs::encoding;
use tdx_abi::format::VeCategory;

/// Leaves that no processor has, and the first extended leaf.
const NEVER: core::ops::RangeInclusive<u32> = 0x4000_0000..=0x4fff_ffff;
const EXTENDED: u32 = 0x8000_0000;
/// Highest leaves of the processor model.
const LAST_BASE_LEAF: u32 = 0x23;
const LAST_EXTENDED_LEAF: u32 = 0x8000_0008;
/// Bits of CPUID_CONTROL: #VE in ring 0, #VE in the other rings.
const SUPERVISOR_VE: u8 = 1;
const USER_VE: u8 = 2;
/// CPUID(1).EBX: initial APIC id in bits 31:24; CPUID(1).ECX: OSXSAVE.
const APIC_ID_SHIFT: u32 = 24;
const OSXSAVE: u32 = 1 << 27;
/// CPUID(7, 0).ECX: OSPKE.
const OSPKE: u32 = 1 << 4;
/// CPUID(0x80000001).EDX: SYSCALL and SYSRET.
const SYSCALL: u32 = 1 << 11;
const CR4_OSXSAVE: u64 = 1 << 18;
const CR4_PKE: u64 = 1 << 22;

impl Guest<'_> {
    /// Emulates CPUID, or injects #VE where the leaf is virtualised by the guest itself.
    pub(crate) fn cpuid(&self) {
        let mut leaf = self.register(gpr::RAX) as u32;
        let subleaf = self.register(gpr::RCX) as u32;
        let beyond = leaf > LAST_EXTENDED_LEAF || leaf > LAST_BASE_LEAF && leaf < EXTENDED;
        if !NEVER.contains(&leaf) && beyond {
            leaf = LAST_BASE_LEAF;
        }
        let index = cpuid_leaf_index(leaf, subleaf).filter(|&index| {
            cpuid::LOOKUP
                .get(index)
                .is_some_and(|entry| !entry.faulting)
        });
        let Some(index) = index.filter(|&index| !self.wants_cpuid_ve(index)) else {
            let category = if NEVER.contains(&leaf) {
                VeCategory::NON_CONFIG_PARAVIRT
            } else {
                VeCategory::CONFIG_PARAVIRT
            };
            self.inject_ve(Some(category), reason::CPUID.into(), 0, 0, 0);
            return;
        };
        let values: [u32; 4] =
            core::array::from_fn(|word| self.tdcs.get(tdcs::CPUID_VALUES.nth(index * 4 + word)));
        let [eax, ebx, ecx, edx] = self.dynamic_cpuid(leaf, subleaf, values);
        self.set_register(gpr::RAX, eax.into());
        self.set_register(gpr::RBX, ebx.into());
        self.set_register(gpr::RCX, ecx.into());
        self.set_register(gpr::RDX, edx.into());
    }

    fn wants_cpuid_ve(&self, index: usize) -> bool {
        let control = self.tdvps.get(tdvps::CPUID_CONTROL.nth(index));
        if self.privilege_level() == 0 {
            self.tdvps.get(tdvps::CPUID_SUPERVISOR_VE) || control & SUPERVISOR_VE != 0
        } else {
            self.tdvps.get(tdvps::CPUID_USER_VE) || control & USER_VE != 0
        }
    }

    /// Bits that follow the vCPU's state.
    fn dynamic_cpuid(&self, leaf: u32, subleaf: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> [u32; 4] {
        let cr4 = self.vmcs.read(encoding::GUEST_CR4);
        let replace = |word: u32, bit: u32, set: bool| if set { word | bit } else { word & !bit };
        match (leaf, subleaf) {
            (1, _) => {
                let id = self.tdvps.get(tdvps::VCPU_INDEX) << APIC_ID_SHIFT;
                let ebx = ebx & ((1 << APIC_ID_SHIFT) - 1) | id;
                [eax, ebx, replace(ecx, OSXSAVE, cr4 & CR4_OSXSAVE != 0), edx]
            }
            (7, 0) => [eax, ebx, replace(ecx, OSPKE, cr4 & CR4_PKE != 0), edx],
            (0x8000_0001, _) => [
                eax,
                ebx,
                ecx,
                replace(edx, SYSCALL, self.is_in_64_bit_mode()),
            ],
            _ => [eax, ebx, ecx, edx],
        }
    }

    /// Whether the guest runs 64-bit code.
    pub(crate) fn is_in_64_bit_mode(&self) -> bool {
        const EFER_LMA: u64 = 1 << 10;
        const CODE_64: u64 = 1 << 13;
        self.vmcs.read(encoding::GUEST_EFER) & EFER_LMA != 0
            && self.vmcs.read(encoding::GUEST_CS_ACCESS_RIGHTS) & CODE_64 != 0
    }
}

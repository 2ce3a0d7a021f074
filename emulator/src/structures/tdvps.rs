//! TDVPS: the state of a vCPU, in 6 to 15 pages.

use core::fmt;

use super::Structure;
use super::Vmcs;
use super::layout::Layout;
use crate::frame::Field;
use crate::frame::Frame;
use crate::memory::PhysicalMemory;

/// VE info: exit reason.
pub(crate) const VE_EXIT_REASON: Field<u32> = Field::at(0x00);
/// VE info: all ones if the rest is valid.
pub(crate) const VE_VALID: Field<u32> = Field::at(0x04);
/// VE info: exit qualification.
pub(crate) const VE_EXIT_QUALIFICATION: Field<u64> = Field::at(0x08);
/// VE info: guest-linear address.
pub(crate) const VE_GLA: Field<u64> = Field::at(0x10);
/// VE info: guest-physical address.
pub(crate) const VE_GPA: Field<u64> = Field::at(0x18);
/// VE info: EPTP index.
pub(crate) const VE_EPTP_INDEX: Field<u16> = Field::at(0x20);
/// VE info: instruction length.
pub(crate) const VE_INSTRUCTION_LENGTH: Field<u32> = Field::at(0x24);
/// VE info: instruction information.
pub(crate) const VE_INSTRUCTION_INFO: Field<u32> = Field::at(0x28);
/// VE info of newer modules: why the module raised #VE.
pub(crate) const VE_CATEGORY: Field<u8> = Field::at(0x2c);
/// VE info of newer modules: interruptibility state at the exit.
pub(crate) const VE_INTERRUPTIBILITY_STATE: Field<u32> = Field::at(0x38);

/// State of the vCPU: one of [`state`].
pub(crate) const STATE: Field<u8> = Field::at(0x100);
/// How the last TD exit came about: one of [`last_exit`].
pub(crate) const LAST_TD_EXIT: Field<u8> = Field::at(0x101);
/// Index of the vCPU.
pub(crate) const VCPU_INDEX: Field<u32> = Field::at(0x102);
/// Pages given so far, TDVPR included.
pub(crate) const NUM_TDVPS_PAGES: Field<u8> = Field::at(0x107);
/// Physical address of page 0, KeyID included; 14 more follow.
pub(crate) const TDVPS_PA: Field<u64> = Field::at(0x108);
/// LP that the vCPU is associated with, or [`NO_LP`].
pub(crate) const ASSOC_LPID: Field<u32> = Field::at(0x1c8);
/// TD epoch of the last entry.
pub(crate) const VCPU_EPOCH: Field<u64> = Field::at(0x1d0);
/// Whether CPUID in ring 0 to 2 causes #VE.
pub(crate) const CPUID_SUPERVISOR_VE: Field<bool> = Field::at(0x1d8);
/// Whether CPUID in ring 3 causes #VE.
pub(crate) const CPUID_USER_VE: Field<bool> = Field::at(0x1d9);
/// Export session that exported the vCPU.
pub(crate) const EXPORT_COUNT: Field<u32> = Field::at(0x1dc);
/// TSC at the last exit.
pub(crate) const LAST_EXIT_TSC: Field<u64> = Field::at(0x1e0);
/// Whether the host asks for an NMI to be injected.
pub(crate) const PEND_NMI: Field<bool> = Field::at(0x1e8);
/// Whether the last exit unblocked NMIs by IRET.
pub(crate) const NMI_UNBLOCKING_DUE_TO_IRET: Field<bool> = Field::at(0x1e9);
/// XFAM.
pub(crate) const XFAM: Field<u64> = Field::at(0x1f0);
/// Number of addresses in [`LAST_EPF_GPA_LIST`].
pub(crate) const LAST_EPF_GPA_LIST_IDX: Field<u8> = Field::at(0x1f8);
/// EPT faults without progress so far.
pub(crate) const POSSIBLY_EPF_STEPPING: Field<u8> = Field::at(0x1f9);
/// TSC at which a guest first met a host-priority lock.
pub(crate) const HP_LOCK_BUSY_START: Field<u64> = Field::at(0x200);
/// Whether a guest waits for a host-priority lock.
pub(crate) const HP_LOCK_BUSY: Field<bool> = Field::at(0x208);
/// Index in the SEAM database when last associated.
pub(crate) const LAST_SEAMDB_INDEX: Field<u64> = Field::at(0x20e);
/// VM that runs: 0 is L1.
pub(crate) const CURR_VM: Field<u16> = Field::at(0x216);
/// How the host routes an L2 exit to L1.
pub(crate) const L2_EXIT_HOST_ROUTED: Field<u8> = Field::at(0x218);
/// Whether VM 0 has been launched; three more follow.
pub(crate) const VM_LAUNCHED: Field<bool> = Field::at(0x21a);
/// Whether LP-dependent host state of VM 0 is up to date; three more follow.
pub(crate) const LP_DEPENDENT_HPA_UPDATED: Field<bool> = Field::at(0x21e);
/// Whether module-dependent host state of VM 0 is up to date; three more follow.
pub(crate) const MODULE_DEPENDENT_HPA_UPDATED: Field<bool> = Field::at(0x222);
/// L2_CTLS of VM 0; three more follow.
pub(crate) const L2_CTLS: Field<u64> = Field::at(0x228);
/// L2_DEBUG_CTLS of VM 0; three more follow.
pub(crate) const L2_DEBUG_CTLS: Field<u64> = Field::at(0x248);
/// TSC deadline of VM 0; three more follow.
pub(crate) const TSC_DEADLINE: Field<u64> = Field::at(0x268);
/// TSC deadline in host time of VM 0; three more follow.
pub(crate) const SHADOW_TSC_DEADLINE: Field<u64> = Field::at(0x288);
/// Base of L2 CR0 guest/host mask.
pub(crate) const BASE_L2_CR0_GUEST_HOST_MASK: Field<u64> = Field::at(0x2a8);
/// Base of L2 CR0 read shadow.
pub(crate) const BASE_L2_CR0_READ_SHADOW: Field<u64> = Field::at(0x2b0);
/// Base of L2 CR4 guest/host mask.
pub(crate) const BASE_L2_CR4_GUEST_HOST_MASK: Field<u64> = Field::at(0x2b8);
/// Base of L2 CR4 read shadow.
pub(crate) const BASE_L2_CR4_READ_SHADOW: Field<u64> = Field::at(0x2c0);
/// Shadow of CR0 guest/host mask of VM 0; three more follow.
pub(crate) const SHADOW_CR0_GUEST_HOST_MASK: Field<u64> = Field::at(0x2c8);
/// Shadow of CR0 read shadow of VM 0; three more follow.
pub(crate) const SHADOW_CR0_READ_SHADOW: Field<u64> = Field::at(0x2e8);
/// Shadow of CR4 guest/host mask of VM 0; three more follow.
pub(crate) const SHADOW_CR4_GUEST_HOST_MASK: Field<u64> = Field::at(0x308);
/// Shadow of CR4 read shadow of VM 0; three more follow.
pub(crate) const SHADOW_CR4_READ_SHADOW: Field<u64> = Field::at(0x328);
/// Shadow of the notify window of VM 0; three more follow.
pub(crate) const SHADOW_NOTIFY_WINDOW: Field<u32> = Field::at(0x348);
/// Posted-interrupt descriptor address as the host wrote it.
pub(crate) const SHADOW_PID_HPA: Field<u64> = Field::at(0x358);
/// Pin-based controls as the host wrote them.
pub(crate) const SHADOW_PINBASED_EXEC_CTLS: Field<u32> = Field::at(0x378);
/// Shadow of PLE gap of VM 0; three more follow.
pub(crate) const SHADOW_PLE_GAP: Field<u32> = Field::at(0x388);
/// Shadow of PLE window of VM 0; three more follow.
pub(crate) const SHADOW_PLE_WINDOW: Field<u32> = Field::at(0x398);
/// Posted-interrupt notification vector as the host wrote it.
pub(crate) const SHADOW_POSTED_INT_NOTIFICATION_VECTOR: Field<u16> = Field::at(0x3a8);
/// Secondary controls of VM 0 as the host wrote them; three more follow.
pub(crate) const SHADOW_PROCBASED_EXEC_CTLS2: Field<u32> = Field::at(0x3b0);
/// Shared EPTP of VM 0 as the host wrote it; three more follow.
pub(crate) const SHADOW_SHARED_EPTP: Field<u64> = Field::at(0x3c0);
/// Guest-physical address of the L2 entry state of VM 0; three more follow.
pub(crate) const L2_ENTER_GUEST_STATE_GPA: Field<u64> = Field::at(0x3e0);
/// Physical address of the L2 entry state of VM 0; three more follow.
pub(crate) const L2_ENTER_GUEST_STATE_HPA: Field<u64> = Field::at(0x400);
/// Guest-physical address of the L2 virtual APIC page of VM 0; three more follow.
pub(crate) const L2_VAPIC_GPA: Field<u64> = Field::at(0x460);
/// Physical address of the L2 virtual APIC page of VM 0; three more follow.
pub(crate) const L2_VAPIC_HPA: Field<u64> = Field::at(0x480);
/// Addresses of EPT faults without progress, 32.
pub(crate) const LAST_EPF_GPA_LIST: Field<u64> = Field::at(0x700);
/// CPUID control of lookup entry 0; 127 more follow.
pub(crate) const CPUID_CONTROL: Field<u8> = Field::at(0x900);
/// General-purpose registers RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
pub(crate) const GPRS: Field<u64> = Field::at(0x980);
/// DR0 to DR3.
pub(crate) const DR: Field<u64> = Field::at(0xa00);
/// DR6.
pub(crate) const DR6: Field<u64> = Field::at(0xa20);
/// XCR0.
pub(crate) const XCR0: Field<u64> = Field::at(0xa28);
/// CR2.
pub(crate) const CR2: Field<u64> = Field::at(0xa30);
/// IA32_SPEC_CTRL; the other guest MSRs follow.
pub(crate) const IA32_SPEC_CTRL: Field<u64> = Field::at(0xa80);
/// Guest MSRs, in the order of `tdvps_guest_msr_state_t`.
pub(crate) const GUEST_MSRS: Field<u64> = Field::at(0xa80);
/// The virtual APIC page of the L1 VM among the pages.
pub(crate) const VAPIC_PAGE: usize = 2;
/// XMM0 in the guest's XSAVE buffer: two quadwords, and those of 15 more follow.
pub(crate) const XMM: Field<u64> = Field::at(0x30a0);
/// XSTATE_BV of the guest's XSAVE buffer.
pub(crate) const XSTATE_BV: Field<u64> = Field::at(0x3200);
/// XCOMP_BV of the guest's XSAVE buffer.
pub(crate) const XCOMP_BV: Field<u64> = Field::at(0x3208);

/// No LP.
pub(crate) const NO_LP: u32 = u32::MAX;
/// No physical address.
pub(crate) const NULL_PA: u64 = u64::MAX;
/// Pages of a vCPU of a TD without L2 VMs.
pub(crate) const MIN_TDVPS_PAGES: u8 = 6;
/// Pages of a vCPU of a TD with three L2 VMs.
pub(crate) const MAX_TDVPS_PAGES: u8 = 15;
/// Pages for each L2 VM.
pub(crate) const PAGES_PER_L2_VM: u8 = 3;
/// Addresses that [`LAST_EPF_GPA_LIST`] holds.
pub(crate) const EPF_GPA_LIST_SIZE: u8 = 32;

/// Values of [`STATE`].
pub(crate) mod state {
    /// Not initialised.
    pub(crate) const UNINITIALIZED: u8 = 0;
    /// May be entered.
    pub(crate) const READY: u8 = 2;
    /// Inside the TD.
    pub(crate) const ACTIVE: u8 = 4;
    /// Dead.
    pub(crate) const DISABLED: u8 = 8;
    /// Being imported.
    pub(crate) const IMPORT: u8 = 16;
}

/// Values of [`LAST_TD_EXIT`].
pub(crate) mod last_exit {
    /// Asynchronous, the instruction will be executed again.
    pub(crate) const ASYNC_FAULT: u8 = 0;
    /// Asynchronous, after the instruction.
    pub(crate) const ASYNC_TRAP: u8 = 1;
    /// TDG.VP.VMCALL.
    pub(crate) const TDVMCALL: u8 = 2;
}

/// Values of [`L2_EXIT_HOST_ROUTED`].
pub(crate) mod routed {
    /// Exits of an L2 VM are not routed to L1.
    pub(crate) const NONE: u8 = 0;
    /// An asynchronous one is.
    pub(crate) const ASYNC: u8 = 1;
    /// TDG.VP.VMCALL is.
    pub(crate) const TDVMCALL: u8 = 2;
}

/// A TDVPS in memory.
#[derive(Clone, Copy)]
pub(crate) struct Tdvps<'m> {
    memory: &'m dyn PhysicalMemory,
    /// Physical address of the TDVPR, without KeyID.
    pub hpa: u64,
    layout: Layout,
    key_mask: u64,
    first: &'m Frame,
}

impl<'m> Tdvps<'m> {
    /// The vCPU whose TDVPR is at `hpa`; `key_mask` are the KeyID bits of an address.
    #[inline]
    pub(crate) fn at(
        memory: &'m dyn PhysicalMemory,
        hpa: u64,
        key_mask: u64,
        layout: Layout,
    ) -> Self {
        Self {
            memory,
            hpa,
            layout,
            key_mask,
            first: memory.frame(hpa >> 12),
        }
    }

    /// Whether it has all pages that a TD with `l2_vms` L2 VMs needs.
    pub(crate) fn is_complete(self, l2_vms: usize) -> bool {
        usize::from(self.get(NUM_TDVPS_PAGES))
            >= usize::from(MIN_TDVPS_PAGES) + l2_vms * usize::from(PAGES_PER_L2_VM)
    }

    /// Physical address, without KeyID, of page `page`.
    #[inline]
    pub(crate) fn page_hpa(self, page: usize) -> u64 {
        self.get(TDVPS_PA.nth(page)) & !self.key_mask
    }

    /// The VMCS of VM `vm`: 0 is L1.
    #[inline]
    pub(crate) fn vmcs(self, vm: usize) -> Vmcs<'m> {
        let page = if vm == 0 {
            1
        } else {
            6 + (vm - 1) * usize::from(PAGES_PER_L2_VM)
        };
        Vmcs::new(self.page(page))
    }
}

/// The page with the MSR bitmaps as the L1 VM wrote them for L2 VM `vm`.
pub(crate) const fn l2_shadow_msr_bitmap_page(vm: usize) -> usize {
    MIN_TDVPS_PAGES as usize + (vm - 1) * PAGES_PER_L2_VM as usize + 2
}

impl<'m> Structure<'m> for Tdvps<'m> {
    #[inline]
    fn page(self, page: usize) -> &'m Frame {
        match page {
            0 => self.first,
            _ => self.memory.frame(self.page_hpa(page) >> 12),
        }
    }

    #[inline]
    fn place(self, offset: usize) -> usize {
        self.layout.tdvps(offset)
    }
}

impl fmt::Debug for Tdvps<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tdvps({:#x})", self.hpa)
    }
}

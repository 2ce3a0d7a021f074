//! TDCS: what a TD consists of besides its memory, in 6 to 9 TDCX pages.

use core::fmt;

use tdx_abi::Level;

use super::Structure;
use super::Tdr;
use super::tdr;
use crate::abi::OpState;
use crate::frame::Field;
use crate::frame::Frame;
use crate::memory::PhysicalMemory;
use crate::sept::Root;

/// vCPUs initialised so far.
pub(crate) const NUM_VCPUS: Field<u32> = Field::at(0x00);
/// vCPUs associated with an LP.
pub(crate) const NUM_ASSOC_VCPUS: Field<u32> = Field::at(0x04);
/// [`OpState`] as a number.
pub(crate) const OP_STATE: Field<u32> = Field::at(0x08);
/// Lock of [`OP_STATE`] (shared-exclusive with host priority).
pub(crate) const OP_STATE_LOCK: Field<u16> = Field::at(0x0c);
/// Number of L2 VMs.
pub(crate) const NUM_L2_VMS: Field<u16> = Field::at(0x10);

/// ATTRIBUTES.
pub(crate) const ATTRIBUTES: Field<u64> = Field::at(0x80);
/// XFAM.
pub(crate) const XFAM: Field<u64> = Field::at(0x88);
/// Most vCPUs allowed.
pub(crate) const MAX_VCPUS: Field<u32> = Field::at(0x90);
/// Whether guest-physical addresses are 52 bits wide.
pub(crate) const GPAW: Field<bool> = Field::at(0x94);
/// EPTP of the Secure-EPT, without KeyID.
pub(crate) const EPTP: Field<u64> = Field::at(0x98);
/// Lock of the Secure-EPT tree (shared-exclusive).
pub(crate) const SEPT_LOCK: Field<u16> = Field::at(0xa0);
/// TSC offset.
pub(crate) const TSC_OFFSET: Field<u64> = Field::at(0xa8);
/// TSC multiplier.
pub(crate) const TSC_MULTIPLIER: Field<u64> = Field::at(0xb0);
/// Virtual TSC frequency in units of 25 MHz.
pub(crate) const TSC_FREQUENCY: Field<u16> = Field::at(0xb8);
/// First of the CPUID-derived flags, see [`flags`].
pub(crate) const CPUID_FLAGS: Field<bool> = Field::at(0xba);
/// Bytes of the guest's XSAVE buffer.
pub(crate) const XBUFF_SIZE: Field<u32> = Field::at(0xdc);
/// NOTIFY_ENABLES.
pub(crate) const NOTIFY_ENABLES: Field<u64> = Field::at(0xe0);
/// How long a guest may wait for a host-priority lock, in TSC ticks.
pub(crate) const HP_LOCK_TIMEOUT: Field<u64> = Field::at(0xe8);
/// VM_CTLS of VM 0; three more follow.
pub(crate) const VM_CTLS: Field<u64> = Field::at(0xf0);
/// Bits of IA32_SPEC_CTRL that the guest does not control.
pub(crate) const IA32_SPEC_CTRL_MASK: Field<u64> = Field::at(0x110);
/// CONFIG_FLAGS.
pub(crate) const CONFIG_FLAGS: Field<u64> = Field::at(0x118);
/// TD_CTLS.
pub(crate) const TD_CTLS: Field<u64> = Field::at(0x120);
/// Whether CPUID lookup entry 0 is valid; 79 more follow.
pub(crate) const CPUID_VALID: Field<bool> = Field::at(0x134);
/// Offset of XSAVE component 0; 18 more follow.
pub(crate) const XBUFF_OFFSETS: Field<u32> = Field::at(0x190);

/// The TD's epoch.
pub(crate) const TD_EPOCH: Field<u64> = Field::at(0x200);
/// vCPUs inside the TD since an even epoch; those since an odd one follow.
pub(crate) const REFCOUNT: Field<u16> = Field::at(0x208);
/// Lock of the epoch (shared-exclusive).
pub(crate) const EPOCH_LOCK: Field<u16> = Field::at(0x210);

/// MRTD, 6 quadwords.
pub(crate) const MRTD: Field<u64> = Field::at(0x240);
/// MRCONFIGID, 6 quadwords.
pub(crate) const MRCONFIGID: Field<u64> = Field::at(0x270);
/// MROWNER, 6 quadwords.
pub(crate) const MROWNER: Field<u64> = Field::at(0x2a0);
/// MROWNERCONFIG, 6 quadwords.
pub(crate) const MROWNERCONFIG: Field<u64> = Field::at(0x2d0);
/// RTMR 0 to 3, 6 quadwords each.
pub(crate) const RTMR: Field<u64> = Field::at(0x300);
/// Hash of the TDINFO last computed, 6 quadwords.
pub(crate) const LAST_TEEINFO_HASH: Field<u64> = Field::at(0x3c0);
/// Lock of the RTMRs (shared-exclusive with host priority).
pub(crate) const RTMR_LOCK: Field<u16> = Field::at(0x3f0);
/// Whether [`LAST_TEEINFO_HASH`] is valid.
pub(crate) const LAST_TEEINFO_HASH_VALID: Field<bool> = Field::at(0x3f2);
/// SHA-384 in progress over the build: 8 quadwords of state, then the number of 128-byte blocks.
pub(crate) const TD_SHA_CTX: Field<u64> = Field::at(0x420);

/// Whether the migration decryption key has been set.
pub(crate) const MIG_DEC_KEY_SET: Field<bool> = Field::at(0x580);
/// Export sessions so far.
pub(crate) const EXPORT_COUNT: Field<u32> = Field::at(0x584);
/// Import sessions so far.
pub(crate) const IMPORT_COUNT: Field<u32> = Field::at(0x588);
/// Migration epoch.
pub(crate) const MIG_EPOCH: Field<u32> = Field::at(0x58c);
/// Epoch of the last blocking for writing.
pub(crate) const BW_EPOCH: Field<u64> = Field::at(0x590);
/// Migration bundles so far.
pub(crate) const TOTAL_MB_COUNT: Field<u64> = Field::at(0x598);
/// Migration decryption key, 4 quadwords.
pub(crate) const MIG_DEC_KEY: Field<u64> = Field::at(0x5a0);
/// Migration decryption key in use, 4 quadwords.
pub(crate) const MIG_DEC_WORKING_KEY: Field<u64> = Field::at(0x5c0);
/// Migration encryption key, 4 quadwords.
pub(crate) const MIG_ENC_KEY: Field<u64> = Field::at(0x5e0);
/// Migration encryption key in use, 4 quadwords.
pub(crate) const MIG_ENC_WORKING_KEY: Field<u64> = Field::at(0x600);
/// Migration version.
pub(crate) const MIG_VERSION: Field<u16> = Field::at(0x620);
/// Migration version in use.
pub(crate) const MIG_WORKING_VERSION: Field<u16> = Field::at(0x622);
/// Pages exported and written since.
pub(crate) const DIRTY_COUNT: Field<u64> = Field::at(0x628);
/// Pages migrated.
pub(crate) const MIG_COUNT: Field<u64> = Field::at(0x630);
/// Migration streams.
pub(crate) const NUM_MIGS: Field<u16> = Field::at(0x638);
/// vCPUs migrated.
pub(crate) const NUM_MIGRATED_VCPUS: Field<u32> = Field::at(0x63c);
/// TD_UUID before import, 4 quadwords.
pub(crate) const PREIMPORT_UUID: Field<u64> = Field::at(0x640);
/// Lock of the migration session (shared-exclusive).
pub(crate) const MIG_LOCK: Field<u16> = Field::at(0x660);

/// Virtual IA32_VMX_* and IA32_ARCH_CAPABILITIES, 16 quadwords.
pub(crate) const VIRT_MSRS: Field<u64> = Field::at(0x700);
/// Virtual CPUID values, 80 entries of EAX, EBX, ECX, EDX.
pub(crate) const CPUID_VALUES: Field<u32> = Field::at(0x800);

/// SERVTD_HASH, 6 quadwords.
pub(crate) const SERVTD_HASH: Field<u64> = Field::at(0xd00);
/// Bound service TDs.
pub(crate) const SERVTD_NUM: Field<u16> = Field::at(0xd30);
/// Lock of the bindings (shared-exclusive with host priority).
pub(crate) const SERVTD_BINDINGS_LOCK: Field<u16> = Field::at(0xd32);
/// Binding slot 0: see [`servtd`]. The slot has 128 bytes.
pub(crate) const SERVTD_BINDINGS: u32 = 0xd90;

/// MSR bitmaps.
pub(crate) const MSR_BITMAPS_PAGE: usize = 2;
/// Root of the Secure-EPT.
pub(crate) const SEPT_ROOT_PAGE: usize = 3;
/// A page of zeros.
pub(crate) const ZERO_PAGE: usize = 4;
/// Links to migration stream contexts.
pub(crate) const MIGSC_LINKS_PAGE: usize = 5;
/// Root of the Secure-EPT of L2 VM 1; those of 2 and 3 follow.
pub(crate) const L2_SEPT_ROOT_PAGE: usize = 6;

/// Positions of the CPUID-derived flags from [`CPUID_FLAGS`] on.
pub(crate) mod flags {
    pub(crate) const MONITOR_MWAIT: usize = 0;
    pub(crate) const DCA: usize = 1;
    pub(crate) const TSC_DEADLINE: usize = 2;
    pub(crate) const TSX: usize = 3;
    pub(crate) const WAITPKG: usize = 4;
    pub(crate) const TME: usize = 5;
    pub(crate) const MKTME: usize = 6;
    pub(crate) const XFD: usize = 7;
    pub(crate) const DDPD: usize = 8;
    pub(crate) const LA57: usize = 9;
}

/// Fields of a service-TD binding slot.
pub(crate) mod servtd {
    use super::SERVTD_BINDINGS;
    use crate::frame::Field;

    /// State of the binding.
    pub(crate) const STATE: Field<u8> = Field::at(SERVTD_BINDINGS);
    /// Type of the service TD.
    pub(crate) const TYPE: Field<u16> = Field::at(SERVTD_BINDINGS + 2);
    /// Attributes of the binding.
    pub(crate) const ATTRIBUTES: Field<u64> = Field::at(SERVTD_BINDINGS + 8);
    /// TD_UUID of the service TD, 4 quadwords.
    pub(crate) const UUID: Field<u64> = Field::at(SERVTD_BINDINGS + 0x10);
    /// Hash of the service TD's TDINFO, 6 quadwords.
    pub(crate) const INFO_HASH: Field<u64> = Field::at(SERVTD_BINDINGS + 0x30);
}

/// ATTRIBUTES.DEBUG.
pub(crate) const ATTRIBUTES_DEBUG: u64 = 1 << 0;
/// ATTRIBUTES.SEPT_VE_DISABLE.
pub(crate) const ATTRIBUTES_SEPT_VE_DISABLE: u64 = 1 << 28;
/// ATTRIBUTES.MIGRATABLE.
pub(crate) const ATTRIBUTES_MIGRATABLE: u64 = 1 << 29;
/// ATTRIBUTES.PKS.
pub(crate) const ATTRIBUTES_PKS: u64 = 1 << 30;
/// ATTRIBUTES.PERFMON.
pub(crate) const ATTRIBUTES_PERFMON: u64 = 1 << 63;
/// TD_CTLS.PENDING_VE_DISABLE.
pub(crate) const TD_CTLS_PENDING_VE_DISABLE: u64 = 1 << 0;
/// TD_CTLS.LOCK: the guest can change neither TD_CTLS nor FEATURE_PARAVIRT_CTLS any more.
pub(crate) const TD_CTLS_LOCK: u64 = 1 << 63;
/// TD_CTLS bits that a guest of this platform cannot set: ENABLE_HW_KEYS, since the CPU has no sealing keys; ENUM_TOPOLOGY,
/// VIRT_CPUID2 and REDUCE_VE, which are not emulated.
pub(crate) const TD_CTLS_NOT_OFFERED: u64 = 0xf << 1;
/// CONFIG_FLAGS.GPAW.
pub(crate) const CONFIG_GPAW: u64 = 1 << 0;
/// CONFIG_FLAGS.FLEXIBLE_PENDING_VE.
pub(crate) const CONFIG_FLEXIBLE_PENDING_VE: u64 = 1 << 1;
/// CONFIG_FLAGS.NO_RBP_MOD.
pub(crate) const CONFIG_NO_RBP_MOD: u64 = 1 << 2;

/// A TDCS in memory.
#[derive(Clone, Copy)]
pub(crate) struct Tdcs<'m> {
    memory: &'m dyn PhysicalMemory,
    tdr: Tdr<'m>,
    key_mask: u64,
    first: &'m Frame,
}

impl<'m> Tdcs<'m> {
    /// The TDCS of the TD of `tdr`, which has its TDCX pages; `key_mask` are the KeyID bits of an address.
    #[inline]
    pub(crate) fn of(memory: &'m dyn PhysicalMemory, tdr: Tdr<'m>, key_mask: u64) -> Self {
        let first = memory.frame((tdr.get(tdr::TDCX_PA) & !key_mask) >> 12);
        Self {
            memory,
            tdr,
            key_mask,
            first,
        }
    }

    /// Physical address, without KeyID, of the TDCX page that is number `page` in 1.5.01.
    #[inline]
    pub(crate) fn page_hpa(self, page: usize) -> u64 {
        self.tdr.tdcx(page) & !self.key_mask
    }

    /// The page with the TD's MSR bitmaps.
    pub(crate) fn msr_bitmaps(self) -> &'m Frame {
        self.memory.frame(self.page_hpa(MSR_BITMAPS_PAGE) >> 12)
    }

    /// OP_STATE. A number that stands for none counts as uninitialised.
    #[inline]
    pub(crate) fn op_state(self) -> OpState {
        OpState::new(self.get(OP_STATE)).unwrap_or(OpState::Uninitialized)
    }

    /// Sets OP_STATE.
    pub(crate) fn set_op_state(self, state: OpState) {
        self.set(OP_STATE, state as u32);
    }

    /// Level of the entries in the Secure-EPT's root page.
    #[inline]
    pub(crate) fn root_level(self) -> Level {
        Level::new((self.get(EPTP) >> 3 & 7) as u8).unwrap_or(Level::Pml4)
    }

    /// The Secure-EPT.
    #[inline]
    pub(crate) fn root(self) -> Root {
        Root {
            hpa: self.get(EPTP) & 0x000f_ffff_ffff_f000,
            level: self.root_level(),
        }
    }

    /// The Secure-EPT of L2 VM `vm`, 1 to 3.
    pub(crate) fn l2_root(self, vm: usize) -> Root {
        Root {
            hpa: self.page_hpa(L2_SEPT_ROOT_PAGE + vm - 1),
            level: self.root_level(),
        }
    }

    /// Number of L2 VMs, at most 3.
    #[inline]
    pub(crate) fn l2_vms(self) -> usize {
        usize::from(self.get(NUM_L2_VMS)).min(3)
    }

    /// Whether an ATTRIBUTES bit is set.
    #[inline]
    pub(crate) fn has_attribute(self, bit: u64) -> bool {
        self.get(ATTRIBUTES) & bit != 0
    }

    /// One of the CPUID-derived [`flags`].
    #[inline]
    pub(crate) fn flag(self, flag: usize) -> bool {
        self.get(CPUID_FLAGS.nth(flag))
    }

    /// Whether a page blocked in `bepoch` is in no TLB any more.
    #[inline]
    pub(crate) fn is_tlb_tracked(self, bepoch: u64) -> bool {
        if bepoch >> 63 != 0 {
            return false;
        }
        loop {
            let epoch = self.get(TD_EPOCH);
            let inside = self.get(REFCOUNT.nth((bepoch & 1) as usize));
            if self.get(TD_EPOCH) == epoch {
                let previous = epoch.wrapping_sub(1);
                return bepoch < previous || (bepoch == previous && inside == 0);
            }
        }
    }
}

impl<'m> Structure<'m> for Tdcs<'m> {
    #[inline]
    fn page(self, page: usize) -> &'m Frame {
        match page {
            0 => self.first,
            _ => {
                let hpa = self.tdr.get(tdr::TDCX_PA.nth(page)) & !self.key_mask;
                self.memory.frame(hpa >> 12)
            }
        }
    }

    #[inline]
    fn place(self, offset: usize) -> usize {
        self.tdr.layout.tdcs(offset)
    }
}

impl fmt::Debug for Tdcs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tdcs({:?})", self.tdr)
    }
}

//! The processor model: what CPUID and the capability MSRs of an emulated LP report.
//!
//! The model is a Xeon of the 4th generation whose VMX capabilities forbid nothing. Nothing here
//! decides what a leaf returns but the legality of XFAM, XCR0 and of VM-execution controls.

/// Bits that XCR0 supports: x87, SSE, AVX, AVX-512, PKRU, AMX.
pub(crate) const XCR0_SUPPORTED: u64 = 0x6_02e7;

/// Bits that IA32_XSS supports: PT, PASID, CET, HDC, UINTR, LBR, HWP.
pub(crate) const XSS_SUPPORTED: u64 = 0x1_fd00;

/// Whether IA32_SPEC_CTRL.DDPD_U exists.
pub(crate) const DDPD_SUPPORTED: bool = true;

/// IA32_DEBUGCTL of the VMM on all LPs.
pub(crate) const DEBUGCTL: u64 = 0;
/// IA32_DEBUGCTL.ENABLE_UNCORE_PMI.
pub(crate) const DEBUGCTL_UNCORE_PMI: u64 = 1 << 13;

/// IA32_VMX_CR0_FIXED0: PE, NE and PG must be 1.
pub(crate) const CR0_FIXED0: u64 = 0x8000_0021;
/// IA32_VMX_CR0_FIXED1: the lower half may be 1.
pub(crate) const CR0_FIXED1: u64 = 0xffff_ffff;
/// IA32_VMX_CR4_FIXED0: VMXE must be 1.
pub(crate) const CR4_FIXED0: u64 = 0x2000;
/// IA32_VMX_CR4_FIXED1.
pub(crate) const CR4_FIXED1: u64 = 0x3ff_1fff | 1 << 13 | 1 << 14 | 1 << 16 | 1 << 23;

/// Allowed settings of VM-execution controls, as an IA32_VMX_TRUE_*_CTLS MSR reports them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AllowedSettings {
    /// Bits that must be 1.
    pub(crate) must_be_one: u32,
    /// Bits that may be 1.
    pub(crate) may_be_one: u32,
}

impl AllowedSettings {
    /// Everything is allowed.
    pub(crate) const ANY: Self = Self {
        must_be_one: 0,
        may_be_one: u32::MAX,
    };

    /// The settings that an MSR with this value reports.
    pub(crate) const fn from_msr(value: u64) -> Self {
        Self {
            must_be_one: value as u32,
            may_be_one: (value >> 32) as u32,
        }
    }

    /// Whether the bits `mask` of `controls` are allowed settings.
    pub(crate) const fn allow(self, mask: u32, controls: u32) -> bool {
        mask & (!controls & self.must_be_one | controls & !self.may_be_one) == 0
    }
}

/// IA32_VMX_TRUE_PROCBASED_CTLS.
pub(crate) const PRIMARY_CONTROLS: AllowedSettings = AllowedSettings::ANY;
/// IA32_VMX_PROCBASED_CTLS2.
pub(crate) const SECONDARY_CONTROLS: AllowedSettings = AllowedSettings::ANY;
/// IA32_VMX_PROCBASED_CTLS3: controls that may be 1.
pub(crate) const TERTIARY_CONTROLS: u64 = u64::MAX;

/// IA32_MISC_ENABLE: fast strings, PERFMON, MONITOR.
pub(crate) const MISC_ENABLE: u64 = 1 | 1 << 7 | 1 << 18;
/// IA32_PERF_CAPABILITIES: full-width writes.
pub(crate) const PERF_CAPABILITIES: u64 = 1 << 13;

/// A component of the XSAVE area, as CPUID leaf 0xD reports it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct XsaveComponent {
    /// Its bytes.
    pub(crate) bytes: u32,
    /// Whether it begins on a 64-byte boundary in the compacted format.
    pub(crate) aligned: bool,
}

/// The components by number; those that the processor has not have no bytes.
pub(crate) const XSAVE_COMPONENTS: [XsaveComponent; 19] = {
    const BYTES: [u32; 19] = [
        0, 0, 256, 0, 0, 64, 512, 1024, 128, 8, 8, 16, 24, 8, 48, 808, 8, 64, 8192,
    ];
    let mut all = [XsaveComponent {
        bytes: 0,
        aligned: false,
    }; 19];
    let mut number = 0;
    while number < all.len() {
        all[number].bytes = BYTES[number];
        // Tiles.
        all[number].aligned = number >= 17;
        number += 1;
    }
    all
};

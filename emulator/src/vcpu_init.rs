//! The state that a vCPU starts with: TDVPS and its VMCSes.
//!
//! Source: `tdh_vp_init.c`, `init_tdvps_fields` in `helpers.c` and `td_vmcs_init.c` of the TDX module.

use crate::core::Core;
use crate::cpu;
use crate::cpuid;
use crate::structures::Structure;
use crate::structures::Tdcs;
use crate::structures::Tdr;
use crate::structures::Tdvps;
use crate::structures::Vmcs;
use crate::structures::tdcs;
use crate::structures::tdcs::flags;
use crate::structures::tdr;
use crate::structures::tdvps;
use crate::structures::tdvps::NULL_PA;
use crate::structures::vmcs::encoding;

/// Initial values of VM-execution controls, of L1 and of L2 VMs. Source: `vmcs_defs.h`.
mod control {
    pub(super) const PIN_BASED: u64 = 0x29;
    pub(super) const PRIMARY: u64 = 0x9122_0088;
    pub(super) const SECONDARY: u64 = 0x133c_b3fa;
    pub(super) const L2_SECONDARY: u64 = 0x1338_b3fa;
    pub(super) const TERTIARY: u64 = 0x80;
    pub(super) const EXIT: u64 = 0x1f3c_8204;
    pub(super) const ENTRY: u64 = 0x3e_c004;
    pub(super) const MWAIT_EXITING: u64 = 1 << 10;
    pub(super) const RDPMC_EXITING: u64 = 1 << 11;
    pub(super) const MONITOR_EXITING: u64 = 1 << 29;
    pub(super) const USER_WAIT_AND_PAUSE: u64 = 1 << 26;
    pub(super) const ENABLE_PCONFIG: u64 = 1 << 27;
    pub(super) const GPAW: u64 = 1 << 5;
    pub(super) const EXIT_LOAD_PERF_GLOBAL_CTRL: u64 = 1 << 12;
    pub(super) const EXIT_SAVE_PERF_GLOBAL_CTRL: u64 = 1 << 30;
    pub(super) const ENTRY_LOAD_PERF_GLOBAL_CTRL: u64 = 1 << 13;
    pub(super) const ENTRY_LOAD_PKRS: u64 = 1 << 22;
}

/// Guest state that a migrated vCPU brings along instead.
const MIGRATED: [(u32, u64); 23] = [
    (encoding::GUEST_DR7, 0x400),
    (encoding::GUEST_RIP, 0xffff_fff0),
    (encoding::GUEST_RFLAGS, 2),
    (encoding::GUEST_CS_LIMIT, 0xffff_ffff),
    (encoding::GUEST_CS_ACCESS_RIGHTS, 0xc09b),
    (encoding::GUEST_DS_LIMIT, 0xffff_ffff),
    (encoding::GUEST_DS_ACCESS_RIGHTS, 0xc093),
    (encoding::GUEST_ES_LIMIT, 0xffff_ffff),
    (encoding::GUEST_ES_ACCESS_RIGHTS, 0xc093),
    (encoding::GUEST_FS_LIMIT, 0xffff_ffff),
    (encoding::GUEST_FS_ACCESS_RIGHTS, 0xc093),
    (encoding::GUEST_GS_LIMIT, 0xffff_ffff),
    (encoding::GUEST_GS_ACCESS_RIGHTS, 0xc093),
    (encoding::GUEST_SS_LIMIT, 0xffff_ffff),
    (encoding::GUEST_SS_ACCESS_RIGHTS, 0xc093),
    (encoding::GUEST_LDTR_LIMIT, 0xffff),
    (encoding::GUEST_LDTR_ACCESS_RIGHTS, 0x1_0082),
    (encoding::GUEST_TR_LIMIT, 0xffff),
    (encoding::GUEST_TR_ACCESS_RIGHTS, 0x8b),
    (encoding::GUEST_GDTR_LIMIT, 0xffff),
    (encoding::GUEST_PERF_GLOBAL_CTRL, 0xff),
    (encoding::GUEST_PAT, 0x0007_0406_0007_0406),
    (encoding::GUEST_EFER, 0x901),
];

/// State and controls that every vCPU starts with.
const ALWAYS: [(u32, u64); 24] = [
    (encoding::GUEST_CR0, 0x21),
    (encoding::GUEST_CR4, 0x2040),
    (encoding::APIC_ACCESS_PAGE, NULL_PA),
    (
        encoding::POSTED_INTERRUPT_NOTIFICATION_VECTOR,
        NO_NOTIFICATION_VECTOR,
    ),
    (encoding::POSTED_INTERRUPT_DESCRIPTOR, NULL_PA),
    (encoding::EXCEPTION_BITMAP, 1 << MACHINE_CHECK),
    (encoding::IO_BITMAP_A, NULL_PA),
    (encoding::IO_BITMAP_B, NULL_PA),
    (encoding::EPTP_LIST, NULL_PA),
    (encoding::VMREAD_BITMAP, NULL_PA),
    (encoding::VMWRITE_BITMAP, NULL_PA),
    (encoding::ENCLS_EXITING, u64::MAX),
    (encoding::ENCLV_EXITING, u64::MAX),
    (encoding::PML_ADDRESS, NULL_PA),
    (encoding::PCONFIG_EXITING, u64::MAX),
    (EXECUTIVE_VMCS_POINTER, NULL_PA),
    (encoding::EXIT_MSR_STORE, NULL_PA),
    (encoding::EXIT_MSR_LOAD, NULL_PA),
    (encoding::ENTRY_MSR_LOAD, NULL_PA),
    (encoding::VMCS_LINK_POINTER, NULL_PA),
    (encoding::GUEST_PDPTE0, NULL_PA),
    (encoding::GUEST_PDPTE0 + 2, NULL_PA),
    (encoding::GUEST_PDPTE0 + 4, NULL_PA),
    (encoding::GUEST_PDPTE0 + 6, NULL_PA),
];

/// Encodings that no other part of the emulator needs.
const EXECUTIVE_VMCS_POINTER: u32 = 0x200c;
const TD_HKID: u32 = 0x4026;

/// A posted-interrupt notification vector that was never set.
pub(crate) const NO_NOTIFICATION_VECTOR: u64 = 0xffff;
/// Vector of #MC, which always exits.
const MACHINE_CHECK: u32 = 18;
/// Initial XCR0, DR6 and IA32_FMASK.
const XCR0_INIT: u64 = 1;
const DR6_INIT: u64 = 0xffff_0ff0;
const FMASK_INIT: u64 = 0x2_0200;
/// Index of IA32_XFD.. in the guest MSRs: IA32_LBR_DEPTH and IA32_FMASK.
const LBR_DEPTH_INDEX: usize = 63;
const FMASK_INDEX: usize = 67;
/// Deepest LBR stack of the processor.
const MAX_LBR_DEPTH: u64 = 32;
/// XFAM: protection keys, CET, user interrupts, LBR.
const XFAM_PKRU: u64 = 1 << 9;
const XFAM_CET: u64 = 3 << 11;
const XFAM_UINTR: u64 = 1 << 14;
const XFAM_LBR: u64 = 1 << 15;
/// XCOMP_BV of a compacted XSAVE area.
const COMPACTED: u64 = 1 << 63;
/// CR0 and CR4 bits.
const CR0_PE: u64 = 1;
const CR0_NE: u64 = 1 << 5;
const CR0_NW_CD: u64 = 3 << 29;
const CR0_PG: u64 = 1 << 31;
const CR0_RESERVED: u64 = 0xffff_ffff_1ffa_ffc0;
const CR4_MCE: u64 = 1 << 6;
const CR4_VMXE: u64 = 1 << 13;
const CR4_SMXE: u64 = 1 << 14;
const CR4_KL: u64 = 1 << 19;
const CR4_PKE: u64 = 1 << 22;
const CR4_CET: u64 = 1 << 23;
const CR4_PKS: u64 = 1 << 24;
const CR4_UINTR: u64 = 1 << 25;
const CR4_RESERVED: u64 = 1 << 15 | !0 << 26;
/// CR4 bits that an L1 VMM may write in an L2 VM (`CR4_L1_VMM_WRITE_MASK`).
const CR4_L1_VMM_WRITE_MASK: u64 = 0x3ff_1fbf;
/// IA32_SPEC_CTRL.DDPD_U.
const SPEC_CTRL_DDPD_U: u64 = 1 << 8;

/// Initialises a vCPU whose VCPU_INDEX is set, with `rcx` in RCX and R8, and associates it with LP `lp`.
pub(crate) fn initialize(
    core: &Core,
    tdr: Tdr<'_>,
    tdcs: Tdcs<'_>,
    tdvps: Tdvps<'_>,
    lp: u32,
    rcx: u64,
) {
    tdvps.set(tdvps::LAST_EXIT_TSC, core.tsc());
    tdvps.set(tdvps::XFAM, tdcs.get(tdcs::XFAM));
    registers(tdcs, tdvps, core.gpa_width(tdcs.get(tdcs::GPAW)), rcx);
    tdvps.set(tdvps::STATE, tdvps::state::READY);
    tdvps.set(tdvps::LAST_TD_EXIT, tdvps::last_exit::ASYNC_FAULT);
    management_fields(tdcs, tdvps);
    associate(tdcs, tdvps, lp);
    for vm in 0..=tdcs.l2_vms() {
        vmcs(core, tdr, tdcs, tdvps, vm, false);
    }
}

/// Prepares a vCPU whose state is about to be imported, and associates it with LP `lp`.
pub(crate) fn initialize_imported(
    core: &Core,
    tdr: Tdr<'_>,
    tdcs: Tdcs<'_>,
    tdvps: Tdvps<'_>,
    lp: u32,
) {
    associate(tdcs, tdvps, lp);
    tdvps.set(tdvps::LAST_EXIT_TSC, core.tsc());
    tdvps.set(tdvps::XFAM, tdcs.get(tdcs::XFAM));
    management_fields(tdcs, tdvps);
    vmcs(core, tdr, tdcs, tdvps, 0, true);
}

fn registers(tdcs: Tdcs<'_>, tdvps: Tdvps<'_>, gpa_width: u32, rcx: u64) {
    const RCX: usize = 1;
    const RDX: usize = 2;
    const RBX: usize = 3;
    const RSI: usize = 6;
    const R8: usize = 8;
    let set = |register: usize, value| tdvps.set(tdvps::GPRS.nth(register), value);
    set(RBX, gpa_width.into());
    set(RCX, rcx);
    set(R8, rcx);
    set(RDX, cpuid::FAMILY_MODEL_STEPPING.into());
    set(RSI, tdvps.get(tdvps::VCPU_INDEX).into());
    tdvps.set(tdvps::XCR0, XCR0_INIT);
    tdvps.set(tdvps::DR6, DR6_INIT);
    tdvps.set(tdvps::GUEST_MSRS.nth(FMASK_INDEX), FMASK_INIT);
    tdvps.set(tdvps::XCOMP_BV, COMPACTED);
    if tdcs.get(tdcs::XFAM) & XFAM_LBR != 0 {
        tdvps.set(tdvps::GUEST_MSRS.nth(LBR_DEPTH_INDEX), MAX_LBR_DEPTH);
    }
}

/// Sets the fields of TDVPS that shadow VMCS fields or hold the base policy for L2 VMs.
pub(crate) fn management_fields(tdcs: Tdcs<'_>, tdvps: Tdvps<'_>) {
    tdvps.set(tdvps::SHADOW_PID_HPA, NULL_PA);
    tdvps.set(tdvps::SHADOW_PINBASED_EXEC_CTLS, control::PIN_BASED as u32);
    tdvps.set(
        tdvps::SHADOW_POSTED_INT_NOTIFICATION_VECTOR,
        NO_NOTIFICATION_VECTOR as u16,
    );
    for vm in 0..=tdcs.l2_vms() {
        let secondary = if vm == 0 {
            control::SECONDARY
        } else {
            control::L2_SECONDARY
        };
        tdvps.set(tdvps::SHADOW_PROCBASED_EXEC_CTLS2.nth(vm), secondary as u32);
        tdvps.set(tdvps::SHADOW_SHARED_EPTP.nth(vm), NULL_PA);
        tdvps.set(tdvps::L2_ENTER_GUEST_STATE_GPA.nth(vm), NULL_PA);
        tdvps.set(tdvps::L2_ENTER_GUEST_STATE_HPA.nth(vm), NULL_PA);
        tdvps.set(tdvps::L2_VAPIC_GPA.nth(vm), NULL_PA);
        tdvps.set(tdvps::L2_VAPIC_HPA.nth(vm), NULL_PA);
        tdvps.set(tdvps::TSC_DEADLINE.nth(vm), u64::MAX);
    }
    let fixed0 = cpu::CR0_FIXED0 & !CR0_PG & !CR0_PE;
    tdvps.set(
        tdvps::BASE_L2_CR0_GUEST_HOST_MASK,
        (cpu::CR0_FIXED0 | !cpu::CR0_FIXED1) & !CR0_PG & !CR0_PE
            | CR0_NE
            | CR0_NW_CD
            | CR0_RESERVED,
    );
    tdvps.set(tdvps::BASE_L2_CR0_READ_SHADOW, fixed0 | CR0_NE);
    tdvps.set(tdvps::BASE_L2_CR4_GUEST_HOST_MASK, !l2_cr4_write_mask(tdcs));
    tdvps.set(
        tdvps::BASE_L2_CR4_READ_SHADOW,
        cpu::CR4_FIXED0 | CR4_MCE | CR4_VMXE,
    );
    let hidden = tdcs.get(tdcs::IA32_SPEC_CTRL_MASK) & SPEC_CTRL_DDPD_U;
    tdvps.set(
        tdvps::IA32_SPEC_CTRL,
        if cpu::DDPD_SUPPORTED { hidden } else { 0 },
    );
}

/// CR4 bits that the L1 VMM of this TD may write in an L2 VM.
pub(crate) fn l2_cr4_write_mask(tdcs: Tdcs<'_>) -> u64 {
    CR4_L1_VMM_WRITE_MASK & !not_offered(tdcs)
}

fn not_offered(tdcs: Tdcs<'_>) -> u64 {
    cr4_not_offered(
        tdcs.get(tdcs::XFAM),
        tdcs.has_attribute(tdcs::ATTRIBUTES_PKS),
    )
}

/// CR4 bits of features that a TD with this XFAM and ATTRIBUTES.PKS does not have.
pub(crate) fn cr4_not_offered(xfam: u64, pks: bool) -> u64 {
    let unless = |offered: bool, bit: u64| if offered { 0 } else { bit };
    unless(xfam & XFAM_PKRU != 0, CR4_PKE)
        | unless(xfam & XFAM_CET == XFAM_CET, CR4_CET)
        | unless(xfam & XFAM_UINTR != 0, CR4_UINTR)
        | unless(pks, CR4_PKS)
        | CR4_KL
}

/// Associates a vCPU that no LP has with LP `lp`.
pub(crate) fn associate(tdcs: Tdcs<'_>, tdvps: Tdvps<'_>, lp: u32) {
    tdvps.set(tdvps::ASSOC_LPID, lp);
    tdcs.update(tdcs::NUM_ASSOC_VCPUS, |count: u32| count.wrapping_add(1));
}

/// Initialises the VMCS of `vm` (0 is L1); `import` leaves out what a migrated vCPU brings along.
pub(crate) fn vmcs(
    core: &Core,
    tdr: Tdr<'_>,
    tdcs: Tdcs<'_>,
    tdvps: Tdvps<'_>,
    vm: usize,
    import: bool,
) {
    let vmcs = tdvps.vmcs(vm);
    let migrated: &[(u32, u64)] = if import { &[] } else { &MIGRATED };
    for &(field, value) in migrated.iter().chain(&ALWAYS) {
        vmcs.write(field, value);
    }
    addresses(tdr, tdvps, vmcs, vm);
    controls(tdcs, vmcs, vm);
    vmcs.write(encoding::TSC_MULTIPLIER, tdcs.get(tdcs::TSC_MULTIPLIER));
    vmcs.write(encoding::TSC_OFFSET, tdcs.get(tdcs::TSC_OFFSET));
    let eptp = tdcs.get(tdcs::EPTP);
    let root = if vm == 0 {
        eptp & EPTP_ADDRESS
    } else {
        tdcs.l2_root(vm).hpa
    };
    vmcs.write(
        encoding::EPTP,
        core.without_key_id(eptp & !EPTP_ADDRESS | root),
    );
    control_registers(tdcs, tdvps, vmcs, vm);
    vmcs.write(
        encoding::SPEC_CTRL_MASK,
        tdcs.get(tdcs::IA32_SPEC_CTRL_MASK),
    );
    vmcs.write(
        encoding::VPID,
        u64::from(tdr.get(tdr::HKID)) << 2 | vm as u64,
    );
}

const EPTP_ADDRESS: u64 = 0x000f_ffff_ffff_f000;

fn addresses(tdr: Tdr<'_>, tdvps: Tdvps<'_>, vmcs: Vmcs<'_>, vm: usize) {
    const VE_INFO_PAGE: usize = 0;
    let zero_page = tdr.tdcx(tdcs::ZERO_PAGE);
    let (vapic, bitmaps, ve_info) = if vm == 0 {
        (
            tdvps.get(tdvps::TDVPS_PA.nth(tdvps::VAPIC_PAGE)),
            tdr.tdcx(tdcs::MSR_BITMAPS_PAGE),
            tdvps.get(tdvps::TDVPS_PA.nth(VE_INFO_PAGE)),
        )
    } else {
        let bitmaps_page = usize::from(tdvps::MIN_TDVPS_PAGES)
            + 1
            + (vm - 1) * usize::from(tdvps::PAGES_PER_L2_VM);
        (
            NULL_PA,
            tdvps.get(tdvps::TDVPS_PA.nth(bitmaps_page)),
            NULL_PA,
        )
    };
    vmcs.write(encoding::VIRTUAL_APIC_PAGE, vapic);
    vmcs.write(encoding::MSR_BITMAP, bitmaps);
    vmcs.write(encoding::VE_INFO_ADDRESS, ve_info);
    for field in [
        encoding::PASID_LOW,
        encoding::PASID_HIGH,
        encoding::SHARED_EPTP,
    ] {
        vmcs.write(field, zero_page);
    }
    vmcs.write(TD_HKID, tdr.get(tdr::HKID).into());
}

/// VM-execution controls as a VMCS starts with them.
pub(crate) struct Controls {
    /// Pin-based ones.
    pub(crate) pin_based: u64,
    /// Primary processor-based ones.
    pub(crate) primary: u64,
    /// Secondary processor-based ones.
    pub(crate) secondary: u64,
    /// Tertiary processor-based ones, as far as they depend on nothing.
    pub(crate) tertiary: u64,
    /// VM-exit controls.
    pub(crate) exit: u64,
    /// VM-entry controls.
    pub(crate) entry: u64,
}

/// The controls with which the VMCS of `vm` (0 is L1) starts.
pub(crate) fn initial_controls(tdcs: Tdcs<'_>, vm: usize) -> Controls {
    let when = |condition: bool, bits: u64| if condition { bits } else { 0 };
    let debug = tdcs.has_attribute(tdcs::ATTRIBUTES_DEBUG);
    let perfmon = tdcs.has_attribute(tdcs::ATTRIBUTES_PERFMON);
    let pks = tdcs.has_attribute(tdcs::ATTRIBUTES_PKS);
    let mwait = tdcs.flag(flags::MONITOR_MWAIT);
    let secondary = if vm == 0 {
        control::SECONDARY
    } else {
        control::L2_SECONDARY
    };
    Controls {
        pin_based: control::PIN_BASED,
        primary: control::PRIMARY
            | when(!mwait, control::MWAIT_EXITING | control::MONITOR_EXITING)
            | when(!perfmon, control::RDPMC_EXITING),
        secondary: secondary
            | when(tdcs.flag(flags::WAITPKG), control::USER_WAIT_AND_PAUSE)
            | when(tdcs.flag(flags::MKTME), control::ENABLE_PCONFIG),
        tertiary: control::TERTIARY,
        exit: control::EXIT
            | when(
                perfmon || debug,
                control::EXIT_LOAD_PERF_GLOBAL_CTRL | control::EXIT_SAVE_PERF_GLOBAL_CTRL,
            ),
        entry: control::ENTRY
            | when(perfmon || debug, control::ENTRY_LOAD_PERF_GLOBAL_CTRL)
            | when(pks || debug, control::ENTRY_LOAD_PKRS),
    }
}

fn controls(tdcs: Tdcs<'_>, vmcs: Vmcs<'_>, vm: usize) {
    let initial = initial_controls(tdcs, vm);
    let gpaw = if tdcs.get(tdcs::GPAW) {
        control::GPAW
    } else {
        0
    };
    vmcs.write(encoding::EXIT_CONTROLS, initial.exit);
    vmcs.write(encoding::ENTRY_CONTROLS, initial.entry);
    vmcs.write(encoding::PIN_BASED_CONTROLS, initial.pin_based);
    vmcs.write(encoding::PROC_BASED_CONTROLS, initial.primary);
    vmcs.write(encoding::SECONDARY_CONTROLS, initial.secondary);
    vmcs.write(encoding::TERTIARY_CONTROLS, initial.tertiary | gpaw);
}

fn control_registers(tdcs: Tdcs<'_>, tdvps: Tdvps<'_>, vmcs: Vmcs<'_>, vm: usize) {
    let [cr0_mask, cr0_shadow, cr4_mask, cr4_shadow] = if vm == 0 {
        [
            (cpu::CR0_FIXED0 | !cpu::CR0_FIXED1) & !CR0_PG
                | CR0_PE
                | CR0_NE
                | CR0_NW_CD
                | CR0_RESERVED,
            cpu::CR0_FIXED0 | CR0_PE | CR0_NE,
            cpu::CR4_FIXED0
                | !cpu::CR4_FIXED1
                | CR4_MCE
                | CR4_VMXE
                | CR4_SMXE
                | CR4_RESERVED
                | not_offered(tdcs),
            cpu::CR4_FIXED0 & !CR4_VMXE | CR4_MCE,
        ]
    } else {
        [u64::MAX, CR0_PE | CR0_NE, u64::MAX, CR4_MCE | CR4_VMXE]
    };
    vmcs.write(encoding::CR0_GUEST_HOST_MASK, cr0_mask);
    vmcs.write(encoding::CR0_READ_SHADOW, cr0_shadow);
    vmcs.write(encoding::CR4_GUEST_HOST_MASK, cr4_mask);
    vmcs.write(encoding::CR4_READ_SHADOW, cr4_shadow);
    let shadows = if vm == 0 {
        [cr0_mask, cr0_shadow, cr4_mask, cr4_shadow]
    } else {
        [u64::MAX, 0, u64::MAX, 0]
    };
    let fields = [
        tdvps::SHADOW_CR0_GUEST_HOST_MASK,
        tdvps::SHADOW_CR0_READ_SHADOW,
        tdvps::SHADOW_CR4_GUEST_HOST_MASK,
        tdvps::SHADOW_CR4_READ_SHADOW,
    ];
    for (field, value) in fields.into_iter().zip(shadows) {
        tdvps.set(field.nth(vm), value);
    }
}

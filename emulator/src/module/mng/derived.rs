//! What the module derives from a TD's configuration: the layout of its XSAVE buffer, its MSR bitmaps and the VMX
//! capabilities that its L1 VMM reads.
//!
//! Source: `set_xbuff_offsets_and_size` and `set_msr_bitmaps` in `helpers.c`, `virt_msr_helpers.{c,h}` and `vmcs_defs.h` of
//! the TDX module 1.5.01.

use crate::cpu;
use crate::exit::msr;
use crate::exit::msr::is_passed_through;
use crate::frame::Field;
use crate::structures::Structure;
use crate::structures::Tdcs;
use crate::structures::tdcs;
use crate::vcpu_init;

/// Bytes of an XSAVE area before the extended region.
const EXTENDED_REGION: u32 = 576;
/// Bytes of a quarter of an MSR bitmap page: reads of low and high MSRs, then writes of both.
const BITMAP_BYTES: usize = 1024;
/// Bits of an MSR's number that count within a quarter.
const BITMAP_INDEX: u32 = 0x1fff;

/// Bits of VM-execution controls that the L1 VMM may write (`*_L1_WR_MASK`).
mod writable {
    pub(super) const PIN_BASED: u64 = 0;
    pub(super) const PRIMARY: u64 = 0x48d9_9a04;
    pub(super) const SECONDARY: u64 = 0x0c51_3e0c;
    pub(super) const TERTIARY: u64 = 0xe;
    pub(super) const EXIT: u64 = 0;
    pub(super) const ENTRY: u64 = 0x200;
    pub(super) const RDPMC_EXITING: u64 = 1 << 11;
    pub(super) const USER_WAIT_AND_PAUSE: u64 = 1 << 26;
    pub(super) const ENABLE_PCONFIG: u64 = 1 << 27;
    pub(super) const CR0: u64 = 0x8005_001f;
}

/// IA32_VMX_BASIC: exits on INS and OUTS tell, the TRUE MSRs exist, exceptions may lack an error code.
const VMX_BASIC: u64 = 7 << 54;
/// IA32_VMX_MISC: unrestricted guest, HLT and shutdown, PT, 4 CR3 targets, VMWRITE to all fields, events of length 0.
const VMX_MISC: u64 = 1 << 5 | 3 << 6 | 1 << 14 | 4 << 16 | 3 << 29;
/// IA32_VMX_EPT_VPID_CAP: execute only, 2 MiB and 1 GiB pages, advanced exit information.
const EPT_VPID_CAP: u64 = 1 | 3 << 16 | 1 << 22;
/// IA32_VMX_EPT_VPID_CAP: supervisor shadow stacks.
const EPT_VPID_CAP_SHADOW_STACK: u64 = 1 << 23;
/// XFAM: CET for the supervisor.
const XFAM_CET_S: u64 = 1 << 12;
/// CR0 and CR4 that an L2 VM starts with.
const L2_CR0: u64 = 0x21;
const L2_CR4: u64 = 0x2040;

/// Lays out the guest's XSAVE buffer for its XFAM.
pub(crate) fn set_xsave_layout(tdcs: Tdcs<'_>) {
    let xfam = tdcs.get(tdcs::XFAM);
    let mut offset = EXTENDED_REGION;
    for (number, component) in cpu::XSAVE_COMPONENTS.iter().enumerate().skip(2) {
        if xfam >> number & 1 == 0 {
            continue;
        }
        if component.aligned {
            offset = offset.next_multiple_of(64);
        }
        tdcs.set(tdcs::XBUFF_OFFSETS.nth(number), offset);
        offset += component.bytes;
    }
    tdcs.set(tdcs::XBUFF_SIZE, offset);
}

/// Clears the bits of the MSR bitmaps, all set so far, whose accesses do not exit.
pub(crate) fn set_msr_bitmaps(tdcs: Tdcs<'_>) {
    let page = tdcs.msr_bitmaps();
    let pass = |msr: u32, quarter: usize| {
        let high = usize::from(msr & !BITMAP_INDEX != 0);
        let index = msr & BITMAP_INDEX;
        let byte = Field::<u8>::at(((quarter + high) * BITMAP_BYTES) as u32 + index / 8);
        page.update(byte.offset(), |bits: u8| bits & !(1 << (index % 8)));
    };
    for row in msr::table() {
        let bit = |behaviour: &str| {
            let bit = behaviour.split_once(' ').map_or(behaviour, |(bit, _)| bit);
            is_passed_through(tdcs, row, bit)
        };
        let (read, write) = (bit(row.read), bit(row.write));
        for msr in row.start..=row.end {
            if read {
                pass(msr, 0);
            }
            if write {
                pass(msr, 2);
            }
        }
    }
}

/// Sets what the L1 VMM reads as IA32_VMX_*, in the order of `tdcs_virt_msrs_t`.
pub(crate) fn set_vmx_msrs(tdcs: Tdcs<'_>) {
    let when = |condition: bool, bits: u64| if condition { bits } else { 0 };
    let init = vcpu_init::initial_controls(tdcs, 1);
    let perfmon = tdcs.has_attribute(tdcs::ATTRIBUTES_PERFMON);
    let primary =
        writable::PRIMARY & !writable::RDPMC_EXITING | when(perfmon, writable::RDPMC_EXITING);
    let secondary =
        writable::SECONDARY & !writable::USER_WAIT_AND_PAUSE & !writable::ENABLE_PCONFIG
            | when(
                tdcs.flag(tdcs::flags::WAITPKG),
                writable::USER_WAIT_AND_PAUSE,
            )
            | when(tdcs.flag(tdcs::flags::MKTME), writable::ENABLE_PCONFIG);
    let cr4 = vcpu_init::l2_cr4_write_mask(tdcs);
    let cet = tdcs.get(tdcs::XFAM) & XFAM_CET_S != 0;
    let values = [
        VMX_BASIC,
        VMX_MISC,
        L2_CR0 & !writable::CR0,
        L2_CR0 | writable::CR0,
        L2_CR4 & !cr4,
        L2_CR4 | cr4,
        allowed(init.secondary, secondary),
        EPT_VPID_CAP | when(cet, EPT_VPID_CAP_SHADOW_STACK),
        allowed(init.pin_based, writable::PIN_BASED),
        allowed(init.primary, primary),
        allowed(init.exit, writable::EXIT),
        allowed(init.entry, writable::ENTRY),
        0,
        init.tertiary | writable::TERTIARY,
    ];
    for (number, value) in values.into_iter().enumerate() {
        tdcs.set(tdcs::VIRT_MSRS.nth(number), value);
    }
}

/// Allowed settings as an MSR reports them: bits that must be 1, and above them bits that may be.
const fn allowed(init: u64, writable: u64) -> u64 {
    let must_be_one = init & !writable & 0xffff_ffff;
    let may_be_one = (init | writable) & 0xffff_ffff;
    must_be_one | may_be_one << 32
}

//! RDMSR and WRMSR that the MSR bitmaps make exit.
//!
//! Source: `td_msr_access.c` of the TDX module; how each MSR behaves is in the MSR table.

use tdx_abi::msr::MSRS;
use tdx_abi::msr::MsrRow;

use super::Guest;
use super::Leave;
use super::event;
use super::gpr;
use crate::abi::Module;
use crate::cpu;
use crate::frame::Field;
use crate::structures::Structure;
use crate::structures::Tdcs;
use crate::structures::tdcs;
use crate::structures::tdcs::flags;
use crate::structures::tdvps;
use crate::structures::vmcs::encoding;
use tdx_abi::format::VeCategory;

/// MSRs that the two ranges of an MSR bitmap cover.
const LOW: core::ops::Range<u32> = 0..0x2000;
const HIGH: core::ops::Range<u32> = 0xc000_0000..0xc000_2000;
/// XFAM bits by the names that the MSR table uses.
const XFAM_PT: u64 = 1 << 8;
const XFAM_CET: u64 = 3 << 11;
const XFAM_ULI: u64 = 1 << 14;
const XFAM_LBR: u64 = 1 << 15;
/// IA32_DEBUGCTL bits that are reserved: 5:2 and 63:16.
const DEBUGCTL_RESERVED: u64 = 0xf << 2 | !0 << 16;
const DEBUGCTL_TR: u64 = 1 << 6;
const DEBUGCTL_BTS: u64 = 1 << 7;
const EFER_SCE: u64 = 1;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// IA32_MISC_ENABLE: PERFMON available, PEBS unavailable.
const MISC_ENABLE_PERFMON: u64 = 1 << 7;
const MISC_ENABLE_NO_PEBS: u64 = 1 << 12;

/// IA32_PERF_CAPABILITIES: IA32_PERF_METRICS exists.
const PERF_METRICS_AVAILABLE: u64 = 1 << 15;

/// How an access ends.
enum Access {
    /// RDMSR with this value, or WRMSR: done.
    Done(u64),
    /// #GP.
    GeneralProtection,
    /// #VE.
    VirtualizationException(VeCategory),
    /// An access that cannot have exited: the module shuts down.
    Impossible,
}

impl Guest<'_> {
    /// Emulates RDMSR.
    pub(crate) fn rdmsr(&self, exit_reason: u64) -> Result<(), Leave> {
        let access = self.read_msr();
        self.conclude_msr(access, exit_reason)
    }

    /// Emulates WRMSR.
    pub(crate) fn wrmsr(&self, exit_reason: u64) -> Result<(), Leave> {
        let access = self.write_msr();
        self.conclude_msr(access, exit_reason)
    }

    /// Emulates RDMSR or WRMSR of an L2 VM: whether it is done, so that the L1 VM does not learn of it.
    pub(crate) fn l2_msr(&self, write: bool) -> Result<bool, Leave> {
        let msr = self.register(gpr::RCX) as u32;
        if !is_covered(msr) || self.is_intercepted_by_l1(msr, write) {
            return Ok(false);
        }
        let access = if write {
            self.write_msr()
        } else {
            self.read_msr()
        };
        match access {
            Access::Done(_) => Ok(true),
            Access::GeneralProtection => {
                self.inject_gp();
                Ok(true)
            }
            Access::VirtualizationException(_) => Ok(false),
            Access::Impossible => Err(Leave::Shutdown),
        }
    }

    /// Whether the L1 VM wants to know of accesses of its L2 VM to this MSR.
    fn is_intercepted_by_l1(&self, msr: u32, write: bool) -> bool {
        const QUARTER: usize = 1024;
        let bitmap = self.tdvps.page(tdvps::l2_shadow_msr_bitmap_page(self.vm));
        let quarter = usize::from(msr >= HIGH.start) + if write { 2 } else { 0 };
        let index = (msr & (LOW.end - 1)) as usize;
        bitmap.load::<u8>(quarter * QUARTER + index / 8) >> (index % 8) & 1 != 0
    }

    fn read_msr(&self) -> Access {
        let msr = self.register(gpr::RCX) as u32;
        let row = row(msr);
        let access = match row.map_or("", |row| row.name) {
            _ if !is_covered(msr) => {
                Access::VirtualizationException(VeCategory::NON_CONFIG_PARAVIRT)
            }
            "IA32_DEBUGCTL" => Access::Done(self.debugctl() & !cpu::DEBUGCTL_UNCORE_PMI),
            "IA32_MISC_ENABLE" if self.has_perfmon() => Access::Impossible,
            "IA32_MISC_ENABLE" => {
                Access::Done(cpu::MISC_ENABLE & !MISC_ENABLE_PERFMON | MISC_ENABLE_NO_PEBS)
            }
            "IA32_PERF_CAPABILITIES" => self.perf_capabilities(),
            "IA32_ARCH_CAPABILITIES" => Access::Done(self.tdcs.get(VIRTUAL_ARCH_CAPABILITIES)),
            "IA32_XAPIC_DISABLE_STATUS" => Access::Done(1),
            name => match virtual_vmx_msr(name) {
                Some(field) if self.vm == 0 => Access::Done(self.tdcs.get(field)),
                _ => self.by_table(row, false),
            },
        };
        if let Access::Done(value) = access {
            self.set_register(gpr::RDX, value >> 32);
            self.set_register(gpr::RAX, value & 0xffff_ffff);
        }
        access
    }

    fn write_msr(&self) -> Access {
        let msr = self.register(gpr::RCX) as u32;
        let value = self.register(gpr::RDX) << 32 | self.register(gpr::RAX) & 0xffff_ffff;
        let row = row(msr);
        match row.map_or("", |row| row.name) {
            _ if !is_covered(msr) => {
                Access::VirtualizationException(VeCategory::NON_CONFIG_PARAVIRT)
            }
            "IA32_XSS" => self.write_xss(value),
            "IA32_DEBUGCTL" => self.write_debugctl(value),
            "IA32_EFER" => self.write_efer(value),
            _ => self.by_table(row, true),
        }
    }

    fn conclude_msr(&self, access: Access, exit_reason: u64) -> Result<(), Leave> {
        match access {
            Access::Done(_) => {}
            Access::GeneralProtection => self.inject_gp(),
            Access::VirtualizationException(category) => {
                self.inject_ve(Some(category), exit_reason, 0, 0, 0);
            }
            Access::Impossible => return Err(Leave::Shutdown),
        }
        Ok(())
    }

    fn by_table(&self, row: Option<&MsrRow>, write: bool) -> Access {
        let virtualization_exception = || {
            let msr = self.register(gpr::RCX) as u32;
            Access::VirtualizationException(category(msr, write))
        };
        let behaviour = row.map_or("", |row| if write { row.write } else { row.read });
        let (Some(row), Some((bit, action))) = (row, behaviour.split_once(' ')) else {
            return virtualization_exception();
        };
        if is_passed_through(self.tdcs, row, bit) {
            return Access::Impossible;
        }
        let hidden = |flag: usize| {
            if self.tdcs.flag(flag) {
                virtualization_exception()
            } else {
                Access::GeneralProtection
            }
        };
        match action {
            "VE" => virtualization_exception(),
            "GP" => Access::GeneralProtection,
            "GP_OR_VE" => match row.name {
                name if name.contains("DCA") => hidden(flags::DCA),
                name if name.starts_with("IA32_TME") => hidden(flags::TME),
                name if name.contains("MKTME") => hidden(flags::MKTME),
                _ => hidden(flags::TSC_DEADLINE),
            },
            _ => Access::Impossible,
        }
    }

    fn has_perfmon(&self) -> bool {
        self.tdcs.has_attribute(tdcs::ATTRIBUTES_PERFMON)
    }

    fn perf_capabilities(&self) -> Access {
        const PEBS_OUTPUT_PT_AVAILABLE: u64 = 1 << 16;
        if !self.has_perfmon() {
            Access::Done(0)
        } else if self.tdvps.get(tdvps::XFAM) & XFAM_PT == 0 {
            Access::Done(cpu::PERF_CAPABILITIES & !PEBS_OUTPUT_PT_AVAILABLE)
        } else {
            Access::Impossible
        }
    }

    fn debugctl(&self) -> u64 {
        self.vmcs.read(encoding::GUEST_DEBUGCTL)
    }

    fn write_xss(&self, value: u64) -> Access {
        if value & !(cpu::XSS_SUPPORTED & self.tdvps.get(tdvps::XFAM)) != 0 {
            return Access::GeneralProtection;
        }
        self.tdvps.set(IA32_XSS, value);
        Access::Done(value)
    }

    fn write_debugctl(&self, value: u64) -> Access {
        if value & DEBUGCTL_RESERVED != 0 {
            return Access::GeneralProtection;
        }
        if value & (DEBUGCTL_TR | DEBUGCTL_BTS) == DEBUGCTL_TR {
            return Access::VirtualizationException(VeCategory::UNSUPPORTED_FEATURE);
        }
        let old = self.debugctl();
        let new = value & !cpu::DEBUGCTL_UNCORE_PMI | old & cpu::DEBUGCTL_UNCORE_PMI;
        self.vmcs.write(encoding::GUEST_DEBUGCTL, new);
        if self.vmcs.read(encoding::GUEST_RFLAGS) & event::RFLAGS_TF != 0
            && (new ^ old) & event::DEBUGCTL_BTF != 0
        {
            event::set_pending_single_step(self.vmcs);
        }
        Access::Done(new)
    }

    /// Only SCE may change, and LME in an L2 VM; LMA is ignored.
    fn write_efer(&self, value: u64) -> Access {
        let old = self.vmcs.read(encoding::GUEST_EFER);
        let new = value & !EFER_LMA | old & EFER_LMA;
        let free = if self.vm == 0 {
            EFER_SCE
        } else {
            EFER_SCE | EFER_LME
        };
        if (new ^ old) & !free != 0 {
            return Access::VirtualizationException(VeCategory::UNSUPPORTED_FEATURE);
        }
        self.vmcs.write(encoding::GUEST_EFER, new);
        Access::Done(new)
    }
}

/// Whether a bit of the TD's MSR bitmap is 0, so that accesses do not exit.
pub(crate) fn is_passed_through(tdcs: Tdcs<'_>, row: &MsrRow, bit: &str) -> bool {
    let xfam = tdcs.get(tdcs::XFAM);
    let perfmon = tdcs.has_attribute(tdcs::ATTRIBUTES_PERFMON);
    match bit {
        "FIXED_0" => true,
        "DYN_PERFMON" => perfmon,
        "DYN_XFAM_CET" => xfam & XFAM_CET == XFAM_CET,
        "DYN_XFAM_PT" => xfam & XFAM_PT != 0,
        "DYN_XFAM_ULI" => xfam & XFAM_ULI != 0,
        "DYN_XFAM_LBR" => xfam & XFAM_LBR != 0,
        "DYN_UMWAIT" => tdcs.flag(flags::WAITPKG),
        "DYN_PKS" => tdcs.has_attribute(tdcs::ATTRIBUTES_PKS),
        "DYN_XFD" => tdcs.flag(flags::XFD),
        "DYN_TSX" => tdcs.flag(flags::TSX),
        "DYN_OTHER" if row.name == "IA32_PERF_CAPABILITIES" => perfmon && xfam & XFAM_PT != 0,
        "DYN_OTHER" => perfmon && cpu::PERF_CAPABILITIES & PERF_METRICS_AVAILABLE != 0,
        _ => false,
    }
}

/// TDVPS.IA32_XSS, number 62 of the guest MSRs.
const IA32_XSS: Field<u64> = tdvps::GUEST_MSRS.nth(62);
/// The last of the virtual MSRs in TDCS.
const VIRTUAL_ARCH_CAPABILITIES: Field<u64> = tdcs::VIRT_MSRS.nth(15);

fn is_covered(msr: u32) -> bool {
    LOW.contains(&msr) || HIGH.contains(&msr)
}

/// How MSRs behave: in every release as in 1.5.01.
pub(crate) fn table() -> impl Iterator<Item = &'static MsrRow> {
    MSRS.iter()
        .filter(|row| row.modules.contains(Module::V1_5_01))
}

/// Why an access to an MSR is virtualised by the guest itself: newer modules have more MSRs in their table, where those that
/// no configuration changes are marked (`rd_wr_msr_generic_case`).
fn category(msr: u32, write: bool) -> VeCategory {
    let row = MSRS
        .iter()
        .find(|row| row.modules.contains(Module::V1_5_34) && (row.start..=row.end).contains(&msr));
    let behaviour = row.map_or("", |row| if write { row.write } else { row.read });
    match behaviour.split_once(' ') {
        Some((_, "VE")) => VeCategory::NON_CONFIG_PARAVIRT,
        _ => VeCategory::CONFIG_PARAVIRT,
    }
}

fn row(msr: u32) -> Option<&'static MsrRow> {
    table().find(|row| (row.start..=row.end).contains(&msr))
}

/// Where TDCS keeps what an L1 VMM reads of the VMX capabilities, in the order of `tdcs_virt_msrs_t`.
fn virtual_vmx_msr(name: &str) -> Option<Field<u64>> {
    const ORDER: [&str; 14] = [
        "IA32_VMX_BASIC",
        "IA32_VMX_MISC",
        "IA32_VMX_CR0_FIXED0",
        "IA32_VMX_CR0_FIXED1",
        "IA32_VMX_CR4_FIXED0",
        "IA32_VMX_CR4_FIXED1",
        "IA32_VMX_PROCBASED_CTLS2",
        "IA32_VMX_EPT_VPID_CAP",
        "IA32_VMX_TRUE_PINBASED_CTLS",
        "IA32_VMX_TRUE_PROCBASED_CTLS",
        "IA32_VMX_TRUE_EXIT_CTLS",
        "IA32_VMX_TRUE_ENTRY_CTLS",
        "IA32_VMX_VMFUNC",
        "IA32_VMX_PROCBASED_CTLS3",
    ];
    let index = ORDER.iter().position(|msr| *msr == name)?;
    Some(tdcs::VIRT_MSRS.nth(index))
}

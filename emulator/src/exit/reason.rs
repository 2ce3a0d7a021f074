//! Basic exit reasons and events. Source: Intel SDM volume 3, appendix C, and table 25-17.

use tdx_abi::format::BasicExitReason;

pub(crate) const EXCEPTION_OR_NMI: u16 = BasicExitReason::EXCEPTION_OR_NMI.into_bits();
pub(crate) const EXTERNAL_INTERRUPT: u16 = BasicExitReason::EXTERNAL_INTERRUPT.into_bits();
pub(crate) const TRIPLE_FAULT: u16 = BasicExitReason::TRIPLE_FAULT.into_bits();
pub(crate) const INIT: u16 = BasicExitReason::INIT.into_bits();
pub(crate) const IO_SMI: u16 = BasicExitReason::IO_SMI.into_bits();
pub(crate) const OTHER_SMI: u16 = BasicExitReason::OTHER_SMI.into_bits();
pub(crate) const NMI_WINDOW: u16 = BasicExitReason::NMI_WINDOW.into_bits();
pub(crate) const TASK_SWITCH: u16 = BasicExitReason::TASK_SWITCH.into_bits();
pub(crate) const CPUID: u16 = BasicExitReason::CPUID.into_bits();
pub(crate) const GETSEC: u16 = BasicExitReason::GETSEC.into_bits();
pub(crate) const HLT: u16 = BasicExitReason::HLT.into_bits();
pub(crate) const INVD: u16 = BasicExitReason::INVD.into_bits();
pub(crate) const RDPMC: u16 = BasicExitReason::RDPMC.into_bits();
pub(crate) const RSM: u16 = BasicExitReason::RSM.into_bits();
pub(crate) const VMCALL: u16 = BasicExitReason::VMCALL.into_bits();
pub(crate) const VMCLEAR: u16 = BasicExitReason::VMCLEAR.into_bits();
pub(crate) const VMXON: u16 = BasicExitReason::VMXON.into_bits();
pub(crate) const CR_ACCESS: u16 = BasicExitReason::CR_ACCESS.into_bits();
pub(crate) const IO_INSTRUCTION: u16 = BasicExitReason::IO_INSTRUCTION.into_bits();
pub(crate) const RDMSR: u16 = BasicExitReason::RDMSR.into_bits();
pub(crate) const WRMSR: u16 = BasicExitReason::WRMSR.into_bits();
pub(crate) const ENTRY_FAILURE_GUEST_STATE: u16 =
    BasicExitReason::ENTRY_FAILURE_GUEST_STATE.into_bits();
pub(crate) const MWAIT: u16 = BasicExitReason::MWAIT.into_bits();
pub(crate) const MONITOR_TRAP_FLAG: u16 = BasicExitReason::MONITOR_TRAP_FLAG.into_bits();
pub(crate) const MONITOR: u16 = BasicExitReason::MONITOR.into_bits();
pub(crate) const ENTRY_FAILURE_MACHINE_CHECK: u16 =
    BasicExitReason::ENTRY_FAILURE_MACHINE_CHECK.into_bits();
pub(crate) const C_STATE_SMI: u16 = BasicExitReason::C_STATE_SMI.into_bits();
pub(crate) const EPT_VIOLATION: u16 = BasicExitReason::EPT_VIOLATION.into_bits();
pub(crate) const EPT_MISCONFIGURATION: u16 = BasicExitReason::EPT_MISCONFIGURATION.into_bits();
pub(crate) const INVEPT: u16 = BasicExitReason::INVEPT.into_bits();
pub(crate) const INVVPID: u16 = BasicExitReason::INVVPID.into_bits();
pub(crate) const WBINVD: u16 = BasicExitReason::WBINVD.into_bits();
pub(crate) const XSETBV: u16 = BasicExitReason::XSETBV.into_bits();
pub(crate) const APIC_WRITE: u16 = BasicExitReason::APIC_WRITE.into_bits();
pub(crate) const VMFUNC: u16 = BasicExitReason::VMFUNC.into_bits();
pub(crate) const ENCLS: u16 = BasicExitReason::ENCLS.into_bits();
pub(crate) const PAGE_MODIFICATION_LOG_FULL: u16 =
    BasicExitReason::PAGE_MODIFICATION_LOG_FULL.into_bits();
pub(crate) const PCONFIG: u16 = BasicExitReason::PCONFIG.into_bits();
pub(crate) const ENCLV: u16 = BasicExitReason::ENCLV.into_bits();
pub(crate) const ENQCMD_PASID_FAILURE: u16 = BasicExitReason::ENQCMD_PASID_FAILURE.into_bits();
pub(crate) const ENQCMDS_PASID_FAILURE: u16 = BasicExitReason::ENQCMDS_PASID_FAILURE.into_bits();
pub(crate) const BUS_LOCK: u16 = BasicExitReason::BUS_LOCK.into_bits();
pub(crate) const NOTIFY: u16 = BasicExitReason::NOTIFY.into_bits();
pub(crate) const SEAMCALL: u16 = BasicExitReason::SEAMCALL.into_bits();
pub(crate) const TDCALL: u16 = BasicExitReason::TDCALL.into_bits();

/// Bit 26 of an exit reason: the exit preempted a bus-lock exit.
pub(crate) const BUS_LOCK_PREEMPTED: u64 = 1 << 26;
/// Bit 31 of an exit reason: VM entry failed.
pub(crate) const ENTRY_FAILURE: u64 = 1 << 31;
/// Bits of an exit reason that a production TD never sees: 25:16, pending MTF, exit from VMX root and bit 30.
pub(crate) const UNEXPECTED: u64 = 0x3ff << 16 | 7 << 28;

/// Bit 31 of an interruption information field: it is valid.
pub(crate) const EVENT_VALID: u64 = 1 << 31;
/// Bits 10:8 of an interruption information field: its type.
pub(crate) const EVENT_TYPE: u64 = 7 << 8;
/// Type of an NMI, in its place.
pub(crate) const EVENT_NMI: u64 = 2 << 8;
/// Type of a hardware exception, in its place.
pub(crate) const EVENT_HARDWARE_EXCEPTION: u64 = 3 << 8;
/// Bit 11 of an interruption information field: an error code is delivered.
pub(crate) const EVENT_ERROR_CODE: u64 = 1 << 11;
/// Bits 7:0 of an interruption information field: the vector.
pub(crate) const EVENT_VECTOR: u64 = 0xff;

pub(crate) const VECTOR_NMI: u64 = 2;
pub(crate) const VECTOR_UD: u64 = 6;
pub(crate) const VECTOR_DF: u64 = 8;
pub(crate) const VECTOR_GP: u64 = 13;
pub(crate) const VECTOR_PF: u64 = 14;
pub(crate) const VECTOR_MC: u64 = 18;
pub(crate) const VECTOR_VE: u64 = 20;

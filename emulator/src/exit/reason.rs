//! Basic exit reasons and events. Source: Intel SDM volume 3, appendix C, and table 25-17.

pub(crate) const EXCEPTION_OR_NMI: u16 = 0;
pub(crate) const EXTERNAL_INTERRUPT: u16 = 1;
pub(crate) const TRIPLE_FAULT: u16 = 2;
pub(crate) const INIT: u16 = 3;
pub(crate) const OTHER_SMI: u16 = 6;
pub(crate) const NMI_WINDOW: u16 = 8;
pub(crate) const TASK_SWITCH: u16 = 9;
pub(crate) const CPUID: u16 = 10;
pub(crate) const GETSEC: u16 = 11;
pub(crate) const HLT: u16 = 12;
pub(crate) const INVD: u16 = 13;
pub(crate) const RDPMC: u16 = 15;
pub(crate) const RSM: u16 = 17;
pub(crate) const VMCALL: u16 = 18;
pub(crate) const VMCLEAR: u16 = 19;
pub(crate) const VMXON: u16 = 27;
pub(crate) const CR_ACCESS: u16 = 28;
pub(crate) const IO_INSTRUCTION: u16 = 30;
pub(crate) const RDMSR: u16 = 31;
pub(crate) const WRMSR: u16 = 32;
pub(crate) const ENTRY_FAILURE_GUEST_STATE: u16 = 33;
pub(crate) const MWAIT: u16 = 36;
pub(crate) const MONITOR: u16 = 39;
pub(crate) const ENTRY_FAILURE_MACHINE_CHECK: u16 = 41;
pub(crate) const C_STATE_SMI: u16 = 42;
pub(crate) const EPT_VIOLATION: u16 = 48;
pub(crate) const EPT_MISCONFIGURATION: u16 = 49;
pub(crate) const INVEPT: u16 = 50;
pub(crate) const INVVPID: u16 = 53;
pub(crate) const WBINVD: u16 = 54;
pub(crate) const XSETBV: u16 = 55;
pub(crate) const APIC_WRITE: u16 = 56;
pub(crate) const VMFUNC: u16 = 59;
pub(crate) const ENCLS: u16 = 60;
pub(crate) const PAGE_MODIFICATION_LOG_FULL: u16 = 62;
pub(crate) const PCONFIG: u16 = 65;
pub(crate) const ENCLV: u16 = 70;
pub(crate) const ENQCMD_PASID_FAILURE: u16 = 72;
pub(crate) const ENQCMDS_PASID_FAILURE: u16 = 73;
pub(crate) const BUS_LOCK: u16 = 74;
pub(crate) const NOTIFY: u16 = 75;
pub(crate) const SEAMCALL: u16 = 76;
pub(crate) const TDCALL: u16 = 77;

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

//! Basic exit reasons and events. Source: Intel SDM volume 3, appendix C, and table 25-17.

#![expect(missing_docs, reason = "each is the SDM's reason of that name")]

pub const EXCEPTION_OR_NMI: u16 = 0;
pub const EXTERNAL_INTERRUPT: u16 = 1;
pub const TRIPLE_FAULT: u16 = 2;
pub const INIT: u16 = 3;
pub const OTHER_SMI: u16 = 6;
pub const NMI_WINDOW: u16 = 8;
pub const TASK_SWITCH: u16 = 9;
pub const CPUID: u16 = 10;
pub const GETSEC: u16 = 11;
pub const HLT: u16 = 12;
pub const INVD: u16 = 13;
pub const RDPMC: u16 = 15;
pub const RSM: u16 = 17;
pub const VMCALL: u16 = 18;
pub const VMCLEAR: u16 = 19;
pub const VMXON: u16 = 27;
pub const CR_ACCESS: u16 = 28;
pub const IO_INSTRUCTION: u16 = 30;
pub const RDMSR: u16 = 31;
pub const WRMSR: u16 = 32;
pub const ENTRY_FAILURE_GUEST_STATE: u16 = 33;
pub const ENTRY_FAILURE_MSR_LOADING: u16 = 34;
pub const MWAIT: u16 = 36;
pub const MONITOR: u16 = 39;
pub const ENTRY_FAILURE_MACHINE_CHECK: u16 = 41;
pub const C_STATE_SMI: u16 = 42;
pub const EPT_VIOLATION: u16 = 48;
pub const EPT_MISCONFIGURATION: u16 = 49;
pub const INVEPT: u16 = 50;
pub const INVVPID: u16 = 53;
pub const WBINVD: u16 = 54;
pub const XSETBV: u16 = 55;
pub const APIC_WRITE: u16 = 56;
pub const VMFUNC: u16 = 59;
pub const ENCLS: u16 = 60;
pub const PAGE_MODIFICATION_LOG_FULL: u16 = 62;
pub const PCONFIG: u16 = 65;
pub const ENCLV: u16 = 70;
pub const ENQCMD_PASID_FAILURE: u16 = 72;
pub const ENQCMDS_PASID_FAILURE: u16 = 73;
pub const BUS_LOCK: u16 = 74;
pub const NOTIFY: u16 = 75;
pub const SEAMCALL: u16 = 76;
pub const TDCALL: u16 = 77;

/// Bit 26 of an exit reason: the exit preempted a bus-lock exit.
pub const BUS_LOCK_PREEMPTED: u64 = 1 << 26;
/// Bit 31 of an exit reason: VM entry failed.
pub const ENTRY_FAILURE: u64 = 1 << 31;
/// Bits of an exit reason that a production TD never sees: 25:16, pending MTF, exit from VMX root and bit 30.
pub const UNEXPECTED: u64 = 0x3ff << 16 | 7 << 28;

/// Bit 31 of an interruption information field: it is valid.
pub const EVENT_VALID: u64 = 1 << 31;
/// Bits 10:8 of an interruption information field: its type.
pub const EVENT_TYPE: u64 = 7 << 8;
/// Type of an NMI, in its place.
pub const EVENT_NMI: u64 = 2 << 8;
/// Type of a hardware exception, in its place.
pub const EVENT_HARDWARE_EXCEPTION: u64 = 3 << 8;
/// Bit 11 of an interruption information field: an error code is delivered.
pub const EVENT_ERROR_CODE: u64 = 1 << 11;
/// Bits 7:0 of an interruption information field: the vector.
pub const EVENT_VECTOR: u64 = 0xff;

pub const VECTOR_NMI: u64 = 2;
pub const VECTOR_UD: u64 = 6;
pub const VECTOR_DF: u64 = 8;
pub const VECTOR_GP: u64 = 13;
pub const VECTOR_PF: u64 = 14;
pub const VECTOR_MC: u64 = 18;
pub const VECTOR_VE: u64 = 20;

//! Basic exit reasons and events. Source: Intel SDM volume 3, appendix C, and table 25-17.

use tdx_abi::format::BasicExitReason;

macro_rules! reasons {
    ($($name:ident)*) => { $(
        #[doc = concat!("[`BasicExitReason::", stringify!($name), "`], as the VMCS has it.")]
        pub(crate) const $name: u16 = BasicExitReason::$name.into_bits();
    )* };
}

reasons! {
    EXCEPTION_OR_NMI EXTERNAL_INTERRUPT TRIPLE_FAULT INIT IO_SMI OTHER_SMI INTERRUPT_WINDOW NMI_WINDOW TASK_SWITCH
    CPUID GETSEC HLT INVD RDPMC RSM VMCALL VMCLEAR VMXON CR_ACCESS DR_ACCESS IO_INSTRUCTION RDMSR WRMSR
    ENTRY_FAILURE_GUEST_STATE MWAIT MONITOR_TRAP_FLAG MONITOR PAUSE ENTRY_FAILURE_MACHINE_CHECK C_STATE_SMI
    TPR_BELOW_THRESHOLD VIRTUALIZED_EOI LDTR_OR_TR_ACCESS EPT_VIOLATION EPT_MISCONFIGURATION INVEPT INVVPID WBINVD
    XSETBV APIC_WRITE VMFUNC ENCLS RDSEED PAGE_MODIFICATION_LOG_FULL XSAVES PCONFIG UMWAIT ENCLV
    ENQCMD_PASID_FAILURE ENQCMDS_PASID_FAILURE BUS_LOCK NOTIFY SEAMCALL TDCALL
}

/// Bit 26 of an exit reason: the exit preempted a bus-lock exit.
pub(crate) const BUS_LOCK_PREEMPTED: u64 = 1 << 26;
/// Bit 31 of an exit reason: VM entry failed.
pub(crate) const ENTRY_FAILURE: u64 = 1 << 31;
/// Bits of an exit reason that a production TD never sees: 25:16, pending MTF, exit from VMX root and bit 30.
pub(crate) const UNEXPECTED: u64 = 0x3ff << 16 | 7 << 28;

/// Qualification of an SMI exit: it was a machine-check SMI.
pub(crate) const SMI_MACHINE_CHECK: u64 = 1;
/// Qualification of a notify exit: the VM context is invalid.
pub(crate) const NOTIFY_CONTEXT_INVALID: u64 = 1;
/// Qualification of an EPT violation or a notify exit: an IRET had unblocked NMIs.
pub(crate) const NMI_UNBLOCKING: u64 = 1 << 12;

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

//! VMX: entering VMX operation, and a virtual CPU that runs until its next VM exit.

mod control;
mod field;
mod instruction;
mod start;
mod vcpu;

pub(crate) use instruction::invalidate_ept;
pub(crate) use start::start;
pub(crate) use vcpu::Exit;
pub(crate) use vcpu::Injection;
pub(crate) use vcpu::Vcpu;
pub(crate) use vcpu::VcpuConfig;

/// Basic exit reasons (Intel SDM volume 3, appendix C).
pub(crate) mod reason {
    /// Exception or NMI.
    pub(crate) const EXCEPTION: u32 = 0;
    /// EPT violation.
    pub(crate) const EPT_VIOLATION: u32 = 48;
    /// EPT misconfiguration.
    pub(crate) const EPT_MISCONFIGURATION: u32 = 49;
    /// The VMX preemption timer reached zero.
    pub(crate) const PREEMPTION_TIMER: u32 = 52;
}

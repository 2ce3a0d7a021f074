//! What a CPU that really runs the guest has to know of the vCPU inside its TD: a kernel that hosts this
//! module lets its own CPU walk the tables and take the exits.

use tdx_abi::Hpa;

use crate::core::Core;
use crate::exit::Guest;
use crate::exit::reason;
use crate::lp::LpSlot;
use crate::lp::LpState;
use crate::structures::Structure;
use crate::structures::tdcs;
use crate::structures::tdvps;
use crate::structures::vmcs::encoding;

/// EPTP bits that a shared EPTP takes from the TD's own: memory type, walk length, A/D, shadow stack.
const EPTP_CONTROLS: u64 = 0xff;

/// The vCPU that is inside its TD on an LP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InsideTd {
    /// Address of its TDVPR, without KeyID. The page begins with the #VE information area (SDM volume 3,
    /// 26.5.7.2), so it is also the #VE-information address for the CPU.
    pub tdvpr: Hpa,
    /// The VM that runs: 0 is L1.
    pub vm: usize,
    /// EPTP for private addresses of that VM, KeyID in its address field.
    pub secure_eptp: u64,
    /// EPTP for shared addresses.
    pub shared_eptp: u64,
    /// TD epoch in which it was entered. When it is not that of this vCPU's last entry on this LP, the module
    /// has invalidated the LP's translations of the TD at this entry.
    pub epoch: u64,
}

/// An event that the module injects into the guest at its next VM entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InjectedEvent {
    /// VM-entry interruption information.
    pub information: u32,
    /// VM-entry exception error code, where the information says that there is one.
    pub error_code: u32,
}

/// The vCPU that is inside its TD.
pub(crate) fn inside(core: &Core, slot: &LpSlot, lp: &mut LpState) -> Option<InsideTd> {
    let guest = Guest::on(core, slot, lp)?;
    let l1 = guest.tdcs.get(tdcs::EPTP);
    let secure_eptp = if guest.vm == 0 {
        l1
    } else {
        let root = guest.tdcs.l2_root(guest.vm).hpa;
        l1 & EPTP_CONTROLS | core.with_key_id(root, core.key_id(l1))
    };
    let shared_eptp = guest.vmcs.read(encoding::SHARED_EPTP);
    Some(InsideTd {
        tdvpr: Hpa::new(guest.inside.tdvpr),
        vm: guest.vm,
        secure_eptp,
        shared_eptp: shared_eptp & !EPTP_CONTROLS | secure_eptp & EPTP_CONTROLS,
        epoch: guest.tdvps.get(tdvps::VCPU_EPOCH),
    })
}

/// The event that the next VM entry of the vCPU inside its TD delivers; it is delivered once.
pub(crate) fn take_event(core: &Core, slot: &LpSlot, lp: &mut LpState) -> Option<InjectedEvent> {
    let guest = Guest::on(core, slot, lp)?;
    let information = guest.vmcs.read(encoding::ENTRY_INTERRUPTION_INFO);
    if information & reason::EVENT_VALID == 0 {
        return None;
    }
    guest.vmcs.write(
        encoding::ENTRY_INTERRUPTION_INFO,
        information & !reason::EVENT_VALID,
    );
    Some(InjectedEvent {
        information: information as u32,
        error_code: guest.vmcs.read(encoding::ENTRY_EXCEPTION_ERROR_CODE) as u32,
    })
}

//! A guest whose L1 VMM lets an L2 VM see pages, and the host's loop around it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use tdx_abi::Gpa;
use tdx_abi::HostLeaf;
use tdx_abi::Level;
use tdx_abi::Registers;
use tdx_abi::Seamcall;
use tdx_abi::Status;
use tdx_abi::StatusCode;
use tdx_abi::Tdr;
use tdx_abi::field;
use tdx_abi::format::GpaAttributeFlags;
use tdx_abi::format::GpaAttributeFlagsVm;
use tdx_abi::format::GpaAttributes;
use tdx_abi::format::GpaAttributesVm;
use tdx_abi::format::VmCtls;
use tdx_abi::leaf::SeamcallLeaf;
use tdx_abi::leaf::TdcallLeaf;
use tdx_abi::tdh;
use tdx_emulator::GuestCall;
use tdx_emulator::GuestCpu;
use tdx_emulator::GuestFault;
use tdx_mmu::Td;
use tdx_mmu::td::Access;
use tdx_mmu::td::Resolution;

use super::super::host::Host;

/// Where the L1 VMM keeps the L2 VM's registers and its virtual APIC.
pub const STATE: u64 = 0x10_0000;
const VAPIC: u64 = STATE + 0x1000;
/// The virtual-APIC address in the VMCS of L2 VM 1.
const L2_VAPIC_ADDRESS: u64 = 0x2420_0003_0000_2012;
const EPT_VIOLATION: u32 = 48;
const EXTERNAL_INTERRUPT: u32 = 1;
/// Exits that a guest may need before something is wrong.
const PATIENCE: usize = 20;

/// RDX and R8 of TDG.MEM.PAGE.ATTR.WR: L2 VM 1 may read and write, or has no alias.
pub fn attributes(may_access: bool) -> [u64; 2] {
    let wanted = GpaAttributesVm::from_bits(0)
        .with_valid(true)
        .with_r(may_access)
        .with_w(may_access);
    let all = GpaAttributesVm::from_bits(0)
        .with_r(true)
        .with_w(true)
        .with_xs(true);
    let mask = GpaAttributeFlagsVm::from_bits(0).with_mask(all.into_bits() as u8);
    [
        GpaAttributes::from_bits(0).with_vm1(wanted).into_bits(),
        GpaAttributeFlags::from_bits(0).with_vm1(mask).into_bits(),
    ]
}

/// Calls a leaf with RCX, RDX, R8 and all of R9 as mask.
fn tdcall(
    cpu: &mut GuestCpu<'_>,
    leaf: TdcallLeaf,
    [rcx, rdx, r8]: [u64; 3],
) -> Result<StatusCode, GuestFault> {
    let mut registers = Registers {
        rax: leaf.number().into(),
        rcx,
        rdx,
        r8,
        r9: u64::MAX,
        ..Registers::default()
    };
    cpu.tdcall(&mut registers)?;
    Ok(Status::from_rax(registers.rax).code())
}

fn succeed(cpu: &mut GuestCpu<'_>, leaf: TdcallLeaf, operands: [u64; 3]) -> Result<(), GuestFault> {
    tdcall(cpu, leaf, operands).map(|code| assert_eq!(code, StatusCode::SUCCESS, "{leaf}"))
}

/// Accepts a page, unless that is done.
pub fn accept(cpu: &mut GuestCpu<'_>, gpa: u64, level: Level) -> Result<(), GuestFault> {
    let code = cpu.accept(gpa, level)?.code();
    let done = [StatusCode::SUCCESS, StatusCode::PAGE_ALREADY_ACCEPTED];
    assert!(done.contains(&code), "{code:?}");
    Ok(())
}

/// Gives L2 VM 1 an alias of a page, or takes it away; what the L1 VMM is told.
pub fn set_alias(
    cpu: &mut GuestCpu<'_>,
    gpa: u64,
    level: Level,
    may_access: bool,
) -> Result<StatusCode, GuestFault> {
    let [rdx, r8] = attributes(may_access);
    let rcx = gpa | level as u64;
    tdcall(cpu, TdcallLeaf::TDG_MEM_PAGE_ATTR_WR, [rcx, rdx, r8])
}

/// [`set_alias`] that has to succeed.
pub fn alias(cpu: &mut GuestCpu<'_>, gpa: u64, level: Level) -> Result<(), GuestFault> {
    set_alias(cpu, gpa, level, true).map(|code| assert_eq!(code, StatusCode::SUCCESS))
}

/// What the L1 VMM does before its first entry of L2 VM 1.
pub fn prepare(cpu: &mut GuestCpu<'_>) -> Result<(), GuestFault> {
    if cpu.vm() != 0 {
        return Ok(());
    }
    accept(cpu, STATE, Level::Pt)?;
    accept(cpu, VAPIC, Level::Pt)?;
    succeed(cpu, TdcallLeaf::TDG_VP_WR, [0, L2_VAPIC_ADDRESS, VAPIC])
}

/// Enters L2 VM 1, unless it runs.
pub fn enter(cpu: &mut GuestCpu<'_>) -> Result<(), GuestFault> {
    if cpu.vm() == 0 {
        succeed(cpu, TdcallLeaf::TDG_VP_ENTER, [1 << 52, STATE, 0])?;
    }
    assert_eq!(cpu.vm(), 1);
    Ok(())
}

/// Runs `script` on vCPU 0 until it is through, resolving its EPT violations; what came of those.
///
/// After an exit it runs from its beginning.
#[track_caller]
pub fn run(
    td: &Td<Host>,
    mut script: impl FnMut(&mut GuestCpu<'_>) -> Result<(), GuestFault> + Send + 'static,
) -> Vec<Resolution> {
    let host = td.embedder();
    let through = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&through);
    host.platform.set_guest(
        td.tdvpr(0).unwrap(),
        move |cpu: &mut GuestCpu<'_>| match script(cpu) {
            Ok(()) => {
                done.store(true, Ordering::Relaxed);
                cpu.interrupt()
            }
            Err(GuestFault::Exited(exited)) => exited,
            Err(other) => panic!("{other:?}"),
        },
    );
    let mut resolutions = Vec::new();
    while !through.load(Ordering::Relaxed) {
        assert!(resolutions.len() < PATIENCE, "{resolutions:?}");
        let exit = enter_td(td);
        match exit.rax as u32 {
            EPT_VIOLATION => {
                let access = Access::from_exit(exit.rcx, exit.rdx, Gpa::new(exit.r8));
                resolutions.push(td.fault(access).unwrap());
            }
            EXTERNAL_INTERRUPT => {}
            _ => panic!("exit {:#x}", exit.rax),
        }
    }
    resolutions
}

fn enter_td(td: &Td<Host>) -> Registers {
    let mut registers = Registers {
        rax: SeamcallLeaf::TDH_VP_ENTER.number().into(),
        rcx: td.tdvpr(0).unwrap().bits(),
        ..Registers::default()
    };
    let lp = td.embedder().platform.lp(0).unwrap();
    lp.seamcall(&mut registers).unwrap();
    assert!(
        !Status::from_rax(registers.rax).is_error(),
        "{:#x}",
        registers.rax
    );
    registers
}

impl Host {
    /// The L1 VMM on LP 0 gives L2 VM 1 an alias of a page, or takes it away; what it is told, or the access that the
    /// host has to resolve first. `None` if it has been made to leave the TD.
    pub fn set_alias(
        &self,
        gpa: u64,
        level: Level,
        may_access: bool,
    ) -> Option<Result<StatusCode, Access>> {
        let [rdx, r8] = attributes(may_access);
        let mut registers = Registers {
            rax: TdcallLeaf::TDG_MEM_PAGE_ATTR_WR.number().into(),
            rcx: gpa | level as u64,
            rdx,
            r8,
            ..Registers::default()
        };
        let lp = self.platform.lp(0).unwrap();
        match lp.guest_call(&mut registers) {
            GuestCall::ReturnedToTd => Some(Ok(Status::from_rax(registers.rax).code())),
            GuestCall::ExitedToVmm => {
                assert_eq!(registers.rax as u32, EPT_VIOLATION);
                let gpa = Gpa::new(registers.r8);
                Some(Err(Access::from_exit(registers.rcx, registers.rdx, gpa)))
            }
            GuestCall::NotInGuest => None,
            other => panic!("{other:?}"),
        }
    }

    /// Has the L1 VMM told where L2 VM 1 lacks a table, instead of leaving the TD.
    pub fn forgo_exits(&self, td: &Td<Self>) {
        let exits = VmCtls::new().with_ept_violation_on_l2_sept_walk_failure(true);
        let leaf = tdh::mng::Wr {
            tdr: Tdr::assume(td.tdr()),
            field: field::tdr_tdcs::VM_CTLS.offset_by(1),
            value: 0,
            mask: exits.into_bits(),
        };
        let lp = self.platform.lp(0).unwrap();
        let _ = leaf.call(&lp).unwrap();
    }
}

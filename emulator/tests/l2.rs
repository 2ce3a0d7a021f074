//! Partitioned TDs: an L1 VMM that runs an L2 VM, and a host that sees it come and go.
#![expect(clippy::std_instead_of_alloc, reason = "tests run on std")]

mod support;

use std::sync::Arc;
use std::sync::Mutex;

use support::GIB;
use support::PAGE;
use support::Pages;
use support::Td;
use support::add_tables;
use support::call;
use support::ok;
use support::partitioned;
use support::ready;
use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::Registers;
use tdx_abi::Seamcall;
use tdx_abi::leaf::SeamcallLeaf;
use tdx_abi::leaf::TdcallLeaf;
use tdx_abi::status::Status;
use tdx_abi::status::StatusCode;
use tdx_emulator::Exited;
use tdx_emulator::GuestCpu;
use tdx_emulator::GuestFault;
use tdx_emulator::Lp;
use tdx_emulator::Platform;

/// Where the L1 VMM keeps the L2 VM's registers and virtual APIC, and what both share.
const STATE: u64 = 0x20_0000;
const VAPIC: u64 = STATE + PAGE;
const DATA: u64 = STATE + 2 * PAGE;
/// The virtual-APIC address in the VMCS of L2 VM 1.
const L2_VAPIC_ADDRESS: u64 = 0x2420_0003_0000_2012;
/// L2_CTLS of L2 VM 1, and its ENABLE_TDVMCALL.
const L2_CTLS: u64 = 0xa020_0003_0000_0051;
const ENABLE_TDVMCALL: u64 = 1 << 1;
/// Read and write by L2 VM 1; what is to change of it, and that translations are to go.
const READ_WRITE: u64 = 0x8003 << 16;
const RIGHTS: u64 = 7 << 16;
const INVEPT: u64 = 0x8000 << 16;
const EPT_VIOLATION: u32 = 48;
const EXTERNAL_INTERRUPT: u32 = 1;
const TDCALL: u32 = 77;
const RESUME_L1: u64 = 1 << 53;

/// Calls a leaf with RCX, RDX and R8.
fn guest(
    cpu: &mut GuestCpu<'_>,
    leaf: TdcallLeaf,
    [rcx, rdx, r8]: [u64; 3],
) -> Result<Registers, GuestFault> {
    let mut registers = Registers {
        rax: leaf.number().into(),
        rcx,
        rdx,
        r8,
        r9: u64::MAX,
        ..Registers::default()
    };
    cpu.tdcall(&mut registers)?;
    Ok(registers)
}

/// [`guest`] that has to succeed.
fn succeed(cpu: &mut GuestCpu<'_>, leaf: TdcallLeaf, operands: [u64; 3]) -> Result<(), GuestFault> {
    let after = guest(cpu, leaf, operands)?;
    assert_eq!(
        Status::from_rax(after.rax).code(),
        StatusCode::SUCCESS,
        "{leaf}"
    );
    Ok(())
}

fn enter(cpu: &mut GuestCpu<'_>) -> Result<Registers, GuestFault> {
    guest(cpu, TdcallLeaf::TDG_VP_ENTER, [1 << 52, STATE, 0])
}

/// What the L1 VMM does before its first entry.
fn prepare(cpu: &mut GuestCpu<'_>) -> Result<(), GuestFault> {
    for gpa in [STATE, VAPIC, DATA] {
        let accepted = cpu.accept(gpa, Level::Pt)?;
        assert_eq!(accepted.code(), StatusCode::SUCCESS);
    }
    succeed(cpu, TdcallLeaf::TDG_VP_WR, [0, L2_VAPIC_ADDRESS, VAPIC])?;
    succeed(
        cpu,
        TdcallLeaf::TDG_MEM_PAGE_ATTR_WR,
        [DATA, READ_WRITE, RIGHTS],
    )?;
    // RBX and RIP of the L2 VM.
    cpu.write_u64(STATE + 3 * 8, 0x1234)?;
    cpu.write_u64(STATE + 0x88, 0x7000)
}

/// A TD with L2 VM 1 and the three pages that the host has given it; `program` is what its vCPU executes.
fn running(program: impl FnMut(&mut GuestCpu<'_>) -> Exited + Send + 'static) -> (Platform, Td) {
    let platform = ready(1, 1);
    let mut pages = Pages(GIB);
    let td = partitioned(&platform, &mut pages, 33, 1, 1);
    let lp = platform.lp(0).expect("there is one");
    ok(&lp, SeamcallLeaf::TDH_MR_FINALIZE, [td.tdr, 0, 0, 0]);
    add_tables(&lp, &td, &mut pages, STATE, Level::Pt);
    for level in [Level::Pml4, Level::Pdpt, Level::Pd] {
        add_l2_table(&lp, &td, pages.next(), level);
    }
    for gpa in [STATE, VAPIC, DATA] {
        let operands = [gpa, td.tdr, pages.next(), 0];
        ok(&lp, SeamcallLeaf::TDH_MEM_PAGE_AUG, operands);
    }
    platform.set_guest(Hpa::new(td.vcpus[0]), program);
    (platform, td)
}

/// TDH.MEM.SEPT.ADD, version 1, of a table of L2 VM 1; those of a level that its root has are in place.
fn add_l2_table(lp: &Lp<'_>, td: &Td, page: u64, level: Level) {
    let mut registers = Registers {
        rax: 1 << 16 | u64::from(SeamcallLeaf::TDH_MEM_SEPT_ADD.number()),
        rcx: STATE & !(level.size() - 1) | level as u64,
        rdx: td.tdr,
        r8: u64::MAX,
        r9: page,
        r10: u64::MAX,
        r11: u64::MAX,
        ..Registers::default()
    };
    lp.seamcall(&mut registers)
        .expect("the emulator does not trap");
    let status = Status::from_rax(registers.rax).code();
    assert!(
        status == StatusCode::SUCCESS || level == Level::Pml4,
        "{status:?}"
    );
}

/// Enters the vCPU; `flags` go into RCX.
fn run(platform: &Platform, td: &Td, flags: u64) -> Registers {
    let lp = platform.lp(0).expect("there is one");
    let operands = [td.vcpus[0] | flags, 0, 0, 0];
    call(&lp, SeamcallLeaf::TDH_VP_ENTER, operands)
}

fn leave(cpu: &mut GuestCpu<'_>, outcome: Result<(), GuestFault>) -> Exited {
    match outcome {
        Err(GuestFault::Exited(exited)) => exited,
        other => {
            assert!(other.is_ok(), "{other:?}");
            cpu.interrupt()
        }
    }
}

#[test]
fn an_l2_vm_sees_what_the_l1_vmm_lets_it_see() {
    let done = Arc::new(Mutex::new(false));
    let seen = Arc::clone(&done);
    let (platform, td) = running(move |cpu| {
        let outcome = (|| {
            prepare(cpu)?;
            let entered = enter(cpu)?;
            assert_eq!((cpu.vm(), entered.rbx), (1, 0x1234));
            cpu.write_u64(DATA, 42)?;
            // The L2 VM has no alias of the page with its own registers.
            let left = cpu.read_u64(STATE);
            assert!(matches!(left, Err(GuestFault::LeftL2)), "{left:?}");
            let l1 = *cpu.registers();
            assert_eq!((cpu.vm(), l1.rax, l1.r8), (0, EPT_VIOLATION.into(), STATE));
            assert_eq!(cpu.read_u64(DATA)?, 42);
            // Taking the alias away leaves it in the TLB until it is flushed.
            let none = [DATA, 0x8000 << 16, RIGHTS];
            succeed(cpu, TdcallLeaf::TDG_MEM_PAGE_ATTR_WR, none)?;
            enter(cpu)?;
            assert_eq!(cpu.read_u64(DATA)?, 42);
            assert!(matches!(cpu.read_u64(STATE), Err(GuestFault::LeftL2)));
            let again = [DATA, READ_WRITE, RIGHTS];
            succeed(cpu, TdcallLeaf::TDG_MEM_PAGE_ATTR_WR, again)?;
            let none = [DATA, 0x8000 << 16, RIGHTS | INVEPT];
            succeed(cpu, TdcallLeaf::TDG_MEM_PAGE_ATTR_WR, none)?;
            enter(cpu)?;
            assert!(matches!(cpu.read_u64(DATA), Err(GuestFault::LeftL2)));
            *seen.lock().expect("not poisoned") = true;
            Ok(())
        })();
        leave(cpu, outcome)
    });
    let exit = run(&platform, &td, 0);
    assert_eq!(exit.rax as u32, EXTERNAL_INTERRUPT);
    assert!(*done.lock().expect("not poisoned"));
}

#[test]
fn the_host_may_send_an_interrupted_l2_vm_back_to_l1() {
    let entries = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&entries);
    let (platform, td) = running(move |cpu| {
        let (vm, rax) = (cpu.vm(), cpu.registers().rax);
        let first = {
            let mut seen = seen.lock().expect("not poisoned");
            seen.push((vm, rax));
            seen.len() == 1
        };
        let outcome = if first {
            prepare(cpu).and_then(|()| enter(cpu).map(|_| ()))
        } else {
            Ok(())
        };
        leave(cpu, outcome)
    });
    let exit = run(&platform, &td, 0);
    assert_eq!(
        (exit.rax as u32, exit.rcx >> 32 & 3),
        (EXTERNAL_INTERRUPT, 1)
    );
    let exit = run(&platform, &td, 0);
    assert_eq!(
        (exit.rax as u32, exit.rcx >> 32 & 3),
        (EXTERNAL_INTERRUPT, 1)
    );
    let exit = run(&platform, &td, RESUME_L1);
    assert_eq!(
        (exit.rax as u32, exit.rcx >> 32 & 3),
        (EXTERNAL_INTERRUPT, 0)
    );
    let entries = entries.lock().expect("not poisoned");
    let (vms, statuses): (Vec<_>, Vec<_>) = entries.iter().copied().unzip();
    assert_eq!(vms, [0, 1, 0]);
    assert_eq!(
        Status::from_rax(statuses[2]).code(),
        StatusCode::L2_EXIT_HOST_ROUTED_ASYNC
    );
    assert_eq!(statuses[2] as u32, EXTERNAL_INTERRUPT);
    drop(entries);
    let refused = run(&platform, &td, RESUME_L1);
    assert_eq!(
        Status::from_rax(refused.rax).code(),
        StatusCode::OPERAND_INVALID
    );
}

#[test]
fn a_tdcall_of_an_l2_vm_goes_to_l1_unless_it_may_call_the_host() {
    let (platform, td) = running(move |cpu| {
        if cpu.vm() == 1 {
            // Back from the host, with what it passed.
            assert_eq!((cpu.registers().rax, cpu.registers().rbx), (0, 7));
            return cpu.interrupt();
        }
        let outcome = (|| {
            prepare(cpu)?;
            enter(cpu)?;
            let vmcall = [1 << 3, 0, 0];
            let left = guest(cpu, TdcallLeaf::TDG_VP_VMCALL, vmcall);
            assert!(matches!(left, Err(GuestFault::LeftL2)), "{left:?}");
            assert_eq!(cpu.registers().rax, TDCALL.into());
            succeed(cpu, TdcallLeaf::TDG_VP_WR, [0, L2_CTLS, ENABLE_TDVMCALL])?;
            enter(cpu)?;
            guest(cpu, TdcallLeaf::TDG_VP_VMCALL, vmcall)?;
            Ok(())
        })();
        leave(cpu, outcome)
    });
    let exit = run(&platform, &td, 0);
    assert_eq!((exit.rax as u32, exit.rcx), (TDCALL, 1 << 3 | 1 << 32));
    let lp = platform.lp(0).expect("there is one");
    let mut registers = Registers {
        rax: SeamcallLeaf::TDH_VP_ENTER.number().into(),
        rcx: td.vcpus[0],
        rbx: 7,
        ..Registers::default()
    };
    lp.seamcall(&mut registers)
        .expect("the emulator does not trap");
    assert_eq!(
        (registers.rax as u32, registers.rcx >> 32 & 3),
        (EXTERNAL_INTERRUPT, 1)
    );
}

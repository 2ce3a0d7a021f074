//! How a VMM is tested: its own code calls an emulated LP, and the test looks at what became of it.
//!
//! `cargo run --example vmm_test -p tdx-emulator`
//!
//! The code under test is [`give_page`], which knows [`Seamcall`] only: on a host it would execute the instruction.

use tdx_abi::HostLeaf;
use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::Registers;
use tdx_abi::Seamcall;
use tdx_abi::leaf::SeamcallLeaf;
use tdx_abi::operand::OperandId;
use tdx_abi::status::Status;
use tdx_abi::status::StatusCode;
use tdx_abi::tdh;
use tdx_emulator::Calls;
use tdx_emulator::Effect;
use tdx_emulator::Fault;
use tdx_emulator::GuestFault;
use tdx_emulator::LineFault;
use tdx_emulator::PageType;
use tdx_emulator::Platform;
use tdx_emulator::PlatformConfig;
use tdx_emulator::Setup;
use tdx_emulator::SetupTd;
use tdx_emulator::When;

/// Gives a TD the page at `page` for `gpa`, and first of all the tables on the way, of pages that `table` hands out.
fn give_page(
    lp: &impl Seamcall,
    tdr: u64,
    gpa: u64,
    page: u64,
    mut table: impl FnMut() -> u64,
) -> Result<(), Status> {
    let call = |leaf: SeamcallLeaf, rcx: u64, r8: u64| {
        let mut registers = Registers {
            rax: leaf.number().into(),
            rcx,
            rdx: tdr,
            r8,
            ..Registers::default()
        };
        let trapped = lp.seamcall(&mut registers).is_err();
        assert!(!trapped, "there is no module");
        registers
    };
    loop {
        let after = call(SeamcallLeaf::TDH_MEM_PAGE_AUG, gpa, page);
        let status = Status::from_rax(after.rax);
        match status.code() {
            StatusCode::SUCCESS => return Ok(()),
            StatusCode::OPERAND_BUSY => {}
            StatusCode::EPT_WALK_FAILED => {
                // RDX bits 2:0: the level of the entry that refers to no table.
                let level = after.rdx & 7;
                let of_table = gpa & !((1 << (12 + 9 * level)) - 1) | level;
                let added = call(SeamcallLeaf::TDH_MEM_SEPT_ADD, of_table, table());
                if Status::from_rax(added.rax).is_error() {
                    return Err(Status::from_rax(added.rax));
                }
            }
            _ => return Err(status),
        }
    }
}

/// A TD with one vCPU that can run, and pages for it.
fn td(platform: &Platform) -> (Setup<'_>, SetupTd) {
    let mut setup = Setup::bring_up(platform).expect("the platform is new");
    let td = setup.td(33, 1, |_| {}).expect("the KeyID is free");
    let lp = platform.lp(0).expect("there is one");
    let finalized = (tdh::mr::Finalize { tdr: td.tdr }).call(&lp);
    assert!(finalized.is_ok(), "{finalized:?}");
    (setup, td)
}

fn next_page(setup: &mut Setup<'_>) -> u64 {
    setup.page().expect("the TDMR is large").bits()
}

const GPA: u64 = 0x4000_0000;

/// The page belongs to the TD, and the guest that accepts it may use it.
fn a_page_that_was_given_is_the_guests() {
    let platform = Platform::new(PlatformConfig::default());
    let (mut setup, td) = td(&platform);
    let tdr = td.tdr.hpa().bits();
    let lp = platform.lp(0).expect("there is one");
    let page = next_page(&mut setup);
    give_page(&lp, tdr, GPA, page, || next_page(&mut setup)).expect("nothing is in the way");
    let metadata = platform.page_metadata(page, Level::Pt);
    assert_eq!(metadata, Some((PageType::Regular, tdr)));

    platform.set_guest(td.vcpus[0].hpa(), |cpu: &mut tdx_emulator::GuestCpu<'_>| {
        let used = cpu
            .accept(GPA, Level::Pt)
            .and_then(|_| cpu.write_u64(GPA, 42));
        match used {
            Err(GuestFault::Exited(exited)) => exited,
            _ => cpu.interrupt(),
        }
    });
    ok_interrupt(&platform, &td);
    assert_eq!(platform.memory().read_u64(page), 42, "as the guest sees it");
    let read = platform.host_memory().read(Hpa::new(page), &mut [0; 8]);
    assert!(matches!(read, Err(LineFault::WrongKey { .. })), "{read:?}");
}

/// Enters the vCPU, whose guest does its part and is interrupted.
fn ok_interrupt(platform: &Platform, td: &SetupTd) {
    const EXTERNAL_INTERRUPT: u64 = 1;
    let lp = platform.lp(0).expect("there is one");
    let mut registers = Registers {
        rax: SeamcallLeaf::TDH_VP_ENTER.number().into(),
        rcx: td.vcpus[0].hpa().bits(),
        ..Registers::default()
    };
    let trapped = lp.seamcall(&mut registers).is_err();
    assert!(!trapped, "there is no module");
    assert_eq!(
        registers.rax, EXTERNAL_INTERRUPT,
        "the guest left otherwise"
    );
}

/// Somebody else holds a lock for a while: on a host that takes luck to see.
fn a_busy_module_is_asked_again() {
    let platform = Platform::new(PlatformConfig::default());
    let (mut setup, td) = td(&platform);
    let tdr = td.tdr.hpa().bits();
    let lp = platform.lp(0).expect("there is one");
    let busy = platform.inject(Fault {
        calls: Calls::Host(SeamcallLeaf::TDH_MEM_PAGE_AUG),
        when: When::Calls { after: 1, times: 3 },
        effect: Effect::Status(Status::with_operand(
            StatusCode::OPERAND_BUSY,
            OperandId::SEPT_TREE,
        )),
    });
    let page = next_page(&mut setup);
    give_page(&lp, tdr, GPA, page, || next_page(&mut setup)).expect("it is busy for a while only");
    assert_eq!(busy.hits(), 3);
}

/// A page that is the TD's already is refused, and stays as it is.
fn a_page_in_use_is_refused() {
    let platform = Platform::new(PlatformConfig::default());
    let (mut setup, td) = td(&platform);
    let tdr = td.tdr.hpa().bits();
    let lp = platform.lp(0).expect("there is one");
    let vcpu = td.vcpus[0].hpa().bits();
    let refused = give_page(&lp, tdr, GPA, vcpu, || next_page(&mut setup));
    let status = refused.expect_err("the page is the root of a vCPU");
    assert_eq!(status.code(), StatusCode::PAGE_METADATA_INCORRECT);
    let metadata = platform.page_metadata(vcpu, Level::Pt);
    assert_eq!(metadata.map(|(kind, _)| kind), Some(PageType::Tdvpr));
}

fn main() {
    a_page_that_was_given_is_the_guests();
    a_busy_module_is_asked_again();
    a_page_in_use_is_refused();
    println!("all three hold");
}

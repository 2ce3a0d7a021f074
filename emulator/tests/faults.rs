//! Faults on demand: every leaf of either side, every effect, by number and by chance.

mod support;

use support::GIB;
use support::PAGE;
use support::Pages;
use support::Td;
use support::add_tables;
use support::call;
use support::enter;
use support::ok;
use support::ready;
use support::runnable;
use tdx_abi::Level;
use tdx_abi::Registers;
use tdx_abi::Seamcall;
use tdx_abi::leaf::SeamcallLeaf;
use tdx_abi::leaf::TdcallLeaf;
use tdx_abi::operand::OperandId;
use tdx_abi::status::Status;
use tdx_abi::status::StatusCode;
use tdx_emulator::Calls;
use tdx_emulator::Effect;
use tdx_emulator::Fault;
use tdx_emulator::GuestCall;
use tdx_emulator::Lp;
use tdx_emulator::Module;
use tdx_emulator::Platform;
use tdx_emulator::PlatformConfig;
use tdx_emulator::When;

const ONCE: When = When::Calls { after: 0, times: 1 };

/// What a leaf can be made to return.
fn statuses() -> [Status; 5] {
    [
        Status::with_operand(StatusCode::OPERAND_BUSY, OperandId::RCX),
        Status::with_operand(StatusCode::OPERAND_BUSY_HOST_PRIORITY, OperandId::SEPT_TREE),
        Status::of(StatusCode::INTERRUPTED_RESUMABLE),
        Status::of(StatusCode::INTERRUPTED_RESTARTABLE),
        Status::of(StatusCode::PAGE_METADATA_INCORRECT),
    ]
}

/// Registers in which each has another value.
fn marked(rax: u64) -> Registers {
    Registers {
        rax,
        rcx: 1,
        rdx: 2,
        rbx: 3,
        rbp: 4,
        rsi: 5,
        rdi: 6,
        r8: 8,
        r9: 9,
        r10: 10,
        r11: 11,
        r12: 12,
        r13: 13,
        r14: 14,
        r15: 15,
    }
}

/// A running TD whose guest is inside on LP 0.
fn inside(platform: &Platform) -> Td {
    let td = runnable(platform, &mut Pages(GIB), 33, 1);
    enter(&platform.lp(0).expect("there is one"), &td);
    td
}

#[test]
fn every_seamcall_can_be_made_to_return_every_status() {
    let platform = ready(1, 1);
    let fresh = Platform::new(PlatformConfig::default());
    let mut leaves = 0;
    for number in 0..=u16::MAX {
        let leaf = SeamcallLeaf::new(number);
        if !leaf.dispatched(Module::V1_5_01) {
            continue;
        }
        leaves += 1;
        // Before the module is initialised it refuses most leaves, and a fault changes nothing of that.
        let early = {
            let mut registers = marked(number.into());
            let lp = fresh.lp(0).expect("there is one");
            let injection = fresh.inject(Fault {
                calls: Calls::Host(leaf),
                when: ONCE,
                effect: Effect::Status(statuses()[0]),
            });
            lp.seamcall(&mut registers).expect("no trap");
            fresh.clear_faults();
            let code = Status::from_rax(registers.rax).code();
            if injection.hits() == 0 {
                assert_eq!(code, StatusCode::SYS_NOT_READY, "{leaf}");
            }
            injection.hits() == 1
        };
        assert_eq!(early, leaf.name().is_some_and(is_early), "{leaf}");
        for status in statuses() {
            let injection = platform.inject(Fault {
                calls: Calls::Host(leaf),
                when: ONCE,
                effect: Effect::Status(status),
            });
            let mut registers = marked(number.into());
            let lp = platform.lp(0).expect("there is one");
            lp.seamcall(&mut registers).expect("no trap");
            assert_eq!(registers, marked(status.rax()), "{leaf}");
            assert_eq!((injection.calls(), injection.hits()), (1, 1), "{leaf}");
            platform.clear_faults();
        }
    }
    assert!(leaves > 60, "{leaves}");
}

/// Leaves of bring-up and information (`tdx_vmm_dispatcher.c`).
fn is_early(name: &str) -> bool {
    const EARLY: [&str; 9] = [
        "TDH.SYS.INFO",
        "TDH.SYS.RD",
        "TDH.SYS.RDALL",
        "TDH.SYS.INIT",
        "TDH.SYS.LP.INIT",
        "TDH.SYS.CONFIG",
        "TDH.SYS.KEY.CONFIG",
        "TDH.SYS.LP.SHUTDOWN",
        "TDH.SYS.UPDATE",
    ];
    EARLY.contains(&name)
}

#[test]
fn every_tdcall_can_be_made_to_return_every_status() {
    let platform = ready(1, 1);
    let lp = platform.lp(0).expect("there is one");
    inside(&platform);
    let mut leaves = 0;
    for number in 0..=u16::MAX {
        let leaf = TdcallLeaf::new(number);
        if !leaf.dispatched(Module::V1_5_01) {
            continue;
        }
        leaves += 1;
        for status in statuses() {
            let injection = platform.inject(Fault {
                calls: Calls::Guest(leaf),
                when: ONCE,
                effect: Effect::Status(status),
            });
            let mut registers = marked(number.into());
            assert_eq!(
                lp.guest_call(&mut registers),
                GuestCall::ReturnedToTd,
                "{leaf}"
            );
            // A guest does not learn of the host's priority.
            let seen = match status.code() {
                StatusCode::OPERAND_BUSY_HOST_PRIORITY => {
                    Status::with_operand(StatusCode::OPERAND_BUSY, status.operand())
                }
                _ => status,
            };
            assert_eq!(registers, marked(seen.rax()), "{leaf}");
            assert_eq!((injection.calls(), injection.hits()), (1, 1), "{leaf}");
            platform.clear_faults();
        }
    }
    assert!(leaves >= 18, "{leaves}");
}

/// `HP_LOCK_TIMEOUT`: a guest that is refused for too long leaves its TD with what it was refused.
#[test]
fn a_guest_that_gives_way_for_too_long_leaves_the_td() {
    let platform = ready(1, 1);
    let lp = platform.lp(0).expect("there is one");
    let td = inside(&platform);
    platform.inject(Fault {
        calls: Calls::AnyGuest,
        when: When::OneIn { calls: 1, seed: 1 },
        effect: Effect::Status(statuses()[1]),
    });
    let mut left = None;
    for refusals in 0..1_000_000 {
        let mut registers = marked(TdcallLeaf::TDG_VP_INFO.number().into());
        if lp.guest_call(&mut registers) == GuestCall::ExitedToVmm {
            left = Some((refusals, Status::from_rax(registers.rax).code()));
            break;
        }
    }
    let (refusals, code) = left.expect("the time is finite");
    assert!(refusals > 1, "{refusals}");
    assert_eq!(code, StatusCode::HOST_PRIORITY_BUSY_TIMEOUT);
    assert!(lp.inside().is_none());
    platform.clear_faults();
    enter(&lp, &td);
    let mut registers = marked(TdcallLeaf::TDG_VP_INFO.number().into());
    assert_eq!(lp.guest_call(&mut registers), GuestCall::ReturnedToTd);
}

/// Calls that a fault by chance strikes, on a platform of its own.
fn struck(seed: u64) -> Vec<bool> {
    let platform = ready(1, 1);
    let lp = platform.lp(0).expect("there is one");
    let busy = statuses()[0];
    platform.inject(Fault {
        calls: Calls::Host(SeamcallLeaf::TDH_PHYMEM_PAGE_RDMD),
        when: When::OneIn { calls: 4, seed },
        effect: Effect::Status(busy),
    });
    (0..200)
        .map(|_| call(&lp, SeamcallLeaf::TDH_PHYMEM_PAGE_RDMD, [GIB, 0, 0, 0]).rax == busy.rax())
        .collect()
}

#[test]
fn a_seed_decides_which_calls_are_struck() {
    let one = struck(1);
    assert_eq!(one, struck(1));
    assert_ne!(one, struck(2));
    assert!(one.contains(&true) && one.contains(&false));
}

/// An interrupt stops the leaves that look for one, which go on when they are called again, and no other.
#[test]
fn interrupted_leaves_keep_what_they_have_done() {
    let platform = ready(1, 1);
    let lp = platform.lp(0).expect("there is one");
    let mut pages = Pages(GIB);
    let td = runnable(&platform, &mut pages, 33, 1);
    const GPA: u64 = 0x20_0000;
    add_tables(&lp, &td, &mut pages, GPA, Level::Pd);
    let always = platform.inject(Fault {
        calls: Calls::AnyHost,
        when: When::OneIn { calls: 1, seed: 1 },
        effect: Effect::Interrupt,
    });
    let page = pages.next_2m();
    let large = GPA | Level::Pd as u64;
    // None of these looks for an interrupt.
    ok(
        &lp,
        SeamcallLeaf::TDH_MEM_PAGE_AUG,
        [large, td.tdr, page, 0],
    );
    ok(&lp, SeamcallLeaf::TDH_MEM_SEPT_RD, [large, td.tdr, 0, 0]);
    assert_eq!(always.hits(), 2);
    platform.clear_faults();

    // The guest's acceptance of 2 MiB stops behind each 4 KiB: after `stops` of them one call does what is left.
    enter(&lp, &td);
    let stops = 7;
    let injection = platform.inject(Fault {
        calls: Calls::Guest(TdcallLeaf::TDG_MEM_PAGE_ACCEPT),
        when: When::Calls {
            after: 0,
            times: stops,
        },
        effect: Effect::Interrupt,
    });
    for number in 0..512 {
        platform
            .memory()
            .write_u64(page + number * PAGE, number + 1);
    }
    let accept = |lp: &Lp<'_>| {
        let mut registers = marked(TdcallLeaf::TDG_MEM_PAGE_ACCEPT.number().into());
        registers.rcx = large;
        (lp.guest_call(&mut registers), registers)
    };
    for stop in 0..stops {
        assert_eq!(accept(&lp).0, GuestCall::Reexecute, "{stop}");
    }
    // What was done is not done again: the host's reset of the memory would show.
    let zeroed = (0..512).filter(|number| platform.memory().read_u64(page + number * PAGE) == 0);
    assert_eq!(zeroed.count() as u64, stops);
    let (call_ended, after) = accept(&lp);
    assert_eq!((call_ended, after.rax), (GuestCall::ReturnedToTd, 0));
    assert_eq!((injection.calls(), injection.hits()), (stops + 1, stops));
    assert!((0..512).all(|number| platform.memory().read_u64(page + number * PAGE) == 0));
}

/// IA32_INTR_PENDING: bit 0 counts where the host takes interrupts, others always.
#[test]
fn a_cache_write_back_is_resumed_where_it_was_interrupted() {
    let cases = [
        (true, 1, true),
        (false, 1, false),
        (true, 2, true),
        (false, 2, true),
        (true, 0, false),
    ];
    for (enabled, pending, interrupts) in cases {
        let platform = support::ready_on(PlatformConfig {
            host_interrupts_enabled: enabled,
            cache_sub_blocks: 3,
            ..PlatformConfig::default()
        });
        let lp = platform.lp(0).expect("there is one");
        let td = runnable(&platform, &mut Pages(GIB), 33, 1);
        ok(&lp, SeamcallLeaf::TDH_MNG_VPFLUSHDONE, [td.tdr, 0, 0, 0]);
        let write_back = |resume: u64| {
            let after = call(&lp, SeamcallLeaf::TDH_PHYMEM_CACHE_WB, [resume, 0, 0, 0]);
            Status::from_rax(after.rax).code()
        };
        let free = || {
            let after = call(&lp, SeamcallLeaf::TDH_MNG_KEY_FREEID, [td.tdr, 0, 0, 0]);
            Status::from_rax(after.rax).code()
        };
        assert_eq!(write_back(1), StatusCode::WBCACHE_RESUME_ERROR);
        lp.set_interrupts_pending(pending);
        if interrupts {
            // Three parts: two points to be interrupted at, and then it is done.
            assert_eq!(write_back(0), StatusCode::INTERRUPTED_RESUMABLE);
            assert_eq!(free(), StatusCode::WBCACHE_NOT_COMPLETE);
            assert_eq!(write_back(1), StatusCode::INTERRUPTED_RESUMABLE);
            assert_eq!(write_back(1), StatusCode::SUCCESS);
            assert_eq!(write_back(1), StatusCode::WBCACHE_RESUME_ERROR);
        } else {
            assert_eq!(write_back(0), StatusCode::SUCCESS);
        }
        assert_eq!(free(), StatusCode::SUCCESS);
    }
}

//! Typed leaves on a backend that records registers and answers as told.
#![expect(
    clippy::std_instead_of_core,
    reason = "a test binary: it has std, and a panic is how it fails"
)]

use std::cell::Cell;

use tdx_abi::CallError;
use tdx_abi::Features;
use tdx_abi::GuestLeaf;
use tdx_abi::Hkid;
use tdx_abi::HostLeaf;
use tdx_abi::Hpa;
use tdx_abi::HpaOf;
use tdx_abi::Leaf;
use tdx_abi::Level;
use tdx_abi::Mapping;
use tdx_abi::Module;
use tdx_abi::NoTracking;
use tdx_abi::OpState;
use tdx_abi::OperandId;
use tdx_abi::Page;
use tdx_abi::PrivateGpa;
use tdx_abi::Registers;
use tdx_abi::Retry;
use tdx_abi::Seamcall;
use tdx_abi::SeptState;
use tdx_abi::Status;
use tdx_abi::StatusCode;
use tdx_abi::Tdcall;
use tdx_abi::Tdr;
use tdx_abi::Tdvpr;
use tdx_abi::Trap;
use tdx_abi::Untranslated;
use tdx_abi::format::GpaMapping;
use tdx_abi::format::TdParams;
use tdx_abi::level::Pd;
use tdx_abi::level::Pt;
use tdx_abi::seamldr;
use tdx_abi::tdg;
use tdx_abi::tdh;

/// Answers every call with the same registers, and keeps what it was given.
struct Backend {
    answer: Result<Registers, Trap>,
    asked: Cell<Registers>,
}

impl Backend {
    fn new(answer: Registers) -> Self {
        Self {
            answer: Ok(answer),
            asked: Cell::new(Registers::ZERO),
        }
    }

    fn success() -> Self {
        Self::new(Registers::ZERO)
    }

    fn status(status: Status) -> Self {
        Self::new(Registers {
            rax: status.rax(),
            ..Registers::ZERO
        })
    }
}

impl Seamcall for Backend {
    fn seamcall(&self, registers: &mut Registers) -> Result<(), Trap> {
        self.asked.set(*registers);
        self.answer.map(|answer| *registers = answer)
    }
}

impl Tdcall for Backend {
    fn tdcall(&self, registers: &mut Registers) -> Result<(), Trap> {
        self.asked.set(*registers);
        self.answer.map(|answer| *registers = answer)
    }
}

const TDR: Tdr = Tdr::assume(Hpa::new(0x10_0000));

fn entry<L: tdx_abi::level::Fixed>(gpa: u64) -> Mapping<L> {
    Mapping::new(PrivateGpa::new(gpa)).expect("aligned")
}

#[test]
fn inputs_are_in_their_registers() {
    let backend = Backend::success();
    let page = Page::<Pd>::owned(Hpa::new(0x40_0000)).expect("aligned");
    let _ = tdh::mem::PageAug {
        gpa: entry::<Pd>(0x8000_0000),
        tdr: TDR,
        page,
    }
    .call(&backend)
    .expect("success");
    let wanted = Registers {
        rax: 6,
        rcx: 0x8000_0001,
        rdx: 0x10_0000,
        r8: 0x40_0000,
        ..Registers::ZERO
    };
    assert_eq!(backend.asked.get(), wanted);

    let _ = tdh::mng::Init {
        tdr: TDR,
        td_params: HpaOf::<TdParams>::new(Hpa::new(0x5400)).expect("aligned"),
    }
    .call(&backend)
    .expect("success");
    assert_eq!(
        backend.asked.get(),
        Registers {
            rax: 21,
            rcx: 0x10_0000,
            rdx: 0x5400,
            ..Registers::ZERO
        }
    );
    assert_eq!(HpaOf::<TdParams>::new(Hpa::new(0x5200)), None);

    let tdvpr = Tdvpr::assume(Hpa::new(0x30_0000));
    let enter = tdh::vp::Enter {
        tdvpr,
        host_recoverability_hint: false,
        resume_l1: true,
        guest_rdx: 1,
        guest_rbx: 2,
        guest_rbp: 3,
        guest_rsi: 4,
        guest_rdi: 5,
        guest_r8: 8,
        guest_r9: 9,
        guest_r10: 10,
        guest_r11: 11,
        guest_r12: 12,
        guest_r13: 13,
        guest_r14: 14,
        guest_r15: 15,
    };
    const { assert!(tdh::vp::Enter::ALL_REGISTERS && !tdh::mng::Init::ALL_REGISTERS) };
    let _ = enter.call(&backend).expect("success");
    let asked = backend.asked.get();
    assert_eq!((asked.rax, asked.rcx), (0, 0x30_0000 | 1 << 53));
    assert_eq!(
        (asked.rbx, asked.rbp, asked.rsi, asked.rdi, asked.r15),
        (2, 3, 4, 5, 15)
    );

    let _ = seamldr_info().call(&backend).expect("success");
    assert_eq!(backend.asked.get().rax, 1 << 63);
}

fn seamldr_info() -> seamldr::Info {
    seamldr::Info {
        info: HpaOf::new(Hpa::new(0x7000)).expect("aligned"),
    }
}

#[test]
fn a_refusal_returns_the_inputs() {
    let page = || Page::<Pt>::owned(Hpa::new(0x40_0000)).expect("aligned");
    let leaf = || tdh::mem::PageAug {
        gpa: entry::<Pt>(0x1000),
        tdr: TDR,
        page: page(),
    };

    let busy = Backend::status(Status::with_operand(
        StatusCode::OPERAND_BUSY,
        OperandId::RDX,
    ));
    let refused = leaf().call(&busy).expect_err("busy");
    assert_eq!(refused.retry(), Some(Retry::Busy));
    assert_eq!(
        refused.failure().and_then(|failure| failure.operand()),
        Some(OperandId::RDX)
    );
    assert_eq!(refused.leaf.page, page());
    assert_eq!(refused.to_string(), "TDH.MEM.PAGE.AUG: OPERAND_BUSY (RDX)");

    let walk = Backend::new(Registers {
        rax: StatusCode::EPT_WALK_FAILED.value() | u64::from(OperandId::RCX.number()),
        rcx: 0x1234_5000,
        rdx: 0x0401,
        ..Registers::ZERO
    });
    let refused = leaf().call(&walk).expect_err("no table");
    assert!(matches!(refused.error, CallError::Failed(_)));
    assert_eq!(
        refused.entry().map(|entry| entry.into_bits()),
        Some(0x1234_5000)
    );
    assert_eq!(
        refused.info().and_then(|info| info.level()),
        Some(Level::Pd)
    );

    let other = Backend::status(Status::of(StatusCode::TD_FATAL));
    assert_eq!(leaf().call(&other).expect_err("fatal").info(), None);

    let trapped = Backend {
        answer: Err(Trap::VmFailInvalid),
        asked: Cell::new(Registers::ZERO),
    };
    let refused = leaf().call(&trapped).expect_err("trap");
    assert_eq!(refused.error, CallError::Trap(Trap::VmFailInvalid));
    assert_eq!(refused.leaf.page, page());
}

#[test]
fn block_track_remove() {
    let backend = Backend::success();
    let block = |gpa| {
        tdh::mem::RangeBlock {
            gpa: entry::<Pd>(gpa),
            tdr: TDR,
        }
        .call(&backend)
        .expect("blocked")
        .output
        .blocked
    };
    let blocked = [block(0x20_0000), block(0x40_0000)];
    let tracked = tdh::mem::Track { tdr: TDR, blocked }
        .call(&backend)
        .expect("tracked")
        .output
        .tracked;
    let given_back = Backend::new(Registers {
        rcx: 0x60_0000,
        ..Registers::ZERO
    });
    let mut pages = Vec::new();
    for entry in tracked {
        let removed = tdh::mem::PageRemove {
            entry: entry.into(),
        }
        .call(&given_back)
        .expect("removed");
        pages.push(removed.output.page);
    }
    assert_eq!(pages.len(), 2);
    assert_eq!(pages[0].hpa(), Hpa::new(0x60_0000));
    assert_eq!(
        given_back.asked.get(),
        Registers {
            rax: 29,
            rcx: 0x40_0001,
            rdx: 0x10_0000,
            ..Registers::ZERO
        }
    );

    assert_eq!(NoTracking::in_state(TDR, OpState::Runnable), None);
    let evidence = NoTracking::in_state(TDR, OpState::Initialized).expect("not running");
    let entry = Untranslated::without_tracking(evidence, entry::<Pt>(0x3000));
    let _ = tdh::mem::PageRemove { entry }
        .call(&given_back)
        .expect("removed");
    assert_eq!(given_back.asked.get().rcx, 0x3000);
}

#[test]
fn handles_and_pages_come_from_leaves() {
    let backend = Backend::success();
    let page = Page::<Pt>::owned(Hpa::new(0x9000)).expect("aligned");
    let created = tdh::mng::Create {
        tdr: page,
        hkid: Hkid::new(33),
    }
    .call(&backend)
    .expect("created");
    assert_eq!(created.output.tdr.hpa(), Hpa::new(0x9000));
    assert_eq!(
        backend.asked.get(),
        Registers {
            rax: 9,
            rcx: 0x9000,
            rdx: 33,
            ..Registers::ZERO
        }
    );

    let backend = Backend::new(Registers {
        rcx: 3,
        rdx: 0x10_0000,
        r8: 1,
        ..Registers::ZERO
    });
    let reclaimed = tdh::phymem::PageReclaim {
        page: Hpa::new(0x20_0000),
    }
    .call(&backend)
    .expect("reclaimed");
    assert_eq!(
        reclaimed.output.reclaimed,
        Page::assume_owned(Hpa::new(0x20_0000), Level::Pd)
    );
    assert_eq!(reclaimed.output.owner, Hpa::new(0x10_0000));
}

#[test]
fn success_with_information_is_no_error() {
    let status = Status::with_detail(StatusCode::PAGE_ALREADY_ACCEPTED, 1);
    let backend = Backend::status(status);
    let accepted = tdg::mem::PageAccept {
        gpa: Mapping::<Level>::at(PrivateGpa::new(0x1000), Level::Pt).expect("aligned"),
    }
    .call(&backend)
    .expect("no error");
    assert_eq!(accepted.information(), Some(status));
    assert_eq!(backend.asked.get().rax, 6);
    assert_eq!(
        GpaMapping::from_bits(backend.asked.get().rcx).gpa(),
        PrivateGpa::new(0x1000)
    );
}

#[test]
fn an_interrupted_leaf_goes_on() {
    let list = tdx_abi::format::GpaListInfo::new()
        .with_hpa(Hpa::new(0x7000))
        .with_last_entry(511);
    let leaf = tdh::export::Restore {
        gpa_list: list,
        tdr: TDR,
    };
    let next = list.with_first_entry(100).into_bits();
    let backend = Backend::new(Registers {
        rax: StatusCode::INTERRUPTED_RESUMABLE.value(),
        rcx: next,
        ..Registers::ZERO
    });
    let refused = leaf.call(&backend).expect_err("interrupted");
    assert_eq!(refused.retry(), Some(Retry::Resumable));
    let resumed = refused.resume().expect("resumable");
    assert_eq!(resumed.gpa_list.first_entry(), 100);
}

#[test]
fn a_leaf_that_a_module_lacks_needs_evidence() {
    let old = Features::from_bits(Module::V1_5_01.features0().expect("published"));
    let new = old.union(Features::ENUM_TOPOLOGY);
    let missing = old.has::<20>().expect_err("1.5.01 lacks it");
    assert_eq!(missing.name(), Some("ENUM_TOPOLOGY"));
    assert_eq!(
        missing.to_string(),
        "the module lacks ENUM_TOPOLOGY (bit 20 of TDX_FEATURES0)"
    );
    assert!(new.has::<20>().is_ok());
    assert_eq!(tdh::vp::InitV1::FEATURES, Features::ENUM_TOPOLOGY);
}

#[test]
fn legality_is_constant() {
    const MODULE: Module = Module::V1_5_01;
    const REMOVE: tdx_abi::leaf::SeamcallLeaf = tdh::mem::PageRemove::<Pt>::LEAF;
    const {
        assert!(
            REMOVE.allowed_on(SeptState::Blocked, MODULE)
                && !REMOVE.allowed_on(SeptState::Free, MODULE)
        )
    };
    const {
        assert!(
            REMOVE.allowed_in(OpState::FailedImport, MODULE)
                && !REMOVE.allowed_in(OpState::Uninitialized, MODULE)
        )
    };
}

/// Decoding must take whatever a callee returns.
#[test]
fn any_registers_are_decoded() {
    let mut random = 1u64;
    let mut next = || {
        random = random
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        random ^ random >> 29
    };
    for round in 0..2000 {
        let rax = match round % 4 {
            0 => 0,
            1 => next(),
            _ => tdx_abi::status::STATUS_CODES[round % 289].value | next() >> 32,
        };
        let registers = Registers {
            rax,
            rcx: next(),
            rdx: next(),
            r8: next(),
            r9: next(),
            r10: next(),
            ..Registers::ZERO
        };
        let backend = Backend::new(registers);
        let page = Page::<Pt>::owned(Hpa::new(0x9000)).expect("aligned");
        for text in [
            format!(
                "{:?}",
                tdh::mem::PageAug {
                    gpa: entry::<Pt>(0),
                    tdr: TDR,
                    page
                }
                .call(&backend)
            ),
            format!(
                "{:?}",
                tdh::phymem::PageReclaim {
                    page: Hpa::new(0x1000)
                }
                .call(&backend)
            ),
            format!(
                "{:?}",
                tdh::phymem::PageRdmd {
                    page: Hpa::new(0x1000)
                }
                .call(&backend)
            ),
            format!("{:?}", seamldr_info().call(&backend)),
        ] {
            assert!(text.starts_with("Ok") || text.starts_with("Err"));
        }
    }
}

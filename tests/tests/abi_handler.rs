//! The dispatcher for implementers of a module.

use tdx_abi::Module;
use tdx_abi::OperandId;
use tdx_abi::PrivateGpa;
use tdx_abi::Registers;
use tdx_abi::Status;
use tdx_abi::StatusCode;
use tdx_abi::handler::HostHandler;
use tdx_abi::handler::dispatch_seamcall;
use tdx_abi::handler::operands;
use tdx_abi::leaf::SEAMCALL_LEAVES;

/// A module that answers two leaves and counts calls in its context.
struct Answers(Module);

impl HostHandler<u32> for Answers {
    type Outcome = Status;

    fn module(&self) -> Module {
        self.0
    }

    fn tdh_mem_page_add(
        &self,
        calls: &mut u32,
        operands: operands::TdhMemPageAdd,
        registers: &mut Registers,
    ) -> Status {
        *calls += 1;
        registers.rcx = operands.gpa.gpa().bits();
        Status::of(StatusCode::SUCCESS)
    }

    fn tdh_mem_sept_add_v1(
        &self,
        calls: &mut u32,
        operands: operands::TdhMemSeptAddV1,
        _: &mut Registers,
    ) -> Status {
        *calls += 100;
        Status::with_detail(StatusCode::SUCCESS, u32::from(operands.allow_existing))
    }
}

fn call(module: Module, registers: &mut Registers) -> (Status, u32) {
    let mut calls = 0;
    (
        dispatch_seamcall(&Answers(module), &mut calls, registers),
        calls,
    )
}

const REFUSED: Status = Status::with_operand(StatusCode::OPERAND_INVALID, OperandId::RAX);

#[test]
fn operands_are_decoded() {
    let mut registers = Registers {
        rax: 2,
        rcx: 0xfff0_0000_1234_5678,
        ..Registers::ZERO
    };
    assert_eq!(
        call(Module::V1_5_01, &mut registers),
        (Status::of(StatusCode::SUCCESS), 1)
    );
    assert_eq!(PrivateGpa::new(registers.rcx), PrivateGpa::new(0x1234_5000));
    let mut registers = Registers {
        rax: 0x1_0003,
        rdx: 0x5001,
        ..Registers::ZERO
    };
    assert_eq!(
        call(Module::V1_5_01, &mut registers),
        (Status::with_detail(StatusCode::SUCCESS, 1), 100)
    );
}

#[test]
fn what_the_module_lacks_is_refused() {
    for rax in [
        0x1_0002,    // no version 1 of PAGE.ADD
        42,          // reserved, never dispatched
        58,          // PAMT.ADD is not in 1.5.01
        0xffff,      // no such leaf
        2 | 1 << 24, // reserved bits
        2 | 1 << 62,
        0x2_0003, // no version 2 of SEPT.ADD
    ] {
        let mut registers = Registers {
            rax,
            ..Registers::ZERO
        };
        assert_eq!(
            call(Module::V1_5_01, &mut registers),
            (REFUSED, 0),
            "{rax:#x}"
        );
        assert_eq!(
            registers,
            Registers {
                rax,
                ..Registers::ZERO
            }
        );
    }
}

/// A leaf is refused before its method if and only if the table says that the module does not dispatch it.
#[test]
fn every_leaf_goes_where_the_tables_say() {
    struct Names(Module);
    impl HostHandler<Option<&'static str>> for Names {
        type Outcome = Status;
        fn module(&self) -> Module {
            self.0
        }
        fn unsupported(
            &self,
            seen: &mut Option<&'static str>,
            leaf: tdx_abi::leaf::SeamcallLeaf,
            _: &mut Registers,
        ) -> Status {
            *seen = leaf.name();
            REFUSED
        }
    }
    for module in Module::ALL {
        for leaf in SEAMCALL_LEAVES
            .iter()
            .filter(|leaf| leaf.dispatched(module))
        {
            let mut registers = Registers {
                rax: u64::from(leaf.number),
                ..Registers::ZERO
            };
            let mut seen = None;
            assert_eq!(
                dispatch_seamcall(&Names(module), &mut seen, &mut registers),
                REFUSED
            );
            assert_eq!(seen, Some(leaf.name), "{}", module.name());
        }
    }
}

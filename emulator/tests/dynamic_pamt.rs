//! Dynamic PAMT as the host meets it. Each test names the file of the module 2.0.18 that its rule is from.
#![allow(missing_docs, reason = "tests")]

mod support;

use support::GIB;
use support::PAGE;
use support::Pages;
use support::Td;
use support::add_tables;
use support::call;
use support::initialized;
use support::ok;
use support::ready_with;
use support::runnable;
use tdx_abi::Level;
use tdx_abi::Registers;
use tdx_abi::Seamcall;
use tdx_abi::leaf::SeamcallLeaf;
use tdx_abi::operand::OperandId;
use tdx_abi::status::Status;
use tdx_abi::status::StatusCode;
use tdx_emulator::Lp;
use tdx_emulator::Module;
use tdx_emulator::PageType;
use tdx_emulator::Platform;

const MIB_2: u64 = 2 << 20;
/// Level in an operand that names a 2 MiB range.
const RANGE: u64 = 1;
/// Bit of a page given back that was the last in use of its range.
const LAST: u64 = 1 << 62;

const ADD: SeamcallLeaf = SeamcallLeaf::TDH_PHYMEM_PAMT_ADD;
const REMOVE: SeamcallLeaf = SeamcallLeaf::TDH_PHYMEM_PAMT_REMOVE;

fn platform() -> Platform {
    ready_with(Module::V2_0_18, 1, 1, true)
}

fn lp(platform: &Platform) -> Lp<'_> {
    platform.lp(0).expect("there is one")
}

fn is(registers: Registers, code: StatusCode, operand: OperandId) {
    assert_eq!(
        Status::from_rax(registers.rax),
        Status::with_operand(code, operand)
    );
}

/// The 2 MiB range number `number` of the TDMR.
const fn range(number: u64) -> u64 {
    GIB + number * MIB_2
}

/// Gives range `number` its pair, the first pages of range `of`, two for each range that has one.
fn give_pair(lp: &Lp<'_>, number: u64, of: u64) -> [u64; 2] {
    let first = range(of) + number * 2 * PAGE;
    ok(lp, ADD, [range(number) | RANGE, first, first + PAGE, 0]);
    [first, first + PAGE]
}

fn metadata(lp: &Lp<'_>, hpa: u64) -> Registers {
    ok(lp, SeamcallLeaf::TDH_PHYMEM_PAGE_RDMD, [hpa, 0, 0, 0])
}

/// `tdh_phymem_pamt_add.c`, `tdh_phymem_pamt_remove.c`: RAX is the wrong operand where SYS.CONFIG did not choose Dynamic PAMT.
#[test]
fn without_dynamic_pamt_there_is_no_such_leaf() {
    for module in [Module::V1_5_01, Module::V1_5_34, Module::V2_0_18] {
        let platform = ready_with(module, 1, 1, false);
        for leaf in [ADD, REMOVE] {
            let operands = [range(1) | RANGE, range(2), range(2) + PAGE, 0];
            is(
                call(&lp(&platform), leaf, operands),
                StatusCode::OPERAND_INVALID,
                OperandId::RAX,
            );
        }
    }
}

/// `tdh_sys_config.c`: the 4 KiB PAMT area need only hold the bitmap; older modules do not know the bit.
#[test]
fn the_module_is_configured_for_it() {
    assert_eq!(
        lp(&platform()).module_ready(),
        Status::of(StatusCode::SUCCESS)
    );
    let refused = std::panic::catch_unwind(|| ready_with(Module::V1_5_01, 1, 1, true));
    assert!(refused.is_err(), "1.5.01 takes R8 for a KeyID");
}

trait Ready {
    fn module_ready(&self) -> Status;
}

impl Ready for Lp<'_> {
    fn module_ready(&self) -> Status {
        Status::from_rax(call(self, SeamcallLeaf::TDH_PHYMEM_PAGE_RDMD, [GIB, 0, 0, 0]).rax)
    }
}

/// `helpers.c`, `non_shared_hpa_metadata_check_and_lock`.
#[test]
fn a_page_without_pair_cannot_be_taken_at_4k() {
    let platform = platform();
    let lp = lp(&platform);
    let create = |page| call(&lp, SeamcallLeaf::TDH_MNG_CREATE, [page, 33, 0, 0]);
    is(
        create(range(0)),
        StatusCode::MISSING_PAMT_PAGE_PAIR,
        OperandId::RCX,
    );
    // Where another type than a free page is wanted, nothing is said of a pair.
    is(
        call(&lp, SeamcallLeaf::TDH_MNG_KEY_CONFIG, [range(0), 0, 0, 0]),
        StatusCode::PAGE_METADATA_INCORRECT,
        OperandId::RCX,
    );
    let [first, second] = give_pair(&lp, 0, 0);
    for holder in [first, second] {
        is(
            create(holder),
            StatusCode::PAGE_METADATA_INCORRECT,
            OperandId::RCX,
        );
    }
    assert_eq!(create(range(0) + 2 * PAGE).rax, 0);
}

/// `tdh_phymem_pamt_add.c`, in the order of its checks.
#[test]
fn what_cannot_be_added() {
    let platform = platform();
    let lp = lp(&platform);
    let free = range(2);
    let add = |operands| call(&lp, ADD, operands);
    let outside = GIB - PAGE;
    let cases = [
        (
            [range(1), free, free + PAGE],
            StatusCode::OPERAND_INVALID,
            OperandId::RCX,
        ),
        (
            [range(1) | 2, free, free + PAGE],
            StatusCode::OPERAND_INVALID,
            OperandId::RCX,
        ),
        (
            [(range(1) + PAGE) | RANGE, free, free + PAGE],
            StatusCode::OPERAND_INVALID,
            OperandId::RCX,
        ),
        (
            [range(1) | RANGE | 8, free, free + PAGE],
            StatusCode::OPERAND_INVALID,
            OperandId::RCX,
        ),
        (
            [range(1) | RANGE, free + 1, free + PAGE],
            StatusCode::OPERAND_INVALID,
            OperandId::RDX,
        ),
        (
            [range(1) | RANGE, outside, free + 1],
            StatusCode::OPERAND_ADDR_RANGE_ERROR,
            OperandId::RDX,
        ),
        (
            [range(1) | RANGE, free, free + 1],
            StatusCode::OPERAND_INVALID,
            OperandId::R8,
        ),
        (
            [range(1) | RANGE, free, outside],
            StatusCode::OPERAND_ADDR_RANGE_ERROR,
            OperandId::R8,
        ),
        (
            [RANGE, free, free + PAGE],
            StatusCode::OPERAND_ADDR_RANGE_ERROR,
            OperandId::RCX,
        ),
        (
            [range(1) | RANGE, free, free],
            StatusCode::PAGE_NOT_FREE,
            OperandId::R8,
        ),
    ];
    for ([rcx, rdx, r8], code, operand) in cases {
        is(add([rcx, rdx, r8, 0]), code, operand);
    }
    let pair = give_pair(&lp, 1, 2);
    is(
        add([range(1) | RANGE, range(3), range(3) + PAGE, 0]),
        StatusCode::HPA_RANGE_NOT_FREE,
        OperandId::RCX,
    );
    is(
        add([range(4) | RANGE, pair[0], range(3), 0]),
        StatusCode::PAGE_NOT_FREE,
        OperandId::RDX,
    );
    is(
        add([range(4) | RANGE, range(3), pair[1], 0]),
        StatusCode::PAGE_NOT_FREE,
        OperandId::R8,
    );
    // The page of the failed attempt was let go.
    ok(&lp, ADD, [range(4) | RANGE, range(3), range(3) + PAGE, 0]);
}

/// `tdh_phymem_page_rdmd.c`.
#[test]
fn metadata_tells_of_pairs() {
    let platform = platform();
    let lp = lp(&platform);
    let pamt = u64::from(PageType::Pamt.number());
    let nothing = metadata(&lp, range(0));
    assert_eq!([nothing.rcx, nothing.r8], [0, 1], "free, seen at 2 MiB");
    let pair = give_pair(&lp, 0, 1);
    let page = metadata(&lp, range(0));
    assert_eq!([page.rcx, page.r8], [0, 0], "free, seen at 4 KiB");
    let node = metadata(&lp, range(0) | RANGE);
    assert_eq!(node.rcx, 1 << 63 | pamt);
    assert_eq!([node.r8, node.r10, node.r11], [1, pair[0], pair[1]]);
    let holder = metadata(&lp, pair[0]);
    assert_eq!([holder.rcx, holder.rdx, holder.r8], [pamt, 0, 0]);
}

/// `tdh_phymem_pamt_remove.c`: refused while a page of the range is in use, telling which page of the pair describes one.
#[test]
fn a_pair_comes_back_when_nothing_is_in_use() {
    let platform = platform();
    let lp = lp(&platform);
    let remove = |number| call(&lp, REMOVE, [range(number) | RANGE, 0, 0, 0]);
    is(remove(0), StatusCode::NO_PAMT_PAGE_PAIR, OperandId::RCX);
    let pair = give_pair(&lp, 0, 1);
    for (page, holder) in [(range(0) + 256 * PAGE, 1), (range(0), 0)] {
        ok(&lp, SeamcallLeaf::TDH_MNG_CREATE, [page, 33 + holder, 0, 0]);
        assert_eq!(
            Status::from_rax(remove(0).rax),
            Status::with_detail(StatusCode::PAMT_PAGE_NOT_EMPTY, holder as u32)
        );
    }
    let [first, last] = [range(0), range(0) + 256 * PAGE].map(|tdr| {
        ok(&lp, SeamcallLeaf::TDH_MNG_VPFLUSHDONE, [tdr, 0, 0, 0]);
        ok(&lp, SeamcallLeaf::TDH_PHYMEM_CACHE_WB, [0; 4]);
        ok(&lp, SeamcallLeaf::TDH_MNG_KEY_FREEID, [tdr, 0, 0, 0]);
        ok(&lp, SeamcallLeaf::TDH_PHYMEM_PAGE_RECLAIM, [tdr, 0, 0, 0]).r9
    });
    assert_eq!([first, last], [0, LAST], "the last page says so");
    let removed = remove(0);
    assert_eq!(
        [removed.rax, removed.rdx, removed.r8],
        [0, pair[0], pair[1]]
    );
    is(remove(0), StatusCode::NO_PAMT_PAGE_PAIR, OperandId::RCX);
    // Its pages can be used for anything again.
    ok(&lp, ADD, [range(1) | RANGE, range(2), range(2) + PAGE, 0]);
    ok(&lp, SeamcallLeaf::TDH_MNG_CREATE, [pair[0], 33, 0, 0]);
}

/// A TD on ranges 0 (control pages) and from 8 on, the pairs in range 1.
fn td(platform: &Platform) -> (Td, Pages) {
    let lp = lp(platform);
    give_pair(&lp, 0, 1);
    let mut pages = Pages(range(0));
    let td = runnable(platform, &mut pages, 33, 1);
    (td, pages)
}

fn demote(lp: &Lp<'_>, td: &Td, mapping: u64, table: u64, pair: [u64; 2]) -> Registers {
    let mut registers = Registers {
        rax: SeamcallLeaf::TDH_MEM_PAGE_DEMOTE.number().into(),
        rcx: mapping,
        rdx: td.tdr,
        r8: table,
        r12: pair[0],
        r13: pair[1],
        ..Registers::default()
    };
    lp.seamcall(&mut registers).expect("no trap");
    registers
}

fn track(lp: &Lp<'_>, td: &Td, mapping: u64) {
    ok(
        lp,
        SeamcallLeaf::TDH_MEM_RANGE_BLOCK,
        [mapping, td.tdr, 0, 0],
    );
    ok(lp, SeamcallLeaf::TDH_MEM_TRACK, [td.tdr, 0, 0, 0]);
}

/// `tdh_mem_page_demote.c`, `tdh_mem_page_promote.c`, `pamt_manager.c`: the pair goes in with DEMOTE and comes back with PROMOTE.
#[test]
fn a_large_page_needs_a_pair_only_while_it_is_split() {
    let platform = platform();
    let lp = lp(&platform);
    let (td, mut pages) = td(&platform);
    let gpa = 0;
    add_tables(&lp, &td, &mut pages, gpa, Level::Pd);
    let large = range(8);
    let mapping = gpa | Level::Pd as u64;
    ok(
        &lp,
        SeamcallLeaf::TDH_MEM_PAGE_AUG,
        [mapping, td.tdr, large, 0],
    );
    track(&lp, &td, mapping);
    let table = pages.next();
    let pair = [range(1) + 8 * PAGE, range(1) + 9 * PAGE];
    let cases = [
        (
            [pair[0] + 1, pair[1]],
            StatusCode::OPERAND_INVALID,
            OperandId::R12,
        ),
        (
            [pair[0], pair[1] + 1],
            StatusCode::OPERAND_INVALID,
            OperandId::R13,
        ),
        (
            [0, pair[1]],
            StatusCode::OPERAND_ADDR_RANGE_ERROR,
            OperandId::R12,
        ),
        (
            [pair[0], 0],
            StatusCode::OPERAND_ADDR_RANGE_ERROR,
            OperandId::R13,
        ),
        ([td.tdr, pair[1]], StatusCode::PAGE_NOT_FREE, OperandId::R12),
        (
            [pair[0], range(1)],
            StatusCode::PAGE_NOT_FREE,
            OperandId::R13,
        ),
        (
            [pair[0], pair[0]],
            StatusCode::PAGE_NOT_FREE,
            OperandId::R13,
        ),
    ];
    for (pair, code, operand) in cases {
        is(demote(&lp, &td, mapping, table, pair), code, operand);
    }
    // A page of the range that is being split cannot hold its entries: the range's own entry is locked.
    is(
        demote(&lp, &td, mapping, table, [large, pair[1]]),
        StatusCode::OPERAND_BUSY,
        OperandId::R12,
    );
    assert_eq!(demote(&lp, &td, mapping, table, pair).rax, 0);
    let node = metadata(&lp, large | RANGE);
    assert_eq!([node.r10, node.r11], pair);
    assert_eq!(
        metadata(&lp, large + 511 * PAGE).rcx,
        PageType::Regular.number().into()
    );

    track(&lp, &td, mapping);
    let promoted = call(
        &lp,
        SeamcallLeaf::TDH_MEM_PAGE_PROMOTE,
        [mapping, td.tdr, 0, 0],
    );
    assert_eq!([promoted.rax, promoted.rcx], [0, table]);
    assert_eq!([promoted.r12, promoted.r13], pair);
    assert_eq!(metadata(&lp, large).r8, 1);
    is(
        call(&lp, REMOVE, [large | RANGE, 0, 0, 0]),
        StatusCode::NO_PAMT_PAGE_PAIR,
        OperandId::RCX,
    );
}

/// `tdh_mem_page_remove.c`, `tdh_mem_page_relocate.c`, `tdh_mem_sept_remove.c`: the last page of a range comes back with bit 62 set.
#[test]
fn the_last_page_of_a_range_is_marked() {
    let platform = platform();
    let lp = lp(&platform);
    let (td, mut pages) = td(&platform);
    for number in [8, 9] {
        give_pair(&lp, number, 1);
    }
    add_tables(&lp, &td, &mut pages, 0, Level::Pt);
    let mappings = [0, PAGE];
    for (gpa, page) in mappings.into_iter().zip([range(8), range(8) + PAGE]) {
        ok(&lp, SeamcallLeaf::TDH_MEM_PAGE_AUG, [gpa, td.tdr, page, 0]);
        track(&lp, &td, gpa);
    }
    let relocate = |gpa, to| {
        ok(
            &lp,
            SeamcallLeaf::TDH_MEM_PAGE_RELOCATE,
            [gpa, td.tdr, to, 0],
        )
        .rcx
    };
    assert_eq!(relocate(0, range(9)), range(8));
    assert_eq!(relocate(PAGE, range(9) + PAGE), (range(8) + PAGE) | LAST);
    let remove = |gpa| {
        track(&lp, &td, gpa);
        ok(&lp, SeamcallLeaf::TDH_MEM_PAGE_REMOVE, [gpa, td.tdr, 0, 0]).rcx
    };
    assert_eq!(remove(0), range(9));
    assert_eq!(remove(PAGE), (range(9) + PAGE) | LAST);
    // A table page of its own range.
    let mapping = GIB | Level::Pdpt as u64;
    let table = range(8) + 7 * PAGE;
    ok(
        &lp,
        SeamcallLeaf::TDH_MEM_SEPT_ADD,
        [mapping, td.tdr, table, 0],
    );
    track(&lp, &td, mapping);
    let removed = ok(
        &lp,
        SeamcallLeaf::TDH_MEM_SEPT_REMOVE,
        [mapping, td.tdr, 0, 0],
    );
    assert_eq!(removed.rcx, table | LAST);
}

/// `helpers.c`, `check_and_lock_free_range_hpa`: a 2 MiB page is free only if the range has no pair and holds none.
#[test]
fn a_2m_page_must_have_no_pair() {
    let platform = platform();
    let lp = lp(&platform);
    let (td, mut pages) = td(&platform);
    add_tables(&lp, &td, &mut pages, 0, Level::Pd);
    let aug = |page| {
        call(
            &lp,
            SeamcallLeaf::TDH_MEM_PAGE_AUG,
            [Level::Pd as u64, td.tdr, page, 0],
        )
    };
    give_pair(&lp, 8, 9);
    for page in [range(8), range(9)] {
        is(
            aug(page),
            StatusCode::PAGE_METADATA_INCORRECT,
            OperandId::R8,
        );
    }
    ok(&lp, REMOVE, [range(8) | RANGE, 0, 0, 0]);
    assert_eq!(aug(range(9)).rax, 0, "neither pair nor holder any more");
}

/// `pamt_manager.c`: control pages are counted like any other.
#[test]
fn the_whole_life_of_a_td_balances() {
    let platform = platform();
    let lp = lp(&platform);
    give_pair(&lp, 0, 1);
    let mut pages = Pages(range(0));
    let td = initialized(&platform, &mut pages, 33, 1);
    let vcpu = td.vcpus[0];
    ok(&lp, SeamcallLeaf::TDH_MNG_VPFLUSHDONE, [td.tdr, 0, 0, 0]);
    ok(&lp, SeamcallLeaf::TDH_PHYMEM_CACHE_WB, [0; 4]);
    ok(&lp, SeamcallLeaf::TDH_MNG_KEY_FREEID, [td.tdr, 0, 0, 0]);
    let mut used = Vec::new();
    platform.for_each_used_page(|hpa, _, _, _| used.push(hpa.bits()));
    assert!(used.contains(&vcpu));
    used.retain(|&page| page != td.tdr);
    used.push(td.tdr);
    let marks: Vec<u64> = used
        .iter()
        .map(|&page| ok(&lp, SeamcallLeaf::TDH_PHYMEM_PAGE_RECLAIM, [page, 0, 0, 0]).r9)
        .collect();
    let (last, others) = marks.split_last().expect("there are pages");
    assert!(others.iter().all(|&mark| mark == 0));
    assert_eq!(*last, LAST);
    ok(&lp, REMOVE, [range(0) | RANGE, 0, 0, 0]);
}

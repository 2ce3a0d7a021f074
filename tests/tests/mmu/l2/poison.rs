//! Answers of the module about pages of L2 VMs that cannot be: the entry or the word is poisoned, and nothing that is
//! not known for sure is handed out.

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::PrivateGpa;
use tdx_abi::Registers;
use tdx_abi::leaf::SeamcallLeaf;
use tdx_mmu::Td;
use tdx_mmu::mirror::Kind;
use tdx_mmu::td::Error;

use super::super::host::Host;
use super::super::host::range;
use super::life::partitioned;

const LARGE: u64 = 0x3000_0000;
const SIZE: u64 = 0x20_0000;
const WRONG: u64 = 0x1_0123_4000;
const NONE: u64 = u64::MAX;

/// A TD with a table for the page at [`LARGE`], and one of its L2 VM beside that.
fn linked() -> Td<Host> {
    let td = partitioned();
    td.prefault(range(LARGE, SIZE), Level::Pt).unwrap();
    td.link_l2(1, range(LARGE, SIZE)).unwrap();
    td
}

/// From the next call of `leaf` on, R9 is answered as `answer` says.
fn spoil(td: &Td<Host>, leaf: SeamcallLeaf, answer: fn(&mut Registers)) {
    td.embedder().injector.spoil(Some((leaf, answer)));
}

#[track_caller]
fn wrong_page(result: Result<(), Error>, name: &str, page: u64) {
    match result {
        Err(Error::WrongPage { leaf, returned, .. }) => {
            assert_eq!((leaf, returned), (name, Hpa::new(page)));
        }
        other => panic!("{other:?}"),
    }
}

/// The pages that the module has and no allocator may give out; the TD cannot end.
#[track_caller]
fn nothing_was_given_back(td: Td<Host>, module_pages: usize) {
    let host = td.embedder();
    host.injector.spoil(None);
    assert_eq!(host.module_pages_in_use(), module_pages);
    let teardown = td.teardown().unwrap_or_else(|(_, error)| panic!("{error}"));
    let Err((_, error)) = teardown.finish() else {
        panic!("a poisoned entry was reclaimed");
    };
    assert!(
        matches!(error, Error::Poisoned(_) | Error::Unexpected(_)),
        "{error}"
    );
}

#[test]
fn a_page_that_is_not_taken_poisons_the_word() {
    let td = partitioned();
    td.prefault(range(LARGE, SIZE), Level::Pt).unwrap();
    let before = td.embedder().module_pages_in_use();
    spoil(&td, SeamcallLeaf::TDH_MEM_SEPT_ADD, |after| {
        after.r9 = WRONG
    });
    let link = || td.link_l2(1, range(LARGE, SIZE)).map(drop);
    wrong_page(link(), "TDH.MEM.SEPT.ADD", WRONG);
    td.embedder().injector.spoil(None);
    // Neither linked again nor taken away.
    assert!(matches!(link(), Err(Error::Poisoned(_))));
    td.unmap_private(&[range(0, 0x4000_0000)]).unwrap();
    let trimmed = td.trim(range(0, 1 << 40));
    assert!(matches!(trimmed, Err(Error::Poisoned(_))), "{trimmed:?}");
    // Two tables are gone, one is poisoned.
    nothing_was_given_back(td, before + 1 - 3);
}

#[test]
fn another_page_than_that_on_record_poisons_a_promoted_entry() {
    for answer in [
        |after: &mut Registers| after.r9 = WRONG,
        |after: &mut Registers| after.r9 = NONE,
    ] {
        let td = linked();
        let before = td.embedder().module_pages_in_use();
        spoil(&td, SeamcallLeaf::TDH_MEM_PAGE_PROMOTE, answer);
        let promoted = td.promote(&[range(LARGE, SIZE)]).map(drop);
        assert!(
            matches!(promoted, Err(Error::WrongPage { .. })),
            "{promoted:?}"
        );
        let at = td.mirror().look(td.embedder(), PrivateGpa::new(LARGE));
        assert!(matches!(at.entry.kind(), Kind::Poisoned(_)));
        nothing_was_given_back(td, before);
    }
}

#[test]
fn another_page_than_that_on_record_poisons_a_removed_entry() {
    let td = linked();
    td.unmap_private(&[range(LARGE, SIZE)]).unwrap();
    let before = td.embedder().module_pages_in_use();
    spoil(&td, SeamcallLeaf::TDH_MEM_SEPT_REMOVE, |after| {
        after.r9 = WRONG
    });
    let trimmed = td.trim(range(LARGE, SIZE)).map(drop);
    wrong_page(trimmed, "TDH.MEM.SEPT.REMOVE", WRONG);
    let at = td.mirror().look(td.embedder(), PrivateGpa::new(LARGE));
    assert!(matches!(at.entry.kind(), Kind::Poisoned(_)));
    nothing_was_given_back(td, before);
}

#[test]
fn a_page_that_a_split_has_neither_taken_nor_left_poisons_the_entry() {
    let td = partitioned();
    *td.embedder().largest.lock().unwrap() = Level::Pd;
    td.prefault(range(LARGE, SIZE), Level::Pd).unwrap();
    let before = td.embedder().module_pages_in_use();
    spoil(&td, SeamcallLeaf::TDH_MEM_PAGE_DEMOTE, |after| {
        after.r9 = WRONG
    });
    wrong_page(
        td.split(PrivateGpa::new(LARGE)),
        "TDH.MEM.PAGE.DEMOTE",
        WRONG,
    );
    let at = td.mirror().look(td.embedder(), PrivateGpa::new(LARGE));
    assert!(matches!(at.entry.kind(), Kind::Poisoned(_)));
    nothing_was_given_back(td, before + 2);
}

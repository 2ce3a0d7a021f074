//! The visibility map: one writer that splits and merges its tables beside any number of readers.

use shuttle::sync::Arc;
use shuttle::thread;
use tdx_abi::Level;
use tdx_mmu::GpaRange;
use tdx_mmu::attributes::Visibility;
use tdx_mmu::attributes::VisibilityMap;
use tdx_mmu::deposit::Deposit;
use tdx_mmu::embed::Frames;

use super::memory::Memory;
use super::memory::Seeded;
use super::memory::explore;

const LARGE: u64 = 0x20_0000;

fn set(memory: &Memory, map: &VisibilityMap, start: u64, bytes: u64, visibility: Visibility) {
    let mut deposit = Deposit::new(memory);
    deposit.top_up(VisibilityMap::TABLES).unwrap();
    let range = GpaRange::new(start, bytes).unwrap();
    let (replaced, done) = map.set(memory, range, visibility, &mut deposit);
    done.unwrap();
    replaced.retire(memory);
}

fn conversions_beside_looks(mistake: Seeded) {
    // One run in some hundred meets the moment in which a replaced table is still looked at.
    explore(mistake, 400, || {
        let memory = Arc::new(Memory::new());
        let root = memory.allocate_table().unwrap().into_hpa();
        let map = Arc::new(VisibilityMap::new(&*memory, root, Level::Pml4));
        set(&memory, &map, 0, 2 * LARGE, Visibility::Private);
        let readers = [0x1000, 0x3000].map(|converted| {
            let (memory, map) = (memory.clone(), map.clone());
            thread::spawn(move || {
                let mut last = Visibility::Private;
                for _ in 0..12 {
                    // Nobody ever makes the second 2 MiB shared, nor anything behind.
                    let (untouched, _) = map.look(&*memory, LARGE + 0x5000);
                    assert_eq!(untouched, Visibility::Private);
                    let (beyond, _) = map.look(&*memory, 3 * LARGE);
                    assert_eq!(beyond, Visibility::Shared);
                    // The first goes page by page and comes back as a whole.
                    let (now, level) = map.look(&*memory, converted);
                    assert!(
                        level <= Level::Pd,
                        "a block across the edge of what was set"
                    );
                    if now == Visibility::Shared {
                        assert_eq!(level, Level::Pt, "a page that was converted alone");
                    }
                    last = now;
                }
                last
            })
        });
        set(&memory, &map, 0x1000, 0x1000, Visibility::Shared);
        set(&memory, &map, 0x3000, 0x1000, Visibility::Shared);
        set(&memory, &map, 0, LARGE, Visibility::Private);
        for reader in readers {
            reader.join().unwrap();
        }
        assert_eq!(map.look(&*memory, 0x1000).0, Visibility::Private);
        // Root, and a path to the two blocks: what was split for single pages has come back.
        assert_eq!(memory.in_use(), 3);
    });
}

#[test]
fn looks_beside_conversions_see_the_old_or_the_new() {
    conversions_beside_looks(Seeded::Nothing);
}

#[test]
#[should_panic(expected = "a freed table is used")]
fn a_replaced_table_freed_under_a_look_is_noticed() {
    conversions_beside_looks(Seeded::NoGrace);
}

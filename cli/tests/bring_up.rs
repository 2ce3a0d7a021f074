//! Bring-up of emulated platforms by the MMU's platform part.

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_cli::host::Host;
use tdx_cli::host::guest_memory::GuestMemory;
use tdx_cli::host::module::ModuleArgs;
use tdx_emulator::Module;
use tdx_emulator::PageType;
use tdx_emulator::PlatformConfig;
use tdx_mmu::platform::bring_up::BringUpError;

#[test]
fn one_and_two_packages_come_up() {
    for packages in [1, 2] {
        let config = PlatformConfig {
            packages,
            ..PlatformConfig::default()
        };
        let host = Host::with_config(config.clone(), GuestMemory::new(Vec::new(), Level::Pt), 0);
        let up = host.bring_up().unwrap();
        let cmrs: Vec<(u64, u64)> = up
            .info
            .cmrs()
            .iter()
            .map(|cmr| (cmr.start().bits(), cmr.size()))
            .collect();
        let expected: Vec<(u64, u64)> =
            config.cmrs.iter().map(|cmr| (cmr.base, cmr.size)).collect();
        assert_eq!(cmrs, expected);
        assert_eq!(up.global_hkid.number(), config.first_private_key_id);
        assert_eq!(up.hkids.available(), 31);
        let count = |leaf| {
            host.platform()
                .counters()
                .seamcalls_by_name()
                .get(leaf)
                .copied()
        };
        assert_eq!(count("TDH.SYS.INIT"), Some(1));
        assert_eq!(count("TDH.SYS.LP.INIT"), Some(u64::from(4 * packages)));
        assert_eq!(count("TDH.SYS.KEY.CONFIG"), Some(u64::from(packages)));
        // 4 MiB a call, 1 + 3 GiB.
        assert_eq!(count("TDH.SYS.TDMR.INIT"), Some(256 * 4));
        // What the module believes: memory free, holes and PAMTs reserved.
        let kind = |hpa: Hpa| {
            host.platform()
                .page_metadata(hpa.bits(), Level::Pt)
                .unwrap()
                .0
        };
        for tdmr in &up.tdmrs {
            for area in tdmr.reserved() {
                assert_eq!(kind(area.start()), PageType::Reserved);
                assert_eq!(kind(Hpa::new(area.end().bits() - 4096)), PageType::Reserved);
            }
            assert_eq!(
                kind(Hpa::new(tdmr.range().start().bits() + 0x1000)),
                PageType::Nda
            );
        }
        assert!(host.frames().is_balanced());
    }
}

fn host(module: Module, dynamic_pamt: bool) -> Host {
    let args = ModuleArgs {
        module,
        dynamic_pamt,
    };
    let guest = GuestMemory::new(Vec::new(), Level::Pt);
    Host::with_module(guest, 0, args, PlatformConfig::default().seed)
}

/// Sizes by Intel's own numbers: 16 bytes for each page of 2 MiB and 1 GiB, and of 4 KiB pages 16 bytes each, or a bit
/// each. Source: `tdh_sys_config.c` of the newer modules.
#[test]
fn with_dynamic_pamt_the_area_for_small_pages_is_a_bitmap() {
    for (dynamic, bits_per_small_page) in [(false, 128), (true, 1)] {
        let host = host(Module::V2_0_18, dynamic);
        let up = host.bring_up().unwrap();
        assert_eq!(
            up.info.limits.pamt_page_bitmap_entry_bits,
            dynamic.then_some(1)
        );
        let mut reserved = 0;
        for tdmr in &up.tdmrs {
            let pages = |level: Level| tdmr.range().size() / level.size();
            let whole = |bytes: u64| bytes.next_multiple_of(4096);
            let expected = [
                (Level::Pt, whole(pages(Level::Pt) * bits_per_small_page / 8)),
                (Level::Pd, whole(pages(Level::Pd) * 16)),
                (Level::Pdpt, whole(pages(Level::Pdpt) * 16)),
            ];
            for (level, size) in expected {
                assert_eq!(tdmr.pamt(level).unwrap().size(), size, "{level:?}");
                reserved += size;
            }
        }
        let pamt = host.pamt_memory(&up);
        assert_eq!((pamt.reserved, pamt.pairs), (reserved, 0));
        assert_eq!(pamt.without_dynamic_pamt == reserved, !dynamic);
        assert!(!dynamic || 50 * reserved < pamt.without_dynamic_pamt);
    }
}

#[test]
fn a_module_without_dynamic_pamt_says_so() {
    let error = host(Module::V1_5_01, true).bring_up().unwrap_err();
    assert_eq!(error, BringUpError::NoDynamicPamt);
}

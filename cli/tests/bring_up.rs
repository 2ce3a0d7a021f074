//! Bring-up of emulated platforms by the MMU's platform part.

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_cli::host::Host;
use tdx_cli::host::guest_memory::GuestMemory;
use tdx_emulator::PageType;
use tdx_emulator::PlatformConfig;

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

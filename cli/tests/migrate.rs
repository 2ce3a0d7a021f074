//! `tdx migrate`: a TD moves while its vCPUs write on threads of their own.

use tdx_cli::host::module::ModuleArgs;
use tdx_cli::migrate::Args;
use tdx_cli::migrate::Report;
use tdx_cli::migrate::migrate;
use tdx_cli::run::PageSize;
use tdx_emulator::Module;

fn args(module: ModuleArgs) -> Args {
    Args {
        memory: 4,
        hot: 32,
        vcpus: 2,
        rounds: 3,
        threshold: 4,
        page_size: PageSize::Large,
        module,
        json: false,
    }
}

fn assert_that_all_moved(report: &Report) {
    assert_eq!(report.first_failure(), None);
    assert_eq!((report.wrong_pages, report.pages), (0, 1024));
    assert!(report.mrtd_equal);
    // Everything went over once, and what the guest dirtied again.
    let exported: u64 = report.rounds.iter().map(|round| round.pages).sum();
    assert!(exported + report.downtime_pages >= 1024, "{report:?}");
    assert!(
        report.rounds.iter().all(|round| round.refused == 0),
        "{report:?}"
    );
    let source = &report.source.leaves;
    let imported = report.destination.leaves.get("TDH.IMPORT.MEM");
    assert_eq!(imported, source.get("TDH.EXPORT.MEM"));
    // One for the large pages, one for each round.
    let rounds = report.rounds.len() as u64;
    assert_eq!(source.get("TDH.MEM.TRACK"), 1 + rounds);
    assert!(report.kicks <= 1 + rounds + 1, "{report:?}");
}

#[test]
fn a_td_moves_while_its_guest_writes() {
    assert_that_all_moved(&migrate(&args(ModuleArgs::default())).unwrap());
}

#[test]
fn a_td_moves_between_newer_modules() {
    let cases = [
        (Module::V1_5_34, false),
        (Module::V1_5_34, true),
        (Module::V2_0_18, false),
        (Module::V2_0_18, true),
    ];
    for (module, dynamic_pamt) in cases {
        let module = ModuleArgs {
            module,
            dynamic_pamt,
        };
        assert_that_all_moved(&migrate(&args(module)).unwrap());
    }
}

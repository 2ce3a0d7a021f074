//! Bring-up and the life of a TD on platforms with other address widths, KeyIDs, SHARED bits, packages and LPs.
#![expect(
    clippy::std_instead_of_core,
    clippy::std_instead_of_alloc,
    reason = "tests run on std"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use support::GIB;
use support::PAGE;
use support::Pages;
use support::Shape;
use support::add_tables;
use support::call;
use support::ok;
use support::ready_on;
use support::shaped;
use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::leaf::SeamcallLeaf;
use tdx_abi::operand::OperandId;
use tdx_abi::status::Status;
use tdx_abi::status::StatusCode;
use tdx_emulator::GuestCpu;
use tdx_emulator::GuestFault;
use tdx_emulator::LineFault;
use tdx_emulator::Lp;
use tdx_emulator::Module;
use tdx_emulator::PageType;
use tdx_emulator::Platform;
use tdx_emulator::PlatformConfig;
use tdx_emulator::Range;
use tdx_emulator::Setup;
use tdx_emulator::SetupError;

const GPA: u64 = 0x20_0000;
const SECRET: u64 = 0x5ec2e7;
/// Interruption information of #VE: valid, hardware exception, vector 20.
const VE: u64 = 0x8000_0314;

/// Parameters, and where the SHARED bit then is for a TD of 48 bits, or of 52 if `wide`.
struct Case {
    config: PlatformConfig,
    wide: bool,
    shared_bit: u32,
}

fn cases() -> Vec<Case> {
    let case = |[max_pa, key_id_bits, first, packages, lps]: [u32; 5], wide, set, shared_bit| {
        let config = PlatformConfig {
            max_pa,
            key_id_bits,
            first_private_key_id: first as u16,
            shared_bit: set,
            packages,
            lps_per_package: lps,
            ..PlatformConfig::default()
        };
        Case {
            config,
            wide,
            shared_bit,
        }
    };
    vec![
        case([52, 6, 32, 1, 1], false, None, 47),
        case([52, 6, 16, 2, 3], true, None, 51),
        case([46, 4, 8, 4, 2], false, None, 47),
        case([36, 3, 2, 1, 5], false, None, 47),
        case([52, 7, 64, 8, 1], false, Some(45), 45),
        case([52, 8, 100, 2, 2], true, Some(50), 50),
    ]
}

fn refused(lp: &Lp<'_>, leaf: SeamcallLeaf, operands: [u64; 4]) -> Status {
    Status::from_rax(call(lp, leaf, operands).rax)
}

/// LP 0 of each package.
fn packages(platform: &Platform) -> impl Iterator<Item = Lp<'_>> {
    let lps = platform.config().lps_per_package as usize;
    let first = (0..platform.lps()).step_by(lps);
    first.map(|number| platform.lp(number).expect("there is one"))
}

#[test]
fn a_td_lives_and_ends_on_every_platform() {
    for case in cases() {
        live(&case);
    }
}

fn live(case: &Case) {
    let config = &case.config;
    let platform = ready_on(config.clone());
    assert_eq!(
        platform.lps() as u32,
        config.packages * config.lps_per_package
    );
    let lp = platform.lp(0).expect("there is one");
    let first_key = u64::from(config.first_private_key_id);
    let keys = 1u64 << config.key_id_bits;
    let key_id = keys - 1;
    let key_bits = key_id << (config.max_pa - config.key_id_bits);
    let mut pages = Pages(GIB);

    // KeyIDs below the first private one and beyond the last are not for TDs; the module has the first.
    let tdr = pages.next();
    let invalid = |operand| Status::with_operand(StatusCode::OPERAND_INVALID, operand);
    let create = |page, key| refused(&lp, SeamcallLeaf::TDH_MNG_CREATE, [page, key, 0, 0]);
    assert_eq!(create(tdr, first_key - 1), invalid(OperandId::RDX));
    assert_eq!(create(tdr, keys), invalid(OperandId::RDX));
    assert_eq!(create(tdr, first_key).code(), StatusCode::HKID_NOT_FREE);
    // Addresses end below the KeyID bits, which an operand for a private page must not have.
    for bits in [key_bits, key_bits & key_bits.wrapping_neg(), 1 << 52] {
        assert_eq!(create(tdr | bits, key_id), invalid(OperandId::RCX));
    }

    let shape = Shape {
        wide: case.wide,
        ..Shape::default()
    };
    let td = shaped(&platform, &mut pages, key_id, 1, shape);
    if case.wide {
        let root = Level::Pml5 as u64;
        let table = pages.next();
        ok(
            &lp,
            SeamcallLeaf::TDH_MEM_SEPT_ADD,
            [root, td.tdr, table, 0],
        );
    }
    add_tables(&lp, &td, &mut pages, GPA, Level::Pt);
    let shared = GPA | 1 << case.shared_bit;
    let page = pages.next();
    let aug = SeamcallLeaf::TDH_MEM_PAGE_AUG;
    ok(&lp, SeamcallLeaf::TDH_MR_FINALIZE, [td.tdr, 0, 0, 0]);
    assert_eq!(
        refused(&lp, aug, [shared, td.tdr, page, 0]),
        invalid(OperandId::RCX),
        "no private page has a shared address"
    );
    ok(&lp, aug, [GPA, td.tdr, page, 0]);

    // On the last LP of the last package the guest sees its page, and that a shared address leads elsewhere.
    let seen = Arc::new(AtomicU64::new(0));
    let of_guest = Arc::clone(&seen);
    platform.set_guest(Hpa::new(td.vcpus[0]), move |cpu: &mut GuestCpu<'_>| {
        let used = cpu.accept(GPA, Level::Pt).and_then(|_| {
            cpu.write_u64(GPA, SECRET)?;
            of_guest.store(cpu.lp().into(), Ordering::Relaxed);
            cpu.read_u64(shared)
        });
        if let Err(GuestFault::Event(event)) = used {
            of_guest.fetch_or(u64::from(event.information) << 8, Ordering::Relaxed);
        }
        cpu.interrupt()
    });
    let last = platform.lps() - 1;
    let last_lp = platform.lp(last).expect("there is one");
    ok_interrupt(&last_lp, td.vcpus[0]);
    assert_eq!(seen.load(Ordering::Relaxed), last as u64 | VE << 8);

    // The line is encrypted under the TD's key.
    assert_eq!(platform.memory().read_u64(page), SECRET);
    let hpa = page;
    let number = key_id as u16;
    assert_eq!(
        platform.host_memory().read(Hpa::new(hpa), &mut [0; 8]),
        Err(LineFault::WrongKey {
            hpa,
            key_id: number
        })
    );
    ok(&last_lp, SeamcallLeaf::TDH_VP_FLUSH, [td.vcpus[0], 0, 0, 0]);
    end(&platform, td.tdr, key_bits);
    let scrubbed = platform.host_memory();
    scrubbed.scrub(Hpa::new(page));
    assert_eq!(scrubbed.read(Hpa::new(page), &mut [0; 8]), Ok(()));
    ok(&lp, SeamcallLeaf::TDH_MNG_CREATE, [tdr, key_id, 0, 0]);
}

fn ok_interrupt(lp: &Lp<'_>, tdvpr: u64) {
    const EXTERNAL_INTERRUPT: u64 = 1;
    let after = call(lp, SeamcallLeaf::TDH_VP_ENTER, [tdvpr, 0, 0, 0]);
    assert_eq!(after.rax, EXTERNAL_INTERRUPT);
}

/// Ends the TD: caches are written back on each package, of which none may be left out, and each page is reclaimed.
fn end(platform: &Platform, tdr: u64, key_bits: u64) {
    let lp = platform.lp(0).expect("there is one");
    ok(&lp, SeamcallLeaf::TDH_MNG_VPFLUSHDONE, [tdr, 0, 0, 0]);
    for of_package in packages(platform) {
        let early = refused(&lp, SeamcallLeaf::TDH_MNG_KEY_FREEID, [tdr, 0, 0, 0]);
        assert_eq!(early.code(), StatusCode::WBCACHE_NOT_COMPLETE);
        ok(&of_package, SeamcallLeaf::TDH_PHYMEM_CACHE_WB, [0; 4]);
    }
    ok(&lp, SeamcallLeaf::TDH_MNG_KEY_FREEID, [tdr, 0, 0, 0]);
    let mut owned = Vec::new();
    platform.for_each_used_page(|hpa, _, page_type, owner| {
        if page_type != PageType::Reserved && owner.bits() == tdr {
            owned.push(hpa.bits());
        }
    });
    assert!(owned.len() > 10, "{owned:x?}");
    for page in owned {
        ok(&lp, SeamcallLeaf::TDH_PHYMEM_PAGE_RECLAIM, [page, 0, 0, 0]);
    }
    ok(&lp, SeamcallLeaf::TDH_PHYMEM_PAGE_RECLAIM, [tdr, 0, 0, 0]);
    // Its lines are under the module's key; any KeyID may be given, and its bits are where they belong.
    ok(
        &lp,
        SeamcallLeaf::TDH_PHYMEM_PAGE_WBINVD,
        [tdr | key_bits, 0, 0, 0],
    );
}

/// [`Setup`] makes of each platform one with a running TD, in the memory that the platform has.
#[test]
fn a_setup_fits_every_platform() {
    for module in [Module::V1_5_01, Module::V1_5_34, Module::V2_0_18] {
        for case in cases() {
            let platform = Platform::new(PlatformConfig {
                module,
                cmrs: vec![
                    Range {
                        base: 0,
                        size: GIB / 2,
                    },
                    Range {
                        base: GIB / 2 + PAGE,
                        size: 2 * GIB,
                    },
                ],
                seamrr: Range {
                    base: 3 * GIB,
                    size: 1 << 25,
                },
                ..case.config
            });
            let mut setup = Setup::bring_up(&platform).expect("there is a GiB");
            let key_id = platform.config().first_private_key_id + 1;
            let td = setup.td(key_id, 2, |_| {}).expect("the KeyID is free");
            let lp = platform.lp(0).expect("there is one");
            let tdr = td.tdr.hpa().bits();
            ok(&lp, SeamcallLeaf::TDH_MR_FINALIZE, [tdr, 0, 0, 0]);
            for vcpu in &td.vcpus {
                ok_interrupt(&lp, vcpu.hpa().bits());
            }
            let taken = setup.td(key_id, 1, |_| {}).expect_err("the KeyID is taken");
            assert!(taken.to_string().contains("TDH.MNG.CREATE"), "{taken}");
            let page = setup.large_page().expect("there is one").bits();
            assert!(page.is_multiple_of(Level::Pd.size()));
            for hpa in [page, page + Level::Pd.size() - PAGE] {
                let metadata = platform.page_metadata(hpa, Level::Pt);
                assert_eq!(metadata, Some((PageType::Nda, 0)));
            }
            while setup.large_page().is_some() {}
            while let Some(page) = setup.page() {
                let metadata = platform.page_metadata(page.bits(), Level::Pt);
                assert_eq!(metadata, Some((PageType::Nda, 0)), "no PAMT, no scratch");
            }
        }
    }
    let small = Platform::new(PlatformConfig {
        cmrs: vec![Range {
            base: PAGE,
            size: GIB,
        }],
        ..PlatformConfig::default()
    });
    let none = Setup::bring_up(&small).expect_err("no GiB is whole");
    assert_eq!(none, SetupError::NoMemory);
}

#[test]
fn each_package_has_to_configure_its_keys() {
    let platform = Platform::new(PlatformConfig {
        packages: 2,
        lps_per_package: 2,
        ..PlatformConfig::default()
    });
    let lp = |number| platform.lp(number).expect("there are four");
    ok(&lp(3), SeamcallLeaf::TDH_SYS_INIT, [0; 4]);
    let config = |number| {
        let after = call(&lp(number), SeamcallLeaf::TDH_SYS_CONFIG, [PAGE, 1, 32, 0]);
        Status::from_rax(after.rax).code()
    };
    for number in 0..4 {
        assert_eq!(config(3), StatusCode::SYS_CONFIG_NOT_PENDING);
        ok(&lp(number), SeamcallLeaf::TDH_SYS_LP_INIT, [0; 4]);
    }
    assert_ne!(config(3), StatusCode::SYS_CONFIG_NOT_PENDING);

    let platform = ready_on(PlatformConfig {
        packages: 2,
        lps_per_package: 2,
        ..PlatformConfig::default()
    });
    let lp = |number| platform.lp(number).expect("there are four");
    let tdr = GIB;
    ok(&lp(0), SeamcallLeaf::TDH_MNG_CREATE, [tdr, 33, 0, 0]);
    let key_config = |number| {
        refused(
            &lp(number),
            SeamcallLeaf::TDH_MNG_KEY_CONFIG,
            [tdr, 0, 0, 0],
        )
    };
    let addcx = || {
        let operands = [GIB + PAGE, tdr, 0, 0];
        refused(&lp(0), SeamcallLeaf::TDH_MNG_ADDCX, operands).code()
    };
    assert_eq!(key_config(1).rax(), 0);
    // LP 0 is of the same package.
    assert_eq!(key_config(0).code(), StatusCode::KEY_CONFIGURED);
    assert_eq!(addcx(), StatusCode::TD_KEYS_NOT_CONFIGURED);
    assert_eq!(key_config(2).rax(), 0);
    assert_eq!(addcx(), StatusCode::SUCCESS);
}

//! A platform, brought up, and a TD on it, by SEAMCALLs with bare registers.
#![allow(dead_code, missing_docs, reason = "each test uses a part")]

use tdx_abi::Level;
use tdx_abi::Registers;
use tdx_abi::Seamcall;
use tdx_abi::field::FieldId;
use tdx_abi::field::global;
use tdx_abi::leaf::SeamcallLeaf;
use tdx_emulator::HostCall;
use tdx_emulator::Lp;
use tdx_emulator::Module;
use tdx_emulator::Platform;
use tdx_emulator::PlatformConfig;
use tdx_emulator::Range;

pub(crate) const GIB: u64 = 1 << 30;
pub(crate) const PAGE: u64 = 4096;
/// Where TDMR_INFO and TD_PARAMS are put, below all TDMRs.
const SCRATCH: u64 = 0x10_0000;

/// Calls a leaf with RCX, RDX, R8 and R9, and returns the registers afterwards.
pub(crate) fn call(lp: &Lp<'_>, leaf: SeamcallLeaf, operands: [u64; 4]) -> Registers {
    let [rcx, rdx, r8, r9] = operands;
    let rax = leaf.number().into();
    let mut registers = Registers {
        rax,
        rcx,
        rdx,
        r8,
        r9,
        ..Registers::default()
    };
    lp.seamcall(&mut registers)
        .expect("the emulator does not trap");
    registers
}

/// [`call`] that has to succeed.
#[track_caller]
pub(crate) fn ok(lp: &Lp<'_>, leaf: SeamcallLeaf, operands: [u64; 4]) -> Registers {
    let registers = call(lp, leaf, operands);
    assert_eq!(registers.rax, 0, "{leaf}({operands:#x?})");
    registers
}

/// [`ok`] on the first LP of each package.
#[track_caller]
pub(crate) fn on_each_package(platform: &Platform, leaf: SeamcallLeaf, operands: [u64; 4]) {
    let lps = platform.config().lps_per_package as usize;
    for first in (0..platform.lps()).step_by(lps) {
        ok(&platform.lp(first).expect("there is one"), leaf, operands);
    }
}

/// A platform with one TDMR of `gib` GiB at 1 GiB, its PAMT in front, and this many LPs; the module is ready.
pub(crate) fn ready(gib: u64, lps: u32) -> Platform {
    ready_with(Module::V1_5_01, gib, lps, false)
}

/// [`ready`] with this module, and with Dynamic PAMT if `dynamic`.
pub(crate) fn ready_with(module: Module, gib: u64, lps: u32, dynamic: bool) -> Platform {
    let config = PlatformConfig {
        module,
        lps_per_package: lps,
        ..PlatformConfig::default()
    };
    brought_up(config, gib, dynamic)
}

/// [`ready`] with a TDMR of 1 GiB on a platform with these parameters, memory aside.
pub(crate) fn ready_on(config: PlatformConfig) -> Platform {
    brought_up(config, 1, false)
}

fn brought_up(config: PlatformConfig, gib: u64, dynamic: bool) -> Platform {
    let memory = Range {
        base: 0,
        size: (gib + 1) * GIB,
    };
    let platform = Platform::new(PlatformConfig {
        cmrs: vec![memory],
        seamrr: Range {
            base: 1 << (config.key_id_shift() - 1),
            size: 1 << 25,
        },
        ..config
    });
    let lp = platform.lp(0).expect("there is one");
    ok(&lp, SeamcallLeaf::TDH_SYS_INIT, [0; 4]);
    for number in 0..platform.lps() {
        let lp = platform.lp(number).expect("there is one");
        ok(&lp, SeamcallLeaf::TDH_SYS_LP_INIT, [0; 4]);
    }
    let info = SCRATCH + PAGE;
    let mut pamt = 0x100_0000;
    let mut words = vec![GIB, gib * GIB];
    for shift in [30, 21, 12] {
        let entries = (gib * GIB) >> shift;
        let bytes = if dynamic && shift == 12 {
            entries / 8
        } else {
            entries * 16
        };
        let size = bytes.next_multiple_of(PAGE);
        words.extend([pamt, size]);
        pamt += size;
    }
    platform.memory().write_u64(SCRATCH, info);
    for (word, value) in (0u64..).zip(words) {
        platform.memory().write_u64(info + word * 8, value);
    }
    let key_id = platform.config().first_private_key_id;
    let options = u64::from(key_id) | u64::from(dynamic) << 16;
    ok(&lp, SeamcallLeaf::TDH_SYS_CONFIG, [SCRATCH, 1, options, 0]);
    on_each_package(&platform, SeamcallLeaf::TDH_SYS_KEY_CONFIG, [0; 4]);
    while ok(&lp, SeamcallLeaf::TDH_SYS_TDMR_INIT, [GIB, 0, 0, 0]).rdx < (gib + 1) * GIB {}
    platform
}

/// Pages of the TDMR, given out from the first on.
pub(crate) struct Pages(pub(crate) u64);

impl Pages {
    pub(crate) fn next(&mut self) -> u64 {
        let page = self.0;
        self.0 += PAGE;
        page
    }

    pub(crate) fn next_2m(&mut self) -> u64 {
        self.0 = self.0.next_multiple_of(Level::Pd.size());
        let page = self.0;
        self.0 += Level::Pd.size();
        page
    }
}

/// A TD.
pub(crate) struct Td {
    pub(crate) tdr: u64,
    pub(crate) vcpus: Vec<u64>,
    pub(crate) key_id: u64,
}

/// A TD with this many vCPUs, initialised, not finalised.
pub(crate) fn initialized(platform: &Platform, pages: &mut Pages, key_id: u64, vcpus: usize) -> Td {
    partitioned(platform, pages, key_id, vcpus, 0)
}

/// [`initialized`] with this many L2 VMs.
pub(crate) fn partitioned(
    platform: &Platform,
    pages: &mut Pages,
    key_id: u64,
    vcpus: usize,
    l2_vms: u64,
) -> Td {
    let shape = Shape {
        l2_vms,
        ..Shape::default()
    };
    shaped(platform, pages, key_id, vcpus, shape)
}

/// What a TD is like.
pub(crate) struct Shape {
    pub(crate) l2_vms: u64,
    /// Guest-physical addresses of 52 bits and a Secure-EPT of 5 levels.
    pub(crate) wide: bool,
    /// An access to a pending page exits to the host (ATTRIBUTES.SEPT_VE_DISABLE), else it is a #VE.
    pub(crate) pending_exits: bool,
    /// ATTRIBUTES.MIGRATABLE.
    pub(crate) migratable: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            l2_vms: 0,
            wide: false,
            pending_exits: true,
            migratable: false,
        }
    }
}

/// [`initialized`] with another shape.
pub(crate) fn shaped(
    platform: &Platform,
    pages: &mut Pages,
    key_id: u64,
    vcpus: usize,
    shape: Shape,
) -> Td {
    let l2_vms = shape.l2_vms;
    let lp = platform.lp(0).expect("there is one");
    let tdr = pages.next();
    ok(&lp, SeamcallLeaf::TDH_MNG_CREATE, [tdr, key_id, 0, 0]);
    on_each_package(platform, SeamcallLeaf::TDH_MNG_KEY_CONFIG, [tdr, 0, 0, 0]);
    let pages_of = |field: FieldId| {
        let read = ok(&lp, SeamcallLeaf::TDH_SYS_RD, [0, field.into_bits(), 0, 0]);
        read.r8 / PAGE
    };
    for _ in 0..pages_of(global::TDCS_BASE_SIZE) + l2_vms {
        ok(&lp, SeamcallLeaf::TDH_MNG_ADDCX, [pages.next(), tdr, 0, 0]);
    }
    let params = SCRATCH + 2 * PAGE;
    let words = [
        (
            0,
            u64::from(shape.pending_exits) << 28 | u64::from(shape.migratable) << 29,
        ),
        (8, 3),
        (16, 0x40 | l2_vms << 16),
        (24, if shape.wide { 0x26 } else { 0x1e }),
        (32, u64::from(shape.wide)),
        (40, 100),
    ];
    for (offset, value) in words {
        platform.memory().write_u64(params + offset, value);
    }
    ok(&lp, SeamcallLeaf::TDH_MNG_INIT, [tdr, params, 0, 0]);
    let vcpus = (0..vcpus)
        .map(|_| {
            let tdvpr = pages.next();
            ok(&lp, SeamcallLeaf::TDH_VP_CREATE, [tdvpr, tdr, 0, 0]);
            for _ in 1..pages_of(global::TDVPS_BASE_SIZE) + 3 * l2_vms {
                ok(&lp, SeamcallLeaf::TDH_VP_ADDCX, [pages.next(), tdvpr, 0, 0]);
            }
            ok(&lp, SeamcallLeaf::TDH_VP_INIT, [tdvpr, 0, 0, 0]);
            ok(&lp, SeamcallLeaf::TDH_VP_FLUSH, [tdvpr, 0, 0, 0]);
            tdvpr
        })
        .collect();
    Td { tdr, vcpus, key_id }
}

/// [`initialized`] and finalised.
pub(crate) fn runnable(platform: &Platform, pages: &mut Pages, key_id: u64, vcpus: usize) -> Td {
    let td = initialized(platform, pages, key_id, vcpus);
    let lp = platform.lp(0).expect("there is one");
    ok(&lp, SeamcallLeaf::TDH_MR_FINALIZE, [td.tdr, 0, 0, 0]);
    td
}

/// Gives the TD the Secure-EPT tables for the page of size `level` at `gpa` that are not there yet.
pub(crate) fn add_tables(lp: &Lp<'_>, td: &Td, pages: &mut Pages, gpa: u64, level: Level) {
    for table in [Level::Pml4, Level::Pdpt, Level::Pd] {
        if table > level {
            let mapping = gpa & !(table.size() - 1) | table as u64;
            let page = pages.next();
            let added = call(
                lp,
                SeamcallLeaf::TDH_MEM_SEPT_ADD,
                [mapping, td.tdr, page, 0],
            );
            if added.rax != 0 {
                pages.0 -= PAGE;
            }
        }
    }
}

/// Enters the first vCPU, whose guest code the test plays.
pub(crate) fn enter(lp: &Lp<'_>, td: &Td) {
    let mut registers = Registers {
        rax: SeamcallLeaf::TDH_VP_ENTER.number().into(),
        rcx: td.vcpus[0],
        ..Registers::default()
    };
    assert_eq!(lp.host_call(&mut registers), HostCall::EnteredTd);
}

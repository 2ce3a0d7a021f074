//! CPUID as the module knows it. Source: `include/auto_gen/cpuid_configurations.c` of TDX module 1.5.01 (MIT).

use super::Configurable;
use super::Lookup;

/// Leaves in the order in which the TDCS keeps their values.
pub(crate) const LOOKUP: [Lookup; 64] = [
    Lookup { leaf: 0x1, subleaf: 0xffffffff, valid: true, faulting: false, verify_mask: [0, 0xff00, 0x47faa217, 0x1fa9fbff], verify_value: [0, 0x800, 0x47faa217, 0x1fa9fbff], fixed0_or_dynamic: [0xf000c000, 0xff0000ff, 0x8010060, 0x40120400], fixed1: [0, 0, 0x80000000, 0x200], config: Some(0) },
    Lookup { leaf: 0x4, subleaf: 0x0, valid: true, faulting: false, verify_mask: [0, 0xfff, 0, 0], verify_value: [0, 0x3f, 0, 0], fixed0_or_dynamic: [0x3c00, 0, 0, 0x4], fixed1: [0, 0, 0, 0], config: Some(1) },
    Lookup { leaf: 0x4, subleaf: 0x1, valid: true, faulting: false, verify_mask: [0, 0xfff, 0, 0], verify_value: [0, 0x3f, 0, 0], fixed0_or_dynamic: [0x3c00, 0, 0, 0x4], fixed1: [0, 0, 0, 0], config: Some(2) },
    Lookup { leaf: 0x4, subleaf: 0x2, valid: true, faulting: false, verify_mask: [0, 0xfff, 0, 0], verify_value: [0, 0x3f, 0, 0], fixed0_or_dynamic: [0x3c00, 0, 0, 0x4], fixed1: [0, 0, 0, 0], config: Some(3) },
    Lookup { leaf: 0x4, subleaf: 0x3, valid: true, faulting: false, verify_mask: [0xe0, 0xfff, 0, 0x1], verify_value: [0x60, 0x3f, 0, 0], fixed0_or_dynamic: [0x3c00, 0, 0, 0xfffffff8], fixed1: [0, 0, 0, 0], config: Some(4) },
    Lookup { leaf: 0x7, subleaf: 0x0, valid: true, faulting: false, verify_mask: [0xffffffff, 0x219424c3, 0x99000000, 0xfc082600], verify_value: [0x2, 0x219424c3, 0x99000000, 0xfc080400], fixed0_or_dynamic: [0, 0x404006, 0x643e8010, 0x2298c3], fixed1: [0, 0, 0, 0], config: Some(5) },
    Lookup { leaf: 0x7, subleaf: 0x1, valid: true, faulting: false, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0xffffe2cf, 0xffffffff, 0xffffffff, 0xffffffff], fixed1: [0, 0, 0, 0], config: Some(6) },
    Lookup { leaf: 0xa, subleaf: 0xffffffff, valid: true, faulting: false, verify_mask: [0xff00, 0, 0xffffff80, 0x8000], verify_value: [0x800, 0, 0, 0x8000], fixed0_or_dynamic: [0, 0, 0, 0xffff6000], fixed1: [0, 0, 0, 0], config: Some(7) },
    Lookup { leaf: 0x1c, subleaf: 0xffffffff, valid: true, faulting: false, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0, 0, 0, 0], fixed1: [0, 0, 0, 0], config: Some(8) },
    Lookup { leaf: 0x80000008, subleaf: 0xffffffff, valid: true, faulting: false, verify_mask: [0xff, 0x200, 0, 0], verify_value: [0x34, 0x200, 0, 0], fixed0_or_dynamic: [0xffff0000, 0xfffffdff, 0xffffffff, 0xffffffff], fixed1: [0, 0, 0, 0], config: Some(9) },
    Lookup { leaf: 0x0, subleaf: 0xffffffff, valid: true, faulting: false, verify_mask: [0, 0xffffffff, 0xffffffff, 0xffffffff], verify_value: [0, 0x756e6547, 0x6c65746e, 0x49656e69], fixed0_or_dynamic: [0xffffffdc, 0, 0, 0], fixed1: [0x23, 0, 0, 0], config: None },
    Lookup { leaf: 0x3, subleaf: 0xffffffff, valid: true, faulting: false, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0x4, subleaf: 0x4, valid: true, faulting: false, verify_mask: [0x1f, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0x6, subleaf: 0xffffffff, valid: true, faulting: true, verify_mask: [0x800000, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0, 0, 0, 0], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0x7, subleaf: 0x2, valid: true, faulting: false, verify_mask: [0, 0, 0, 0x17], verify_value: [0, 0, 0, 0x17], fixed0_or_dynamic: [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffc0], fixed1: [0, 0, 0, 0], config: Some(10) },
    Lookup { leaf: 0x8, subleaf: 0xffffffff, valid: true, faulting: false, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0xd, subleaf: 0x0, valid: true, faulting: false, verify_mask: [0x3, 0, 0, 0], verify_value: [0x3, 0, 0, 0], fixed0_or_dynamic: [0xfff9fd18, 0xffffffff, 0, 0xffffffff], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0xd, subleaf: 0x1, valid: true, faulting: false, verify_mask: [0xf, 0, 0x1800, 0], verify_value: [0xf, 0, 0x1800, 0], fixed0_or_dynamic: [0xffffffe0, 0xffffffff, 0xffff26ff, 0xffffffff], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0xd, subleaf: 0x2, valid: true, faulting: false, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0, 0, 0, 0xffffffff], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0xd, subleaf: 0x3, valid: true, faulting: false, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0, 0, 0, 0xffffffff], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0xd, subleaf: 0x4, valid: true, faulting: false, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0, 0, 0, 0xffffffff], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0xd, subleaf: 0x5, valid: true, faulting: false, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0, 0, 0, 0xffffffff], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0xd, subleaf: 0x6, valid: true, faulting: false, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0, 0, 0, 0xffffffff], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0xd, subleaf: 0x7, valid: true, faulting: false, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0, 0, 0, 0xffffffff], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0xd, subleaf: 0x8, valid: true, faulting: false, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0, 0, 0, 0xffffffff], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0xd, subleaf: 0x9, valid: true, faulting: false, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0, 0, 0, 0xffffffff], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0xd, subleaf: 0xa, valid: true, faulting: false, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0, 0, 0, 0xffffffff], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0xd, subleaf: 0xb, valid: true, faulting: false, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0, 0, 0, 0xffffffff], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0xd, subleaf: 0xc, valid: true, faulting: false, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0, 0, 0, 0xffffffff], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0xd, subleaf: 0xd, valid: true, faulting: false, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0, 0, 0, 0xffffffff], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0xd, subleaf: 0xe, valid: true, faulting: false, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0, 0, 0, 0xffffffff], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0xd, subleaf: 0xf, valid: true, faulting: false, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0, 0, 0, 0xffffffff], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0xd, subleaf: 0x10, valid: true, faulting: false, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0, 0, 0, 0xffffffff], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0xd, subleaf: 0x11, valid: true, faulting: false, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0, 0, 0, 0xffffffff], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0xd, subleaf: 0x12, valid: true, faulting: false, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0, 0, 0, 0xffffffff], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0xe, subleaf: 0xffffffff, valid: true, faulting: false, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0x11, subleaf: 0xffffffff, valid: true, faulting: false, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0x12, subleaf: 0xffffffff, valid: true, faulting: false, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0x13, subleaf: 0xffffffff, valid: true, faulting: false, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0x14, subleaf: 0x0, valid: true, faulting: false, verify_mask: [0xffffffff, 0, 0, 0], verify_value: [0x1, 0, 0, 0], fixed0_or_dynamic: [0, 0xfffffe00, 0x7ffffff0, 0xffffffff], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0x14, subleaf: 0x1, valid: true, faulting: false, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0xfff8, 0, 0xffffffff, 0xffffffff], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0x15, subleaf: 0xffffffff, valid: true, faulting: false, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0xfffffffe, 0, 0xfe8287bf, 0xffffffff], fixed1: [0x1, 0, 0x17d7840, 0], config: None },
    Lookup { leaf: 0x19, subleaf: 0xffffffff, valid: true, faulting: false, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0xfffffff8, 0xffffffeb, 0xfffffffd, 0xffffffff], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0x1d, subleaf: 0x0, valid: true, faulting: false, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0, 0, 0, 0], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0x1d, subleaf: 0x1, valid: true, faulting: false, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0, 0, 0, 0], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0x1e, subleaf: 0xffffffff, valid: true, faulting: false, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0, 0, 0, 0], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0x1f, subleaf: 0x0, valid: true, faulting: true, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0, 0, 0, 0], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0x1f, subleaf: 0x1, valid: true, faulting: true, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0, 0, 0, 0], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0x1f, subleaf: 0x2, valid: true, faulting: true, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0, 0, 0, 0], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0x1f, subleaf: 0x3, valid: true, faulting: true, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0, 0, 0, 0], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0x1f, subleaf: 0x4, valid: true, faulting: true, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0, 0, 0, 0], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0x1f, subleaf: 0x5, valid: true, faulting: true, verify_mask: [0, 0, 0xff00, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0, 0, 0, 0], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0x20, subleaf: 0xffffffff, valid: true, faulting: false, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0x21, subleaf: 0x0, valid: true, faulting: false, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0xffffffff, 0x9a8b91b6, 0xdfdfdfdf, 0xa7bbab93], fixed1: [0, 0x65746e49, 0x20202020, 0x5844546c], config: None },
    Lookup { leaf: 0x80000000, subleaf: 0xffffffff, valid: true, faulting: false, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0x7ffffff7, 0xffffffff, 0xffffffff, 0xffffffff], fixed1: [0x80000008, 0, 0, 0], config: None },
    Lookup { leaf: 0x80000001, subleaf: 0xffffffff, valid: true, faulting: false, verify_mask: [0, 0, 0x121, 0x2c100800], verify_value: [0, 0, 0x121, 0x2c100800], fixed0_or_dynamic: [0xffffffff, 0xffffffff, 0xfffffede, 0xd3efffff], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0x80000006, subleaf: 0xffffffff, valid: true, faulting: true, verify_mask: [0, 0, 0xff, 0], verify_value: [0, 0, 0x40, 0], fixed0_or_dynamic: [0, 0, 0, 0], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0x80000007, subleaf: 0xffffffff, valid: true, faulting: false, verify_mask: [0, 0, 0, 0x100], verify_value: [0, 0, 0, 0x100], fixed0_or_dynamic: [0xffffffff, 0xffffffff, 0xffffffff, 0xfffffeff], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0x22, subleaf: 0xffffffff, valid: true, faulting: false, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0x23, subleaf: 0x0, valid: true, faulting: false, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0xfffffff0, 0, 0xffffffff, 0xffffffff], fixed1: [0, 0, 0, 0], config: Some(11) },
    Lookup { leaf: 0x23, subleaf: 0x1, valid: true, faulting: false, verify_mask: [0xffffff00, 0xfffffff0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0, 0, 0xffffffff, 0xffffffff], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0x23, subleaf: 0x2, valid: true, faulting: false, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0x23, subleaf: 0x3, valid: true, faulting: false, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0, 0xffffffff, 0xffffffff, 0xffffffff], fixed1: [0, 0, 0, 0], config: None },
    Lookup { leaf: 0x5, subleaf: 0xffffffff, valid: true, faulting: false, verify_mask: [0, 0, 0, 0], verify_value: [0, 0, 0, 0], fixed0_or_dynamic: [0xffff0000, 0xffff0000, 0xfffffffc, 0], fixed1: [0, 0, 0, 0], config: None },
];

/// Leaves whose values TD_PARAMS configures, in the order of TD_PARAMS.
pub(super) const CONFIGURABLE: [Configurable; 12] = [
    Configurable { direct: [0xfff3fff, 0xff0000, 0, 0], allow: [0, 0, 0x31044d88, 0xb8440000] },
    Configurable { direct: [0xffffc3ff, 0xfffff000, 0xffffffff, 0xfffffffb], allow: [0, 0, 0, 0] },
    Configurable { direct: [0xffffc3ff, 0xfffff000, 0xffffffff, 0xfffffffb], allow: [0, 0, 0, 0] },
    Configurable { direct: [0xffffc3ff, 0xfffff000, 0xffffffff, 0xfffffffb], allow: [0, 0, 0, 0] },
    Configurable { direct: [0xffffc3ff, 0xfffff000, 0xffffffff, 0x7], allow: [0, 0, 0, 0] },
    Configurable { direct: [0, 0, 0, 0], allow: [0, 0xdc2b9b18, 0x2417f65, 0x5411c] },
    Configurable { direct: [0, 0, 0, 0], allow: [0x1d30, 0, 0, 0] },
    Configurable { direct: [0, 0, 0, 0], allow: [0, 0, 0, 0] },
    Configurable { direct: [0, 0, 0, 0], allow: [0xff, 0, 0, 0] },
    Configurable { direct: [0, 0, 0, 0], allow: [0, 0x200, 0, 0] },
    Configurable { direct: [0, 0, 0, 0], allow: [0, 0, 0, 0x28] },
    Configurable { direct: [0, 0, 0, 0], allow: [0xf, 0, 0, 0] },
];

/// Bits of the leaf that depend on a bit of XFAM: number of the bit, then EAX, EBX, ECX, EDX.
pub(super) const XFAM_1: [(u32, [u32; 4]); 1] = [
    (2, [0, 0, 0x30001000, 0]),
];

/// Bits of the leaf that depend on a bit of XFAM: number of the bit, then EAX, EBX, ECX, EDX.
pub(super) const XFAM_7_0: [(u32, [u32; 4]); 12] = [
    (2, [0, 0x20, 0x600, 0]),
    (5, [0, 0xdc230000, 0x5842, 0x80010c]),
    (6, [0, 0xdc230000, 0x5842, 0x80010c]),
    (7, [0, 0xdc230000, 0x5842, 0x80010c]),
    (8, [0, 0x2000000, 0, 0]),
    (9, [0, 0, 0x8, 0]),
    (11, [0, 0, 0x80, 0x100000]),
    (12, [0, 0, 0x80, 0x100000]),
    (14, [0, 0, 0, 0x20]),
    (15, [0, 0, 0, 0x80000]),
    (17, [0, 0, 0, 0x3400000]),
    (18, [0, 0, 0, 0x3400000]),
];

/// Bits of the leaf that depend on a bit of XFAM: number of the bit, then EAX, EBX, ECX, EDX.
pub(super) const XFAM_7_1: [(u32, [u32; 4]); 3] = [
    (5, [0x30, 0, 0, 0]),
    (6, [0x30, 0, 0, 0]),
    (7, [0x30, 0, 0, 0]),
];

/// Bits of the leaf that depend on a bit of XFAM: number of the bit, then EAX, EBX, ECX, EDX.
pub(super) const XFAM_D_0: [(u32, [u32; 4]); 7] = [
    (2, [0x4, 0, 0, 0]),
    (5, [0xe0, 0, 0, 0]),
    (6, [0xe0, 0, 0, 0]),
    (7, [0xe0, 0, 0, 0]),
    (9, [0x200, 0, 0, 0]),
    (17, [0x60000, 0, 0, 0]),
    (18, [0x60000, 0, 0, 0]),
];

/// Bits of the leaf that depend on a bit of XFAM: number of the bit, then EAX, EBX, ECX, EDX.
pub(super) const XFAM_D_1: [(u32, [u32; 4]); 5] = [
    (8, [0, 0, 0x100, 0]),
    (11, [0, 0, 0x1800, 0]),
    (12, [0, 0, 0x1800, 0]),
    (14, [0, 0, 0x4000, 0]),
    (15, [0, 0, 0x8000, 0]),
];

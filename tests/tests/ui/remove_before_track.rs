//! A blocked entry must be tracked before it is removed, and one that is not even blocked must be that first.
use tdx_abi::Blocked;
use tdx_abi::Mapping;
use tdx_abi::level::Pt;
use tdx_abi::tdh::mem::PageRemove;

fn blocked_only(blocked: Blocked<Pt>) {
    let _ = PageRemove { entry: blocked.into() };
}

fn not_even_blocked(gpa: Mapping<Pt>) {
    let _ = PageRemove { entry: gpa };
}

fn main() {}

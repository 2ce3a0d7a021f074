/// CPUID virtualization of `module`, if it is known.
pub const fn table(module: Module) -> Option<CpuidTable> {
    match module {
        _ => None,
    }
}

impl Vmcall {}
/// Every sub-function, by ascending number.
pub static VMCALLS: &[VmcallRow] = &[];

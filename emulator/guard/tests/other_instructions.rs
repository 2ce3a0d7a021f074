//! SIGILL that is none of the guard's business.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::env;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use tdx_abi::Registers;
use tdx_abi::Tdcall;
use tdx_abi::hardware::HardwareTdcall;
use tdx_emulator::Platform;
use tdx_emulator::PlatformConfig;
use tdx_emulator_guard::Guard;

const CHILD: &str = "TDX_EMULATOR_GUARD_TEST_CHILD";

/// TDCALL where no guest is.
#[test]
fn tdcall_outside_of_a_guest_ends_the_process_as_without_the_guard() {
    if env::var_os(CHILD).is_some() {
        let platform = Box::leak(Box::new(Platform::new(PlatformConfig::default())));
        let _guard = Guard::install(platform).unwrap();
        #[expect(
            unsafe_code,
            reason = "the program has to say that it may execute the instruction"
        )]
        // SAFETY: the instruction is refused, and that is what the test is about.
        let td = unsafe { HardwareTdcall::new() };
        let called = td.tdcall(&mut Registers::default());
        panic!("TDCALL came back: {called:?}");
    }
    let status = Command::new(env::current_exe().unwrap())
        .env(CHILD, "1")
        .args([
            "--exact",
            "tdcall_outside_of_a_guest_ends_the_process_as_without_the_guard",
        ])
        .output()
        .unwrap()
        .status;
    assert_eq!(status.signal(), Some(4), "{status}");
}

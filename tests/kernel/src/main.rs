//! A bare-metal kernel that hosts a guest under the tables of `tdx-mmu`, on a CPU emulator that walks them.
#![no_std]
#![no_main]

extern crate alloc;

mod case;
mod console;
mod cpu;
mod descriptor;
mod embedder;
mod exception;
mod frames;
mod guest_image;
mod heap;
mod instruction;
mod layout;
mod lock;
mod machine;
mod module;
mod options;
mod ordinary;
mod physical;
mod protocol;
mod report;
mod seam_guest;
mod seamcall;
mod session;
mod tables;
mod td;
mod vmx;

use core::arch::global_asm;
use core::panic::PanicInfo;

use tdx_abi::CallError;
use tdx_abi::GuestLeaf;
use tdx_abi::Seamcall;
use tdx_abi::Trap;
use tdx_abi::leaf::SeamcallLeaf;
use tdx_abi::tdg;

global_asm!(include_str!("boot.s"), options(att_syntax));
global_asm!(include_str!("memory.s"), options(att_syntax));

#[unsafe(no_mangle)]
extern "C" fn kernel_main() -> ! {
    console::Console::start();
    log!("kernel started");
    descriptor::load();
    heap::start();
    frames::start();
    boot_checks();
    match vmx::start() {
        Ok(()) => host(),
        Err(step) => report::check("VMX starts", false, format_args!("{step}")),
    }
    report::finish()
}

fn boot_checks() {
    report::group("boot");
    let before = frames::used_frames();
    let frame = frames::allocate_frame();
    check!("a frame is allocated", frame.is_some_and(physical::clear));
    let block = frames::allocate_block();
    check!(
        "a 2 MiB block is aligned",
        block.is_some_and(|block| block % frames::BLOCK == 0)
    );
    if let (Some(frame), Some(block)) = (frame, block) {
        frames::free(frame, frames::FRAME);
        frames::free(block, frames::BLOCK);
    }
    check_eq!(
        "the frame allocator balances",
        frames::used_frames(),
        before
    );
    let boxed = alloc::vec![7u64; 1000];
    check_eq!("the heap works", boxed.iter().sum::<u64>(), 7000);
}

/// Loads the module by the real instruction, and runs the cases.
fn host() {
    report::group("the module");
    let mut registers = tdx_abi::Registers {
        rax: SeamcallLeaf::TDH_SYS_INIT.number().into(),
        ..Default::default()
    };
    let refused = instruction::seamcall().seamcall(&mut registers);
    check_eq!(
        "SEAMCALL fails while no module is loaded",
        refused,
        Err(Trap::VmFailInvalid)
    );
    let trapped = tdg::vp::VeinfoGet
        .call(&instruction::tdcall())
        .map_err(|refused| refused.error);
    check_eq!(
        "a TDCALL outside of a TD comes back as a trap",
        trapped.err(),
        Some(CallError::Trap(Trap::InvalidOpcode))
    );
    module::load();
    match td::bring_up_module() {
        Ok(platform) => case::run_all(&platform),
        Err(step) => report::check("the module comes up", false, format_args!("{step}")),
    }
    log!("heap in use at most {} KiB", heap::high_water() >> 10);
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    log!("FAILED panic: {info}");
    log!("verdict: FAILED, the kernel stopped");
    console::power_off()
}

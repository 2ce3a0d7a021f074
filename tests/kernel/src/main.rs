//! A bare-metal kernel that hosts a guest under the tables of `tdx-mmu`, on a CPU emulator that walks them.
#![no_std]
#![no_main]

extern crate alloc;

mod console;
mod cpu;
mod descriptor;
mod exception;
mod frames;
mod heap;
mod layout;
mod lock;
mod options;
mod physical;
mod report;
mod seamcall;

use core::arch::global_asm;
use core::panic::PanicInfo;

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
    report::finish()
}

fn boot_checks() {
    report::group("boot");
    let before = frames::used_frames();
    let frame = frames::allocate_frame();
    check!("a frame is allocated", frame.is_some_and(physical::clear));
    let block = frames::allocate_block();
    check!("a 2 MiB block is aligned", block.is_some_and(|block| block % frames::BLOCK == 0));
    if let (Some(frame), Some(block)) = (frame, block) {
        frames::free(frame, frames::FRAME);
        frames::free(block, frames::BLOCK);
    }
    check_eq!("the frame allocator balances", frames::used_frames(), before);
    let boxed = alloc::vec![7u64; 1000];
    check_eq!("the heap works", boxed.iter().sum::<u64>(), 7000);
    check!("no option asks for a failure", !options::contains("fail"));
    log!("heap high water {} KiB", heap::high_water() >> 10);
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    log!("FAILED panic: {info}");
    log!("verdict: FAILED, the kernel stopped");
    console::power_off()
}

//! A bare-metal kernel that hosts a guest under the tables of `tdx-mmu`, on a CPU emulator that walks them.
#![no_std]
#![no_main]

extern crate alloc;

mod console;
mod cpu;
mod descriptor;
mod embedder;
mod exception;
mod frames;
mod guest_image;
mod heap;
mod layout;
mod lock;
mod instruction;
mod machine;
mod module;
mod options;
mod ordinary;
mod physical;
mod protocol;
mod report;
mod scaffold;
mod seam_guest;
mod seamcall;
mod tables;
mod td;
mod vmx;

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
    match vmx::start() {
        Ok(()) => {
            module_trial();
            trial();
        }
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

fn module_trial() {
    use tdx_abi::Seamcall;
    let mut registers = tdx_abi::Registers { rax: 33, ..Default::default() };
    let before = instruction::Instruction.seamcall(&mut registers);
    check_eq!("SEAMCALL without a module fails", before, Err(tdx_abi::Trap::VmFailInvalid));
    module::load();
    let platform = match td::bring_up_module() {
        Ok(platform) => platform,
        Err(step) => return report::check("module comes up", false, format_args!("{step}")),
    };
    let used = frames::used_frames();
    let mut guest = match td::TdGuest::build(&platform) {
        Ok(guest) => guest,
        Err(step) => return report::check("TD is built", false, format_args!("{step}")),
    };
    use protocol::operation;
    let mut talk = machine::Conversation::new();
    let mut n = 0;
    let mut handle = |guest: &mut td::TdGuest, event: machine::Event| {
        n += 1;
        if n < 20 { log!("{event:x?}"); }
        if let machine::Event::Violation(_) = event {
            let resolution = guest.resolve();
            if n < 20 { log!("{resolution:x?}"); }
            if resolution.is_some() { return machine::Next::Resume; }
        }
        machine::Next::Stop
    };
    let out = talk.perform(&mut guest, [operation::WRITE, 0x20_0000, 7, 0], &mut handle);
    check_eq!("write", out, machine::Outcome::Done(0, 0, 1));
    let out = talk.perform(&mut guest, [operation::READ, 0x20_0000, 7, 0], &mut handle);
    check_eq!("read", out, machine::Outcome::Done(7, 0, 0));
    let out = talk.perform(&mut guest, [operation::PRIMES, 0x40_0000, 2 << 20, 0], &mut handle);
    check_eq!("primes", out, machine::Outcome::Done(155_611, 0, 512));
    check_eq!("teardown", guest.tear_down(&platform), Ok(()));
    check_eq!("frames", frames::used_frames(), used);
    log!("heap high water {} KiB", heap::high_water() >> 10);
}

fn trial() {
    use core::sync::atomic::Ordering;
    let root = scaffold::table();
    for index in 0..guest_image::pages() {
        let Some(hpa) = frames::allocate_frame() else { return };
        let Some(frame) = physical::frame(hpa) else { return };
        for (word, value) in frame.iter().zip(guest_image::page(index)) {
            word.store(value, Ordering::SeqCst);
        }
        scaffold::map(root, guest_image::BASE + index * 4096, hpa, 0, tables::RWX | tables::WRITE_BACK);
    }
    log!("guest image {} pages", guest_image::pages());
    let mut guest = match ordinary::Ordinary::new(root | tables::EPTP | tables::EPTP_AD, None) {
        Ok(guest) => guest,
        Err(step) => return report::check("guest is made", false, format_args!("{step}")),
    };
    let mut talk = machine::Conversation::new();
    let mut violations = 0;
    let mut handle = |_: &mut ordinary::Ordinary, event: machine::Event| {
        if let machine::Event::Violation(violation) = event {
            violations += 1;
            if violations < 4 { log!("{violation:x?}"); }
            let Some(hpa) = frames::allocate_frame() else { return machine::Next::Stop };
            physical::clear(hpa);
            scaffold::map(root, violation.gpa & !4095, hpa, 0, tables::RWX | tables::WRITE_BACK);
            return machine::Next::Resume;
        }
        machine::Next::Stop
    };
    use protocol::operation;
    let out = talk.perform(&mut guest, [operation::WRITE, 0x20_0000, 7, 0], &mut handle);
    check_eq!("write", out, machine::Outcome::Done(0, 0, 0));
    let out = talk.perform(&mut guest, [operation::READ, 0x20_0000, 7, 0], &mut handle);
    check_eq!("read", out, machine::Outcome::Done(7, 0, 0));
    let out = talk.perform(&mut guest, [operation::PRIMES, 0x40_0000, 2 << 20, 0], &mut handle);
    check_eq!("primes", out, machine::Outcome::Done(155_611, 0, 0));
    log!("violations {violations}");
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    log!("FAILED panic: {info}");
    log!("verdict: FAILED, the kernel stopped");
    console::power_off()
}

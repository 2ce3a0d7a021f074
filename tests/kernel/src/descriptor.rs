//! Segments, the task state with its stacks, and the interrupt table.

use core::arch::asm;
use core::arch::global_asm;
use core::mem::size_of;
use core::ptr;

global_asm!(include_str!("exceptions.s"), options(att_syntax));

unsafe extern "C" {
    static exception_stubs: u8;
}

/// Selector of the 64-bit code segment.
pub(crate) const CODE: u16 = 0x08;
/// Selector of the data segment.
pub(crate) const DATA: u16 = 0x10;
/// Selector of the task state.
pub(crate) const TASK: u16 = 0x18;

const VECTORS: usize = 32;
const INVALID_OPCODE: usize = 6;
const STUB_BYTES: usize = 16;
const FATAL_STACK: usize = 64 << 10;
/// The emulated module runs on the stack of #UD.
const SEAMCALL_STACK: usize = 1 << 20;

#[repr(C, packed(4))]
struct TaskState {
    reserved_0: u32,
    rsp: [u64; 3],
    reserved_1: u64,
    ist: [u64; 7],
    reserved_2: u64,
    reserved_3: u16,
    io_map: u16,
}

#[repr(C, packed)]
struct Pointer {
    limit: u16,
    base: u64,
}

#[repr(C, align(16))]
struct Stack<const BYTES: usize>([u8; BYTES]);

static mut GDT: [u64; 5] = [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0, 0];
static mut IDT: [[u64; 2]; VECTORS] = [[0; 2]; VECTORS];
static mut TASK_STATE: TaskState = TaskState {
    reserved_0: 0,
    rsp: [0; 3],
    reserved_1: 0,
    ist: [0; 7],
    reserved_2: 0,
    reserved_3: 0,
    io_map: size_of::<TaskState>() as u16,
};
static mut FATAL: Stack<FATAL_STACK> = Stack([0; FATAL_STACK]);
static mut SEAMCALL: Stack<SEAMCALL_STACK> = Stack([0; SEAMCALL_STACK]);

/// Where the GDT, the IDT and the task state are, for the host state of a VMCS.
pub(crate) struct Bases {
    /// Linear address of the GDT.
    pub(crate) gdt: u64,
    /// Linear address of the IDT.
    pub(crate) idt: u64,
    /// Linear address of the task state.
    pub(crate) task: u64,
}

/// The bases of the tables that [`load`] loads.
pub(crate) fn bases() -> Bases {
    Bases {
        gdt: ptr::addr_of!(GDT) as u64,
        idt: ptr::addr_of!(IDT) as u64,
        task: ptr::addr_of!(TASK_STATE) as u64,
    }
}

/// Loads the tables: every exception runs on a stack of its own, because precompiled `core` uses the red zone.
///
/// Called once, at the start.
pub(crate) fn load() {
    let bases = bases();
    // SAFETY: 1. Nothing else touches these statics: they are written here, once, before the CPU is told of them, and
    // by the CPU afterwards. 2. The descriptors describe flat segments, the task state and the stubs in exceptions.s.
    // 3. The far return reloads CS with the same flat code segment.
    unsafe {
        let fatal_top = ptr::addr_of!(FATAL) as u64 + FATAL_STACK as u64;
        let seamcall_top = ptr::addr_of!(SEAMCALL) as u64 + SEAMCALL_STACK as u64;
        let task = &raw mut TASK_STATE;
        (&raw mut (*task).ist).write_unaligned([fatal_top, seamcall_top, 0, 0, 0, 0, 0]);
        let limit = size_of::<TaskState>() as u64 - 1;
        GDT[3] =
            limit | (bases.task & 0xff_ffff) << 16 | 0x89 << 40 | (bases.task >> 24 & 0xff) << 56;
        GDT[4] = bases.task >> 32;
        let gates = ptr::addr_of_mut!(IDT).cast::<[u64; 2]>();
        for vector in 0..VECTORS {
            let stub = ptr::addr_of!(exception_stubs) as u64 + (vector * STUB_BYTES) as u64;
            let ist = if vector == INVALID_OPCODE { 2 } else { 1 };
            gates.add(vector).write([
                (stub & 0xffff)
                    | u64::from(CODE) << 16
                    | ist << 32
                    | 0x8e << 40
                    | (stub >> 16 & 0xffff) << 48,
                stub >> 32,
            ]);
        }
        let gdt = Pointer {
            limit: (size_of::<[u64; 5]>() - 1) as u16,
            base: bases.gdt,
        };
        let idt = Pointer {
            limit: (size_of::<[[u64; 2]; VECTORS]>() - 1) as u16,
            base: bases.idt,
        };
        asm!(
            "lgdt [{gdt}]",
            "lidt [{idt}]",
            "push {code}",
            "lea {scratch}, [rip + 2f]",
            "push {scratch}",
            "retfq",
            "2:",
            "mov ds, {data:x}",
            "mov es, {data:x}",
            "mov ss, {data:x}",
            "ltr {task:x}",
            gdt = in(reg) &gdt,
            idt = in(reg) &idt,
            code = in(reg) u64::from(CODE),
            data = in(reg) u64::from(DATA),
            task = in(reg) u64::from(TASK),
            scratch = out(reg) _,
        );
    }
}

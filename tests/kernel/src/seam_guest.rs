//! The CPU's side of TDH.VP.ENTER: runs the guest under the tables that the module and the MMU wrote, and hands its
//! exits to the module.
//!
//! A CPU with SEAM walks two trees under two EPTPs. This one has a single EPTP: a root of our own whose entry 0 is that of
//! the Secure-EPT's root, and whose entry for the SHARED bit is that of the shared EPT's root.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering;

use tdx_abi::Registers;
use tdx_emulator::ExitInfo;
use tdx_emulator::GuestCall;
use tdx_emulator::GuestExit;
use tdx_emulator::InsideTd;
use tdx_emulator::Lp;

use crate::frames;
use crate::guest_image;
use crate::lock::Lock;
use crate::machine::UNLIMITED;
use crate::module;
use crate::physical;
use crate::tables;
use crate::vmx;
use crate::vmx::Exit;
use crate::vmx::Injection;
use crate::vmx::Vcpu;
use crate::vmx::VcpuConfig;
use crate::vmx::reason;

const TDCALL: u32 = 0xcc01_0f66;
const TDCALL_BYTES: u64 = 4;
const INVALID_OPCODE: Injection = Injection::exception(6);
/// Exit reason of TDG.VP.VMCALL in RAX of the host.
const REASON_TDCALL: u64 = 77;
const REASON_EXTERNAL_INTERRUPT: u32 = 1;
/// Entry of a PML4 table that covers the upper half of guest-physical addresses: SHARED = 1.
const SHARED_ENTRY: usize = 1 << (module::SHARED_BIT - 39);

/// A virtual CPU of a TD, as this CPU keeps it.
struct SeamVcpu {
    vcpu: Vcpu,
    root: u64,
    epoch: u64,
    rip: u64,
}

static VCPUS: Lock<BTreeMap<u64, Box<SeamVcpu>>> = Lock::new(BTreeMap::new());
static TICKS: AtomicU32 = AtomicU32::new(UNLIMITED);
static FLUSHES: AtomicU64 = AtomicU64::new(0);

/// Limits the next stay in a TD to `ticks` of the preemption timer, which stands for the host's own timer interrupt.
pub(crate) fn limit(ticks: u32) {
    TICKS.store(ticks, Ordering::Relaxed);
}

/// How often an entry has invalidated translations because the TD's epoch was a new one.
pub(crate) fn flushes() -> u64 {
    FLUSHES.load(Ordering::Relaxed)
}

/// Gives back what this CPU kept for the vCPU of the TDVPR at `tdvpr`.
pub(crate) fn forget(tdvpr: u64) {
    if let Some(vcpu) = VCPUS.lock().remove(&tdvpr) {
        frames::free(vcpu.root, frames::FRAME);
        vcpu.vcpu.free();
    }
}

/// The EPTP's root of the vCPU of the TDVPR at `tdvpr`: what the CPU walks.
pub(crate) fn root(tdvpr: u64) -> Option<u64> {
    VCPUS.lock().get(&tdvpr).map(|vcpu| vcpu.root)
}

/// Runs the guest that the module has entered on `lp`, from `registers`, until the module leaves the TD; the registers
/// are the host's then.
pub(crate) fn run(lp: &Lp<'_>, registers: &mut Registers) {
    let Some(inside) = lp.inside() else {
        panic!("the module says that it entered a TD, but none is inside")
    };
    let known = VCPUS.lock().remove(&inside.tdvpr.bits());
    let mut vcpu = known.unwrap_or_else(|| Box::new(SeamVcpu::new(&inside)));
    vcpu.enter(&inside);
    *vcpu.vcpu.registers_mut() = *registers;
    vcpu.run(lp);
    *registers = *vcpu.vcpu.registers();
    VCPUS.lock().insert(inside.tdvpr.bits(), vcpu);
}

impl SeamVcpu {
    fn new(inside: &InsideTd) -> Self {
        let config = VcpuConfig {
            cr3: guest_image::BASE,
            rip: guest_image::ENTRY,
            // The TDVPR page begins with the #VE information area.
            ve_information: Some(inside.tdvpr.bits()),
        };
        let vcpu = Vcpu::new(config).unwrap_or_else(|step| panic!("no VMCS for the vCPU: {step}"));
        let root = frames::allocate_frame().unwrap_or_else(|| panic!("no frame for an EPT root"));
        physical::clear(root);
        Self {
            vcpu,
            root,
            epoch: 0,
            rip: 0,
        }
    }

    /// Composes the root, and drops translations if the module would.
    fn enter(&mut self, inside: &InsideTd) {
        let table = |eptp: u64| {
            let address =
                eptp & tables::ADDRESS & ((1 << (module::MAX_PA - module::KEY_ID_BITS)) - 1);
            physical::frame(address).unwrap_or_else(|| panic!("EPTP {eptp:#x} is no table of ours"))
        };
        let root = table(self.root);
        root[0].store(
            table(inside.secure_eptp)[0].load(Ordering::SeqCst),
            Ordering::SeqCst,
        );
        let shared = table(inside.shared_eptp)[SHARED_ENTRY].load(Ordering::SeqCst);
        root[SHARED_ENTRY].store(shared, Ordering::SeqCst);
        if self.epoch != inside.epoch {
            self.epoch = inside.epoch;
            FLUSHES.fetch_add(1, Ordering::Relaxed);
            assert!(vmx::invalidate_ept().is_ok(), "INVEPT failed");
        }
    }

    fn run(&mut self, lp: &Lp<'_>) {
        loop {
            if let Some(event) = lp.take_event() {
                self.vcpu.inject(Injection {
                    information: event.information,
                    error_code: event.error_code,
                });
            }
            let exit = match self
                .vcpu
                .enter(self.root | tables::EPTP, TICKS.load(Ordering::Relaxed))
            {
                Ok(exit) => exit,
                Err(error) => panic!("VM entry failed with error {error}"),
            };
            let left = if is_invalid_opcode(&exit) {
                self.call(lp, &exit)
            } else {
                self.exit(lp, &exit)
            };
            self.rip = exit.rip;
            if left {
                return;
            }
        }
    }

    /// Hands a TDCALL to the module; true if the TD was left.
    fn call(&mut self, lp: &Lp<'_>, exit: &Exit) -> bool {
        if self.instruction(exit.rip) != Some(TDCALL) {
            self.vcpu.inject(INVALID_OPCODE);
            return false;
        }
        let mut registers = *self.vcpu.registers();
        let call = lp.guest_call(&mut registers);
        // A leaf that left because of an EPT violation is executed again.
        let done = match call {
            GuestCall::ReturnedToTd => true,
            GuestCall::ExitedToVmm => registers.rax & 0xffff == REASON_TDCALL,
            _ => false,
        };
        if done {
            self.vcpu.skip(TDCALL_BYTES);
        }
        match call {
            GuestCall::ReturnedToTd | GuestCall::ExitedToVmm => {
                *self.vcpu.registers_mut() = registers
            }
            GuestCall::Reexecute | GuestCall::EventInjected => {}
            other => panic!("TDCALL ended with {other:?}"),
        }
        call == GuestCall::ExitedToVmm
    }

    /// Hands any other exit to the module; true if the TD was left.
    fn exit(&mut self, lp: &Lp<'_>, exit: &Exit) -> bool {
        let timer = exit.reason == reason::PREEMPTION_TIMER;
        let info = ExitInfo {
            reason: if timer {
                REASON_EXTERNAL_INTERRUPT
            } else {
                exit.reason
            },
            qualification: exit.qualification,
            gpa: exit.gpa,
            gla: exit.gla,
            interruption_info: exit.interruption,
            instruction_length: exit.instruction_length,
            keeps_rip: exit.rip == self.rip,
            ..ExitInfo::default()
        };
        let mut registers = *self.vcpu.registers();
        let result = lp.guest_exit(&info, &mut registers);
        *self.vcpu.registers_mut() = registers;
        match result {
            GuestExit::ResumedTd => false,
            GuestExit::ExitedToVmm => true,
            other => panic!("{exit:x?} ended with {other:?}"),
        }
    }

    /// The four bytes at `rip`; the guest's linear addresses are its guest-physical ones.
    fn instruction(&self, rip: u64) -> Option<u32> {
        let byte = |address: u64| {
            let hpa = tables::walk(self.root, address)?.translate(address)?;
            Some((physical::word(hpa & !7)?.load(Ordering::Relaxed) >> (hpa % 8 * 8)) as u8)
        };
        Some(u32::from_le_bytes([
            byte(rip)?,
            byte(rip + 1)?,
            byte(rip + 2)?,
            byte(rip + 3)?,
        ]))
    }
}

/// Whether the exit is #UD as a hardware exception.
fn is_invalid_opcode(exit: &Exit) -> bool {
    exit.reason == reason::EXCEPTION && exit.interruption == INVALID_OPCODE.information
}

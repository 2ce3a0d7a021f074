//! vCPUs that stay inside their TD while the host works.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use tdx_abi::Registers;
use tdx_abi::Seamcall;
use tdx_abi::leaf::SeamcallLeaf;
use tdx_abi::status::Status;
use tdx_emulator::GuestCpu;
use tdx_mmu::platform::Executor;
use tdx_mmu::platform::LpId;
use tdx_mmu::td::Error as TdError;

use crate::error::Error;
use crate::host::td::HostTd;

/// Runs `work` on LP 0 while every vCPU is inside the TD, each on an LP and a thread of its own. A vCPU
/// that is kicked stays outside.
pub(super) fn inside<T>(td: &HostTd<'_>, work: impl FnOnce() -> T) -> Result<T, Error> {
    let host = td.embedder();
    let entered = Arc::new(AtomicUsize::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    for vcpu in 0..td.vcpus() {
        let lp = lp(vcpu);
        td.associate(vcpu, lp).map_err(super::failed)?;
        host.note_lp(vcpu, lp);
        let tdvpr = td
            .tdvpr(vcpu)
            .ok_or_else(|| super::failed(TdError::NoSuchVcpu(vcpu)))?;
        let (entered, stop) = (Arc::clone(&entered), Arc::clone(&stop));
        host.platform()
            .set_guest(tdvpr, move |cpu: &mut GuestCpu<'_>| {
                entered.fetch_add(1, Ordering::SeqCst);
                loop {
                    if let Some(exited) = cpu.interrupted() {
                        return exited;
                    }
                    if stop.load(Ordering::SeqCst) {
                        return cpu.interrupt();
                    }
                    std::thread::yield_now();
                }
            });
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..td.vcpus())
            .map(|vcpu| scope.spawn(move || stay(td, vcpu)))
            .collect();
        while entered.load(Ordering::SeqCst) < td.vcpus()
            && !threads.iter().any(|thread| thread.is_finished())
        {
            std::thread::yield_now();
        }
        let result = work();
        stop.store(true, Ordering::SeqCst);
        for thread in threads {
            let left = thread
                .join()
                .unwrap_or(Err(TdError::NoSuchVcpu(usize::MAX)));
            left.map_err(super::failed)?;
        }
        Ok(result)
    })
}

fn lp(vcpu: usize) -> LpId {
    LpId(vcpu as u32 + 1)
}

/// One TD entry, until the exit.
fn stay(td: &HostTd<'_>, vcpu: usize) -> Result<(), TdError> {
    let host = *td.embedder();
    let tdvpr = td.tdvpr(vcpu).ok_or(TdError::NoSuchVcpu(vcpu))?;
    let leaf = SeamcallLeaf::TDH_VP_ENTER;
    let name = leaf.name().unwrap_or_default();
    let rax = leaf.number().into();
    let mut registers = Registers {
        rax,
        rcx: tdvpr.bits(),
        ..Registers::default()
    };
    let inside = td.enter(vcpu)?;
    let called = host.as_lp(lp(vcpu), || {
        (&host).on_this_lp(|_, lp| lp.seamcall(&mut registers))
    });
    drop(inside);
    called.map_err(|trap| TdError::Trap { leaf: name, trap })?;
    let status = Status::from_rax(registers.rax);
    if status.is_error() {
        return Err(TdError::Seamcall {
            leaf: name,
            status,
            details: [registers.rcx, registers.rdx],
        });
    }
    Ok(())
}

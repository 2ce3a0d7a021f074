//! Stands behind the SEAMCALL and TDCALL instructions of a Linux program.
//!
//! Without SEAM the CPU refuses the instructions by #UD, of which Linux makes SIGILL. A [`Guard`] catches it and
//! has the emulated module execute the instruction, so that a program for the real one runs as it is: every
//! register, RIP and CF are as the instruction leaves them.
//!
//! A thread is an LP; see [`run_on`]. A guest may be a thread as well, whose TDCALLs are executed likewise; see
//! [`GuestThread`].
//!
//! SIGILL of anything else goes to the handler that was installed before. Where the CPU is in VMX root operation,
//! because a hypervisor has been loaded, SEAMCALL at CPL 3 raises #GP and not #UD: a program there gets SIGSEGV,
//! which the guard leaves alone.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod guest_thread;
mod signal;

use core::cell::Cell;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering;
use std::io;
use std::sync::PoisonError;
use std::sync::RwLock;

use tdx_abi::Registers;
use tdx_abi::Seamcall;
use tdx_emulator::Platform;

pub use guest_thread::GuestThread;

/// Executes SEAMCALL of all threads of the process while it lives.
#[derive(Debug)]
#[must_use = "dropping it takes the handler out again"]
pub struct Guard(());

/// Why a guard could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// There is one already; a process has one module.
    #[error("a guard has been installed already")]
    AlreadyInstalled,
    /// The signal handler was refused.
    #[error("cannot handle SIGILL")]
    Signal(#[source] io::Error),
}

/// The platform behind the guard, and what handled SIGILL before it.
struct Installed {
    platform: &'static Platform,
    previous: signal::Action,
}

static INSTALLED: RwLock<Option<Installed>> = RwLock::new(None);
/// Threads that were given an LP without asking for one.
static THREADS: AtomicUsize = AtomicUsize::new(0);

std::thread_local! {
    static LP: Cell<Option<usize>> = const { Cell::new(None) };
}

impl Guard {
    /// Installs a handler of SIGILL that hands SEAMCALL to `platform`.
    pub fn install(platform: &'static Platform) -> Result<Self, InstallError> {
        let mut installed = INSTALLED.write().unwrap_or_else(PoisonError::into_inner);
        if installed.is_some() {
            return Err(InstallError::AlreadyInstalled);
        }
        let previous = signal::install().map_err(InstallError::Signal)?;
        *installed = Some(Installed { platform, previous });
        Ok(Self(()))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut installed = INSTALLED.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(Installed { previous, .. }) = installed.take() {
            signal::restore(&previous);
        }
    }
}

/// Lets this thread run on LP `lp` from now on, as if the scheduler had put it there.
///
/// A thread that has never asked gets the next LP in turn at its first SEAMCALL. Two threads on one LP wait for each
/// other, also while one of them is inside a TD.
pub fn run_on(lp: usize) {
    LP.set(Some(lp));
}

/// Executes the SEAMCALL in `registers` on this thread's LP; `None` if there is no guard, `Some(false)` if there is no
/// such LP, which is then one without a module.
fn seamcall(registers: &mut Registers) -> Option<bool> {
    let platform = {
        let installed = INSTALLED.read().unwrap_or_else(PoisonError::into_inner);
        installed.as_ref()?.platform
    };
    let lp = LP.get().unwrap_or_else(|| {
        let lp = THREADS.fetch_add(1, Ordering::Relaxed) % platform.lps();
        LP.set(Some(lp));
        lp
    });
    let executed = platform
        .lp(lp)
        .is_some_and(|lp| lp.seamcall(registers).is_ok());
    Some(executed)
}

/// What handled SIGILL before the guard.
fn previous() -> Option<signal::Action> {
    let installed = INSTALLED.read().unwrap_or_else(PoisonError::into_inner);
    Some(installed.as_ref()?.previous)
}

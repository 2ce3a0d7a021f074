//! Guests as threads.

use core::cell::RefCell;
use core::fmt;
use core::time::Duration;
use std::io;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::mpsc::Sender;
use std::sync::mpsc::channel;
use std::thread;

use tdx_abi::Registers;
use tdx_emulator::Exited;
use tdx_emulator::GuestCpu;
use tdx_emulator::GuestFault;
use tdx_emulator::GuestProgram;

/// Exit reason, in RAX[15:0] of TDH.VP.ENTER, of a TDCALL that called the host (SDM volume 3, appendix C).
const TDCALL_EXIT: u16 = 77;
/// How often a guest that executes no TDCALL is looked at for an interrupt.
const POLL: Duration = Duration::from_millis(1);

/// A guest whose code is a thread's: it executes TDCALL instructions as it would inside a TD.
///
/// The thread runs only while its vCPU is inside the TD and makes no SEAMCALLs. Its memory is that of the process: only
/// what TDCALLs do to the TD is emulated, and an exception that the module injects into the guest ends the process
/// by SIGILL. An interrupt of the guest is seen by the host at once, but stops the thread only at its next TDCALL.
/// When the function has returned, each entry of the vCPU is interrupted at once.
pub struct GuestThread {
    requests: Receiver<Request>,
    answers: Sender<Answer>,
    next: Next,
}

/// What the thread asks.
enum Request {
    Call(Registers),
}

/// What it is told.
enum Answer {
    Returned(Registers),
    /// An exception was raised.
    Raised,
}

/// What the next entry does.
#[derive(Clone, Copy)]
enum Next {
    /// The guest goes on with the registers of the entry.
    Resume,
    /// It executes this TDCALL again.
    Call(Registers),
    /// It is still running.
    Listen,
    /// It has ended.
    Over,
}

/// The thread's end of the channels.
struct Port {
    requests: Sender<Request>,
    answers: Receiver<Answer>,
}

std::thread_local! {
    static PORT: RefCell<Option<Port>> = const { RefCell::new(None) };
}

impl GuestThread {
    /// A thread that waits for the first entry of its vCPU, and then runs `guest` with the registers of the entry.
    pub fn spawn(guest: impl FnOnce(Registers) + Send + 'static) -> io::Result<Self> {
        let (requests, of_guest) = channel();
        let (answers, to_guest) = channel();
        thread::Builder::new()
            .name("TD vCPU".to_owned())
            .spawn(move || {
                let Ok(Answer::Returned(registers)) = to_guest.recv() else {
                    return;
                };
                PORT.set(Some(Port {
                    requests,
                    answers: to_guest,
                }));
                guest(registers);
                PORT.set(None);
            })?;
        Ok(Self {
            requests: of_guest,
            answers,
            next: Next::Resume,
        })
    }

    /// Lets the guest run and executes its TDCALLs until the TD is left.
    fn serve(&mut self, cpu: &mut GuestCpu<'_>) -> Exited {
        match self.next {
            Next::Resume => self.answer(Answer::Returned(*cpu.registers())),
            Next::Call(registers) => {
                if let Some(exited) = self.call(cpu, registers) {
                    return exited;
                }
            }
            Next::Listen => {}
            Next::Over => return cpu.interrupt(),
        }
        self.next = Next::Listen;
        loop {
            match self.requests.recv_timeout(POLL) {
                Ok(Request::Call(registers)) => {
                    if let Some(exited) = self.call(cpu, registers) {
                        return exited;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(exited) = cpu.interrupted() {
                        return exited;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    self.next = Next::Over;
                    return cpu.interrupt();
                }
            }
        }
    }

    fn call(&mut self, cpu: &mut GuestCpu<'_>, registers: Registers) -> Option<Exited> {
        let mut after = registers;
        match cpu.tdcall(&mut after) {
            Ok(()) => self.answer(Answer::Returned(after)),
            Err(GuestFault::Event(_) | GuestFault::LeftL2) => self.answer(Answer::Raised),
            Err(GuestFault::Exited(exited)) => {
                self.next = if cpu.registers().rax as u16 == TDCALL_EXIT {
                    Next::Resume
                } else {
                    Next::Call(registers)
                };
                return Some(exited);
            }
        }
        None
    }

    fn answer(&mut self, answer: Answer) {
        // If the thread is gone, the next receipt says so.
        let _ = self.answers.send(answer);
    }
}

impl GuestProgram for GuestThread {
    fn run(&mut self, cpu: &mut GuestCpu<'_>) -> Exited {
        self.serve(cpu)
    }
}

impl fmt::Debug for GuestThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestThread").finish_non_exhaustive()
    }
}

/// Executes the TDCALL in `registers`; false if this thread is no guest, or if an exception was raised instead.
///
/// A guest whose platform is gone waits for ever.
pub(crate) fn tdcall(registers: &mut Registers) -> bool {
    PORT.with_borrow(|port| {
        let Some(port) = port else {
            return false;
        };
        let _ = port.requests.send(Request::Call(*registers));
        loop {
            match port.answers.recv() {
                Ok(Answer::Returned(after)) => {
                    *registers = after;
                    return true;
                }
                Ok(Answer::Raised) => return false,
                Err(_) => thread::park(),
            }
        }
    })
}

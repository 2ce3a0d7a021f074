//! What a guest does to its host, whichever kind of guest it is, and the host's half of the conversation.

use crate::log;
use crate::module;
use crate::protocol;
use crate::tables;

/// R10 to R15 of a TDG.VP.VMCALL, or of its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Call {
    /// R10: 0 for GHCI calls; in an answer the status.
    pub(crate) r10: u64,
    /// R11: the function; in an answer the first result.
    pub(crate) r11: u64,
    /// R12.
    pub(crate) r12: u64,
    /// R13.
    pub(crate) r13: u64,
    /// R14.
    pub(crate) r14: u64,
    /// R15.
    pub(crate) r15: u64,
}

/// An access that an EPT entry did not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// The guest-physical address; a TD reports its page only.
    pub(crate) gpa: u64,
    /// Read, write and execute, in the bits of an EPT entry.
    pub(crate) access: u64,
    /// A TD's page that its guest has not accepted.
    pub(crate) pending: bool,
}

impl Violation {
    /// Whether the address was a shared one.
    pub(crate) fn is_shared(&self) -> bool {
        self.gpa >> module::SHARED_BIT & 1 != 0
    }

    /// Whether the access was a write.
    pub(crate) fn is_write(&self) -> bool {
        self.access & tables::WRITE != 0
    }
}

/// Why the guest stopped running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// It called its host.
    Call(Call),
    /// EPT violation.
    Violation(Violation),
    /// EPT misconfiguration: an entry on the way to this address has a value that the CPU refuses.
    Misconfiguration(u64),
    /// The time given to it has passed.
    Timer,
    /// Something that no case expects: the reason, and a detail.
    Unexpected(u32, u64),
}

/// A guest that can run.
pub(crate) trait Machine {
    /// Runs until the next event, or for `ticks` of the preemption timer.
    fn run(&mut self, ticks: u32) -> Event;

    /// What the pending call returns to the guest at the next run.
    fn answer(&mut self, answer: Call);
}

/// What a case wants after an event that the conversation does not handle itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Run on: the case has dealt with it.
    Resume,
    /// The case has what it wanted: leave the operation unfinished. Running it again retries the access.
    Stop,
}

/// How an operation of the guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Done: two results, and how many #VEs the guest had.
    Done(u64, u64, u64),
    /// The case stopped at this event.
    Stopped(Event),
    /// The guest reported that it cannot go on: vector, RIP, error code, detail.
    Fatal(u64, u64, u64, u64),
}

impl Outcome {
    /// First result, if the operation is done.
    pub(crate) fn value(&self) -> Option<u64> {
        match self {
            Self::Done(value, ..) => Some(*value),
            _ => None,
        }
    }
}

/// An operation and its three operands; see the guest's protocol.
pub(crate) type Operation = [u64; 4];

/// Ticks of the preemption timer that mean "no limit".
pub(crate) const UNLIMITED: u32 = u32::MAX;

/// The host's half of the conversation.
pub(crate) struct Conversation {
    /// Whether the guest waits for its next operation.
    waiting: bool,
    /// Ticks after which a run ends with [`Event::Timer`].
    pub(crate) ticks: u32,
    /// Runs of the guest so far.
    pub(crate) runs: u64,
}

impl Conversation {
    /// A conversation with a guest that has not run yet.
    pub(crate) const fn new() -> Self {
        Self {
            waiting: false,
            ticks: UNLIMITED,
            runs: 0,
        }
    }

    /// Lets the guest perform `operation`; events other than its calls for work go to `handle`.
    pub(crate) fn perform<M: Machine>(
        &mut self,
        machine: &mut M,
        operation: Operation,
        handle: &mut dyn FnMut(&mut M, Event) -> Next,
    ) -> Outcome {
        let start = self.advance(machine, handle);
        if !self.waiting {
            return start;
        }
        let [r11, r12, r13, r14] = operation;
        machine.answer(Call {
            r10: 0,
            r11,
            r12,
            r13,
            r14,
            r15: 0,
        });
        self.waiting = false;
        self.advance(machine, handle)
    }

    /// Runs the guest until it asks for its next operation, or the case stops it.
    pub(crate) fn advance<M: Machine>(
        &mut self,
        machine: &mut M,
        handle: &mut dyn FnMut(&mut M, Event) -> Next,
    ) -> Outcome {
        while !self.waiting {
            let event = machine.run(self.ticks);
            self.runs += 1;
            match event {
                Event::Call(Call {
                    r10: protocol::VENDOR,
                    r11: protocol::NEXT,
                    r12,
                    r13,
                    r14,
                    ..
                }) => {
                    self.waiting = true;
                    return Outcome::Done(r12, r13, r14);
                }
                Event::Call(Call {
                    r10: protocol::VENDOR,
                    r11: protocol::FATAL,
                    r12,
                    r13,
                    r14,
                    r15,
                }) => {
                    log!("guest: fatal, vector {r12} rip {r13:#x} error {r14:#x} detail {r15:#x}");
                    return Outcome::Fatal(r12, r13, r14, r15);
                }
                other => {
                    if handle(machine, other) == Next::Stop {
                        return Outcome::Stopped(other);
                    }
                }
            }
        }
        Outcome::Done(0, 0, 0)
    }
}

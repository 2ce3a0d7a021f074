//! A TD under test: the vCPU loop that an integrator would write, with counters for the checks.

use alloc::collections::BTreeMap;

use tdx_abi::Gpa;
use tdx_mmu::GpaRange;
use tdx_mmu::attributes::Visibility;
use tdx_mmu::platform::MapGpa;
use tdx_mmu::td::Error;
use tdx_mmu::td::Resolution;

use crate::embedder::GUEST_MEMORY;
use crate::log;
use crate::machine::Call;
use crate::machine::Conversation;
use crate::machine::Event;
use crate::machine::Machine;
use crate::machine::Next;
use crate::machine::Operation;
use crate::machine::Outcome;
use crate::protocol;
use crate::td::Platform;
use crate::td::TdGuest;

/// Bytes that one MapGPA converts before the guest has to ask again.
const CONVERT_BUDGET: u64 = 1 << 20;

/// Spurious violations after which the guest is not resumed any more.
const MOST_SPURIOUS: u64 = 16;

/// How often what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// EPT-violation exits on private addresses.
    pub(crate) private_violations: u64,
    /// EPT-violation exits on shared addresses.
    pub(crate) shared_violations: u64,
    /// Violations that the MMU found mapped already.
    pub(crate) spurious: u64,
    /// Large leaves split because the guest accepts smaller pages.
    pub(crate) splits: u64,
    /// EPT-misconfiguration exits.
    pub(crate) misconfigurations: u64,
    /// Runs that ended because their time was over.
    pub(crate) timers: u64,
    /// MapGPA calls.
    pub(crate) map_gpas: u64,
    /// MMIO requests.
    pub(crate) mmio: u64,
}

/// An emulated device of 64-bit registers.
#[derive(Default)]
pub(crate) struct Device {
    registers: BTreeMap<u64, u64>,
}

impl Device {
    /// What a register holds that nobody has written to.
    pub(crate) const INITIAL: u64 = 0x0dd_ba11;

    /// A register's content.
    pub(crate) fn read(&self, gpa: u64) -> u64 {
        self.registers.get(&gpa).copied().unwrap_or(Self::INITIAL)
    }
}

/// A TD, its guest's conversation with the host, and what happened in it.
pub(crate) struct Session {
    /// The TD.
    pub(crate) guest: TdGuest,
    /// What happened so far.
    pub(crate) counts: Counts,
    /// The device behind MMIO.
    pub(crate) device: Device,
    /// What the last violation came to.
    pub(crate) resolution: Option<Resolution>,
    talk: Conversation,
}

/// What a case does with an event before the ordinary handling: `None` leaves it to that.
pub(crate) type Hook<'h> = &'h mut dyn FnMut(&mut TdGuest, Event) -> Option<Next>;

impl Session {
    /// A new TD that has not run yet.
    pub(crate) fn new(platform: &Platform) -> Result<Self, &'static str> {
        Ok(Self {
            guest: TdGuest::build(platform)?,
            counts: Counts::default(),
            device: Device::default(),
            resolution: None,
            talk: Conversation::new(),
        })
    }

    /// Lets the guest perform `operation`, with every event handled as a host does.
    pub(crate) fn perform(&mut self, operation: Operation) -> Outcome {
        self.perform_with(operation, &mut |_, _| None)
    }

    /// The same, with `hook` first.
    pub(crate) fn perform_with(&mut self, operation: Operation, hook: Hook<'_>) -> Outcome {
        let Self {
            guest,
            counts,
            device,
            resolution,
            talk,
        } = self;
        talk.perform(guest, operation, &mut |guest, event| {
            count(counts, event);
            hook(guest, event).unwrap_or_else(|| handle(guest, event, counts, device, resolution))
        })
    }

    /// Lets the guest finish the operation in which a case stopped it.
    pub(crate) fn finish(&mut self) -> Outcome {
        let Self {
            guest,
            counts,
            device,
            resolution,
            talk,
        } = self;
        talk.advance(guest, &mut |guest, event| {
            count(counts, event);
            handle(guest, event, counts, device, resolution)
        })
    }

    /// Interrupts the guest every `ticks` of the preemption timer from now on; [`crate::machine::UNLIMITED`] for not at all.
    pub(crate) fn interrupt_every(&mut self, ticks: u32) {
        self.talk.ticks = ticks;
    }
}

fn count(counts: &mut Counts, event: Event) {
    match event {
        Event::Violation(violation) if violation.is_shared() => counts.shared_violations += 1,
        Event::Violation(_) => counts.private_violations += 1,
        Event::Misconfiguration(_) => counts.misconfigurations += 1,
        Event::Timer => counts.timers += 1,
        Event::Call(Call {
            r10: 0,
            r11: protocol::MAP_GPA,
            ..
        }) => counts.map_gpas += 1,
        Event::Call(Call {
            r10: 0,
            r11: protocol::MMIO,
            ..
        }) => counts.mmio += 1,
        Event::Call(_) | Event::Unexpected(..) => {}
    }
}

fn handle(
    guest: &mut TdGuest,
    event: Event,
    counts: &mut Counts,
    device: &mut Device,
    last: &mut Option<Resolution>,
) -> Next {
    match event {
        Event::Violation(_) => {
            *last = guest.resolve();
            match last {
                Some(
                    Resolution::Mapped(_) | Resolution::Mmio | Resolution::SizeMismatch { .. },
                ) => Next::Resume,
                Some(Resolution::Split) => {
                    counts.splits += 1;
                    Next::Resume
                }
                Some(Resolution::Spurious(_)) => {
                    counts.spurious += 1;
                    // Nobody else maps pages here, so a second look cannot help.
                    if counts.spurious > MOST_SPURIOUS {
                        Next::Stop
                    } else {
                        Next::Resume
                    }
                }
                _ => Next::Stop,
            }
        }
        Event::Timer => Next::Resume,
        Event::Call(Call {
            r10: 0,
            r11: protocol::MAP_GPA,
            r12,
            r13,
            ..
        }) => map_gpa(guest, Gpa::new(r12), r13),
        Event::Call(Call {
            r10: 0,
            r11: protocol::MMIO,
            r13: write,
            r14: gpa,
            r15: data,
            ..
        }) => {
            if write != 0 {
                device.registers.insert(gpa, data);
            }
            guest.answer(Call {
                r10: 0,
                r11: device.read(gpa),
                ..Call::default()
            });
            Next::Resume
        }
        Event::Misconfiguration(_) => Next::Stop,
        other => {
            log!("not handled: {other:x?}");
            Next::Stop
        }
    }
}

/// Serves the guest's request to convert memory.
fn map_gpa(guest: &mut TdGuest, start: Gpa, size: u64) -> Next {
    let td = &guest.td;
    let reply = MapGpa { start, size }.serve(
        td.shared_bit(),
        |start, size| start + size <= GUEST_MEMORY,
        CONVERT_BUDGET,
        |start, bytes, to_shared| -> Result<u64, Error> {
            let range = GpaRange::new(start, bytes).ok_or(Error::BadAddress(start))?;
            td.convert(
                range,
                if to_shared {
                    Visibility::Shared
                } else {
                    Visibility::Private
                },
            )?;
            Ok(bytes)
        },
    );
    match reply {
        Ok(reply) => {
            guest.answer(Call {
                r10: reply.r10(),
                r11: reply.r11(),
                ..Call::default()
            });
            Next::Resume
        }
        Err(error) => {
            log!("MapGPA: {error}");
            Next::Stop
        }
    }
}

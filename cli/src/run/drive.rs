//! The host's side of a run: TD entries, exits, faults.

use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use tdx_abi::Gpa;
use tdx_abi::Registers;
use tdx_abi::Retry;
use tdx_abi::Seamcall;
use tdx_abi::StatusCode;
use tdx_abi::format::BasicExitReason;
use tdx_abi::format::VpEnterStatus;
use tdx_abi::leaf::SeamcallLeaf;
use tdx_abi::status::Status;
use tdx_abi::vmcall::Vmcall;
use tdx_mmu::GpaRange;
use tdx_mmu::attributes::Visibility;
use tdx_mmu::platform::Executor;
use tdx_mmu::platform::LpId;
use tdx_mmu::platform::MapGpa;
use tdx_mmu::td::Access;
use tdx_mmu::td::Error;
use tdx_mmu::td::Resolution;

use super::kvm::Kvm;
use super::report::Counts;
use crate::host::Host;
use crate::host::td::HostTd;

/// Most bytes converted before the guest runs again.
const CONVERSION_STEP: u64 = 16 << 20;

/// Most times in a row that one address may fault.
const MAX_REPEATED: u32 = 1000;

/// Why a run cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// TDH.VP.ENTER did not enter, or the vCPU is dead.
    #[error("vCPU {vcpu} cannot go on: {status}")]
    Enter {
        /// The vCPU.
        vcpu: usize,
        /// What the module said.
        status: Status,
    },
    /// A TD exit that a guest like this does not cause.
    #[error("vCPU {vcpu} exits for reason {reason}")]
    Exit {
        /// The vCPU.
        vcpu: usize,
        /// Basic exit reason.
        reason: u16,
    },
    /// A fault that cannot be resolved.
    #[error("a fault at {gpa:#x} ends in {resolution:x?}")]
    Fault {
        /// The guest-physical address.
        gpa: u64,
        /// What the MMU says.
        resolution: Resolution,
    },
    /// The same fault comes again and again although its page is mapped.
    #[error("the guest faults at {gpa:#x} for ever")]
    Stuck {
        /// The guest-physical address.
        gpa: u64,
    },
    /// The MMU fails.
    #[error("{doing}")]
    Mmu {
        /// What was to be done.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: Error,
    },
}

/// What the host counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Account {
    /// Faults by kind.
    pub faults: Counts,
    /// Time that resolving them took.
    pub fault_time: Duration,
    /// KVM's account of the same events.
    pub kvm: Kvm,
}

/// The host of a running TD: one thread and one LP for each vCPU, and LP 0 for everything else.
#[derive(Debug)]
pub(crate) struct Driver<'t, 'h> {
    /// The TD.
    pub td: &'t HostTd<'h>,
    account: Mutex<Account>,
}

impl<'t, 'h> Driver<'t, 'h> {
    /// A driver for a TD that is finalized.
    pub(crate) fn new(td: &'t HostTd<'h>) -> Self {
        Self {
            td,
            account: Mutex::default(),
        }
    }

    /// What has been counted.
    pub(crate) fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gets `vcpu` ready for an LP of its own.
    pub(crate) fn place(&self, vcpu: usize) -> Result<(), DriveError> {
        let lp = Host::lp_of(vcpu);
        self.td.associate(vcpu, lp).map_err(cannot_enter)?;
        self.host().note_lp(vcpu, lp);
        Ok(())
    }

    /// Runs `vcpu` on its LP until its guest halts.
    pub(crate) fn serve(&self, vcpu: usize) -> Result<(), DriveError> {
        self.host()
            .as_lp(Host::lp_of(vcpu), || Serving::new(self, vcpu).run())
    }

    /// Takes memory back from the guest, all ranges at once.
    pub(crate) fn discard(&self, ranges: &[GpaRange]) -> Result<(), DriveError> {
        for range in ranges {
            self.account().kvm.unmap(range.start(), range.bytes());
        }
        self.td.discard(ranges).map_err(|source| DriveError::Mmu {
            doing: "cannot take memory back",
            source,
        })?;
        ranges
            .iter()
            .for_each(|range| self.host().drop_shared(*range));
        Ok(())
    }

    fn host(&self) -> &'h Host {
        self.td.embedder()
    }
}

fn cannot_enter(source: Error) -> DriveError {
    DriveError::Mmu {
        doing: "cannot enter the TD",
        source,
    }
}

/// The thread of a vCPU.
struct Serving<'d, 't, 'h> {
    driver: &'d Driver<'t, 'h>,
    vcpu: usize,
    last_fault: Gpa,
    /// How often the last fault came again.
    repeated: u32,
    /// What is handed to the guest at the next entry.
    reply: Registers,
}

impl<'d, 't, 'h> Serving<'d, 't, 'h> {
    fn new(driver: &'d Driver<'t, 'h>, vcpu: usize) -> Self {
        Self {
            driver,
            vcpu,
            last_fault: Gpa::default(),
            repeated: 0,
            reply: Registers::default(),
        }
    }

    fn run(mut self) -> Result<(), DriveError> {
        loop {
            let Some(exit) = self.enter()? else {
                std::thread::yield_now();
                continue;
            };
            self.reply = Registers::default();
            let call = Vmcall::from_number(exit.r11);
            let reason = VpEnterStatus::from_bits(exit.rax).exit_reason();
            match BasicExitReason::from_bits(reason) {
                BasicExitReason::EXTERNAL_INTERRUPT => {}
                BasicExitReason::EPT_VIOLATION => self.fault(&exit)?,
                BasicExitReason::TDCALL if call == Vmcall::INSTRUCTION_HLT => return Ok(()),
                BasicExitReason::TDCALL if call == Vmcall::MAP_GPA => {
                    self.reply = self.map_gpa(&exit)?
                }
                _ => {
                    let vcpu = self.vcpu;
                    return Err(DriveError::Exit { vcpu, reason });
                }
            }
        }
    }

    /// TDH.VP.ENTER: from one TD entry to the next TD exit; `None` if a TDH.MEM.TRACK was in the way.
    fn enter(&self) -> Result<Option<Registers>, DriveError> {
        let (td, vcpu) = (self.driver.td, self.vcpu);
        let tdvpr = td
            .tdvpr(vcpu)
            .ok_or_else(|| cannot_enter(Error::NoSuchVcpu(vcpu)))?;
        let leaf = SeamcallLeaf::TDH_VP_ENTER;
        let mut registers = Registers {
            rax: leaf.number().into(),
            rcx: tdvpr.bits(),
            ..self.reply
        };
        let host = self.driver.host();
        let entered = td.enter(vcpu).map_err(cannot_enter)?;
        let called = (&host).on_this_lp(|_, lp| lp.seamcall(&mut registers));
        drop(entered);
        let name = leaf.name().unwrap_or_default();
        called.map_err(|trap| cannot_enter(Error::Trap { leaf: name, trap }))?;
        let status = Status::from_rax(registers.rax);
        if status.retry() == Some(Retry::Busy) {
            return Ok(None);
        }
        if status.is_error() || status.code() != StatusCode::SUCCESS {
            return Err(DriveError::Enter { vcpu, status });
        }
        Ok(Some(registers))
    }

    fn fault(&mut self, exit: &Registers) -> Result<(), DriveError> {
        let td = self.driver.td;
        let gpa = Gpa::new(exit.r8);
        let access = Access::from_exit(exit.rcx, exit.rdx, gpa);
        let start = Instant::now();
        let resolution = td.fault(access);
        let spent = start.elapsed();
        let doing = "cannot resolve a fault";
        let resolution = resolution.map_err(|source| DriveError::Mmu { doing, source })?;
        self.repeated = if self.last_fault == gpa {
            self.repeated + 1
        } else {
            0
        };
        self.last_fault = gpa;
        let is_private = gpa.bits() & td.shared_bit().mask() == 0;
        let side = if is_private { "private" } else { "shared" };
        let what = match resolution {
            Resolution::Mapped(level) => {
                format!("{side}, mapped {}", crate::output::bytes(level.size()))
            }
            Resolution::Spurious(_) if self.repeated > MAX_REPEATED => {
                return Err(DriveError::Stuck { gpa: gpa.bits() });
            }
            Resolution::Spurious(_) => format!("{side}, spurious"),
            Resolution::Split => "private, split for ACCEPT".to_owned(),
            Resolution::SizeMismatch { .. } => "private, ACCEPT too large".to_owned(),
            Resolution::Retry => format!("{side}, to be retried"),
            resolution => {
                return Err(DriveError::Fault {
                    gpa: gpa.bits(),
                    resolution,
                });
            }
        };
        let mut account = self.driver.account();
        account.fault_time += spent;
        account.faults.add(&what, 1);
        Ok(())
    }

    fn map_gpa(&self, exit: &Registers) -> Result<Registers, DriveError> {
        let request = MapGpa {
            start: Gpa::new(exit.r12),
            size: exit.r13,
        };
        let (td, host) = (self.driver.td, self.driver.host());
        let reply = request.serve(
            td.shared_bit(),
            |start, size| host.guest().contains(start, size),
            CONVERSION_STEP,
            |start, size, to_shared| {
                let range = GpaRange::new(start, size).ok_or(Error::BadAddress(start))?;
                if to_shared {
                    self.driver.account().kvm.unmap(start, size);
                    td.convert(range, Visibility::Shared)?;
                } else {
                    td.convert(range, Visibility::Private)?;
                    host.drop_shared(range);
                }
                Ok(size)
            },
        );
        let doing = "cannot convert memory";
        let reply = reply.map_err(|source| DriveError::Mmu { doing, source })?;
        Ok(Registers {
            r10: reply.r10(),
            r11: reply.r11(),
            ..Registers::default()
        })
    }
}

impl Host {
    /// The LP on which `vcpu` runs; LP 0 is the host's own.
    pub const fn lp_of(vcpu: usize) -> LpId {
        LpId(vcpu as u32 + 1)
    }
}

//! The host's side of a run: TD entries, exits, faults.

use std::time::Duration;
use std::time::Instant;

use tdx_abi::Gpa;
use tdx_abi::Registers;
use tdx_abi::Seamcall;
use tdx_abi::StatusCode;
use tdx_abi::format::VpEnterStatus;
use tdx_abi::leaf::SeamcallLeaf;
use tdx_abi::status::Status;
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
use super::vmcall;
use crate::host::Host;
use crate::host::td::HostTd;

/// Basic exit reasons. Source: Intel SDM volume 3, appendix C.
const EXTERNAL_INTERRUPT: u16 = 1;
const EPT_VIOLATION: u16 = 48;
const TDCALL: u16 = 77;

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

/// What the host does and counts.
#[derive(Debug)]
pub(crate) struct Driver<'t, 'h> {
    /// The TD.
    pub td: &'t HostTd<'h>,
    /// Faults by kind.
    pub faults: Counts,
    /// Time that resolving them took.
    pub fault_time: Duration,
    /// KVM's account of the same events.
    pub kvm: Kvm,
    last_fault: Gpa,
    /// How often the last fault came again.
    repeated: u32,
    /// For each vCPU what is handed to it at the next entry.
    replies: Vec<Registers>,
}

impl<'t, 'h> Driver<'t, 'h> {
    /// A driver for a TD that is finalized.
    pub(crate) fn new(td: &'t HostTd<'h>) -> Self {
        Self {
            td,
            faults: Counts::default(),
            fault_time: Duration::ZERO,
            kvm: Kvm::default(),
            last_fault: Gpa::default(),
            repeated: 0,
            replies: vec![Registers::default(); td.vcpus()],
        }
    }

    /// Runs `vcpu` on an LP of its own until its guest halts.
    pub(crate) fn run(&mut self, vcpu: usize) -> Result<(), DriveError> {
        loop {
            let exit = self.enter(vcpu)?;
            match VpEnterStatus::from_bits(exit.rax).exit_reason() {
                EXTERNAL_INTERRUPT => {}
                EPT_VIOLATION => self.fault(&exit)?,
                TDCALL if exit.r11 == vmcall::HLT => return Ok(()),
                TDCALL if exit.r11 == vmcall::MAP_GPA => {
                    self.replies[vcpu] = self.map_gpa(&exit)?;
                }
                reason => return Err(DriveError::Exit { vcpu, reason }),
            }
        }
    }

    /// Takes memory back from the guest.
    pub(crate) fn discard(&mut self, gpa: u64, len: u64) -> Result<(), DriveError> {
        let failed = |source| DriveError::Mmu {
            doing: "cannot take memory back",
            source,
        };
        let range = GpaRange::new(gpa, len).ok_or_else(|| failed(Error::BadAddress(gpa)))?;
        self.kvm.unmap(gpa, len);
        self.td.discard(range).map_err(failed)?;
        self.host().drop_shared(range);
        Ok(())
    }

    fn host(&self) -> &'h Host {
        self.td.embedder()
    }

    /// TDH.VP.ENTER: from one TD entry to the next TD exit.
    fn enter(&mut self, vcpu: usize) -> Result<Registers, DriveError> {
        let failed = |source| DriveError::Mmu {
            doing: "cannot enter the TD",
            source,
        };
        let tdvpr = self
            .td
            .tdvpr(vcpu)
            .ok_or_else(|| failed(Error::NoSuchVcpu(vcpu)))?;
        let leaf = SeamcallLeaf::TDH_VP_ENTER;
        let mut registers = Registers {
            rax: leaf.number().into(),
            rcx: tdvpr.bits(),
            ..std::mem::take(&mut self.replies[vcpu])
        };
        let host = self.host();
        let lp = host.lp_of(vcpu);
        self.td.associate(vcpu, lp).map_err(failed)?;
        host.note_lp(vcpu, lp);
        let entered = self.td.enter(vcpu).map_err(failed)?;
        let called = host.as_lp(lp, || {
            (&host).on_this_lp(|_, lp| lp.seamcall(&mut registers))
        });
        drop(entered);
        let name = leaf.name().unwrap_or_default();
        called.map_err(|trap| failed(Error::Trap { leaf: name, trap }))?;
        let status = Status::from_rax(registers.rax);
        if status.is_error() || status.code() != StatusCode::SUCCESS {
            return Err(DriveError::Enter { vcpu, status });
        }
        Ok(registers)
    }

    fn fault(&mut self, exit: &Registers) -> Result<(), DriveError> {
        let gpa = Gpa::new(exit.r8);
        let access = Access::from_exit(exit.rcx, exit.rdx, gpa);
        let start = Instant::now();
        let resolution = self.td.fault(access);
        self.fault_time += start.elapsed();
        let doing = "cannot resolve a fault";
        let resolution = resolution.map_err(|source| DriveError::Mmu { doing, source })?;
        self.repeated = if self.last_fault == gpa {
            self.repeated + 1
        } else {
            0
        };
        self.last_fault = gpa;
        let is_private = gpa.bits() & self.td.shared_bit().mask() == 0;
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
        self.faults.add(&what, 1);
        Ok(())
    }

    fn map_gpa(&mut self, exit: &Registers) -> Result<Registers, DriveError> {
        let request = MapGpa {
            start: Gpa::new(exit.r12),
            size: exit.r13,
        };
        let host = self.host();
        let (td, kvm) = (self.td, &mut self.kvm);
        let reply = request.serve(
            td.shared_bit(),
            |start, size| host.guest().contains(start, size),
            CONVERSION_STEP,
            |start, size, to_shared| {
                let range = GpaRange::new(start, size).ok_or(Error::BadAddress(start))?;
                if to_shared {
                    kvm.unmap(start, size);
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
    /// The LP on which `vcpu` runs.
    pub fn lp_of(&self, vcpu: usize) -> LpId {
        LpId((vcpu % self.platform().lps().max(1)) as u32)
    }
}

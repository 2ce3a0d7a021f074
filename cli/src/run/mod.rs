//! `tdx run`: a real guest's trace on a TD of the emulated platform, from bring-up to teardown.

mod drive;
pub mod guest;
pub mod kvm;
pub mod ledger;
pub mod picture;
pub mod report;
pub mod tree;
mod trees;
mod vmcall;

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::time::Instant;

use clap::ValueEnum;
use tdx_abi::Level;
use tdx_emulator::PlatformConfig;
use tdx_mmu::GpaRange;

use drive::Account;
pub use drive::DriveError;
use drive::Driver;
use guest::Guest;
use guest::Task;
use ledger::Side;
use picture::Subject;
use report::Counts;
use report::Report;
use tree::Tree;

use crate::error::Error;
use crate::host::Host;
use crate::host::frames::Use;
use crate::host::guest_memory::GuestMemory;
use crate::host::image;
use crate::host::image::Order;
use crate::host::module::ModuleArgs;
use crate::host::td::HostTd;
use crate::host::td::slots;
use crate::input;
use crate::measure;
use crate::output::Output;
use crate::output::PRIVATE;
use crate::output::SHARED;
use crate::progress;
use crate::tdvf::Tdvf;
use crate::trace::Event;
use crate::trace::Trace;

/// A guest that boots to a shell; origin in `data/README.md`.
const BOOT: &[u8] = include_bytes!("../../data/boot-shell-1g.trace.gz");
/// Tasks that a vCPU is given at once.
const BATCH: usize = 512;
/// Ranges that the host takes back at once: the page frame numbers in one element of a balloon's queue.
/// Source: Linux, VIRTIO_BALLOON_ARRAY_PFNS_MAX.
const BALLOON_PAGES: usize = 256;

/// Replay a guest's memory trace on a TD: bring-up, build, faults, conversions, discards, teardown.
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Guest trace, plain or gzip. Without it: the boot of a real guest with 1 GiB to its shell.
    trace: Option<PathBuf>,
    /// Firmware image with TDX metadata to build the TD from, plain or gzip. Without it: a small built-in image.
    #[arg(long)]
    firmware: Option<PathBuf>,
    /// Largest page that the host maps and the guest accepts.
    #[arg(long, value_enum, default_value = "4k")]
    page_size: PageSize,
    /// Number of vCPUs. Without it: as many as the trace has.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64))]
    vcpus: Option<u32>,
    #[command(flatten)]
    module: ModuleArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Size of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PageSize {
    /// 4 KiB.
    #[default]
    #[value(name = "4k")]
    Small,
    /// 2 MiB.
    #[value(name = "2m")]
    Large,
}

impl PageSize {
    pub(crate) const fn level(self) -> Level {
        match self {
            Self::Small => Level::Pt,
            Self::Large => Level::Pd,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Small => "4 KiB",
            Self::Large => "2 MiB",
        }
    }
}

/// The three trees after the last event.
#[derive(Clone, Debug)]
pub struct Trees {
    /// The shared EPT.
    pub shared: Tree,
    /// The mirror.
    pub mirror: Tree,
    /// The Secure-EPT.
    pub secure: Tree,
}

/// Carries the command out.
pub fn run(args: &Args, output: &mut Output) -> Result<(), Error> {
    let trace = load(args.trace.as_deref())?;
    let firmware = args.firmware.as_deref().map(measure::load).transpose()?;
    let image = firmware.unwrap_or_else(image::builtin);
    let vcpus = args.vcpus.unwrap_or_else(|| trace.vcpus().min(64));
    let (report, trees) = replay_on(args.module, &trace, &image, args.page_size, vcpus)?;
    if args.json {
        output.json(&report)?;
    } else {
        report.write(output, |output| draw(output, &trees, trace.ram))?;
    }
    report.verdict()
}

/// Reads a trace, or the built-in one.
pub fn load(path: Option<&Path>) -> Result<Trace, Error> {
    let (name, parsed) = match path {
        Some(path) => (path.display().to_string(), Trace::parse(input::open(path)?)),
        None => (
            "built-in trace".to_owned(),
            Trace::parse(input::decompress(BOOT)?),
        ),
    };
    parsed.map_err(|source| Error::Trace { path: name, source })
}

/// Runs the whole life of a TD with the events of `trace` on the oldest module.
pub fn replay(
    trace: &Trace,
    image: &Tdvf,
    page_size: PageSize,
    vcpus: u32,
) -> Result<(Report, Trees), Error> {
    replay_on(ModuleArgs::default(), trace, image, page_size, vcpus)
}

/// The same on this module.
pub fn replay_on(
    module: ModuleArgs,
    trace: &Trace,
    image: &Tdvf,
    page_size: PageSize,
    vcpus: u32,
) -> Result<(Report, Trees), Error> {
    let start = Instant::now();
    let host = Host::with_module(
        GuestMemory::new(slots(trace.ram, image), page_size.level()),
        vcpus,
        module,
        PlatformConfig::default().seed,
    );
    let up = host.bring_up()?;
    let td = host.create_td(&up)?;
    host.build(&td, image, Order::Page, || ())?;
    let mrtd = host.mrtd(&td)?;

    let guest = Guest::new(trace.ram, page_size.level(), td.shared_bit().mask());
    let driver = Driver::new(&td);
    for section in image.sections().iter().filter(|section| section.is_added()) {
        for offset in (0..section.size).step_by(4096) {
            guest
                .mind()
                .ledger
                .load(section.gpa + offset, offset < section.raw_size);
        }
        driver.account().kvm.built(section.gpa, section.size);
    }
    for vcpu in 0..td.vcpus() {
        if let Some(tdvpr) = td.tdvpr(vcpu) {
            host.platform().set_guest(tdvpr, guest.vcpu(vcpu));
        }
    }

    let bell = guest.clone();
    host.set_bell(move || bell.ring());
    let spent = with_vcpus(&guest, &driver, || {
        let before = Cost::now(&host);
        events(trace, &guest, &driver)?;
        let spent = Cost::now(&host).since(&before);
        sweep(&guest, &driver)?;
        Ok(spent)
    })?;

    let trees = Trees {
        shared: trees::shared(&td),
        mirror: trees::mirror(&td).map_err(Error::Failed)?,
        secure: trees::secure(&host, td.tdr()).map_err(Error::Failed)?,
    };
    let difference = trees
        .mirror
        .difference(["the mirror", "the S-EPT"], &trees.secure);
    let host_memory = Counts(
        Use::ALL
            .map(|purpose| (purpose.name().to_owned(), host.frames().used(purpose)))
            .to_vec(),
    );
    let pamt = host.pamt_memory(&up);
    let Account {
        faults,
        fault_time,
        kvm,
    } = driver.account().clone();
    let missing = host
        .tear_down(&up, td)
        .err()
        .map(|error| Error::Td(error).one_line());

    let mut findings = guest.mind().findings.clone();
    for fault in host.line_faults() {
        findings.failures.push(fault.to_string());
        findings.failure_count += 1;
    }
    let counters = host.platform().counters();
    let microseconds = fault_time.as_secs_f64() * 1e6;
    let report = Report {
        trace: trace.name.clone().unwrap_or_default(),
        guest_memory: trace.ram,
        vcpus,
        page_size: page_size.name(),
        module: module.module.name(),
        dynamic_pamt: module.dynamic_pamt,
        pamt,
        mrtd: mrtd.iter().map(|byte| format!("{byte:02x}")).collect(),
        events: trace.events.len() as u64,
        microseconds_per_fault: microseconds / faults.total().max(1) as f64,
        faults,
        seamcalls: named(counters.seamcalls_by_name()),
        tdcalls: named(counters.tdcalls_by_name()),
        kicks: counters.kicks(),
        event_seamcalls: spent.seamcalls.total(),
        event_leaves: spent.seamcalls,
        event_kicks: spent.kicks,
        kvm,
        pages: pages(&trees),
        host_memory,
        stamps_written: findings.written,
        stamps_verified: findings.verified,
        zero_pages_verified: findings.zero,
        unexpected: findings.failures,
        unexpected_count: findings.failure_count,
        mirror_equals_sept: difference.is_none(),
        difference,
        entries_compared: trees.secure.entries.len() as u64,
        pages_returned: missing.is_none(),
        missing,
        wall_seconds: start.elapsed().as_secs_f64(),
    };
    Ok((report, trees))
}

/// Runs `work` while every vCPU is inside the TD on an LP and a thread of its own.
fn with_vcpus<T>(
    guest: &Guest,
    driver: &Driver<'_, '_>,
    work: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    (0..driver.td.vcpus()).try_for_each(|vcpu| driver.place(vcpu))?;
    std::thread::scope(|scope| {
        let serve = |vcpu| {
            let served = driver.serve(vcpu);
            // Whatever ended this one, the others are of no use without it.
            guest.dismiss();
            served
        };
        let threads: Vec<_> = (0..driver.td.vcpus())
            .map(|vcpu| scope.spawn(move || serve(vcpu)))
            .collect();
        let done = work();
        guest.dismiss();
        for thread in threads {
            match thread.join() {
                Ok(served) => served?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    })
}

/// Replays the events in their order, each on its vCPU.
fn events(trace: &Trace, guest: &Guest, driver: &Driver<'_, '_>) -> Result<(), Error> {
    let bar = progress::bar(trace.events.len() as u64, "replaying events");
    let mut vcpu = 0;
    let mut index = 0;
    while let Some(event) = trace.events.get(index) {
        let (wanted, task) = match *event {
            Event::Touch {
                gpa,
                access,
                shared,
                vcpu,
            } => {
                let side = if shared { Side::Shared } else { Side::Private };
                if side == Side::Private {
                    driver.account().kvm.touch(gpa);
                }
                (
                    vcpu as usize % driver.td.vcpus(),
                    Task::Touch { gpa, access, side },
                )
            }
            Event::Convert { gpa, len } => (
                vcpu,
                Task::Convert {
                    gpa,
                    len,
                    side: Side::Shared,
                },
            ),
            Event::Discard { .. } => {
                perform(guest, vcpu)?;
                let ranges = discards(&trace.events[index..]);
                driver.discard(&ranges)?;
                let mut mind = guest.mind();
                ranges
                    .iter()
                    .for_each(|range| mind.ledger.forget(range.start(), range.bytes()));
                index += ranges.len();
                continue;
            }
        };
        if wanted != vcpu || guest.mind().tasks.len() >= BATCH {
            perform(guest, vcpu)?;
            bar.set_position(index as u64);
            vcpu = wanted;
        }
        guest.mind().tasks.push_back(task);
        index += 1;
    }
    perform(guest, vcpu)?;
    bar.finish_and_clear();
    Ok(())
}

/// The discards at the beginning of `events`, as many as one element of a balloon's queue holds.
fn discards(events: &[Event]) -> Vec<GpaRange> {
    events
        .iter()
        .map_while(|event| match *event {
            Event::Discard { gpa, len } => GpaRange::new(gpa, len),
            _ => None,
        })
        .take(BALLOON_PAGES)
        .collect()
}

/// Reads every live stamp back, page by page on all vCPUs in turn.
fn sweep(guest: &Guest, driver: &Driver<'_, '_>) -> Result<(), Error> {
    let live = guest.mind().ledger.live();
    let bar = progress::bar(live.len() as u64, "reading all back");
    for (index, chunk) in live.chunks(BATCH).enumerate() {
        let tasks = chunk
            .iter()
            .map(|&(side, gpa, stamp)| Task::Verify { gpa, side, stamp });
        guest.mind().tasks.extend(tasks);
        perform(guest, index % driver.td.vcpus())?;
        bar.inc(chunk.len() as u64);
    }
    bar.finish_and_clear();
    Ok(())
}

/// Lets `vcpu` do all tasks.
fn perform(guest: &Guest, vcpu: usize) -> Result<(), Error> {
    if guest.perform(vcpu) {
        return Ok(());
    }
    // The thread of the vCPU knows why, and its error is the one that is shown.
    Err(Error::Failed("the guest has stopped".to_owned()))
}

/// SEAMCALLs but for TD entries, and kicks.
struct Cost {
    seamcalls: Counts,
    kicks: u64,
}

impl Cost {
    fn now(host: &Host) -> Self {
        let counters = host.platform().counters();
        let mut seamcalls = named(counters.seamcalls_by_name());
        seamcalls.0.retain(|(leaf, _)| leaf != "TDH.VP.ENTER");
        Self {
            seamcalls,
            kicks: counters.kicks(),
        }
    }

    fn since(&self, before: &Self) -> Self {
        let grown = self
            .seamcalls
            .0
            .iter()
            .map(|(leaf, count)| (leaf.clone(), count - before.seamcalls.get(leaf)))
            .filter(|(_, count)| *count > 0);
        Self {
            seamcalls: Counts(grown.collect()),
            kicks: self.kicks - before.kicks,
        }
    }
}

fn named(counts: std::collections::BTreeMap<&'static str, u64>) -> Counts {
    Counts(
        counts
            .into_iter()
            .map(|(name, count)| (name.to_owned(), count))
            .collect(),
    )
}

/// Pages by size, private and shared together.
fn pages(trees: &Trees) -> Counts {
    let count = |level| trees.secure.leaves(level) + trees.shared.leaves(level);
    Counts(vec![
        ("4k".to_owned(), count(Level::Pt)),
        ("2m".to_owned(), count(Level::Pd)),
    ])
}

fn draw(output: &mut Output, trees: &Trees, ram: u64) -> io::Result<()> {
    output.heading("Page tables after the last event")?;
    let subject = |title, remark, tree, style| Subject {
        title,
        remark,
        tree,
        style,
    };
    for subject in [
        subject(
            "shared PT",
            "walked by the CPU where SHARED = 1",
            &trees.shared,
            SHARED,
        ),
        subject(
            "mirrored PT",
            "the host's copy, walked by the host only",
            &trees.mirror,
            PRIVATE,
        ),
        subject(
            "private PT",
            "the Secure-EPT, read from the module's pages",
            &trees.secure,
            PRIVATE,
        ),
    ] {
        picture::draw(output, &subject, ram)?;
    }
    io::Write::write_all(output, format!("  {}\n", picture::legend(ram)).as_bytes())
}

/// The first difference between mirror and S-EPT of a TD.
pub(crate) fn difference(td: &HostTd<'_>) -> Result<Option<String>, String> {
    let mirror = trees::mirror(td)?;
    let secure = trees::secure(td.embedder(), td.tdr())?;
    Ok(mirror.difference(["the mirror", "the S-EPT"], &secure))
}

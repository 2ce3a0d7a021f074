//! `tdx migrate`: moves a TD from one emulated platform to another while its guest writes.

mod guest;
mod link;
mod report;
pub mod service_td;

use std::time::Instant;

use tdx_abi::Level;
use tdx_abi::format::ServtdAttributes;
use tdx_abi::format::ServtdType;
use tdx_abi::format::TdAttributes;
use tdx_emulator::PlatformConfig;
use tdx_mmu::GpaRange;
use tdx_mmu::pamt;
use tdx_mmu::platform::Hkid;
use tdx_mmu::td::Error as TdError;
use tdx_mmu::td::migration::Binding;
use tdx_mmu::td::migration::MAX_PAGES;
use tdx_mmu::td::migration::Precopy;

use self::guest::Guest;
use self::guest::Work;
use self::link::Link;
use self::report::Platform;
pub use self::report::Report;
use self::report::Round;
use self::service_td::ServiceTd;
use crate::error::Error;
use crate::host::Host;
use crate::host::Up;
use crate::host::frames::Use;
use crate::host::guest_memory::GuestMemory;
use crate::host::image;
use crate::host::image::Order;
use crate::host::module::ModuleArgs;
use crate::host::td::HostTd;
use crate::host::td::MakeError;
use crate::host::td::slots;
use crate::output::Output;
use crate::run::report::Counts;

/// Where the guest's working memory begins.
const WORK: u64 = 0x100_0000;

/// What the destination's random numbers start from.
const DESTINATION_SEED: u64 = 0xd357;

/// Move a TD between two emulated platforms while its guest writes, and count what that costs.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Memory that the guest uses, in MiB.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=256))]
    pub memory: u64,
    /// Pages of it that the guest writes again and again, for each vCPU.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=65536))]
    pub hot: u64,
    /// Number of vCPUs.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub vcpus: u32,
    /// Most rounds before the guest is paused.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub rounds: u32,
    /// Pages left at which the guest is paused.
    #[arg(long, default_value_t = 16)]
    pub threshold: u64,
    /// Largest page that the source maps; what migrates are 4 KiB pages.
    #[arg(long, value_enum, default_value = "2m")]
    pub page_size: crate::run::PageSize,
    /// The module of both platforms.
    #[command(flatten)]
    pub module: ModuleArgs,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Carries the command out.
pub fn run(args: &Args, output: &mut Output) -> Result<(), Error> {
    let report = migrate(args)?;
    if args.json {
        output.json(&report)?;
    } else {
        report.write(output)?;
    }
    match report.first_failure() {
        None => Ok(()),
        Some(failure) => Err(Error::Failed(failure)),
    }
}

/// A platform that is up, with its migration TD.
struct Side<'h> {
    host: &'h Host,
    up: Up,
    service: ServiceTd<'h>,
    service_hkid: Hkid,
}

impl<'h> Side<'h> {
    fn new(host: &'h Host) -> Result<Self, Error> {
        let up = host.bring_up()?;
        let service_hkid = up.hkids.allocate().ok_or(MakeError::NoHkid)?;
        let parameters = host.td_parameters(1, TdAttributes::new().with_sept_ve_disable(true))?;
        let config = host.td_config(&up)?;
        let service = ServiceTd::build(
            host.platform(),
            0,
            service_hkid.number(),
            parameters,
            (config.tdcx_pages, config.tdvpx_pages),
            || {
                let page = host.frames().allocate(Level::Pt, Use::Module);
                let page = page.ok_or(MakeError::NoMemory)?;
                pamt::admit(&host, &config, page)
                    .map_err(failed("cannot give the migration TD a page"))?;
                Ok(page)
            },
        )?;
        host.frames().free(parameters, Level::Pt, Use::Tables);
        Ok(Self {
            host,
            up,
            service,
            service_hkid,
        })
    }

    /// Binds the migration TD, and creates the backward and one forward stream.
    fn prepare(&self, td: &HostTd<'_>) -> Result<Binding, Error> {
        for _ in 0..2 {
            td.add_stream().map_err(failed("cannot create a stream"))?;
        }
        td.bind_service(
            self.service.tdr(),
            ServtdType::MIGTD,
            ServtdAttributes::new(),
        )
        .map_err(failed("cannot bind the migration TD"))
    }

    /// Tears everything down; says what did not come back.
    fn end(self, td: HostTd<'h>) -> Result<(), Error> {
        let Self {
            host,
            up,
            service,
            service_hkid,
        } = self;
        let config = host.td_config(&up)?;
        service.tear_down(|page| {
            host.frames().free(page, Level::Pt, Use::Module);
            pamt::dismiss(&host, &config, page).map_err(failed(
                "cannot take the PAMT pages of the migration TD back",
            ))
        })?;
        let _ = up.hkids.release(service_hkid);
        host.tear_down(&up, td)?;
        Ok(())
    }
}

fn failed(doing: &'static str) -> impl Fn(TdError) -> Error {
    move |source| Error::Td(MakeError::Td { doing, source })
}

/// Moves a TD, and tells what it found.
pub fn migrate(args: &Args) -> Result<Report, Error> {
    let start = Instant::now();
    let memory =
        |level| GuestMemory::new(slots(WORK + (args.memory << 20), &image::builtin()), level);
    let host = |level, seed| Host::with_module(memory(level), args.vcpus, args.module, seed);
    let here = host(args.page_size.level(), PlatformConfig::default().seed);
    // Another platform has other random numbers, so other keys.
    let there = host(Level::Pt, DESTINATION_SEED);
    let (source, destination) = (Side::new(&here)?, Side::new(&there)?);
    let attributes = TdAttributes::new()
        .with_sept_ve_disable(true)
        .with_migratable(true);
    let from = here.create_td_with(&source.up, attributes)?;
    let binding = source.prepare(&from)?;
    here.build(&from, &image::builtin(), Order::Page, || ())?;
    let to = there.create_td_for_import(&destination.up)?;
    let other = destination.prepare(&to)?;
    destination
        .service
        .write_key(other, source.service.read_key(binding)?)?;
    source
        .service
        .write_key(binding, destination.service.read_key(other)?)?;

    let guest = Guest::new(WORK, args, args.page_size.level());
    guest.settle(&from)?;
    guest.run(&from, Work::Populate)?;
    let before = (
        here.counts(),
        there.counts(),
        here.platform().counters().kicks(),
    );
    let moved = move_td(args, &from, &to, &guest)?;
    let after = (
        here.counts(),
        there.counts(),
        here.platform().counters().kicks(),
    );

    guest.settle(&to)?;
    guest.run(&to, Work::Verify)?;
    let (pages, wrong) = guest.found();
    let difference = |td: &HostTd<'_>| crate::run::difference(td).map_err(Error::Failed);
    let differences = [difference(&from)?, difference(&to)?];
    let mrtds = [here.mrtd(&from)?, there.mrtd(&to)?];
    source.end(from)?;
    destination.end(to)?;
    Ok(Report {
        pages,
        rounds: moved.rounds,
        downtime_pages: moved.downtime_pages,
        bundles: moved.bundles,
        source: Platform::between(&before.0, &after.0),
        destination: Platform::between(&before.1, &after.1),
        kicks: after.2 - before.2,
        guest_writes: guest.writes(),
        wrong_pages: wrong,
        mrtd_equal: mrtds[0] == mrtds[1],
        differences: differences.into_iter().flatten().collect(),
        wall_seconds: start.elapsed().as_secs_f64(),
    })
}

struct Moved {
    rounds: Vec<Round>,
    downtime_pages: u64,
    bundles: u64,
}

fn move_td<'h>(
    args: &Args,
    from: &HostTd<'h>,
    to: &HostTd<'h>,
    guest: &Guest,
) -> Result<Moved, Error> {
    let doing = failed("cannot migrate");
    let end = from.shared_bit().mask();
    let all = GpaRange::new(0, end).ok_or_else(|| doing(TdError::BadAddress(end)))?;
    let mut out = from.stream(0, MAX_PAGES).map_err(&doing)?;
    let mut link = Link::new(from, to).map_err(&doing)?;
    let mut rounds = Vec::new();
    let policy = Precopy {
        rounds: args.rounds,
        threshold: args.threshold,
    };
    // The guest runs on LPs and threads of its own.
    let live = guest.while_running(from, || {
        let mut live = from.export(&mut out, &mut link)?;
        live.precopy(all, &mut out, &mut link, policy, |round| {
            rounds.push(Round {
                pages: round.exported.pages,
                refused: round.exported.refused,
                remaining: round.remaining,
            });
            true
        })?;
        Ok(live)
    })?;
    let live = live.map_err(|error| link.explain(error))?;
    let mut paused = live.pause().map_err(|(_, error)| doing(error))?;
    let last = paused
        .round(&mut out, &mut link)
        .and_then(|round| round.export(all, &mut out, &mut link))
        .map_err(|error| link.explain(error))?;
    paused
        .export_td(&mut out, &mut link)
        .map_err(|error| link.explain(error))?;
    for vcpu in 0..from.vcpus() {
        paused
            .export_vcpu(vcpu, &mut out, &mut link)
            .map_err(|error| link.explain(error))?;
    }
    let left = paused.remaining(all);
    if left != 0 {
        return Err(Error::Failed(format!("{left} pages are left")));
    }
    let handed = paused
        .hand_over(&mut out)
        .map_err(|(_, error)| doing(error))?;
    handed
        .send_token(&mut out, &mut link)
        .map_err(|error| link.explain(error))?;
    let bundles = link.bundles();
    link.end()?;
    Ok(Moved {
        rounds,
        downtime_pages: last.pages,
        bundles,
    })
}

impl Host {
    /// SEAMCALLs by leaf since the module was loaded.
    fn counts(&self) -> Counts {
        let counts = self.platform().counters().seamcalls_by_name();
        let leaves = counts
            .into_iter()
            .map(|(leaf, count)| (leaf.to_owned(), count));
        Counts(leaves.collect())
    }
}

//! `tdx cost`: what each operation costs, as the emulated module counts it.

mod guests;

use serde::Serialize;
use tdx_abi::Level;
use tdx_abi::Page;
use tdx_abi::PrivateGpa;
use tdx_abi::StatusCode;
use tdx_mmu::GpaRange;
use tdx_mmu::embed::Backing;
use tdx_mmu::td::Error as TdError;

use crate::error::Error;
use crate::host::Host;
use crate::host::Up;
use crate::host::guest_memory::GuestMemory;
use crate::host::image;
use crate::host::image::Order;
use crate::host::td::HostTd;
use crate::host::td::MakeError;
use crate::host::td::slots;
use crate::output::Output;
use crate::output::grouped;
use crate::progress;
use crate::run::report::Counts;

/// vCPUs that are inside the TD while an operation runs.
const VCPUS: u32 = 4;
/// Where operations take place: 2 MiB aligned, all of it mapped before.
const AT: u64 = 0x4000_0000 / 16;
const LARGE: u64 = Level::Pd.size();
const WORK: u64 = 16 * LARGE;
/// Memory of the TDs that are torn down.
const BIG: u64 = 64 << 30;

/// Count the SEAMCALLs and kicks of each operation on the emulated platform, beside KVM's.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// One operation.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its name in the cost table.
    pub operation: &'static str,
    /// SEAMCALLs but for TD entries.
    pub seamcalls: u64,
    /// The same by leaf.
    pub leaves: Counts,
    /// Kicks with four vCPUs inside the TD, where OP_STATE permits that.
    pub kicks: u64,
    /// SEAMCALLs of KVM, counted from its code.
    pub kvm_seamcalls: Option<u64>,
    /// Kicks of KVM.
    pub kvm_kicks: Option<u64>,
}

/// Carries the command out.
pub fn run(args: &Args, output: &mut Output) -> Result<(), Error> {
    let rows = rows()?;
    if args.json {
        return Ok(output.json(&rows)?);
    }
    let or_none = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), grouped);
    let lines = rows.iter().map(|row| {
        vec![
            row.operation.to_owned(),
            grouped(row.seamcalls),
            row.kicks.to_string(),
            or_none(row.kvm_seamcalls),
            or_none(row.kvm_kicks),
        ]
    });
    let header = [
        "operation",
        "SEAMCALLs",
        "kicks",
        "KVM: SEAMCALLs",
        "KVM: kicks",
    ];
    output.heading("Cost of operations")?;
    output.table(&header, lines.collect(), &[1, 2, 3, 4])?;
    for row in &rows {
        output.heading(row.operation)?;
        let leaves = row
            .leaves
            .0
            .iter()
            .map(|(leaf, count)| vec![leaf.clone(), grouped(*count)]);
        output.table(&["leaf", ""], leaves.collect(), &[1])?;
    }
    Ok(())
}

/// Every operation of the cost table.
pub fn rows() -> Result<Vec<Row>, Error> {
    let mut rows = operations()?;
    let (small, large) = (teardown(Level::Pt, BIG)?, teardown(Level::Pd, BIG)?);
    let pages = BIG / Level::Pt.size();
    let kvm = Some((4 * pages, pages));
    rows.push(row("tear down 64 GiB of 4 KiB pages", small, kvm));
    rows.push(row("tear down 64 GiB of 2 MiB pages", large, None));
    Ok(rows)
}

/// The operations on a TD that lives on.
pub fn operations() -> Result<Vec<Row>, Error> {
    let range = |size| GpaRange::new(AT, size).ok_or(TdError::BadAddress(AT));
    let gpa = PrivateGpa::new(AT);
    let (small, large) = (Level::Pt, Level::Pd);
    Ok(vec![
        row(
            "map 2 MiB",
            running(large, Tracked::No, |td| {
                td.prefault(next()?, large).map(drop)
            })?,
            Some((513, 0)),
        ),
        row(
            "unmap 2 MiB held as 4 KiB pages",
            running(small, Tracked::Yes, |td| td.unmap_private(&[range(LARGE)?]))?,
            Some((2048, 512)),
        ),
        row(
            "unmap one 2 MiB leaf",
            running(large, Tracked::Yes, |td| td.unmap_private(&[range(LARGE)?]))?,
            Some((515, 1)),
        ),
        row(
            "split 2 MiB",
            running(large, Tracked::Yes, |td| td.split(gpa))?,
            Some((3, 1)),
        ),
        row(
            "relocate a page",
            running(small, Tracked::Yes, |td| relocate(td, gpa))?,
            None,
        ),
        row(
            "zap before FINALIZE",
            before_finalize(|td| td.unmap_private(&[range(4096)?]))?,
            Some((3, 0)),
        ),
    ])
}

/// Reclaiming the leaves and the Secure-EPT pages of a TD with `bytes` of memory in pages of `level`.
pub fn teardown(level: Level, bytes: u64) -> Result<(Counts, u64), Error> {
    let all = GpaRange::new(0, bytes).ok_or_else(|| failed(TdError::BadAddress(bytes)))?;
    let host = Host::new(GuestMemory::new(vec![all], level), 1);
    // What pages held before does not matter here, and would take as much real memory.
    host.allow_soil(false);
    let up = host.bring_up()?;
    let td = host.create_td(&up)?;
    td.finalize().map_err(failed)?;
    let bar = progress::bar(bytes >> 30, "mapping GiB");
    for start in (0..bytes).step_by(1 << 30) {
        let size = (bytes - start).min(1 << 30);
        let part = GpaRange::new(start, size).ok_or_else(|| failed(TdError::BadAddress(start)))?;
        td.prefault(part, level).map_err(failed)?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let control = u64::from(up.info.tdcs_pages) + u64::from(up.info.tdvps_pages) + 1;
    let mut torn = Ok(());
    let (counts, kicks, _) = measured(&host, || {
        torn = host.tear_down(&up, td);
        Ok(())
    });
    torn?;
    let reclaim = "TDH.PHYMEM.PAGE.RECLAIM";
    let pages = counts.get(reclaim).saturating_sub(control);
    Ok((Counts(vec![(reclaim.to_owned(), pages)]), kicks))
}

fn row(operation: &'static str, (leaves, kicks): (Counts, u64), kvm: Option<(u64, u64)>) -> Row {
    Row {
        operation,
        seamcalls: leaves.total(),
        leaves,
        kicks,
        kvm_seamcalls: kvm.map(|(seamcalls, _)| seamcalls),
        kvm_kicks: kvm.map(|(_, kicks)| kicks),
    }
}

/// The 2 MiB behind what is mapped, under the same table.
fn next() -> Result<GpaRange, TdError> {
    GpaRange::new(AT + WORK, LARGE).ok_or(TdError::BadAddress(AT))
}

fn relocate(td: &HostTd<'_>, gpa: PrivateGpa) -> Result<(), TdError> {
    let target: Page = td
        .embedder()
        .private_page(gpa, Level::Pt)
        .ok_or(TdError::OutOfPages)?;
    td.relocate(gpa, target).map_err(|rejected| {
        if let Some(page) = rejected.page {
            td.embedder().take_back(gpa, page);
        }
        rejected.error
    })
}

/// Whether an operation must wait for vCPUs to leave.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tracked {
    Yes,
    No,
}

/// Costs of `work` on a running TD with all vCPUs inside. Where translations have to be tracked, the
/// same without kicks must be refused by the module, or the number of kicks would mean nothing.
fn running(
    level: Level,
    tracked: Tracked,
    work: impl Fn(&HostTd<'_>) -> Result<(), TdError>,
) -> Result<(Counts, u64), Error> {
    let (counts, kicks, done) = once(level, true, &work)?;
    done.map_err(failed)?;
    if tracked == Tracked::Yes {
        let (_, _, refused) = once(level, false, &work)?;
        let code = refused
            .err()
            .and_then(|error| error.status())
            .map(|status| status.code());
        if code != Some(StatusCode::TLB_TRACKING_NOT_DONE) {
            return Err(Error::Failed(format!(
                "without kicks the operation ended with {code:?}"
            )));
        }
    }
    Ok((counts, kicks))
}

type Once = (Counts, u64, Result<(), TdError>);

fn once(
    level: Level,
    kicks: bool,
    work: &impl Fn(&HostTd<'_>) -> Result<(), TdError>,
) -> Result<Once, Error> {
    let (host, up) = host(level)?;
    let td = host.create_td(&up)?;
    host.build(&td, &image::builtin(), Order::Page, || ())?;
    let mapped = GpaRange::new(AT, WORK).ok_or_else(|| failed(TdError::BadAddress(AT)))?;
    td.prefault(mapped, level).map_err(failed)?;
    host.allow_kicks(kicks);
    let (counts, kicked, done) = guests::inside(&td, || measured(&host, || work(&td)))?;
    host.allow_kicks(true);
    if done.is_err() {
        // With all vCPUs outside it can be completed.
        work(&td).map_err(failed)?;
    }
    host.tear_down(&up, td)?;
    Ok((counts, kicked, done))
}

fn before_finalize(
    work: impl Fn(&HostTd<'_>) -> Result<(), TdError>,
) -> Result<(Counts, u64), Error> {
    let (host, up) = host(Level::Pt)?;
    let td = host.create_td(&up)?;
    let mapped = GpaRange::new(AT, 4096).ok_or_else(|| failed(TdError::BadAddress(AT)))?;
    td.prefault(mapped, Level::Pt).map_err(failed)?;
    let (counts, kicks, done) = measured(&host, || work(&td));
    done.map_err(failed)?;
    host.tear_down(&up, td)?;
    Ok((counts, kicks))
}

fn host(level: Level) -> Result<(Host, Up), Error> {
    let ranges = slots(2 * (AT + WORK), &image::builtin());
    let host = Host::new(GuestMemory::new(ranges, level), VCPUS);
    let up = host.bring_up()?;
    Ok((host, up))
}

/// SEAMCALLs by leaf but for TD entries, and kicks, of `work`.
fn measured(host: &Host, work: impl FnOnce() -> Result<(), TdError>) -> Once {
    let counters = host.platform().counters();
    let (before, kicks) = (counters.seamcalls_by_name(), counters.kicks());
    let done = work();
    let after = counters.seamcalls_by_name();
    let grown = after
        .into_iter()
        .filter(|(leaf, _)| *leaf != "TDH.VP.ENTER")
        .filter_map(|(leaf, count)| {
            let count = count - before.get(leaf).copied().unwrap_or(0);
            (count > 0).then(|| (leaf.to_owned(), count))
        });
    (Counts(grown.collect()), counters.kicks() - kicks, done)
}

fn failed(source: TdError) -> Error {
    Error::Td(MakeError::Td {
        doing: "the operation failed",
        source,
    })
}

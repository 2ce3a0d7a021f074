//! `tdx measure`: MRTD of a firmware image, by really building the TD.

use std::io::Write;
use std::path::PathBuf;

use serde::Serialize;
use tdx_abi::Level;
use tdx_mmu::GpaRange;

use crate::error::Error;
use crate::host::Host;
use crate::host::guest_memory::GuestMemory;
use crate::host::image::Order;
use crate::host::td::slots;
use crate::output::FAINT;
use crate::output::Output;
use crate::output::bytes;
use crate::output::grouped;
use crate::progress;
use crate::tdvf::MAX_IMAGE;
use crate::tdvf::Tdvf;

/// Compute the MRTD of a TDVF image by building its TD through the MMU and the emulated module.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Firmware image with TDX metadata, such as OVMF.fd, plain or gzip.
    firmware: PathBuf,
    /// Order of the calls: measure each page when it is added, or each section.
    #[arg(long, value_enum, default_value = "page")]
    order: Order,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// MRTD and what it took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Measurement {
    /// MRTD as hexadecimal digits.
    pub mrtd: String,
    /// Order of the calls.
    pub order: &'static str,
    /// Calls of TDH.MEM.PAGE.ADD, counted by the emulated module.
    pub page_add: u64,
    /// Calls of TDH.MR.EXTEND, counted by the emulated module.
    pub mr_extend: u64,
}

/// Carries the command out.
pub fn run(args: &Args, output: &mut Output) -> Result<(), Error> {
    let image = load(&args.firmware)?;
    let measurement = measure(&image, args.order)?;
    if args.json {
        output.json(&measurement)?;
        return Ok(());
    }
    output.heading("Sections")?;
    let rows = image.sections().iter().map(|section| {
        let what = match (section.is_added(), section.is_measured) {
            (false, _) => "added while the guest runs",
            (true, true) => "added and measured",
            (true, false) => "added",
        };
        vec![
            section.kind.name().to_owned(),
            format!("{:#x}", section.gpa),
            bytes(section.size),
            what.to_owned(),
        ]
    });
    output.table(&["kind", "GPA", "size", ""], rows.collect(), &[1, 2])?;
    output.heading("Measurement")?;
    let rows = vec![
        vec!["MRTD".to_owned(), measurement.mrtd],
        vec!["order".to_owned(), measurement.order.to_owned()],
        vec!["TDH.MEM.PAGE.ADD".to_owned(), grouped(measurement.page_add)],
        vec!["TDH.MR.EXTEND".to_owned(), grouped(measurement.mr_extend)],
    ];
    output.table(&[], rows, &[])?;
    writeln!(
        output,
        "\n  {FAINT}The TD was built page by page, read and torn down; every page came back.{FAINT:#}"
    )?;
    Ok(output.flush()?)
}

/// Reads a firmware image.
pub fn load(path: &std::path::Path) -> Result<Tdvf, Error> {
    let bytes = crate::input::read(path, MAX_IMAGE)?;
    Tdvf::parse(bytes).map_err(|source| Error::Firmware {
        path: path.display().to_string(),
        source,
    })
}

/// Builds the TD of `image` on a platform of its own and reads MRTD.
pub fn measure(image: &Tdvf, order: Order) -> Result<Measurement, Error> {
    let ranges: Vec<GpaRange> = slots(0, image);
    let host = Host::new(GuestMemory::new(ranges, Level::Pt), 1);
    let up = host.bring_up()?;
    let td = host.create_td(&up)?;
    let bar = progress::bar(
        crate::host::image::steps(image, order).count() as u64,
        "building the TD",
    );
    host.build(&td, image, order, || bar.inc(1))?;
    bar.finish_and_clear();
    let mrtd = host.mrtd(&td)?;
    host.tear_down(&up, td)?;
    let counts = host.platform().counters().seamcalls_by_name();
    let count = |leaf| counts.get(leaf).copied().unwrap_or(0);
    Ok(Measurement {
        mrtd: mrtd.iter().map(|byte| format!("{byte:02x}")).collect(),
        order: order.name(),
        page_add: count("TDH.MEM.PAGE.ADD"),
        mr_extend: count("TDH.MR.EXTEND"),
    })
}

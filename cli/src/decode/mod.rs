//! `tdx decode`: what a number, a log or a report says.

mod entry;
mod gpa;
mod leaf;
pub(crate) mod log;
mod status;
mod tdreport;

use std::path::PathBuf;

use clap::Args;
use clap::Subcommand;
use clap::ValueEnum;
use clap::builder::TypedValueParser as _;
use tdx_codegen::model::Callee;

use crate::error::Error;
use crate::output::Output;

pub(crate) use status::StatusReading;

/// Takes a value, a log or a report apart.
#[derive(Debug, Args)]
pub struct Options {
    #[command(subcommand)]
    what: What,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// RAX after a call.
    Status {
        /// The value, 0x for hexadecimal.
        value: String,
        /// Who returned it.
        #[arg(long, value_enum, default_value_t = From::Module)]
        from: From,
    },
    /// RAX before a call: leaf number and version.
    Leaf {
        /// The value, 0x for hexadecimal.
        value: String,
    },
    /// A metadata field id.
    Field {
        /// The value, 0x for hexadecimal.
        value: String,
    },
    /// A Secure-EPT entry in memory.
    Sept {
        /// The value, 0x for hexadecimal.
        value: String,
        /// Level of the entry: 0 maps 4 KiB.
        #[arg(long, value_parser = clap::value_parser!(u8).range(0..=4))]
        level: Option<u8>,
    },
    /// An entry of an ordinary EPT.
    Ept {
        /// The value, 0x for hexadecimal.
        value: String,
        /// Level of the entry: 0 maps 4 KiB.
        #[arg(long, value_parser = clap::value_parser!(u8).range(0..=4))]
        level: Option<u8>,
    },
    /// A guest-physical address.
    Gpa {
        /// The value, 0x for hexadecimal.
        value: String,
        /// Guest-physical address width of the TD, which puts the SHARED bit at 47 or 51.
        #[arg(long, default_value_t = 48, value_parser = clap::builder::PossibleValuesParser::new(["48", "52"]).map(|text| if text == "52" { 52_u8 } else { 48 }))]
        gpaw: u8,
    },
    /// A TDREPORT, with its hashes verified.
    Tdreport {
        /// 1024 bytes as TDG.MR.REPORT writes them.
        file: PathBuf,
    },
    /// Lines about TDX in a kernel log; other lines pass through.
    Log {
        /// The log; `-` or nothing: standard input.
        file: Option<PathBuf>,
    },
}

/// Who returned a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum From {
    /// The TDX module.
    Module,
    /// P-SEAMLDR.
    Seamldr,
    /// Linux, for a call that did not reach anybody.
    Linux,
}

impl core::convert::From<From> for Callee {
    fn from(from: From) -> Self {
        match from {
            From::Module => Self::Module,
            From::Seamldr => Self::Seamldr,
            From::Linux => Self::Linux,
        }
    }
}

/// Carries out `tdx decode`.
pub fn decode(options: &Options, output: &mut Output) -> Result<(), Error> {
    let json = options.json;
    match &options.what {
        What::Status { value, from } => status::decode(value, (*from).into(), json, output),
        What::Leaf { value } => leaf::decode(value, json, output),
        What::Field { value } => leaf::decode_field(value, json, output),
        What::Sept { value, level } => entry::decode_sept(value, *level, json, output),
        What::Ept { value, level } => entry::decode_ept(value, *level, json, output),
        What::Gpa { value, gpaw } => gpa::decode(value, *gpaw, json, output),
        What::Tdreport { file } => tdreport::decode(file, json, output),
        What::Log { file } => log::decode(file.as_deref(), json),
    }
}

pub(crate) use log::explain as explain_log;
pub(crate) use tdreport::report;

/// `tdx decode` of a value; `what` counts the kinds of [`What`] that take one.
pub(crate) fn value(
    what: u8,
    level: Option<u8>,
    text: &str,
    json: bool,
    output: &mut Output,
) -> Result<(), Error> {
    let value = text.to_owned();
    let options = Options {
        what: match what {
            0 => What::Status {
                value,
                from: From::Module,
            },
            1 => What::Status {
                value,
                from: From::Seamldr,
            },
            2 => What::Status {
                value,
                from: From::Linux,
            },
            3 => What::Leaf { value },
            4 => What::Field { value },
            5 => What::Sept { value, level },
            6 => What::Ept { value, level },
            _ => What::Gpa {
                value,
                gpaw: if level.is_some() { 52 } else { 48 },
            },
        },
        json,
    };
    decode(&options, output)
}

/// A heading and, aligned below it, what is known.
pub(crate) fn print(
    output: &mut Output,
    heading: &str,
    lines: &[(&str, String)],
) -> Result<(), Error> {
    use std::io::Write as _;
    writeln!(output, "{0}{heading}{0:#}", crate::output::HEADING)?;
    let rows = lines
        .iter()
        .map(|(label, text)| vec![label.to_string(), text.clone()]);
    output.table(&[], rows.collect(), &[])?;
    Ok(())
}

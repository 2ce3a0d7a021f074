//! `tdx spec generate`: the specification as Rust, C, JSON or a book.

pub(super) mod write;

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use clap::ValueEnum;
use tdx_codegen::emit::File;
use tdx_codegen::emit::book;
use tdx_codegen::emit::c;
use tdx_codegen::emit::json;
use tdx_codegen::emit::vendor;
use tdx_codegen::emit::vendor::Form;
use tdx_codegen::model::Spec;
use tdx_codegen::source::Sources;

use crate::error::Error;
use crate::input::InputError;
use crate::output::Output;
use crate::output::bytes;
use write::Change;

/// Writes the ABI for those who do not use this toolkit's crates: Rust, C, JSON or a book.
#[derive(Debug, Args)]
pub struct Options {
    /// What to write.
    #[arg(long, value_enum)]
    lang: Language,
    /// Folder to write to; it is made if it is not there.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Folder with the YAML files; without it, the specification that the command was built with.
    #[arg(long, value_name = "DIR")]
    spec: Option<PathBuf>,
    /// Rust only: write a module of another crate, which has this path there, such as crate::tdx, and no crate.
    #[arg(long, value_name = "PATH")]
    module: Option<String>,
    /// Replace files that were not written by this command, too.
    #[arg(long)]
    force: bool,
    /// Write nothing; fail if a file would change.
    #[arg(long)]
    check: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Language {
    /// A crate, or a module of one, that needs no macro and nothing but core.
    Rust,
    /// Headers for C11, C++11 and assembler.
    C,
    /// The whole model in one file, with a JSON Schema that documents it.
    Json,
    /// Sources for mdBook: a searchable reference.
    Book,
}

/// Carries out `tdx spec generate`.
pub fn generate(options: &Options, output: &mut Output) -> Result<(), Error> {
    if options.module.is_some() && options.lang != Language::Rust {
        return Err(Error::Failed(
            "--module is for --lang rust: the other languages have no modules".to_owned(),
        ));
    }
    let spec = read(options.spec.as_deref())?;
    let files = files(options, &spec)?;
    let plan = write::plan(&options.out, &files, options.force)?;
    let changed = plan.iter().filter(|step| step.change != Change::Same);
    let changed = changed.count();
    if !options.check {
        write::carry_out(&options.out, &plan)?;
    }
    summary(options, &plan, output)?;
    if options.check && changed > 0 {
        return Err(Error::Failed(format!(
            "{changed} of {} files in {} are not as the specification says",
            plan.len(),
            options.out.display()
        )));
    }
    Ok(())
}

fn read(directory: Option<&std::path::Path>) -> Result<Spec, Error> {
    let sources = match directory {
        None => Sources::embedded(),
        Some(directory) => Sources::read(directory).map_err(|source| InputError::Read {
            path: directory.display().to_string(),
            source,
        })?,
    };
    match tdx_codegen::from_sources(sources) {
        Ok(specification) => Ok(specification.spec),
        Err(mistakes) => Err(Error::Failed(format!(
            "the specification has {} mistakes; `tdx spec check` shows them",
            mistakes.list().len()
        ))),
    }
}

fn files(options: &Options, spec: &Spec) -> Result<Vec<File>, Error> {
    match options.lang {
        Language::Rust => {
            let form = match &options.module {
                None => Form::Crate,
                Some(path) => Form::Module(path),
            };
            vendor::vendor(spec, tdx_abi::source::FILES, form)
                .map_err(|error| Error::Failed(error.to_string()))
        }
        Language::C => c::headers(spec).map_err(|error| Error::Failed(error.to_string())),
        Language::Json => Ok(json::files(spec)),
        Language::Book => Ok(book::files(spec)),
    }
}

fn summary(options: &Options, plan: &[write::Step<'_>], output: &mut Output) -> Result<(), Error> {
    if options.json {
        let files: Vec<_> = plan
            .iter()
            .map(|step| serde_json::json!({ "name": step.name, "change": step.change.name(), "bytes": step.text.map(str::len) }))
            .collect();
        return Ok(output.json(&serde_json::json!({ "files": files }))?);
    }
    let mut rows: Vec<Vec<String>> = Vec::new();
    for change in [Change::New, Change::Updated, Change::Same, Change::Removed] {
        let of_kind = || plan.iter().filter(|step| step.change == change);
        let size: usize = of_kind().filter_map(|step| step.text.map(str::len)).sum();
        if of_kind().count() > 0 {
            rows.push(vec![
                change.name().to_owned(),
                of_kind().count().to_string(),
                bytes(size as u64),
            ]);
        }
    }
    output.table(&["", "files", "size"], rows, &[1, 2])?;
    let verb = if options.check { "compared with" } else { "in" };
    Ok(writeln!(output, "  {verb} {}", options.out.display())?)
}

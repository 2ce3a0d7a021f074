//! `tdx spec schema`: JSON Schemas for editors.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use tdx_codegen::emit::File;
use tdx_codegen::source::Sources;

use super::generate::write;
use crate::error::Error;
use crate::output::Output;

/// Writes the JSON Schemas of the specification's files, for editors that complete and check YAML.
///
/// They say what the loader asks for, key by key.
#[derive(Debug, Args)]
pub struct Options {
    /// The kind of file, such as leaf or format; without it, all of them.
    kind: Option<String>,
    /// File for one kind, folder for all; without it, one kind is printed.
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
}

/// Carries out `tdx spec schema`.
pub fn schema(options: &Options, output: &mut Output) -> Result<(), Error> {
    let schemas = tdx_codegen::schema::schemas(&Sources::embedded());
    let text = |schema: &serde_json::Value| format!("{schema:#}\n");
    match (&options.kind, &options.out) {
        (Some(kind), out) => {
            let Some(schema) = schemas.get(kind) else {
                let known: Vec<&str> = schemas.keys().map(String::as_str).collect();
                return Err(Error::Failed(format!(
                    "there is no kind `{kind}`: known are {}",
                    known.join(", ")
                )));
            };
            match out {
                Some(path) => write::replace(path, &text(schema)),
                None => Ok(write!(output, "{}", text(schema))?),
            }
        }
        (None, Some(folder)) => {
            for (kind, schema) in &schemas {
                let file = File::new(format!("{kind}.schema.json"), text(schema));
                let path = folder.join(&file.name);
                if !std::fs::read(&path).is_ok_and(|old| old == file.text.as_bytes()) {
                    write::replace(&path, &file.text)?;
                    writeln!(output, "{}", path.display())?;
                }
            }
            Ok(())
        }
        (None, None) => Err(Error::Failed(
            "name a kind, or a folder for all of them with --out".to_owned(),
        )),
    }
}

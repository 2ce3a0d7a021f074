//! `tdx decode log`: explains lines about TDX in place.

mod explain;
mod scan;

use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::path::Path;

use anstream::AutoStream;
use anstream::ColorChoice;
use anstyle::Style;

use crate::error::Error;
use crate::input;
use crate::input::InputError;
use crate::output::FAINT;
use crate::reference;
use explain::Context;

/// A line longer than this is passed through in pieces, so that memory stays bounded whatever the input is.
const LINE_LIMIT: u64 = 64 << 10;

pub(super) fn decode(path: Option<&Path>, json: bool) -> Result<(), Error> {
    let (reader, name): (Box<dyn BufRead>, String) =
        match path.filter(|path| *path != Path::new("-")) {
            Some(path) => (input::open(path)?, path.display().to_string()),
            None => (
                Box::new(BufReader::new(io::stdin())),
                "standard input".to_string(),
            ),
        };
    // Not through `Output`, which would drop from the log whatever is no text.
    let coloured = AutoStream::choice(&io::stdout()) != ColorChoice::Never;
    let style = if coloured { FAINT } else { Style::new() };
    let output = io::BufWriter::with_capacity(1 << 16, io::stdout().lock());
    explain_styled(reader, &name, output, json, style)
}

/// The log that `reader` gives, explained in `output`.
pub(crate) fn explain(reader: impl BufRead, output: impl Write, json: bool) -> Result<(), Error> {
    explain_styled(reader, "log", output, json, Style::new())
}

fn explain_styled(
    mut reader: impl BufRead,
    name: &str,
    mut output: impl Write,
    json: bool,
    style: Style,
) -> Result<(), Error> {
    let spec = reference::spec()?;
    let mut context = Context::new(spec);
    let mut line = Vec::new();
    let mut number = 1_u64;
    let mut starts_line = true;
    loop {
        line.clear();
        let read = reader
            .by_ref()
            .take(LINE_LIMIT)
            .read_until(b'\n', &mut line);
        if read.map_err(|source| InputError::Read {
            path: name.to_owned(),
            source,
        })? == 0
        {
            break;
        }
        let explanation = if starts_line {
            scan::scan(&line).and_then(|finding| context.explain(number, finding))
        } else {
            None
        };
        starts_line = line.last() == Some(&b'\n');
        if !json {
            output.write_all(&line)?;
        }
        if let Some(explanation) = explanation {
            if json {
                serde_json::to_writer(&mut output, &explanation.json).map_err(io::Error::from)?;
                output.write_all(b"\n")?;
            } else {
                if !starts_line {
                    output.write_all(b"\n")?;
                    starts_line = true;
                }
                for text in explanation.lines {
                    writeln!(output, "{style}    | {text}{style:#}")?;
                }
            }
        }
        number += u64::from(line.last() == Some(&b'\n'));
    }
    Ok(output.flush()?)
}

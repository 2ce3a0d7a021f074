//! `tdx decode tdreport`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use sha2::Digest;
use sha2::Sha384;
use tdx_codegen::model::Spec;
use tdx_codegen::model::Structure;
use tdx_codegen::model::StructureField;
use tdx_codegen::model::StructureItem;

use crate::error::Error;
use crate::input::InputError;
use crate::output::Output;
use crate::reference;

/// The newest layout: what older modules leave 0 is named, and the hashed part of TEE_TCB_INFO has its true size.
const REPORT: &str = "TdReportV2";

/// A named piece of a structure in memory.
struct Piece<'b> {
    path: String,
    bytes: &'b [u8],
}

pub(super) fn decode(path: &Path, json: bool, output: &mut Output) -> Result<(), Error> {
    let size = structure(reference::spec()?, REPORT)?.size as usize;
    let mut bytes = Vec::new();
    let source = |source| InputError::Read {
        path: path.display().to_string(),
        source,
    };
    File::open(path)
        .and_then(|file| file.take(size as u64 + 1).read_to_end(&mut bytes))
        .map_err(source)?;
    report(&path.display().to_string(), &bytes, json, output)
}

/// What the bytes of the file called `name` say.
pub(crate) fn report(
    name: &str,
    bytes: &[u8],
    json: bool,
    output: &mut Output,
) -> Result<(), Error> {
    let spec = reference::spec()?;
    let structure = structure(spec, REPORT)?;
    let size = structure.size as usize;
    if bytes.len() != size {
        let longer = if bytes.len() > size { "more than " } else { "" };
        let found = bytes.len().min(size);
        return Err(Error::Failed(format!(
            "{name}: a TDREPORT has {size} bytes, this file has {longer}{found}"
        )));
    }
    let mut pieces = Vec::new();
    take_apart(spec, structure, bytes, "", &mut pieces)?;
    let hashes = [
        (
            "tee_tcb_info",
            "tee_tcb_info_hash",
            "report_mac.tee_tcb_info_hash",
        ),
        ("td_info", "tee_info_hash", "report_mac.tee_info_hash"),
    ];
    let mut verified = Vec::new();
    for (covered, label, holder) in hashes {
        verified.push((
            label,
            covered,
            verify(spec, structure, bytes, covered, holder, &pieces)?,
        ));
    }
    if json {
        let fields: Map<String, Value> = pieces
            .iter()
            .map(|it| (it.path.clone(), json!(hexadecimal(it.bytes))))
            .collect();
        let hashes: Map<String, Value> = verified
            .iter()
            .map(|(label, _, holds)| (label.to_string(), json!(holds)))
            .collect();
        output.json(&json!({ "fields": fields, "hashes_verified": hashes }))?;
    } else {
        super::print(output, &format!("{name}  TDREPORT"), &[])?;
        let rows = pieces
            .iter()
            .map(|piece| vec![piece.path.clone(), hexadecimal(piece.bytes)])
            .collect();
        output.table(&[], rows, &[])?;
        for (label, covered, holds) in &verified {
            output.verdict(&format!("{label} is the SHA-384 of {covered}"), *holds)?;
        }
    }
    match verified.iter().find(|(_, _, holds)| !holds) {
        Some((label, covered, _)) => Err(Error::Failed(format!(
            "{name}: {label} is not the SHA-384 of {covered}"
        ))),
        None => Ok(()),
    }
}

fn structure<'s>(spec: &'s Spec, name: &str) -> Result<&'s Structure, Error> {
    let found = spec.structures.iter().find(|it| it.name == name);
    found.ok_or_else(|| Error::Failed(format!("the specification has no structure {name}")))
}

fn fields(structure: &Structure) -> impl Iterator<Item = &StructureField> {
    structure.items.iter().filter_map(|item| match item {
        StructureItem::Field(field) => Some(field),
        StructureItem::Reserved { .. } => None,
    })
}

fn slice(bytes: &[u8], offset: u32, size: u32) -> Result<&[u8], Error> {
    let (offset, size) = (offset as usize, size as usize);
    bytes
        .get(offset..offset + size)
        .ok_or_else(|| Error::Failed(format!("no bytes {offset} to {}", offset + size)))
}

fn take_apart<'b>(
    spec: &Spec,
    structure: &Structure,
    bytes: &'b [u8],
    prefix: &str,
    pieces: &mut Vec<Piece<'b>>,
) -> Result<(), Error> {
    for field in fields(structure) {
        for index in 0..field.count.unwrap_or(1) {
            let suffix = if field.count.is_some() {
                format!("[{index}]")
            } else {
                String::new()
            };
            let path = format!("{prefix}{}{suffix}", field.name);
            let size =
                tdx_codegen::emit::rust::type_size(spec, &field.ty.value).unwrap_or(field.size);
            let bytes = slice(bytes, field.offset + index * size, size)?;
            match spec.structures.iter().find(|it| it.name == field.ty.value) {
                Some(inner) if inner.name != "Sha384Digest" => {
                    take_apart(spec, inner, bytes, &format!("{path}."), pieces)?;
                }
                _ => pieces.push(Piece { path, bytes }),
            }
        }
    }
    Ok(())
}

/// Whether the hash at `holder` is that of the part of the report named `covered`, without its reserved end.
fn verify(
    spec: &Spec,
    report: &Structure,
    bytes: &[u8],
    covered: &str,
    holder: &str,
    pieces: &[Piece<'_>],
) -> Result<bool, Error> {
    let absent = |what: &str| Error::Failed(format!("the specification's TDREPORT has no {what}"));
    let field = fields(report)
        .find(|field| field.name == covered)
        .ok_or_else(|| absent(covered))?;
    let inner = structure(spec, &field.ty.value)?;
    let hash = pieces
        .iter()
        .find(|piece| piece.path == holder)
        .ok_or_else(|| absent(holder))?;
    Ok(Sha384::digest(slice(bytes, field.offset, inner.size)?).as_slice() == hash.bytes)
}

fn hexadecimal(bytes: &[u8]) -> String {
    match bytes.len() {
        1 | 2 | 4 | 8 => {
            let value = bytes
                .iter()
                .rev()
                .fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
            format!("{value:#x}")
        }
        _ => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

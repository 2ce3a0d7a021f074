//! Metadata lists: the page format in which state is exported and imported.
//!
//! A list is a header (bytes used, number of sequences) and sequences; a sequence is a header, which is
//! the identifier of its first field with the number of its fields and of their elements in it, and the
//! elements, 8 bytes each. Source: `md_dump_list` and `md_write_list` of module 1.5.01.

use crate::abi::Status;
use crate::abi::StatusCode;
use crate::core::Core;
use crate::metadata::Access;
use crate::metadata::Context;
use crate::metadata::ContextCode;
use crate::metadata::Cursor;
use crate::metadata::MAX_ELEMENTS;
use crate::metadata::Step;
use crate::metadata::id::Id;
use tdx_abi::field::FieldRow;
use tdx_abi::field::MigType;
use tdx_abi::format::FieldId;
use tdx_abi::format::MetadataListHeader;

/// Words of a list that fills a page.
pub(crate) const PAGE_WORDS: usize = 512;
/// Class of the virtual CPUID values.
const CPUID_CLASS: u8 = 20;
/// RAX[31:16] where no sequence is at fault.
const NO_SEQUENCE: u32 = 0xffff;

/// A failure to take in a list, with what RCX and RDX say about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ListError {
    pub(crate) status: Status,
    pub(crate) field: u64,
}

/// Fills `list` with the fields of `scope` that `access` may read, from the place of `cursor` on.
///
/// Returns whether fields remain; then `cursor` stands at the next one. Only whole fields are put into
/// the list.
pub(crate) fn dump(
    context: &Context<'_>,
    scope: ContextCode,
    cursor: &mut Cursor,
    access: Access,
    list: &mut [u64; PAGE_WORDS],
) -> bool {
    list.fill(0);
    if cursor.id().is_none() {
        cursor.advance_accessible(Step::Field, access);
    }
    let mut used = 1;
    let mut sequences = 0_u16;
    while let Some(row) = here(cursor) {
        if used + 1 + usize::from(row.num_of_elem) > PAGE_WORDS {
            break;
        }
        let (end, whole) = dump_sequence(context, scope, cursor, access, list, used);
        if end > used {
            sequences += 1;
            used = end;
        }
        if !whole {
            break;
        }
    }
    list[0] = MetadataListHeader::default()
        .with_list_buff_size((used * 8) as u16)
        .with_num_sequences(sequences)
        .into_bits();
    !cursor.id().is_none()
}

/// Dumps the module's own fields that `access` may read from `id` on into the page at `hpa`.
///
/// Returns the identifier of the field with which the next list begins, also in an error.
pub(crate) fn dump_system(
    core: &Core,
    id: Id,
    access: Access,
    hpa: u64,
) -> (u64, Result<(), Status>) {
    let scope = ContextCode::System;
    let context = Context {
        core,
        tdr: None,
        tdcs: None,
        tdvps: None,
    };
    let id = id.with_context_code(scope as u8);
    let Some(mut cursor) = Cursor::at_field(scope, id, context.module(), 0) else {
        let incorrect = Status::of(StatusCode::METADATA_FIELD_ID_INCORRECT);
        return (Id::NONE.bits(), Err(incorrect));
    };
    let mut list = [0; PAGE_WORDS];
    let fields_remain = dump(&context, scope, &mut cursor, access, &mut list);
    let used = usize::from(list[0] as u16) / 8;
    for (at, word) in (hpa..).step_by(8).zip(&list[..used]) {
        core.memory().write_u64(at, *word);
    }
    let outcome = if fields_remain {
        Err(Status::of(StatusCode::METADATA_LIST_OVERFLOW))
    } else {
        Ok(())
    };
    (cursor.id().bits(), outcome)
}

/// Writes one sequence at word `start`; returns where it ends, and whether it was not cut short.
fn dump_sequence(
    context: &Context<'_>,
    scope: ContextCode,
    cursor: &mut Cursor,
    access: Access,
    list: &mut [u64; PAGE_WORDS],
    start: usize,
) -> (usize, bool) {
    let mut end = start;
    let mut fields = 0;
    let mut header = cursor.id();
    while let Some(row) = here(cursor) {
        let elements = usize::from(row.num_of_elem);
        let first = end.max(start + 1);
        if first + elements > PAGE_WORDS {
            return (end, false);
        }
        let id = cursor.id();
        let mut values = [0; MAX_ELEMENTS];
        let outcome = context
            .read_field(scope, id, row, access, &mut values)
            .map_err(|status| status.code());
        if outcome.is_ok() {
            if fields == 0 {
                header = id;
            }
            list[first..first + elements].copy_from_slice(&values[..elements]);
            end = first + elements;
            list[start] = sequence_header(header, scope, elements, fields);
            fields += 1;
        }
        cursor.advance_accessible(Step::Field, access);
        let goes_on = outcome != Err(StatusCode::METADATA_FIELD_NOT_READABLE)
            && here(cursor).is_some_and(|next| {
                next.num_of_elem == row.num_of_elem
                    && follows(cursor.id(), id, row.num_of_elem.into())
            });
        if !goes_on {
            return (end, true);
        }
    }
    (end, true)
}

/// The identifier of the first field of a sequence, as its header says it after `fields` more of them.
const fn sequence_header(first: Id, scope: ContextCode, elements: usize, fields: u16) -> u64 {
    FieldId::from_bits(first.with_context_code(scope as u8).bits() & !FieldId::RESERVED)
        .with_write_mask_valid(false)
        .with_last_element_in_field(elements as u8 - 1)
        .with_last_field_in_sequence(fields)
        .into_bits()
}

/// Whether `next` is the field after that of `elements` elements at `id`, as far as a sequence goes.
const fn follows(next: Id, id: Id, elements: u32) -> bool {
    // Virtual CPUID values never form a sequence.
    next.class_code() == id.class_code()
        && id.class_code() != CPUID_CLASS
        && next.field_code() == id.field_code() + elements * id.stride()
        && next.element_size_code() == id.element_size_code()
}

/// Where a list may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ListEnd {
    /// No list follows.
    pub(crate) last: bool,
    /// A list that another one follows may end among fields that need not come.
    pub(crate) anywhere: bool,
}

/// Takes in the fields of `list`, which must begin with the field at `cursor` or with a later one if
/// only optional ones lie between.
///
/// Fields that are not imported are skipped. Afterwards `cursor` stands at the field with which the next list may
/// begin. `write` takes a field's elements under a mask.
pub(crate) fn take(
    cursor: &mut Cursor,
    context: ContextCode,
    access: Access,
    end: ListEnd,
    list: &[u64; PAGE_WORDS],
    mut write: impl FnMut(&'static FieldRow, Id, &[u64; MAX_ELEMENTS], u64) -> Result<(), Status>,
) -> Result<(), ListError> {
    let plain = |code| ListError {
        status: Status::of(code),
        field: 0,
    };
    let header = MetadataListHeader::from_bits(list[0]);
    let sequences = header.num_sequences();
    if sequences == 0 || !header.is_reserved_valid() {
        return Err(plain(StatusCode::INVALID_METADATA_LIST_HEADER));
    }
    if cursor.id().is_none() {
        cursor.advance_accessible(Step::Field, access);
        if cursor.id().is_none() {
            return Err(plain(StatusCode::METADATA_FIELD_ID_INCORRECT));
        }
    }
    let bytes = usize::from(header.list_buff_size()).wrapping_sub(8);
    let mut rest = list[1..].get(..bytes / 8).unwrap_or(&list[1..]);
    for number in 0..u32::from(sequences) {
        let header = Id::new(rest.first().copied().unwrap_or(0));
        if header.context_code() != context as u8 || cursor.id().is_none() {
            return Err(ListError {
                status: incorrect(number),
                field: header.bits(),
            });
        }
        if !same_field(header, cursor.id()) {
            scroll(cursor, |cursor| {
                same_field(header, cursor.id()) || is_required(cursor, access)
            });
            if cursor.id().is_none() || !same_field(header, cursor.id()) {
                return Err(ListError {
                    status: Status::of(StatusCode::REQUIRED_METADATA_FIELD_MISSING),
                    field: cursor.id().bits(),
                });
            }
        }
        let words = take_sequence(cursor, access, rest, &mut write).map_err(|error| ListError {
            status: Status::from_rax(error.status.rax().wrapping_add(number.into())),
            ..error
        })?;
        rest = &rest[words..];
    }
    if end.last || !end.anywhere {
        scroll(cursor, |cursor| is_required(cursor, access));
    }
    // A required field behind the last list is missing; behind any other list there must be one.
    if end.last != cursor.id().is_none() {
        return Err(ListError {
            status: Status::of(StatusCode::REQUIRED_METADATA_FIELD_MISSING),
            field: cursor.id().bits(),
        });
    }
    Ok(())
}

/// Takes in one sequence and returns its words, header included.
fn take_sequence(
    cursor: &mut Cursor,
    access: Access,
    sequence: &[u64],
    write: &mut impl FnMut(&'static FieldRow, Id, &[u64; MAX_ELEMENTS], u64) -> Result<(), Status>,
) -> Result<usize, ListError> {
    let too_short = |cursor: &Cursor| ListError {
        status: Status::with_detail(StatusCode::METADATA_LIST_OVERFLOW, NO_SEQUENCE << 16),
        field: cursor.id().bits(),
    };
    let (Some(&header), true) = (sequence.first(), sequence.len() > 1) else {
        return Err(too_short(cursor));
    };
    let header = Id::new(header);
    if !FieldId::from_bits(header.bits()).is_reserved_valid() {
        return Err(ListError {
            status: incorrect(0),
            field: header.bits(),
        });
    }
    let mismatch = ListError {
        status: Status::of(StatusCode::METADATA_FIELD_ID_INCORRECT),
        field: header.bits(),
    };
    if header.element_size_code() != cursor.id().element_size_code() {
        return Err(mismatch);
    }
    let format = FieldId::from_bits(header.bits());
    let fields = format.last_field_in_sequence();
    let mut word = 1;
    for field in 0..=fields {
        let row = here(cursor).ok_or(mismatch)?;
        let class = cursor.id().class_code();
        let mask = if format.write_mask_valid() {
            // The mask is always the sequence's first word, though each field has room for one.
            word += 1;
            sequence[1]
        } else {
            u64::MAX
        };
        let elements = usize::from(row.num_of_elem);
        let mut values = [0; MAX_ELEMENTS];
        let given = sequence
            .get(word..word + elements)
            .ok_or_else(|| too_short(cursor))?;
        values[..elements].copy_from_slice(given);
        if is_imported(row, access) {
            match write(row, cursor.id(), &values, mask) {
                Err(status) if status.code() != StatusCode::METADATA_FIELD_NOT_WRITABLE => {
                    return Err(ListError {
                        status,
                        field: cursor.id().bits(),
                    });
                }
                _ => {}
            }
        }
        word += elements;
        cursor.advance(Step::Field);
        if field < fields && (cursor.id().is_none() || cursor.id().class_code() != class) {
            return Err(mismatch);
        }
    }
    Ok(word)
}

fn incorrect(sequence: u32) -> Status {
    Status::with_detail(
        StatusCode::METADATA_FIELD_ID_INCORRECT,
        NO_SEQUENCE << 16 | sequence,
    )
}

const fn same_field(left: Id, right: Id) -> bool {
    left.field_code() == right.field_code()
        && left.class_code() == right.class_code()
        && left.context_code() == right.context_code()
}

fn here(cursor: &Cursor) -> Option<&'static FieldRow> {
    if cursor.id().is_none() {
        None
    } else {
        cursor.row()
    }
}

fn scroll(cursor: &mut Cursor, until: impl Fn(&Cursor) -> bool) {
    while !cursor.id().is_none() && !until(cursor) {
        cursor.advance(Step::Field);
    }
}

fn is_required(cursor: &Cursor, access: Access) -> bool {
    here(cursor).is_some_and(|row| match access {
        Access::ImportMutable => {
            matches!(row.mig_import, MigType::Me | MigType::Iesme)
        }
        Access::ImportImmutable => matches!(row.mig_import, MigType::Mb | MigType::Cb),
        _ => false,
    })
}

fn is_imported(row: &FieldRow, access: Access) -> bool {
    match access {
        Access::ImportMutable => {
            matches!(row.mig_import, MigType::Me | MigType::Iesme | MigType::Meo)
        }
        Access::ImportImmutable => matches!(
            row.mig_import,
            MigType::Mb | MigType::Cb | MigType::Mbo | MigType::Cbo
        ),
        _ => false,
    }
}

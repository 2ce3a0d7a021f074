//! TDX metadata of a firmware image (TDVF): which parts of guest memory exist before the guest runs.
//!
//! The image ends with a table of GUIDed entries that is read backwards; one entry says where the metadata
//! descriptor is. Images without the table may give its place in the four bytes 32 bytes before the end.
//! Source: Intel, TDX Virtual Firmware Design Guide, "TDVF descriptor"; edk2 `OvmfPkg/ResetVector`.

mod bytes;
mod section;

use bytes::Bytes;

pub use section::Section;
pub use section::SectionError;
pub use section::SectionKind;

/// Largest image that is looked at: firmware ends at 4 GiB, below which there are also devices.
pub const MAX_IMAGE: u64 = 64 << 20;

/// The table of GUIDed entries ends this many bytes before the end of the image.
const TABLE_END: usize = 0x20;
/// Footer of the table: 96b582de-1fb2-45f7-baea-a366c55a082d.
const TABLE_FOOTER: [u8; 16] = [
    0xde, 0x82, 0xb5, 0x96, 0xb2, 0x1f, 0xf7, 0x45, 0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d,
];
/// Entry with the descriptor's place: e47a6535-984a-4798-865e-4685a7bf8ec2.
const METADATA_OFFSET: [u8; 16] = [
    0x35, 0x65, 0x7a, 0xe4, 0x4a, 0x98, 0x98, 0x47, 0x86, 0x5e, 0x46, 0x85, 0xa7, 0xbf, 0x8e, 0xc2,
];
/// Each entry ends with its length (2 bytes, all of it) and its GUID.
const ENTRY_TRAILER: usize = 2 + 16;

const SIGNATURE: &[u8] = b"TDVF";
const VERSION: u32 = 1;
/// Signature, length, version, number of sections: 4 bytes each.
const HEADER: usize = 16;
/// Bytes of a section's entry.
const ENTRY: usize = 32;
/// Most sections; images have about six.
const MAX_SECTIONS: usize = 256;
/// Most memory that is added before the guest runs.
const MAX_ADDED: u64 = 1 << 30;

/// A firmware image and its sections.
#[derive(Clone, Debug)]
pub struct Tdvf {
    image: Vec<u8>,
    sections: Vec<Section>,
}

/// Why an image cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TdvfError {
    /// Nothing says where the descriptor is.
    #[error(
        "no TDX metadata found, neither through a GUIDed table nor an offset at the end of the {size} bytes"
    )]
    NoMetadata {
        /// Size of the image.
        size: usize,
    },
    /// Something should be outside the image.
    #[error(
        "{what} at offset {offset:#x}, {len:#x} bytes, is not within the image of {size:#x} bytes"
    )]
    Outside {
        /// What should be there.
        what: &'static str,
        /// Offset from the image's start.
        offset: u64,
        /// Size in bytes.
        len: u64,
        /// Size of the image.
        size: usize,
    },
    /// An entry of the GUIDed table has an impossible length.
    #[error("the GUIDed table's entry that ends at offset {end:#x} says it has {length} bytes")]
    BadTable {
        /// Where the entry ends.
        end: usize,
        /// What it says.
        length: u16,
    },
    /// The descriptor does not start as one.
    #[error("the descriptor at offset {offset:#x} starts with {found:02x?}, expected \"TDVF\"")]
    BadSignature {
        /// Where the descriptor should be.
        offset: usize,
        /// What stands there.
        found: Vec<u8>,
    },
    /// The descriptor has a version that is not known.
    #[error("the descriptor has version {0}, expected {VERSION}")]
    BadVersion(u32),
    /// Number of sections and length of the descriptor do not agree, or are absurd.
    #[error(
        "the descriptor has {sections} sections in {length} bytes, expected 1 to {MAX_SECTIONS} of {ENTRY} bytes after {HEADER}"
    )]
    BadLength {
        /// Length in bytes.
        length: u32,
        /// Number of sections.
        sections: u32,
    },
    /// A section is impossible.
    #[error("section {index}")]
    Section {
        /// Which, counted from 0.
        index: usize,
        /// What is wrong.
        #[source]
        source: SectionError,
    },
    /// Two sections claim the same memory.
    #[error("sections {first} and {second} overlap in guest memory")]
    Overlap {
        /// One.
        first: usize,
        /// The other.
        second: usize,
    },
    /// There is too much memory to add.
    #[error("the sections to add have {bytes} bytes, more than {MAX_ADDED}")]
    TooMuchMemory {
        /// All sections that are added.
        bytes: u64,
    },
}

impl Tdvf {
    /// Finds and checks the metadata of `image`.
    pub fn parse(image: Vec<u8>) -> Result<Self, TdvfError> {
        let sections = sections(&Bytes(&image))?;
        Ok(Self { image, sections })
    }

    /// An image made of sections that are known to be right.
    pub(crate) fn from_parts(image: Vec<u8>, sections: Vec<Section>) -> Self {
        Self { image, sections }
    }

    /// The sections in the order of the table.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// The content with which the 4 KiB page at `offset` of `section` starts; the rest of the page is zero.
    pub fn page(&self, section: &Section, offset: u64) -> &[u8] {
        let end = (offset + 4096).min(section.raw_size).max(offset);
        let bytes = |at: u64| usize::try_from(section.raw_offset + at).ok();
        match (bytes(offset), bytes(end)) {
            (Some(start), Some(end)) => self.image.get(start..end).unwrap_or(&[]),
            _ => &[],
        }
    }
}

fn sections(image: &Bytes<'_>) -> Result<Vec<Section>, TdvfError> {
    let offset = descriptor_offset(image)?;
    let header = image.slice("the descriptor", offset, HEADER)?;
    if !header.starts_with(SIGNATURE) {
        return Err(TdvfError::BadSignature {
            offset,
            found: header[..SIGNATURE.len()].to_vec(),
        });
    }
    let length = image.u32("the descriptor's length", offset + 4)?;
    let version = image.u32("the descriptor's version", offset + 8)?;
    let count = image.u32("the descriptor's section count", offset + 12)?;
    if version != VERSION {
        return Err(TdvfError::BadVersion(version));
    }
    let bad_length = TdvfError::BadLength {
        length,
        sections: count,
    };
    let Some(entries) = usize::try_from(count)
        .ok()
        .filter(|count| (1..=MAX_SECTIONS).contains(count))
    else {
        return Err(bad_length);
    };
    // The length may or may not count the 16 bytes of the GUID in front.
    let expected = HEADER + entries * ENTRY;
    if ![expected, expected + 16].contains(&(length as usize)) {
        return Err(bad_length);
    }
    let mut sections: Vec<Section> = Vec::with_capacity(entries);
    let mut added = 0_u64;
    for index in 0..entries {
        let section = Section::parse(image, offset + HEADER + index * ENTRY)?
            .map_err(|source| TdvfError::Section { index, source })?;
        if let Some(first) = sections.iter().position(|other| other.overlaps(&section)) {
            return Err(TdvfError::Overlap {
                first,
                second: index,
            });
        }
        if section.is_added() {
            added = added.saturating_add(section.size);
        }
        sections.push(section);
    }
    if added > MAX_ADDED {
        return Err(TdvfError::TooMuchMemory { bytes: added });
    }
    Ok(sections)
}

/// Where the descriptor starts, from the start of the image.
fn descriptor_offset(image: &Bytes<'_>) -> Result<usize, TdvfError> {
    let size = image.0.len();
    let none = TdvfError::NoMetadata { size };
    let from_end = match guided_entry(image, &METADATA_OFFSET)? {
        Some(data) if data.1 >= 4 => image.u32("the metadata offset", data.0)?,
        Some(_) => return Err(none),
        None => {
            let place = size
                .checked_sub(TABLE_END)
                .ok_or(TdvfError::NoMetadata { size })?;
            let offset = image.u32("the metadata offset", place)?;
            // Without the table only a descriptor at that place shows that the offset is one.
            let start = size.checked_sub(offset as usize);
            match start.and_then(|start| image.0.get(start..)) {
                Some(descriptor) if descriptor.starts_with(SIGNATURE) => offset,
                _ => return Err(none),
            }
        }
    };
    size.checked_sub(from_end as usize)
        .ok_or(TdvfError::Outside {
            what: "the descriptor",
            offset: u64::from(from_end).wrapping_neg(),
            len: HEADER as u64,
            size,
        })
}

/// Offset and length of the data of the entry with `guid` in the GUIDed table.
fn guided_entry(image: &Bytes<'_>, guid: &[u8; 16]) -> Result<Option<(usize, usize)>, TdvfError> {
    let Some(table_end) = image.0.len().checked_sub(TABLE_END) else {
        return Ok(None);
    };
    let Some((footer_length, footer)) = trailer(image, table_end) else {
        return Ok(None);
    };
    if footer != TABLE_FOOTER {
        return Ok(None);
    }
    let bad = |end, length| TdvfError::BadTable { end, length };
    let table_start = table_end
        .checked_sub(usize::from(footer_length))
        .filter(|_| usize::from(footer_length) >= ENTRY_TRAILER)
        .ok_or_else(|| bad(table_end, footer_length))?;
    let mut end = table_end - ENTRY_TRAILER;
    while end >= table_start + ENTRY_TRAILER {
        let Some((length, found)) = trailer(image, end) else {
            return Ok(None);
        };
        let start = end
            .checked_sub(usize::from(length))
            .filter(|start| usize::from(length) >= ENTRY_TRAILER && *start >= table_start)
            .ok_or_else(|| bad(end, length))?;
        if found == guid {
            return Ok(Some((start, usize::from(length) - ENTRY_TRAILER)));
        }
        end = start;
    }
    Ok(None)
}

/// Length and GUID of the entry that ends at `end`.
fn trailer<'i>(image: &Bytes<'i>, end: usize) -> Option<(u16, &'i [u8])> {
    let start = end.checked_sub(ENTRY_TRAILER)?;
    let length = image.0.get(start..)?.first_chunk()?;
    Some((u16::from_le_bytes(*length), image.0.get(start + 2..end)?))
}

use super::TdvfError;
use super::bytes::Bytes;

/// Attribute: the content is measured into MRTD.
const EXTEND: u32 = 1 << 0;
/// Attribute: the memory is added while the guest runs, not before.
const AUGMENT: u32 = 1 << 1;

const PAGE: u64 = 4096;
/// Guest addresses stay below the lowest SHARED bit.
const MAX_GPA: u64 = 1 << 47;

/// What a section is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectionKind {
    /// Boot firmware volume: code.
    Bfv,
    /// Configuration firmware volume: variables.
    Cfv,
    /// Where the VMM writes the list of resources.
    TdHob,
    /// Memory that the firmware uses before it has found any.
    TempMem,
    /// Memory that stays.
    PermMem,
    /// Kernel or other payload.
    Payload,
    /// Parameters of the payload.
    PayloadParam,
    /// Information for the guest about the image.
    TdInfo,
    /// Parameters of the TD.
    TdParams,
}

impl SectionKind {
    /// The kind's name in the design guide.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bfv => "BFV",
            Self::Cfv => "CFV",
            Self::TdHob => "TD_HOB",
            Self::TempMem => "TempMem",
            Self::PermMem => "PermMem",
            Self::Payload => "Payload",
            Self::PayloadParam => "PayloadParam",
            Self::TdInfo => "TD_INFO",
            Self::TdParams => "TD_PARAMS",
        }
    }

    const fn new(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Bfv,
            1 => Self::Cfv,
            2 => Self::TdHob,
            3 => Self::TempMem,
            4 => Self::PermMem,
            5 => Self::Payload,
            6 => Self::PayloadParam,
            7 => Self::TdInfo,
            8 => Self::TdParams,
            _ => return None,
        })
    }
}

/// A range of guest memory and what the image says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// What it is for.
    pub kind: SectionKind,
    /// First byte in guest memory.
    pub gpa: u64,
    /// Size in guest memory in bytes.
    pub size: u64,
    /// Where its content starts in the image.
    pub raw_offset: u64,
    /// Size of its content in the image in bytes; memory beyond it is zero.
    pub raw_size: u64,
    /// Whether its content is measured.
    pub is_measured: bool,
    /// Whether its memory is added while the guest runs instead of before.
    pub is_augmented: bool,
}

/// What is wrong with a section.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SectionError {
    /// The kind is not known.
    #[error("has kind {0}, expected 0 to 8")]
    Kind(u32),
    /// Attribute bits that are not known are set.
    #[error("has attributes {0:#x}, expected bits 0 and 1 only")]
    Attributes(u32),
    /// Its place in guest memory is impossible.
    #[error("lies at {gpa:#x}, {size:#x} bytes: expected whole 4 KiB pages below {MAX_GPA:#x}")]
    Memory {
        /// First byte.
        gpa: u64,
        /// Size in bytes.
        size: u64,
    },
    /// There is more content than memory.
    #[error("has {raw_size:#x} bytes of content for {size:#x} bytes of memory")]
    Content {
        /// Content in bytes.
        raw_size: u64,
        /// Memory in bytes.
        size: u64,
    },
    /// The content is outside the image.
    #[error(
        "has content at offset {offset:#x}, {size:#x} bytes, outside the image of {image:#x} bytes"
    )]
    Outside {
        /// Where it starts.
        offset: u64,
        /// Its size.
        size: u64,
        /// Size of the image.
        image: usize,
    },
    /// Memory that is added while the guest runs can have neither content nor measurement.
    #[error("is added while the guest runs and yet measured or with content")]
    AugmentedContent,
}

impl Section {
    /// Parses the entry at `offset`.
    pub(super) fn parse(
        image: &Bytes<'_>,
        offset: usize,
    ) -> Result<Result<Self, SectionError>, TdvfError> {
        let what = "a section's entry";
        let raw_offset = image.u32(what, offset)?;
        let raw_size = image.u32(what, offset + 4)?;
        let gpa = image.u64(what, offset + 8)?;
        let size = image.u64(what, offset + 16)?;
        let kind = image.u32(what, offset + 24)?;
        let attributes = image.u32(what, offset + 28)?;
        Ok(Self::check(
            image.0.len(),
            raw_offset,
            raw_size,
            gpa,
            size,
            kind,
            attributes,
        ))
    }

    fn check(
        image: usize,
        raw_offset: u32,
        raw_size: u32,
        gpa: u64,
        size: u64,
        kind: u32,
        attributes: u32,
    ) -> Result<Self, SectionError> {
        let (raw_offset, raw_size) = (u64::from(raw_offset), u64::from(raw_size));
        let kind = SectionKind::new(kind).ok_or(SectionError::Kind(kind))?;
        if attributes & !(EXTEND | AUGMENT) != 0 {
            return Err(SectionError::Attributes(attributes));
        }
        let fits = gpa.checked_add(size).is_some_and(|end| end <= MAX_GPA);
        if size == 0 || !gpa.is_multiple_of(PAGE) || !size.is_multiple_of(PAGE) || !fits {
            return Err(SectionError::Memory { gpa, size });
        }
        if raw_size > size {
            return Err(SectionError::Content { raw_size, size });
        }
        if raw_size > 0 && raw_offset + raw_size > image as u64 {
            return Err(SectionError::Outside {
                offset: raw_offset,
                size: raw_size,
                image,
            });
        }
        let is_measured = attributes & EXTEND != 0;
        let is_augmented = attributes & AUGMENT != 0;
        if is_augmented && (is_measured || raw_size > 0) {
            return Err(SectionError::AugmentedContent);
        }
        Ok(Self {
            kind,
            gpa,
            size,
            raw_offset,
            raw_size,
            is_measured,
            is_augmented,
        })
    }

    /// Whether its pages are added before the guest runs.
    pub const fn is_added(&self) -> bool {
        !self.is_augmented
    }

    /// Number of its 4 KiB pages.
    pub const fn pages(&self) -> u64 {
        self.size / PAGE
    }

    pub(super) const fn overlaps(&self, other: &Self) -> bool {
        self.gpa < other.gpa + other.size && other.gpa < self.gpa + self.size
    }
}

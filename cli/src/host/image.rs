//! What is added to a TD before it runs, and in which order.

use clap::ValueEnum;

use crate::tdvf::Section;
use crate::tdvf::SectionKind;
use crate::tdvf::Tdvf;

const PAGE: u64 = 4096;

/// Order of the calls that build a TD; it goes into MRTD.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// Each page is measured as soon as it is added (QEMU with upstream KVM).
    Page,
    /// All pages of a section are added, then all of them are measured (Canonical's QEMU 8.2).
    Section,
}

impl Order {
    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Section => "section",
        }
    }
}

/// One step of building a TD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'i> {
    /// Adds the 4 KiB page at `gpa` with `content`, zero beyond its end: one TDH.MEM.PAGE.ADD.
    Add {
        /// The page.
        gpa: u64,
        /// At most 4096 bytes.
        content: &'i [u8],
    },
    /// Measures the 4 KiB page at `gpa`: one TDH.MR.EXTEND for each 256 bytes.
    Extend {
        /// The page.
        gpa: u64,
    },
}

/// The steps that build a TD from `image`.
pub fn steps(image: &Tdvf, order: Order) -> impl Iterator<Item = Step<'_>> {
    image
        .sections()
        .iter()
        .filter(|section| section.is_added())
        .flat_map(move |section| {
            let offsets = (0..section.size).step_by(PAGE as usize);
            let add = |offset| Step::Add {
                gpa: section.gpa + offset,
                content: image.page(section, offset),
            };
            let extend = |offset| {
                section.is_measured.then_some(Step::Extend {
                    gpa: section.gpa + offset,
                })
            };
            let steps: Vec<Step<'_>> = match order {
                Order::Page => offsets
                    .flat_map(|offset| [Some(add(offset)), extend(offset)])
                    .flatten()
                    .collect(),
                Order::Section => offsets
                    .clone()
                    .map(add)
                    .chain(offsets.filter_map(extend))
                    .collect(),
            };
            steps
        })
}

/// A small image for runs without firmware: 64 KiB of measured content below 4 GiB, and 16 KiB of
/// memory without content below that.
pub fn builtin() -> Tdvf {
    const SIZE: u64 = 64 << 10;
    const MEMORY: u64 = 16 << 10;
    // Every 8 bytes say where they are, so that no two pages are alike.
    let content = (0..SIZE / 8)
        .flat_map(|index| (index * 8).to_le_bytes())
        .collect();
    let section = |kind, gpa, size, raw_size| Section {
        kind,
        gpa,
        size,
        raw_offset: 0,
        raw_size,
        is_measured: raw_size > 0,
        is_augmented: false,
    };
    let firmware = (1 << 32) - SIZE;
    Tdvf::from_parts(
        content,
        vec![
            section(SectionKind::Bfv, firmware, SIZE, SIZE),
            section(SectionKind::TempMem, firmware - MEMORY, MEMORY, 0),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(order: Order) -> String {
        let image = Tdvf::from_parts(
            vec![1; 4096],
            vec![
                Section {
                    kind: SectionKind::Bfv,
                    gpa: 0x2000,
                    size: 0x2000,
                    raw_offset: 0,
                    raw_size: 0x1000,
                    is_measured: true,
                    is_augmented: false,
                },
                Section {
                    kind: SectionKind::TempMem,
                    gpa: 0x1000,
                    size: 0x1000,
                    raw_offset: 0,
                    raw_size: 0,
                    is_measured: false,
                    is_augmented: false,
                },
                Section {
                    kind: SectionKind::PermMem,
                    gpa: 0x10_0000,
                    size: 0x1000,
                    raw_offset: 0,
                    raw_size: 0,
                    is_measured: false,
                    is_augmented: true,
                },
            ],
        );
        let steps: Vec<String> = steps(&image, order)
            .map(|step| match step {
                Step::Add { gpa, content } => format!("add {gpa:x} {}", content.len()),
                Step::Extend { gpa } => format!("extend {gpa:x}"),
            })
            .collect();
        steps.join(", ")
    }

    #[test]
    fn both_orders() {
        assert_eq!(
            sequence(Order::Page),
            "add 2000 4096, extend 2000, add 3000 0, extend 3000, add 1000 0"
        );
        assert_eq!(
            sequence(Order::Section),
            "add 2000 4096, add 3000 0, extend 2000, extend 3000, add 1000 0"
        );
    }
}

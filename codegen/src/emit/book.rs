//! A reference book: sources for mdBook, with a page for each leaf, format, structure, enum and table.

mod cpuid;
mod diagram;
mod format;
mod layout;
mod leaf;
mod links;
mod operand;
mod page;
mod structure;
mod table;
mod used;

use core::fmt::Write as _;

use super::File;
use crate::model::Leaf;
use crate::model::Side;
use crate::model::Spec;
use links::Links;
use page::Page;

/// The groups of leaves: side, page, title, and what is said of them.
const SIDES: [(Side, &str, &str, &str); 4] = [
    (
        Side::Host,
        "leaves/host.md",
        "SEAMCALL leaves",
        "What the host calls of the TDX module: the number stands in RAX bits 15:0, the version in bits 23:16.",
    ),
    (
        Side::Guest,
        "leaves/guest.md",
        "TDCALL leaves",
        "What the guest calls of the TDX module: the number stands in RAX bits 15:0, the version in bits 23:16.",
    ),
    (
        Side::Seamldr,
        "leaves/seamldr.md",
        "P-SEAMLDR leaves",
        "What the host calls of P-SEAMLDR: SEAMCALL with RAX bit 63 set.",
    ),
    (
        Side::Vmcall,
        "leaves/tdvmcall.md",
        "TDVMCALL sub-functions",
        "What the guest asks of the host by TDG.VP.VMCALL: the number stands in R11, R10 is 0.",
    ),
];

/// The book's files: `book.toml`, `src` and a style sheet.
pub fn files(spec: &Spec) -> Vec<File> {
    let links = Links::new(spec);
    let book = Book {
        spec,
        links: &links,
    };
    let mut pages = vec![book.introduction()];
    let mut summary = String::from("# Summary\n\n[Introduction](index.md)\n");
    for (side, path, title, text) in SIDES {
        let mut leaves: Vec<&Leaf> = spec
            .leaves
            .iter()
            .filter(|leaf| leaf.side == side && leaf.variant.is_none())
            .collect();
        leaves.sort_by_key(|leaf| (leaf.number.value, leaf.name.as_str()));
        pages.push(book.leaf_group(path, title, text, &leaves));
        chapter(&mut summary, 0, title, path);
        for leaf in leaves {
            let page = book.leaf(leaf);
            chapter(&mut summary, 1, &leaf.name, &page.path);
            pages.push(page);
        }
    }
    let groups = [
        ("Bit formats", "formats/index.md", book.formats()),
        ("Structures", "structures/index.md", book.structures()),
        ("Enums", "enums/index.md", book.enums()),
        ("Status codes", "statuses/index.md", book.statuses()),
        ("States", "states/index.md", book.states()),
        ("Metadata fields", "fields/index.md", book.fields()),
        ("Modules", "modules/index.md", book.modules()),
    ];
    for (title, path, children) in groups {
        pages.push(book.index(path, title, &children));
        chapter(&mut summary, 0, title, path);
        for page in children {
            chapter(&mut summary, 1, &page.title, &page.path);
            pages.push(page);
        }
    }
    for page in [book.cpuid(), book.msrs(), book.sources()] {
        chapter(&mut summary, 0, &page.title, &page.path);
        pages.push(page);
    }
    let mut files: Vec<File> = pages.into_iter().map(Page::file).collect();
    files.push(File::new("src/SUMMARY.md", summary));
    files.push(File::new("book.toml", include_str!("book/book.toml")));
    files.push(File::new("theme/tdx.css", include_str!("book/tdx.css")));
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files
}

fn chapter(summary: &mut String, depth: usize, title: &str, path: &str) {
    let _ = writeln!(
        summary,
        "{}- [{}]({path})",
        "  ".repeat(depth),
        page::escaped(title)
    );
}

/// What every page is written from.
#[derive(Clone, Copy)]
struct Book<'s> {
    spec: &'s Spec,
    links: &'s Links,
}

impl Book<'_> {
    fn introduction(&self) -> Page {
        let mut page = Page::new("index.md", "The ABI of Intel TDX");
        page.text(
            "What the TDX module and P-SEAMLDR take and return, for whoever writes a hypervisor, a kernel or a guest. Every fact \
             names its source. Search with the magnifying glass or the key `s`.",
        );
        let spec = self.spec;
        let rows = [
            ("leaves/host.md", "SEAMCALL leaves", count(spec, Side::Host)),
            ("leaves/guest.md", "TDCALL leaves", count(spec, Side::Guest)),
            (
                "leaves/seamldr.md",
                "P-SEAMLDR leaves",
                count(spec, Side::Seamldr),
            ),
            (
                "leaves/tdvmcall.md",
                "TDVMCALL sub-functions",
                count(spec, Side::Vmcall),
            ),
            ("formats/index.md", "Bit formats", spec.formats.len()),
            (
                "structures/index.md",
                "Structures in memory",
                spec.structures.len(),
            ),
            ("enums/index.md", "Enums", spec.enums.len()),
            (
                "statuses/index.md",
                "Status codes",
                spec.statuses.iter().map(|table| table.rows.len()).sum(),
            ),
            (
                "fields/index.md",
                "Rows of metadata fields",
                spec.fields.iter().map(|table| table.rows.len()).sum(),
            ),
        ];
        let rows =
            rows.map(|(path, title, count)| vec![format!("[{title}]({path})"), count.to_string()]);
        page.table(&["", "entries"], &rows);
        let names: Vec<&str> = spec
            .modules
            .iter()
            .map(|module| module.name.as_str())
            .collect();
        page.text(&format!(
            "Modules whose source is public and was read: {}. A leaf that none of them has is known from the sources on its page \
             only.",
            names.join(", ")
        ));
        page
    }

    fn index(&self, path: &str, title: &str, children: &[Page]) -> Page {
        let mut page = Page::new(path, title);
        let rows = children.iter().map(|child| {
            vec![
                format!(
                    "[{}]({})",
                    page::escaped(&child.title),
                    page.relative(&child.path)
                ),
                child.about.clone(),
            ]
        });
        let rows: Vec<Vec<String>> = rows.collect();
        page.table(&["", ""], &rows);
        page
    }
}

fn count(spec: &Spec, side: Side) -> usize {
    let leaves = spec.leaves.iter();
    leaves
        .filter(|leaf| leaf.side == side && leaf.variant.is_none())
        .count()
}

//! The book: every link leads somewhere, every page is in the summary, and every drawing has all bits.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use tdx_codegen::model::StructureItem;
use tdx_codegen::source::Sources;

use super::facts;
use super::folder;
use super::generate;
use super::run;

fn pages(folder: &Path, below: &Path, list: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            pages(&path, below, list);
        } else {
            let text = fs::read_to_string(&path).unwrap();
            list.insert(path.strip_prefix(below).unwrap().to_owned(), text);
        }
    }
}

/// What stands between each `start` and the `end` after it.
fn between<'t>(text: &'t str, start: &'t str, end: char) -> impl Iterator<Item = &'t str> {
    text.split(start)
        .skip(1)
        .filter_map(move |rest| rest.split(end).next())
}

fn normal(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut all, part| {
        match part {
            Component::ParentDir => assert!(all.pop(), "{}", path.display()),
            part => all.push(part),
        }
        all
    })
}

#[test]
fn the_book_is_whole() {
    let folder = folder("book");
    generate("book", &folder, &[]);
    let src = folder.join("src");
    let mut list = BTreeMap::new();
    pages(&src, &src, &mut list);

    let mut links = 0;
    for (page, text) in &list {
        let targets = between(text, "](", ')').chain(between(text, "href=\"", '"'));
        for target in targets.filter(|target| !target.starts_with("https://")) {
            links += 1;
            let (path, anchor) = target
                .split_once('#')
                .map_or((target, None), |(path, anchor)| (path, Some(anchor)));
            let file = match path {
                "" => page.clone(),
                path => normal(&page.parent().unwrap().join(path)),
            };
            let Some(text) = list.get(&file) else {
                panic!("{} links to {target}, which is not there", page.display());
            };
            if let Some(anchor) = anchor {
                assert!(
                    text.contains(&format!("id=\"{anchor}\"")),
                    "{} links to {target}",
                    page.display()
                );
            }
        }
    }
    assert!(links > 5000, "{links}");

    let summary = &list[Path::new("SUMMARY.md")];
    let chapters: Vec<PathBuf> = between(summary, "](", ')').map(PathBuf::from).collect();
    let set: BTreeSet<&PathBuf> = chapters.iter().collect();
    assert_eq!(set.len(), chapters.len(), "no page stands twice");
    assert_eq!(set.len(), list.len() - 1, "every page is in the summary");

    for module in facts::MODULES {
        for table in ["seamcall_leaves", "tdcall_leaves"] {
            for (name, number) in facts::numbers(module, table, "number") {
                let page = &list[&PathBuf::from(format!("leaves/{name}.md"))];
                assert!(page.contains(&format!("| number | {number} |")), "{name}");
                let macro_name = name.replace('.', "_");
                assert!(page.contains(&format!("`{macro_name}`")), "{name}");
            }
        }
        let statuses = &list[Path::new("statuses/module.md")];
        for (name, value) in facts::numbers(module, "status_codes", "value") {
            let name = name.trim_start_matches("TDX_");
            assert!(
                statuses.contains(&format!("`{name}`<br>`{value:#018x}`")),
                "{name}"
            );
        }
    }

    // In each drawing the widths of the boxes add up to the word.
    let spec = tdx_codegen::from_sources(Sources::embedded()).unwrap().spec;
    for format in &spec.formats {
        let page = &list[&PathBuf::from(format!("formats/{}.md", format.name))];
        let drawings: Vec<&str> = between(page, "<svg ", '\n').collect();
        let svgs: Vec<&str> = drawings
            .iter()
            .flat_map(|line| line.split("</svg>"))
            .filter(|svg| svg.contains("<rect"))
            .collect();
        assert_eq!(svgs.len(), 2, "{}: one wide, one narrow", format.name);
        for svg in svgs {
            let number = |text: &str, key: &str| -> u32 {
                between(text, &format!(" {key}=\""), '"')
                    .next()
                    .unwrap()
                    .parse()
                    .unwrap()
            };
            let total = number(svg, "width") - 2;
            let rows = format.width.div_ceil(if svg.starts_with("class=\"wide") {
                32
            } else {
                16
            });
            let widths: u32 = between(svg, "<rect", '>')
                .map(|rect| number(rect, "width"))
                .sum();
            assert_eq!(widths, total * rows, "{}", format.name);
            assert!(
                svg.contains("wide") || total <= 340,
                "{} is too wide for a telephone",
                format.name
            );
        }
    }

    // In each drawing of a structure the boxes add up to its bytes, and every field links to its row.
    for structure in &spec.structures {
        let page = &list[&PathBuf::from(format!("structures/{}.md", structure.name))];
        let drawings: Vec<&str> = between(page, "<svg ", '\n')
            .flat_map(|line| line.split("</svg>"))
            .filter(|svg| svg.contains("<rect"))
            .collect();
        assert_eq!(
            drawings.len(),
            2,
            "{}: one wide, one narrow",
            structure.name
        );
        for svg in drawings {
            let sizes = between(svg, "data-bytes=\"", '"');
            let bytes: u32 = sizes.map(|size| size.parse::<u32>().unwrap()).sum();
            assert_eq!(bytes, structure.size, "{}", structure.name);
            for item in &structure.items {
                if let StructureItem::Field(field) = item {
                    let name = field.name.replace('_', "-");
                    assert!(
                        svg.contains(&format!("href=\"#bytes-{name}\"")),
                        "{}: {name}",
                        structure.name
                    );
                }
            }
            let width: u32 = between(svg, " width=\"", '"')
                .next()
                .unwrap()
                .parse()
                .unwrap();
            assert!(svg.contains("wide") || width <= 340, "{}", structure.name);
        }
    }

    if Command::new("mdbook").arg("--version").output().is_ok() {
        run(Command::new("mdbook").arg("build").arg(&folder));
        assert!(folder.join("book/leaves/TDH.MEM.PAGE.AUG.html").exists());
    } else {
        println!("NOT RUN: mdbook, which is not installed");
    }
}

//! Pictures of page-table trees.

use std::io;
use std::io::Write;

use anstyle::Style;
use tdx_abi::Level;

use super::tree::Tree;
use crate::output::FAINT;
use crate::output::HEADING;
use crate::output::Output;
use crate::output::grouped;

/// Cells in a line of the map.
const WIDTH: usize = 64;
/// Most lines of the map; cells get larger until it fits.
const MAX_LINES: u64 = 8;
/// How full a cell of 4 KiB leaves is, in eighths.
const FILL: [char; 9] = ['·', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// A cell that is covered by large leaves altogether.
const LARGE: char = '■';

/// A tree with what the picture says about it.
pub struct Subject<'t> {
    /// Title, such as "mirrored PT".
    pub title: &'t str,
    /// What stands beside the title.
    pub remark: &'t str,
    /// The tree.
    pub tree: &'t Tree,
    /// Its colour.
    pub style: Style,
}

/// Draws the tree: its tables from the root down, and a map of the guest's memory up to `ram`.
pub fn draw(output: &mut Output, subject: &Subject<'_>, ram: u64) -> io::Result<()> {
    let Subject {
        title,
        remark,
        tree,
        style,
    } = subject;
    writeln!(
        output,
        "\n{HEADING}{title}{HEADING:#} {FAINT}{remark}{FAINT:#}"
    )?;
    for line in branches(tree) {
        writeln!(output, "  {style}{line}{style:#}")?;
    }
    let cell = cell_size(ram);
    for (index, line) in map(tree, ram, cell).iter().enumerate() {
        let start = (index * WIDTH) as u64 * cell;
        writeln!(
            output,
            "  {FAINT}{start:>10x}{FAINT:#} {style}{line}{style:#}"
        )?;
    }
    Ok(())
}

/// What the signs of the map mean.
pub fn legend(ram: u64) -> String {
    let cell = cell_size(ram);
    format!(
        "one sign is {}: {} empty, {} to {} filled with 4 KiB pages, {LARGE} mapped by larger pages",
        crate::output::bytes(cell),
        FILL[0],
        FILL[1],
        FILL[8],
    )
}

/// One line for each level: the tables and leaves that its entries hold.
fn branches(tree: &Tree) -> Vec<String> {
    let highest = tree.entries.iter().map(|entry| entry.level).max();
    let mut lines = Vec::new();
    let Some(highest) = highest else {
        return vec!["root, empty".to_owned()];
    };
    let mut tables = 1;
    for level in Level::ALL
        .into_iter()
        .rev()
        .filter(|level| *level <= highest)
    {
        let indent = (highest as usize - level as usize) * 3;
        let (below, leaves) = (tree.tables(level), tree.leaves(level));
        let name = match level {
            Level::Pml5 => "PML5",
            Level::Pml4 => "PML4",
            Level::Pdpt => "PDPT",
            Level::Pd => "PD",
            Level::Pt => "PT",
        };
        let branch = if indent == 0 {
            String::new()
        } else {
            format!("{}└─ ", " ".repeat(indent - 3))
        };
        let mut line = format!(
            "{branch}{name}: {} {}",
            grouped(tables),
            plural(tables, "table")
        );
        if leaves > 0 || level == Level::Pt {
            let size = crate::output::bytes(level.size());
            line += &format!(", {} {} of {size}", grouped(leaves), plural(leaves, "page"));
        }
        lines.push(line);
        tables = below;
        if below == 0 {
            break;
        }
    }
    lines
}

fn plural(count: u64, word: &str) -> String {
    if count == 1 {
        word.to_owned()
    } else {
        format!("{word}s")
    }
}

/// Bytes that one sign of the map stands for: 2 MiB, or more for large guests.
fn cell_size(ram: u64) -> u64 {
    let mut cell = Level::Pd.size();
    while ram > cell * WIDTH as u64 * MAX_LINES {
        cell *= 2;
    }
    cell
}

fn map(tree: &Tree, ram: u64, cell: u64) -> Vec<String> {
    let cells = usize::try_from(ram.div_ceil(cell))
        .unwrap_or(usize::MAX)
        .min(WIDTH * MAX_LINES as usize);
    let mut small = vec![0_u64; cells];
    let mut large = vec![0_u64; cells];
    for entry in tree.entries.iter().filter(|entry| entry.is_leaf) {
        let mut start = entry.gpa;
        let end = entry.gpa + entry.level.size();
        while start < end {
            let stop = end.min((start / cell + 1) * cell);
            let filled = if entry.level == Level::Pt {
                &mut small
            } else {
                &mut large
            };
            if let Some(sum) = usize::try_from(start / cell)
                .ok()
                .and_then(|index| filled.get_mut(index))
            {
                *sum += stop - start;
            }
            start = stop;
        }
    }
    let signs: Vec<char> = small
        .iter()
        .zip(&large)
        .map(|(&small, &large)| {
            if large >= cell.min(ram) {
                LARGE
            } else {
                // Anything at all is visible.
                FILL[usize::try_from(((small + large) * 8).div_ceil(cell))
                    .unwrap_or(8)
                    .min(8)]
            }
        })
        .collect();
    signs
        .chunks(WIDTH)
        .map(|line| line.iter().collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tree::Entry;

    fn tree(leaves: &[(u64, Level)]) -> Tree {
        let mut entries = Vec::new();
        for level in [Level::Pml4, Level::Pdpt, Level::Pd] {
            let mut last = None;
            for &(gpa, leaf) in leaves {
                let start = gpa & !(level.size() - 1);
                if leaf < level && last != Some(start) {
                    entries.push(Entry {
                        gpa: start,
                        level,
                        is_leaf: false,
                        hpa: 0,
                        is_blocked: false,
                    });
                    last = Some(start);
                }
            }
        }
        let leaf = |&(gpa, level)| Entry {
            gpa,
            level,
            is_leaf: true,
            hpa: 0,
            is_blocked: false,
        };
        entries.extend(leaves.iter().map(leaf));
        Tree { entries }
    }

    #[test]
    fn the_shape_is_drawn_from_the_root_down() {
        let tree = tree(&[(0, Level::Pt), (0x1000, Level::Pt), (0x20_0000, Level::Pd)]);
        let expected = [
            "PML4: 1 table",
            "└─ PDPT: 1 table",
            "   └─ PD: 1 table, 1 page of 2 MiB",
            "      └─ PT: 1 table, 2 pages of 4 KiB",
        ];
        assert_eq!(branches(&tree), expected);
        assert_eq!(branches(&Tree::default()), ["root, empty"]);
    }

    #[test]
    fn the_map_shows_how_full_each_cell_is() {
        let mut leaves: Vec<(u64, Level)> =
            (0..256).map(|page| (page * 0x1000, Level::Pt)).collect();
        leaves.push((0x20_0000, Level::Pd));
        leaves.push((0x40_0000, Level::Pt));
        let expected = format!("▄■▁{}", "·".repeat(61));
        assert_eq!(map(&tree(&leaves), 128 << 20, 2 << 20), [expected]);
    }

    #[test]
    fn large_guests_get_large_cells() {
        assert_eq!(cell_size(1 << 30), 2 << 20);
        assert_eq!(cell_size(64 << 30), 128 << 20);
        let gibibyte = tree(&[(1 << 30, Level::Pdpt)]);
        let expected = format!("········■■■■■■■■{}", "·".repeat(48));
        assert_eq!(map(&gibibyte, 64 << 30, 128 << 20)[0], expected);
    }
}

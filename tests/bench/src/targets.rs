//! What is promised, as ratios between rows of one run.

use crate::cases::Case;
use crate::faults;
use crate::samples::Samples;

pub const SHARED: &str = "tdx-mmu shared EPT";
pub const FROZEN: &str = "tdx-mmu mirror, frozen entries";
pub const EXCLUSIVE: &str = "tdx-mmu mirror, exclusive";
pub const X86_64: &str = "x86_64 0.15.5";
pub const MULTIARCH: &str = "page_table_multiarch 0.6.2";
pub const GENERIC: &str = "page-table-generic 0.9.1";
pub const AARCH64: &str = "aarch64-paging 0.12.3";
pub const REFERENCE_STORE: &str = "ref: release store";
pub const REFERENCE_FREEZE: &str = "ref: KVM freeze+store";

pub const X86_64_LOCKED: &str = "x86_64 0.15.5 behind a mutex";
pub const MULTIARCH_LOCKED: &str = "page_table_multiarch 0.6.2 behind a mutex";

/// The rows of the faults.
pub const FAULTS: [&str; 4] = [
    faults::AGREEABLE,
    faults::EMULATED,
    X86_64_LOCKED,
    MULTIARCH_LOCKED,
];

/// The crates; the `ref:` rows are no products.
const PEERS: [&str; 4] = [X86_64, MULTIARCH, GENERIC, AARCH64];

/// The row that a target is measured against.
#[derive(Clone, Copy)]
enum Against {
    /// The quickest crate.
    BestPeer,
    Row(&'static str),
}

struct Target {
    case: Case,
    rows: &'static [&'static str],
    against: Against,
    at_most: f64,
}

const fn target(
    case: Case,
    rows: &'static [&'static str],
    against: Against,
    at_most: f64,
) -> Target {
    Target {
        case,
        rows,
        against,
        at_most,
    }
}

const TARGETS: [Target; 11] = [
    target(
        Case::MapEach,
        &[SHARED, FROZEN, EXCLUSIVE],
        Against::BestPeer,
        0.5,
    ),
    target(
        Case::MapEach,
        &[SHARED, FROZEN],
        Against::Row(REFERENCE_FREEZE),
        1.25,
    ),
    target(
        Case::UnmapEach,
        &[SHARED, FROZEN],
        Against::Row(REFERENCE_FREEZE),
        1.25,
    ),
    target(Case::MapRange, &[SHARED], Against::Row(GENERIC), 0.6),
    target(
        Case::MapRange,
        &[FROZEN],
        Against::Row(REFERENCE_FREEZE),
        1.25,
    ),
    target(
        Case::MapRange,
        &[EXCLUSIVE],
        Against::Row(REFERENCE_STORE),
        1.25,
    ),
    target(
        Case::UnmapRange,
        &[SHARED, EXCLUSIVE],
        Against::Row(GENERIC),
        0.8,
    ),
    target(
        Case::UnmapRange,
        &[EXCLUSIVE],
        Against::Row(REFERENCE_STORE),
        1.25,
    ),
    target(
        Case::MapShuffled,
        &[SHARED, FROZEN, EXCLUSIVE],
        Against::BestPeer,
        0.75,
    ),
    target(Case::WalkRandom, &[SHARED, FROZEN], Against::BestPeer, 1.1),
    target(
        Case::MapLarge,
        &[SHARED, FROZEN, EXCLUSIVE],
        Against::BestPeer,
        0.55,
    ),
];

/// A target and what was measured.
pub struct Verdict {
    pub column: &'static str,
    pub row: &'static str,
    pub against: &'static str,
    /// Nanoseconds per operation, medians.
    pub ours: f64,
    pub theirs: f64,
    /// Ratio of the quickest rounds, which noise on the machine disturbs least.
    pub ratio_of_minima: f64,
    pub at_most: f64,
}

impl Verdict {
    /// Ratio of the medians.
    pub fn ratio(&self) -> f64 {
        self.ours / self.theirs
    }

    pub fn met(&self) -> bool {
        self.ratio() <= self.at_most
    }
}

/// Every target for which both rows were measured.
pub fn judge(samples: &Samples) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for target in TARGETS {
        let column = target.case.name();
        let median = |row| samples.median(row, column);
        let against = match target.against {
            Against::Row(row) => median(row).map(|_| row),
            Against::BestPeer => PEERS
                .into_iter()
                .filter(|row| median(row).is_some())
                .min_by(|one, other| {
                    f64::total_cmp(&median(one).unwrap(), &median(other).unwrap())
                }),
        };
        let Some(against) = against else { continue };
        for &row in target.rows {
            let (Some(ours), Some(theirs)) = (median(row), median(against)) else {
                continue;
            };
            let minimum = |row| samples.minimum(row, column).unwrap_or(f64::NAN);
            let quickest = match target.against {
                Against::Row(row) => minimum(row),
                Against::BestPeer => PEERS.into_iter().map(minimum).fold(f64::NAN, f64::min),
            };
            verdicts.push(Verdict {
                column,
                row,
                against,
                ours,
                theirs,
                ratio_of_minima: minimum(row) / quickest,
                at_most: target.at_most,
            });
        }
    }
    verdicts.extend(judge_faults(samples).into_iter().flatten());
    verdicts
}

/// Two threads that fault at once take less time per page than one, and less than two that share a crate's
/// table by a mutex.
fn judge_faults(samples: &Samples) -> Option<[Verdict; 2]> {
    let row = faults::AGREEABLE;
    let two = (
        samples.median(row, faults::TWO)?,
        samples.minimum(row, faults::TWO)?,
    );
    let one = (
        samples.median(row, faults::ONE)?,
        samples.minimum(row, faults::ONE)?,
    );
    let locked = [X86_64_LOCKED, MULTIARCH_LOCKED].into_iter();
    let (peer, theirs) = locked
        .filter_map(|peer| {
            let median = samples.median(peer, faults::TWO)?;
            Some((peer, (median, samples.minimum(peer, faults::TWO)?)))
        })
        .min_by(|(_, one), (_, other)| f64::total_cmp(&one.0, &other.0))?;
    Some(
        [(faults::ONE, one, 0.85), (peer, theirs, 1.0)].map(|(against, theirs, at_most)| Verdict {
            column: faults::TWO,
            row,
            against,
            ours: two.0,
            theirs: theirs.0,
            ratio_of_minima: two.1 / theirs.1,
            at_most,
        }),
    )
}

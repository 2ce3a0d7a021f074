//! What a migration tells.

use std::io;

use serde::Serialize;

use crate::output::Output;
use crate::output::grouped;
use crate::run::report::Counts;

/// A round before the pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Round {
    /// Pages exported.
    pub pages: u64,
    /// Pages that the module refused to export.
    pub refused: u64,
    /// Pages that the guest had written since, when the round ended.
    pub remaining: u64,
}

/// SEAMCALLs of one side, from the beginning of the session to its end.
#[derive(Clone, Debug, Serialize)]
pub struct Platform {
    /// All but TD entries.
    pub seamcalls: u64,
    /// By leaf.
    pub leaves: Counts,
}

impl Platform {
    pub(super) fn between(before: &Counts, after: &Counts) -> Self {
        let grown = after
            .0
            .iter()
            .filter(|(leaf, _)| leaf != "TDH.VP.ENTER")
            .map(|(leaf, count)| (leaf.clone(), count - before.get(leaf)))
            .filter(|(_, count)| *count > 0);
        let leaves = Counts(grown.collect());
        Self {
            seamcalls: leaves.total(),
            leaves,
        }
    }
}

/// Everything that a migration found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Pages that the guest wrote to.
    pub pages: u64,
    /// The rounds while the guest ran.
    pub rounds: Vec<Round>,
    /// Pages exported while nobody ran.
    pub downtime_pages: u64,
    /// Bundles sent.
    pub bundles: u64,
    /// The source's calls.
    pub source: Platform,
    /// The destination's calls.
    pub destination: Platform,
    /// Times that vCPUs were forced out of the TD.
    pub kicks: u64,
    /// Writes of the guest, before and during the migration.
    pub guest_writes: u64,
    /// Pages in which the guest did not find what it had written.
    pub wrong_pages: u64,
    /// Whether both sides report the same MRTD.
    pub mrtd_equal: bool,
    /// Differences between mirror and S-EPT, on either side.
    pub differences: Vec<String>,
    /// Time from loading the modules to the last page reclaimed.
    pub wall_seconds: f64,
}

impl Report {
    /// What does not hold; `None` if everything does.
    pub fn first_failure(&self) -> Option<String> {
        if self.wrong_pages > 0 {
            Some(format!("{} pages have another content", self.wrong_pages))
        } else if !self.mrtd_equal {
            Some("MRTD differs".to_owned())
        } else {
            self.differences.first().cloned()
        }
    }

    /// Writes the report for people.
    pub fn write(&self, output: &mut Output) -> io::Result<()> {
        output.heading("Rounds")?;
        let round = |(number, round): (usize, &Round)| {
            vec![
                (number + 1).to_string(),
                grouped(round.pages),
                grouped(round.remaining),
            ]
        };
        let mut rows: Vec<_> = self.rounds.iter().enumerate().map(round).collect();
        rows.push(vec![
            "paused".to_owned(),
            grouped(self.downtime_pages),
            "0".to_owned(),
        ]);
        output.table(
            &["round", "pages exported", "dirty at its end"],
            rows,
            &[1, 2],
        )?;
        for (name, platform) in [
            ("SEAMCALLs of the source", &self.source),
            ("SEAMCALLs of the destination", &self.destination),
        ] {
            output.heading(name)?;
            let leaves = platform.leaves.0.iter();
            let mut rows: Vec<_> = leaves
                .map(|(leaf, count)| vec![leaf.clone(), grouped(*count)])
                .collect();
            rows.push(vec!["all".to_owned(), grouped(platform.seamcalls)]);
            let per_page = platform.seamcalls as f64 / self.pages.max(1) as f64;
            rows.push(vec!["for each page".to_owned(), format!("{per_page:.3}")]);
            output.table(&["leaf", ""], rows, &[1])?;
        }
        output.heading("Migration")?;
        let facts = vec![
            vec!["pages of the guest".to_owned(), grouped(self.pages)],
            vec!["writes of the guest".to_owned(), grouped(self.guest_writes)],
            vec!["bundles".to_owned(), grouped(self.bundles)],
            vec!["kicks".to_owned(), grouped(self.kicks)],
            vec!["time".to_owned(), format!("{:.2} s", self.wall_seconds)],
        ];
        output.table(&[], facts, &[])?;
        output.verdict("the guest finds what it wrote", self.wrong_pages == 0)?;
        output.verdict("MRTD is equal", self.mrtd_equal)?;
        output.verdict("mirror equals S-EPT", self.differences.is_empty())
    }
}

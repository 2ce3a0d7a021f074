//! What a run tells.

use std::io;
use std::io::Write;

use serde::Serialize;
use serde_json::Map;
use serde_json::Value;

use super::kvm::Kvm;
use crate::error::Error;
use crate::host::module::PamtMemory;
use crate::output::Output;
use crate::output::bytes;
use crate::output::grouped;

/// Everything that a run found, in the order in which it is printed.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Name of the trace.
    pub trace: String,
    /// Size of the guest's memory in bytes.
    pub guest_memory: u64,
    /// vCPUs.
    pub vcpus: u32,
    /// Largest page that private faults may map.
    pub page_size: &'static str,
    /// Version of the TDX module.
    pub module: &'static str,
    /// Whether the module gets memory for its page metadata as needed.
    pub dynamic_pamt: bool,
    /// That memory after the last event.
    pub pamt: PamtMemory,
    /// Measurement of the image.
    pub mrtd: String,
    /// Events replayed.
    pub events: u64,
    /// TD exits that asked for memory, by what was done.
    pub faults: Counts,
    /// SEAMCALLs by leaf, from bring-up to teardown.
    pub seamcalls: Counts,
    /// TDCALLs of the guest by leaf.
    pub tdcalls: Counts,
    /// Times that all LPs were forced out of the TD.
    pub kicks: u64,
    /// SEAMCALLs while the events were replayed, TD entries not counted.
    pub event_seamcalls: u64,
    /// The same by leaf.
    pub event_leaves: Counts,
    /// Kicks while the events were replayed.
    pub event_kicks: u64,
    /// What KVM would have needed for the same events.
    pub kvm: Kvm,
    /// Private and shared pages mapped after the last event, by size.
    pub pages: Counts,
    /// Host memory in use after the last event in bytes, by purpose.
    pub host_memory: Counts,
    /// Stamps that the guest wrote.
    pub stamps_written: u64,
    /// Stamps that the guest read again, final sweep included.
    pub stamps_verified: u64,
    /// Pages that were accepted anew and read zero.
    pub zero_pages_verified: u64,
    /// What the guest found and should not have, in words; the first few.
    pub unexpected: Vec<String>,
    /// How many such findings there were.
    pub unexpected_count: u64,
    /// Whether mirror and S-EPT were equal entry for entry.
    pub mirror_equals_sept: bool,
    /// The first difference, if there is one.
    pub difference: Option<String>,
    /// Entries compared.
    pub entries_compared: u64,
    /// Whether every page came back after teardown.
    pub pages_returned: bool,
    /// What did not come back, if anything.
    pub missing: Option<String>,
    /// Mean time that the host spent on a fault, in microseconds.
    pub microseconds_per_fault: f64,
    /// Time from loading the module to the last page reclaimed.
    pub wall_seconds: f64,
}

/// Named numbers in the order in which they were put in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(pub Vec<(String, u64)>);

impl Counts {
    /// The sum of all.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }

    /// The number with this name, 0 if there is none.
    pub fn get(&self, name: &str) -> u64 {
        self.0
            .iter()
            .find(|(found, _)| found == name)
            .map_or(0, |(_, count)| *count)
    }

    /// Adds to the number with this name.
    pub fn add(&mut self, name: &str, count: u64) {
        match self.0.iter_mut().find(|(found, _)| found == name) {
            Some((_, sum)) => *sum += count,
            None => self.0.push((name.to_owned(), count)),
        }
    }
}

impl Serialize for Counts {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let map: Map<String, Value> = self
            .0
            .iter()
            .map(|(name, count)| (name.clone(), Value::from(*count)))
            .collect();
        map.serialize(serializer)
    }
}

impl Report {
    /// Writes the report for people; the pictures of the trees come between.
    pub fn write(
        &self,
        output: &mut Output,
        pictures: impl FnOnce(&mut Output) -> io::Result<()>,
    ) -> io::Result<()> {
        output.heading("Run")?;
        let facts = vec![
            fact("trace", &self.trace),
            fact("guest memory", &bytes(self.guest_memory)),
            fact("vCPUs", &self.vcpus.to_string()),
            fact("private pages", &format!("up to {}", self.page_size)),
            fact("module", self.module),
            fact("page metadata (PAMT)", &self.pamt_in_words()),
            fact("MRTD", &self.mrtd),
            fact("events", &grouped(self.events)),
            fact("time", &format!("{:.2} s", self.wall_seconds)),
            fact(
                "time per fault",
                &format!("{:.2} us", self.microseconds_per_fault),
            ),
        ];
        output.table(&[], facts, &[])?;
        counts(output, "Faults", "kind", &self.faults, grouped)?;
        counts(
            output,
            "Pages mapped after the last event",
            "size",
            &self.pages,
            grouped,
        )?;
        counts(
            output,
            "Host memory after the last event",
            "for",
            &self.host_memory,
            bytes,
        )?;
        pictures(output)?;
        counts(output, "SEAMCALLs", "leaf", &self.seamcalls, grouped)?;
        counts(output, "TDCALLs", "leaf", &self.tdcalls, grouped)?;
        output.heading("What the events cost")?;
        output.table(
            &["", "this MMU", "KVM", "saved"],
            self.comparison(),
            &[1, 2, 3],
        )?;
        output.heading("Checks")?;
        let found = format!(
            "{} stamps found again by the guest",
            grouped(self.stamps_verified)
        );
        let zero = format!("{} new pages read zero", grouped(self.zero_pages_verified));
        output.verdict(&found, self.unexpected_count == 0)?;
        output.verdict(&zero, self.unexpected_count == 0)?;
        let mirror = format!(
            "mirror equals S-EPT ({} entries)",
            grouped(self.entries_compared)
        );
        output.verdict(&mirror, self.mirror_equals_sept)?;
        output.verdict("every page returned", self.pages_returned)?;
        output.flush()
    }
}

impl Report {
    /// How much memory the PAMT takes, and what Dynamic PAMT saves and costs.
    fn pamt_in_words(&self) -> String {
        let pamt = &self.pamt;
        if !self.dynamic_pamt {
            return bytes(pamt.reserved);
        }
        format!(
            "{} + {} in pairs, {} without Dynamic PAMT; {} pairs added, {} removed",
            bytes(pamt.reserved),
            bytes(pamt.pairs),
            bytes(pamt.without_dynamic_pamt),
            grouped(self.seamcalls.get("TDH.PHYMEM.PAMT.ADD")),
            grouped(self.seamcalls.get("TDH.PHYMEM.PAMT.REMOVE")),
        )
    }

    /// What the events cost here and with KVM, leaf by leaf and in all.
    fn comparison(&self) -> Vec<Vec<String>> {
        let (ours, kvm) = (&self.event_leaves, &self.kvm.leaves);
        let mut leaves: Vec<&str> = ours
            .0
            .iter()
            .chain(&kvm.0)
            .map(|(leaf, _)| leaf.as_str())
            .collect();
        leaves.sort_unstable();
        leaves.dedup();
        let mut rows: Vec<_> = leaves
            .into_iter()
            .map(|leaf| compared(leaf, ours.get(leaf), kvm.get(leaf)))
            .collect();
        rows.push(compared(
            "all SEAMCALLs",
            self.event_seamcalls,
            self.kvm.seamcalls,
        ));
        rows.push(compared("kicks", self.event_kicks, self.kvm.kicks));
        let faults = self
            .faults
            .0
            .iter()
            .filter(|(kind, _)| kind.starts_with("private"))
            .map(|(_, count)| count)
            .sum();
        rows.push(compared("private faults", faults, self.kvm.faults));
        rows
    }

    /// An error that says what does not hold, if anything.
    pub fn verdict(&self) -> Result<(), Error> {
        let lost = self.unexpected.first().map(|first| {
            format!(
                "the guest found {} things that must not be, first: {first}",
                self.unexpected_count
            )
        });
        let problem = lost
            .or_else(|| self.difference.clone())
            .or_else(|| self.missing.clone());
        problem.map_or(Ok(()), |problem| Err(Error::Failed(problem)))
    }
}

/// A line with the share of `kvm` that `ours` saves, where it saves any.
fn compared(what: &str, ours: u64, kvm: u64) -> Vec<String> {
    let saved = match kvm.checked_sub(ours) {
        Some(saved) if saved > 0 => format!("{:.1} %", 100.0 * saved as f64 / kvm as f64),
        _ => "-".to_owned(),
    };
    vec![what.to_owned(), grouped(ours), grouped(kvm), saved]
}

fn fact(name: &str, value: &str) -> Vec<String> {
    vec![name.to_owned(), value.to_owned()]
}

fn counts(
    output: &mut Output,
    title: &str,
    what: &str,
    counts: &Counts,
    show: impl Fn(u64) -> String,
) -> io::Result<()> {
    output.heading(title)?;
    let mut rows: Vec<Vec<String>> = counts
        .0
        .iter()
        .map(|(name, count)| vec![name.clone(), show(*count)])
        .collect();
    if rows.len() > 1 {
        rows.push(vec!["total".to_owned(), show(counts.total())]);
    }
    output.table(&[what, ""], rows, &[1])
}

//! The page of CPUID virtualization.

use super::Book;
use super::page::Page;
use crate::model::CpuidValues;

impl Book<'_> {
    pub(super) fn cpuid(&self) -> Page {
        let mut page = Page::new("cpuid.md", "CPUID virtualization");
        for table in &self.spec.cpuid {
            page.heading(&format!("Modules {}", self.module_names(table.modules)));
            page.text("What the guest gets for each leaf: bits that the module demands of the CPU, that are fixed, or that TD\\_PARAMS configures.");
            let rows = table.lookup.iter().map(|row| {
                let mut parts = Vec::new();
                if row.faulting {
                    parts.push("#VE in the guest".to_owned());
                }
                let mut bits =
                    |what: &str, values: &CpuidValues| parts.extend(registers(what, values));
                bits("demanded of the CPU", &row.verify_mask);
                bits("with the value", &row.verify_value);
                bits("the same on every LP", &row.verify_same);
                bits("0 or dynamic", &row.fixed0_or_dynamic);
                bits("1", &row.fixed1);
                if let Some(config) = row.config {
                    parts.push(format!("configurable, entry {config}"));
                }
                vec![leaf(row.leaf, row.subleaf), parts.join("; ")]
            });
            let rows: Vec<Vec<String>> = rows.collect();
            page.table(&["leaf", ""], &rows);
            page.subheading("What the host configures");
            let rows = table.configurable.iter().enumerate().map(|(index, row)| {
                let parts = [
                    registers("set freely", &row.direct),
                    registers("may be cleared", &row.allow),
                ];
                let parts: Vec<String> = parts.into_iter().flatten().collect();
                vec![
                    index.to_string(),
                    leaf(row.leaf, row.subleaf),
                    parts.join("; "),
                ]
            });
            let rows: Vec<Vec<String>> = rows.collect();
            page.table(&["entry", "leaf", ""], &rows);
            let rows = table.xfam_masks.iter().map(|row| {
                let bits = registers("", &row.mask).unwrap_or_default();
                vec![leaf(row.leaf, row.subleaf), row.xfam_bit.to_string(), bits]
            });
            let rows: Vec<Vec<String>> = rows.collect();
            if !rows.is_empty() {
                page.subheading("0 without a bit of XFAM");
                page.table(&["leaf", "bit of XFAM", ""], &rows);
            }
            self.sources_of(&mut page, &table.cite);
        }
        page
    }
}

fn leaf(leaf: u32, subleaf: Option<u32>) -> String {
    match subleaf {
        Some(subleaf) => format!("`{leaf:#x}`, `{subleaf:#x}`"),
        None => format!("`{leaf:#x}`"),
    }
}

/// The registers that are not 0.
fn registers(what: &str, values: &CpuidValues) -> Option<String> {
    let named = ["EAX", "EBX", "ECX", "EDX"].into_iter().zip(values);
    let named = named.filter(|(_, value)| **value != 0);
    let texts: Vec<String> = named
        .map(|(name, value)| format!("{name} `{value:#x}`"))
        .collect();
    (!texts.is_empty()).then(|| {
        format!("{what} {}", texts.join(" "))
            .trim_start()
            .to_owned()
    })
}

//! JSON: valid by its own schema, and the numbers of Intel's tables.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use super::facts;
use super::folder;
use super::generate;

#[test]
fn json_keeps_its_schema_and_the_tables() {
    let folder = folder("json");
    generate("json", &folder, &[]);
    let read = |name: &str| -> Value {
        serde_json::from_slice(&fs::read(folder.join(name)).unwrap()).unwrap()
    };
    let model = read("tdx-abi.json");
    let validator = jsonschema::validator_for(&read("tdx-abi.schema.json")).unwrap();
    let complaints: Vec<String> = validator
        .iter_errors(&model)
        .map(|error| format!("{}: {error}", error.instance_path))
        .take(5)
        .collect();
    assert!(complaints.is_empty(), "{complaints:#?}");

    let mut less = model.clone();
    drop(less["leaves"][0].as_object_mut().unwrap().remove("number"));
    assert!(!validator.is_valid(&less), "a missing key is noticed");

    let rows = |table: &str| model[table].as_array().unwrap().clone();
    let is_in = |row: &Value, module: &str| {
        row["modules"]
            .as_array()
            .unwrap()
            .iter()
            .any(|name| name == module)
    };
    for module in facts::MODULES {
        let known: BTreeSet<(String, u64)> = rows("statuses")
            .iter()
            .filter(|row| row["callee"] == "module" && is_in(row, module))
            .map(|row| {
                (
                    row["name"].as_str().unwrap().to_owned(),
                    facts::value(&row["value"]),
                )
            })
            .collect();
        let table = facts::numbers(module, "status_codes", "value");
        let table: BTreeSet<(String, u64)> = table
            .into_iter()
            .map(|(name, value)| (name.trim_start_matches("TDX_").to_owned(), value))
            .collect();
        assert_eq!(known, table, "{module}");
        for table in ["seamcall_leaves", "tdcall_leaves"] {
            for (name, number) in facts::numbers(module, table, "number") {
                assert!(
                    rows("leaves")
                        .iter()
                        .any(|row| row["name"] == *name && facts::value(&row["number"]) == number),
                    "{module} {name} {number}"
                );
            }
        }
    }
    for module in facts::MODULES {
        for (scope, table) in [
            ("TDR_TDCS", "metadata_tdr_tdcs"),
            ("TDVPS", "metadata_tdvps"),
        ] {
            let known: BTreeSet<(String, u64)> = rows("fields")
                .iter()
                .filter(|row| row["scope"] == scope && is_in(row, module))
                .map(|row| {
                    (
                        row["name"].as_str().unwrap().to_owned(),
                        facts::value(&row["id"]),
                    )
                })
                .collect();
            let table = facts::numbers(module, table, "field_id");
            assert_eq!(known, table.into_iter().collect(), "{module} {scope}");
        }
    }
}

//! JSON Schemas: what the loader takes is valid, what it refuses for its keys is not.

use std::collections::BTreeMap;
use std::fs;

use jsonschema::Validator;
use serde_json::Value;
use tdx_codegen::Error;
use tdx_codegen::diagnostic::Code;
use tdx_codegen::source::Sources;
use tdx_codegen::yaml;
use tdx_codegen::yaml::Node;

use super::command::repository;
use super::command::tdx;
use super::folder;

fn validators() -> BTreeMap<String, Validator> {
    let schemas = tdx_codegen::schema::schemas(&Sources::embedded());
    assert_eq!(schemas.len(), 16);
    let validators = schemas
        .iter()
        .map(|(kind, schema)| (kind.clone(), jsonschema::validator_for(schema).unwrap()));
    validators.collect()
}

/// A document as JSON; of a key that stands twice the last.
fn json(node: &Node) -> Value {
    match &node.value {
        yaml::Value::Null => Value::Null,
        yaml::Value::Bool(value) => Value::from(*value),
        yaml::Value::Unsigned(value) => Value::from(*value),
        yaml::Value::Negative(value) => Value::from(*value),
        yaml::Value::Float(value) => Value::from(*value),
        yaml::Value::Text(text) => Value::from(text.as_str()),
        yaml::Value::List(items) => items.iter().map(json).collect(),
        yaml::Value::Map(entries) => {
            let entries = entries.iter().map(|(key, value)| {
                let key = match json(key) {
                    Value::String(text) => text,
                    other => other.to_string(),
                };
                (key, json(value))
            });
            Value::Object(entries.collect())
        }
    }
}

#[test]
fn every_file_is_valid() {
    let validators = validators();
    for (_, source) in Sources::read(&repository("spec")).unwrap().iter() {
        let value = json(&yaml::parse(source.text()).unwrap());
        let validator = &validators[value["kind"].as_str().unwrap()];
        let complaints: Vec<String> = validator
            .iter_errors(&value)
            .map(|error| format!("{}: {error}", error.instance_path))
            .collect();
        assert!(complaints.is_empty(), "{}: {complaints:#?}", source.name());
        let first = source.text().lines().next().unwrap();
        let schema = first.strip_prefix("# yaml-language-server: $schema=");
        let schema = schema.unwrap_or_else(|| panic!("{} names no schema", source.name()));
        assert!(
            source.path().parent().unwrap().join(schema).exists(),
            "{}: {schema}",
            source.name()
        );
    }
}

#[test]
fn a_missing_key_is_noticed_everywhere() {
    let validators = validators();
    for (_, source) in Sources::embedded().iter() {
        let value = json(&yaml::parse(source.text()).unwrap());
        let validator = &validators[value["kind"].as_str().unwrap()];
        let mut wrong = value.clone();
        wrong["unheard_of"] = Value::from(1);
        assert!(!validator.is_valid(&wrong), "{}", source.name());
        let head = match value["kind"].as_str() {
            Some("sources") => "sources",
            // Our own choice, which has no source.
            Some("areas") => "areas",
            _ => "cite",
        };
        let mut wrong = value.clone();
        drop(wrong.as_object_mut().unwrap().remove(head));
        assert!(!validator.is_valid(&wrong), "{}", source.name());
    }
}

#[test]
fn what_the_loader_refuses_for_its_keys_is_not_valid() {
    let validators = validators();
    let mut seen = Vec::new();
    for entry in fs::read_dir(repository("tests/data/codegen/broken")).unwrap() {
        let path = entry.unwrap().path();
        let Err(Error::Mistakes(mistakes)) = tdx_codegen::read(&path) else {
            continue;
        };
        for mistake in mistakes.list() {
            if !matches!(
                mistake.code,
                Code::UnknownKey | Code::MissingKey | Code::MissingCite | Code::WrongType
            ) {
                continue;
            }
            let source = mistakes.sources().get(mistake.place.file).unwrap();
            let value = json(&yaml::parse(source.text()).unwrap());
            let kind = value["kind"].as_str().unwrap();
            assert!(
                !validators[kind].is_valid(&value),
                "{}: {}",
                path.display(),
                mistake.message
            );
            seen.push(mistake.code);
        }
    }
    for code in [Code::UnknownKey, Code::MissingCite, Code::WrongType] {
        assert!(seen.contains(&code), "{code:?} is tried");
    }
}

#[test]
fn the_schemas_beside_the_files_are_up_to_date() {
    let folder = folder("schema");
    let output = tdx(["spec", "schema", "--out", folder.to_str().unwrap()]);
    assert!(output.status.success());
    for (kind, _) in validators() {
        let name = format!("{kind}.schema.json");
        assert_eq!(
            fs::read_to_string(folder.join(&name)).unwrap(),
            fs::read_to_string(repository("spec/schema").join(&name)).unwrap_or_default(),
            "`tdx spec schema --out spec/schema` writes {name} anew"
        );
    }
}

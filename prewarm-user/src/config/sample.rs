//! The sample file, made from the documentation of the fields.

use serde_json::{Map, Value};

use super::Config;

/// A configuration file that says what every key means and holds its default; keys without one are commented out.
#[must_use]
pub fn sample() -> String {
    let schema = schemars::schema_for!(Config).to_value();
    let defaults = serde_json::to_value(Config::default()).unwrap_or_default();
    let mut text = String::from(
        "# prewarm's settings, each with its default. A setting can also come from the environment\n\
         # (PREWARM_POLICY__BUDGET=1.0) or from the command line (--set policy.budget=1.0), which win in this order.\n",
    );
    let definitions = schema.get("$defs").and_then(Value::as_object).cloned().unwrap_or_default();
    for (key, property) in properties(&schema) {
        let body = resolve(&property, &definitions);
        text.push('\n');
        comment(&mut text, &property, &body);
        if body.get("type").and_then(Value::as_str) == Some("array") {
            let item = resolve(body.get("items").unwrap_or(&Value::Null), &definitions);
            comment(&mut text, &Value::Null, &item);
            text.push_str(&format!("# [[{key}]]\n"));
            for (name, field) in properties(&item) {
                let field_body = resolve(&field, &definitions);
                comment(&mut text, &field, &field_body);
                let value = example(&field).or_else(|| field.get("default").cloned()).unwrap_or(Value::Null);
                text.push_str(&format!("# {name} = {value}\n"));
            }
            continue;
        }
        let values = defaults.get(&key).cloned().unwrap_or(Value::Null);
        table(&mut text, &key, &body, &values, &definitions);
    }
    text
}

/// One table: its own keys, then the tables inside it.
fn table(text: &mut String, path: &str, body: &Value, values: &Value, definitions: &Map<String, Value>) {
    text.push_str(&format!("[{path}]\n"));
    let is_table = |field: &Value| resolve(field, definitions).get("properties").is_some();
    let (tables, keys): (Vec<_>, Vec<_>) = properties(body).into_iter().partition(|(_, field)| is_table(field));
    for (name, field) in keys {
        comment(text, &field, &resolve(&field, definitions));
        let value = values.get(&name).cloned().unwrap_or(Value::Null);
        let unset = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
        match example(&field).filter(|_| unset) {
            Some(example) => text.push_str(&format!("# {name} = {}\n", toml_value(&example))),
            None if value.is_null() => text.push_str(&format!("# {name} =\n")),
            None => text.push_str(&format!("{name} = {}\n", toml_value(&value))),
        }
    }
    for (name, field) in tables {
        let inner = resolve(&field, definitions);
        text.push('\n');
        comment(text, &field, &inner);
        table(text, &format!("{path}.{name}"), &inner, values.get(&name).unwrap_or(&Value::Null), definitions);
    }
}

fn properties(schema: &Value) -> Vec<(String, Value)> {
    let object = schema.get("properties").and_then(Value::as_object);
    object.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// The definition that `schema` refers to, or itself.
fn resolve(schema: &Value, definitions: &Map<String, Value>) -> Value {
    let name = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next());
    name.and_then(|name| definitions.get(name)).unwrap_or(schema).clone()
}

/// The field's own words, or those of its type.
fn comment(text: &mut String, field: &Value, body: &Value) {
    let words = field.get("description").or_else(|| body.get("description")).and_then(Value::as_str).unwrap_or("");
    for line in words.lines() {
        text.push_str("# ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

fn example(field: &Value) -> Option<Value> {
    field.get("examples").and_then(Value::as_array).and_then(|examples| examples.first()).cloned()
}

fn toml_value(value: &Value) -> String {
    match value {
        Value::Object(_) | Value::Array(_) => {
            toml::Value::try_from(value).map(|value| value.to_string()).unwrap_or_default()
        }
        // JSON's scalars and arrays of scalars are TOML's.
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};

    #[test]
    fn the_sample_is_the_default_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sample.toml");
        std::fs::write(&path, sample()).unwrap();
        let config = load(&Sources { file: Some(path), set: Vec::new() }).unwrap();
        assert_eq!(config, Config::default());
    }

    #[test]
    fn every_key_is_explained() {
        let text = sample();
        let lines: Vec<&str> = text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let key = line.trim_start_matches("# ").split(" =").next().unwrap_or_default();
            let assigns = line.contains(" = ") && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            if assigns && !key.is_empty() {
                assert!(lines[index - 1].starts_with("# "), "no explanation above {line:?}");
            }
        }
    }
}

//! A JSON Schema of the file, from the tables that the check follows. What a schema cannot say (a volume of the same group,
//! an address twice) only the check knows.

use serde_json::{Map, Value, json};

use super::format::Format;
use super::shape::{self, Key, Needed, Shape};

const NAME: &str = "^[a-z0-9][a-z0-9._-]{0,62}$";

/// As [`super::format::unit_is_legal`] judges it.
const UNIT: &str =
    "^[A-Za-z0-9][A-Za-z0-9:_.\\\\@-]*\\.(service|target|socket|mount|timer|scope|slice)$";

/// The schema: draft 2020-12.
pub fn schema() -> Value {
    let mut root = Map::new();
    root.insert(
        "$schema".to_string(),
        json!("https://json-schema.org/draft/2020-12/schema"),
    );
    root.insert("title".to_string(), json!("/etc/lockstep/cluster.toml"));
    let Value::Object(table) = table(&[shape::FILE], None) else {
        return Value::Object(root);
    };
    root.extend(table);
    Value::Object(root)
}

/// A table with keys from several lists, and its kind if they depend on it.
fn table(keys: &[&[Key]], kind: Option<&str>) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    if let Some(kind) = kind {
        properties.insert("kind".to_string(), json!({ "const": kind }));
        required.push("kind");
    }
    for key in keys.iter().flat_map(|keys| keys.iter()) {
        properties.insert(key.name.to_string(), of_key(key));
        if key.needed == Needed::Yes {
            required.push(key.name);
        }
    }
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn of_key(key: &Key) -> Value {
    let mut value = of_shape(&key.shape);
    let doc = match key.needed {
        Needed::Default(default) => format!("{}. Default: {default}", key.doc),
        Needed::Yes | Needed::No => key.doc.to_string(),
    };
    if let Value::Object(map) = &mut value {
        map.insert("description".to_string(), json!(doc));
    }
    value
}

fn of_shape(shape: &Shape) -> Value {
    match shape {
        Shape::Text(format) => of_format(*format),
        Shape::Number { min, max, .. } => {
            json!({"type": "integer", "minimum": min, "maximum": max})
        }
        Shape::Flag => json!({"type": "boolean"}),
        Shape::Command => json!({
            "type": "array",
            "prefixItems": [{"type": "string", "pattern": "^/"}],
            "items": {"type": "string"},
            "minItems": 1,
        }),
        Shape::List { of, min, max, .. } => {
            let mut list = json!({"type": "array", "items": of_format(*of), "minItems": min});
            if let (Value::Object(map), true) = (&mut list, *max < usize::MAX) {
                map.insert("maxItems".to_string(), json!(max));
            }
            list
        }
        Shape::Table(keys) => table(&[keys], None),
        Shape::Named { keys, min, max, .. } => {
            let mut named = json!({
                "type": "object",
                "propertyNames": {"pattern": NAME},
                "additionalProperties": table(&[keys], None),
                "minProperties": min,
            });
            if let (Value::Object(map), true) = (&mut named, *max < usize::MAX) {
                map.insert("maxProperties".to_string(), json!(max));
            }
            named
        }
        Shape::Kinds(list) => {
            let kinds = list.kinds.iter().map(|kind| {
                let mut value = table(&[list.keys, kind.keys], Some(kind.name));
                if let Value::Object(map) = &mut value {
                    map.insert("description".to_string(), json!(kind.doc));
                }
                value
            });
            json!({
                "type": "array",
                "maxItems": list.most,
                "items": {"oneOf": kinds.collect::<Vec<_>>()},
            })
        }
    }
}

fn of_format(format: Format) -> Value {
    match format {
        Format::Any | Format::ServerName => json!({"type": "string"}),
        Format::Unit => json!({"type": "string", "pattern": UNIT}),
        Format::Name(_) => json!({"type": "string", "pattern": NAME}),
        Format::Choice { of, .. } => json!({ "enum": of }),
        Format::Interconnect | Format::HostPort => {
            json!({"type": "string", "pattern": "^[^/]+:[0-9]{1,5}$"})
        }
        Format::MountPoint | Format::Device => json!({"type": "string", "pattern": "^/"}),
        Format::DeviceOrNone => json!({"type": "string", "pattern": "^(/|none$)"}),
        Format::Address => json!({"type": "string", "pattern": "^[0-9A-Fa-f.:]+$"}),
        Format::Prefix => json!({"type": "string", "pattern": "^[0-9A-Fa-f.:]+/[1-9][0-9]{0,2}$"}),
    }
}

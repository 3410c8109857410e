//! Walks through the file along [`super::shape`]: unknown and missing keys, types, bounds, forms. Everything is looked at,
//! whatever was found before.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::findings::{CONFLICT, Finding, Findings, MISSING, UNKNOWN_KEY, VALUE, VERSION};
use super::format::{Format, LEGAL_NAME, listed};
use super::shape::{self, Key, Kinds, Needed, Shape};
use super::spot::{Spot, join};
use super::syntax::{causes, syntax};

/// Collects what is found.
pub(super) struct Reader {
    pub(super) findings: Findings,
    /// Where each value is, by its key.
    pub(super) places: BTreeMap<String, Range<usize>>,
}

impl Reader {
    pub(super) fn add(&mut self, finding: Finding) {
        self.findings.add(finding);
    }

    /// The file as TOML, if it is.
    pub(super) fn toml<'a>(&mut self, text: &'a str) -> Option<DeValue<'a>> {
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in causes(text, &errors) {
            self.add(syntax(text, error));
        }
        errors
            .is_empty()
            .then(|| DeValue::Table(table.into_inner()))
    }

    /// The whole file. `false`: it is of another version, and nothing else was looked at.
    pub(super) fn file(&mut self, root: &Spot<'_>) -> bool {
        if let Some(version) = root.get("version")
            && let Some(number) = version.number()
            && number != shape::VERSION
        {
            let what = format!("the file is of version {number}");
            let finding = Finding::error(VERSION, version.key, version.at, what)
                .why(format!(
                    "this lockstepd ({}) reads version {}",
                    env!("CARGO_PKG_VERSION"),
                    shape::VERSION
                ))
                .advice("write version = 1, or install the release that the file was written for");
            self.add(finding);
            return false;
        }
        self.table(root, &[shape::FILE], None);
        true
    }

    fn value(&mut self, spot: &Spot<'_>, shape: &Shape) {
        self.places.insert(spot.key.clone(), spot.at.clone());
        match (shape, spot.value) {
            (Shape::Text(format), DeValue::String(text)) => self.text(spot, *format, text),
            (Shape::Number { min, max, unit }, DeValue::Integer(_)) => {
                self.number(spot, *min, *max, unit);
            }
            (Shape::Flag, DeValue::Boolean(_)) => {}
            (Shape::Command, DeValue::Array(_)) => self.command(spot),
            (
                Shape::List {
                    of,
                    min,
                    max,
                    of_what,
                },
                DeValue::Array(_),
            ) => self.list(spot, *of, *min, *max, of_what),
            (Shape::Table(keys), DeValue::Table(_)) => self.table(spot, &[keys], None),
            (
                Shape::Named {
                    keys,
                    min,
                    max,
                    wanted,
                },
                DeValue::Table(_),
            ) => self.named(spot, keys, *min, *max, wanted),
            (Shape::Kinds(kinds), DeValue::Array(_)) => self.of_kinds(spot, kinds),
            (
                Shape::Text(_)
                | Shape::Number { .. }
                | Shape::Flag
                | Shape::Command
                | Shape::List { .. }
                | Shape::Table(_)
                | Shape::Named { .. }
                | Shape::Kinds(_),
                _,
            ) => self.wrong_type(spot, shape),
        }
    }

    fn wrong_type(&mut self, spot: &Spot<'_>, shape: &Shape) {
        let mut kinds_example = None;
        let (wanted, example): (&str, &str) = match shape {
            Shape::Text(_) => ("a text", "write it in quotation marks"),
            Shape::Number { .. } => (
                "a whole number",
                "write it without quotation marks, unit or fraction",
            ),
            Shape::Flag => (
                "true or false",
                "write true or false, without quotation marks",
            ),
            Shape::Command => (
                "a list",
                "write a list of a program, with its absolute path, and its arguments: [\"/bin/true\"]",
            ),
            Shape::List { .. } => (
                "a list of texts",
                "write it in brackets, each in quotation marks: [\"...\"]",
            ),
            Shape::Table(_) | Shape::Named { .. } => (
                "a table",
                "write a table: its name in brackets on a line of its own, its keys below",
            ),
            Shape::Kinds(kinds) => (
                "a list of tables",
                kinds_example.insert(format!(
                    "write a table [[...{0}s]] for each {0}",
                    kinds.noun
                )),
            ),
        };
        let said = spot.type_name();
        let item = if spot.key.ends_with(']') {
            "an entry of "
        } else {
            ""
        };
        let what = format!("{item}`{}` is {said}", spot.name);
        let finding = Finding::error(VALUE, spot.key.clone(), spot.at.clone(), what)
            .why(format!("it has to be {wanted}"))
            .advice(example);
        self.add(finding);
    }

    fn text(&mut self, spot: &Spot<'_>, format: Format, text: &str) {
        let Err(wrong) = format.judge(text) else {
            return;
        };
        let finding = Finding::error(VALUE, spot.key.clone(), spot.at.clone(), wrong.what)
            .why(wrong.why)
            .advice(wrong.advice)
            .meant(text, wrong.names.iter().copied());
        self.add(finding);
    }

    fn number(&mut self, spot: &Spot<'_>, min: u64, max: u64, unit: &str) {
        let number = spot.number();
        if number.is_some_and(|number| (min..=max).contains(&number)) {
            return;
        }
        let written = self.findings.text.get(spot.at.clone()).unwrap_or("it");
        let digits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '+';
        let bound = match number {
            Some(number) if number < min => "below the least that is allowed",
            Some(_) => "above the most that is allowed",
            None if written.starts_with('-') => "negative",
            // The parser reads digits only when they are asked for.
            None if written.chars().all(digits) => "too large for any number",
            None => "not a number",
        };
        let unit = if unit.is_empty() {
            String::new()
        } else {
            format!(" {unit}")
        };
        let what = format!("`{}` is {bound}: {written}", spot.name);
        let finding = Finding::error(VALUE, spot.key.clone(), spot.at.clone(), what)
            .why(format!("it may be {min} to {max}{unit}"))
            .advice(format!("write a number from {min} to {max}"));
        self.add(finding);
    }

    fn list(&mut self, spot: &Spot<'_>, of: Format, min: usize, max: usize, of_what: &str) {
        let items = spot.items();
        for item in &items {
            self.value(item, &Shape::Text(of));
        }
        if (min..=max).contains(&items.len()) {
            return;
        }
        let many = if max == usize::MAX {
            "one or more".to_string()
        } else {
            format!("{min} to {max}")
        };
        let what = match items.len() {
            0 => format!("`{}` is empty", spot.name),
            count => format!("`{}` has {count} entries", spot.name),
        };
        let finding = Finding::error(VALUE, spot.key.clone(), spot.at.clone(), what)
            .why(format!("there have to be {many}"))
            .advice(format!("list {many} {of_what}"));
        self.add(finding);
    }

    fn command(&mut self, spot: &Spot<'_>) {
        let items = spot.items();
        for item in &items {
            self.value(item, &Shape::Text(Format::Any));
        }
        let zero = items
            .iter()
            .find(|item| item.text().is_some_and(|text| text.contains('\0')));
        let (at, what, why) = match items.first() {
            None => (
                spot.at.clone(),
                format!("`{}` names no program", spot.name),
                "there is nothing to run",
            ),
            Some(first) => match first.text() {
                // Told already.
                None => return,
                Some(text) if !text.starts_with('/') => (
                    first.at.clone(),
                    format!("{text:?} is not an absolute path"),
                    "it would depend on where lockstepd was started and on its search path",
                ),
                Some(_) => match zero {
                    None => return,
                    Some(item) => (
                        item.at.clone(),
                        "a NUL character in a command".to_string(),
                        "no program can be told one",
                    ),
                },
            },
        };
        let finding = Finding::error(VALUE, spot.key.clone(), at, what)
            .why(why)
            .advice("write a list of a program, with its absolute path, and its arguments");
        self.add(finding);
    }

    fn named(
        &mut self,
        spot: &Spot<'_>,
        keys: &'static [Key],
        min: usize,
        max: usize,
        wanted: &str,
    ) {
        let entries = spot.entries();
        let what = spot.name.trim_end_matches('s');
        for entry in &entries {
            if Format::Name("node").judge(entry.name).is_err() {
                let text = format!("{:?} cannot be the name of a {what}", entry.name);
                let finding = Finding::error(VALUE, entry.key.clone(), entry.name_at.clone(), text)
                    .why("it becomes a part of paths and commands")
                    .advice(format!("use {LEGAL_NAME}"));
                self.add(finding);
            }
            self.value(entry, &Shape::Table(keys));
        }
        if (min..=max).contains(&entries.len()) {
            return;
        }
        let names: Vec<&str> = entries.iter().map(|entry| entry.name).collect();
        let there = match names.as_slice() {
            [] => format!("there is no {what} in the file"),
            [one] => format!("the file has one {what} only, {:?}", one),
            names => format!(
                "the file has {} {}: {}",
                names.len(),
                spot.name,
                names.join(", ").escape_debug()
            ),
        };
        // The third one is what is wrong, if there is one.
        let over = entries.get(max).unwrap_or(spot);
        let code = if entries.is_empty() {
            MISSING
        } else {
            CONFLICT
        };
        let finding = Finding::error(code, spot.key.clone(), over.name_at.clone(), there)
            .why(format!("there have to be {wanted}"))
            .advice(format!("write {wanted}"));
        self.add(finding);
    }

    fn of_kinds(&mut self, spot: &Spot<'_>, kinds: &Kinds) {
        let items = spot.items();
        for (index, item) in items.iter().enumerate() {
            self.places.insert(item.key.clone(), item.at.clone());
            if index == kinds.most {
                let most = kinds.most;
                let what = format!("{} {}s in one group", items.len(), kinds.noun);
                let finding = Finding::error(VALUE, spot.key.clone(), item.at.clone(), what)
                    .why(format!("a group has at most {most}"))
                    .advice(kinds.fewer);
                self.add(finding);
            }
            if item.value.as_table().is_some() {
                self.of_kind(item, kinds);
            } else {
                self.wrong_type(item, &Shape::Table(&[]));
            }
        }
    }

    fn of_kind(&mut self, item: &Spot<'_>, kinds: &Kinds) {
        let names: Vec<&str> = kinds.kinds.iter().map(|kind| kind.name).collect();
        let Some(given) = item.get("kind") else {
            let finding = Finding::error(
                MISSING,
                item.key.clone(),
                item.at.clone(),
                format!("a {} without `kind`", kinds.noun),
            )
            .why("its other keys depend on it")
            .advice(format!("add kind, one of {}", listed(&names, "or")));
            self.add(finding);
            return;
        };
        self.places.insert(given.key.clone(), given.at.clone());
        let Some(said) = given.text() else {
            self.wrong_type(&given, &Shape::Text(Format::Any));
            return;
        };
        if let Some(kind) = kinds.kinds.iter().find(|kind| kind.name == said) {
            let which = format!("a {} of kind {said:?}", kinds.noun);
            self.table(item, &[kinds.keys, kind.keys], Some(&which));
            return;
        }
        let finding = Finding::error(
            VALUE,
            given.key,
            given.at,
            format!("{said:?} is no kind of {}", kinds.noun),
        )
        .why(kinds.why)
        .advice(format!("write {}; {}", listed(&names, "or"), kinds.instead))
        .meant(said, names.iter().copied());
        self.add(finding);
    }

    /// A table with keys from several lists; of one whose keys depend on its kind, what it is.
    fn table(&mut self, spot: &Spot<'_>, keys: &[&'static [Key]], kind: Option<&str>) {
        let known = || keys.iter().flat_map(|keys| keys.iter());
        let mut meant = Vec::new();
        for entry in spot.entries() {
            match known().find(|key| key.name == entry.name) {
                Some(key) => self.value(&entry, &key.shape),
                None if kind.is_some() && entry.name == "kind" => {}
                None => {
                    let mut names: Vec<&str> = known().map(|key| key.name).collect();
                    names.extend(kind.map(|_| "kind"));
                    let finding = unknown(spot, &entry, &names, kind);
                    meant.extend(finding.suggestion.clone());
                    self.add(finding);
                }
            }
        }
        for key in known().filter(|key| key.needed == Needed::Yes) {
            // One that is there with a wrong name was told already.
            if spot.get(key.name).is_none() && !meant.iter().any(|name| name == key.name) {
                let finding = missing(spot, key, kind);
                self.add(finding);
            }
        }
    }
}

fn missing(spot: &Spot<'_>, key: &Key, kind: Option<&str>) -> Finding {
    let table = match (kind, spot.key.as_str()) {
        (Some(kind), _) => format!("{kind} without"),
        (None, "") => "the file has no".to_string(),
        (None, name) => format!("[{name}] has no"),
    };
    let what = format!("{table} `{}`", key.name);
    let add = match &key.shape {
        Shape::Named { wanted, .. } => format!("write {wanted}"),
        Shape::Number { min, max, .. } if min == max => format!("add {} = {min}", key.name),
        Shape::List { .. } => format!("add {} = [\"...\"]", key.name),
        Shape::Command => format!("add {} = [\"/PROGRAM\", \"ARGUMENT\"]", key.name),
        Shape::Text(Format::Choice { of, .. }) => {
            format!("add {}, one of {}", key.name, listed(of, "or"))
        }
        Shape::Text(_) | Shape::Number { .. } | Shape::Flag | Shape::Table(_) | Shape::Kinds(_) => {
            format!("add {} = \"...\"", key.name)
        }
    };
    let finding = if spot.key.is_empty() {
        Finding::of_file(MISSING, what)
    } else {
        Finding::error(MISSING, join(&spot.key, key.name), spot.at.clone(), what)
    };
    finding
        .why("nothing stands in for it")
        .advice(format!("{add}: {}", lower(key.doc)))
}

/// Within a sentence. Names in capitals stay as they are.
fn lower(doc: &str) -> String {
    let mut chars = doc.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), Some(second)) if !second.is_uppercase() => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => doc.to_string(),
    }
}

fn unknown(spot: &Spot<'_>, entry: &Spot<'_>, names: &[&str], kind: Option<&str>) -> Finding {
    let said = entry.name.escape_debug();
    let what = match (kind, spot.key.as_str()) {
        (Some(kind), _) => format!("{kind} has no key `{said}`"),
        (None, "") => format!("there is no key or table `{said}`"),
        (None, table) => format!("[{table}] has no key `{said}`"),
    };
    let why = match home(entry.name) {
        Some(home) => format!("the key belongs {home}"),
        None if kind.is_some() && entry.name.contains("depend") => {
            "resources depend on those before them in the file, and on nothing else".to_string()
        }
        None => "a key that nobody reads is usually a mistyped one".to_string(),
    };
    Finding::error(UNKNOWN_KEY, entry.key.clone(), entry.name_at.clone(), what)
        .why(why)
        .advice(format!("the keys here are: {}", names.join(", ")))
        .meant(entry.name, names.iter().copied())
}

/// Where a key belongs. A key below the wrong [table] is a common mistake.
fn home(name: &str) -> Option<String> {
    let has = |keys: &[Key]| keys.iter().any(|key| key.name == name);
    if has(shape::FILE) {
        return Some("to the top of the file, before the first [table]".to_string());
    }
    for table in shape::FILE {
        match &table.shape {
            Shape::Table(keys) if has(keys) => return Some(format!("into [{}]", table.name)),
            Shape::Named { keys, .. } if has(keys) => {
                return Some(format!("into [{}.NAME]", table.name));
            }
            Shape::Table(_)
            | Shape::Named { .. }
            | Shape::Text(_)
            | Shape::Number { .. }
            | Shape::Flag
            | Shape::Command
            | Shape::List { .. }
            | Shape::Kinds(_) => {}
        }
    }
    let lists = [&shape::RESOURCES, &shape::MONITORS];
    if let Some(list) = lists.iter().find(|list| has(list.keys)) {
        return Some(format!("into [[groups.NAME.{}s]]", list.noun));
    }
    lists.iter().find_map(|list| {
        let kind = list.kinds.iter().find(|kind| has(kind.keys))?;
        Some(format!("to {}s of kind {:?}", list.noun, kind.name))
    })
}

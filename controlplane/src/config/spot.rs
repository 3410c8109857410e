//! The file as a tree: each value with its key and its place.

use std::ops::Range;

use toml::de::DeValue;

use super::format::Format;

/// A value of the file: its key with all tables, and where it is.
#[derive(Clone, Debug)]
pub(super) struct Spot<'a> {
    pub(super) key: String,
    pub(super) at: Range<usize>,
    /// Its own name in its table, and where that is.
    pub(super) name: &'a str,
    pub(super) name_at: Range<usize>,
    pub(super) value: &'a DeValue<'a>,
}

impl<'a> Spot<'a> {
    pub(super) fn root(value: &'a DeValue<'a>) -> Self {
        Self {
            key: String::new(),
            at: 0..0,
            name: "",
            name_at: 0..0,
            value,
        }
    }

    pub(super) fn entries(&self) -> Vec<Spot<'a>> {
        let DeValue::Table(table) = self.value else {
            return Vec::new();
        };
        let entry = |(name, value): (&'a toml::Spanned<_>, &'a toml::Spanned<DeValue<'a>>)| {
            let own: &'a std::borrow::Cow<'a, str> = name.get_ref();
            Spot {
                key: join(&self.key, own),
                at: value.span(),
                name: own,
                name_at: name.span(),
                value: value.get_ref(),
            }
        };
        // In the order of the file, whatever order the parser keeps.
        let mut entries: Vec<Spot<'a>> = table.iter().map(entry).collect();
        entries.sort_by_key(|entry| entry.name_at.start);
        entries
    }

    pub(super) fn get(&self, name: &str) -> Option<Spot<'a>> {
        let mut entries = self.entries().into_iter();
        entries.find(|entry| entry.name == name)
    }

    /// Of a list. Tables with a name have it in their key.
    pub(super) fn items(&self) -> Vec<Spot<'a>> {
        let DeValue::Array(array) = self.value else {
            return Vec::new();
        };
        let item = |(index, value): (usize, &'a toml::Spanned<DeValue<'a>>)| {
            let inner: &'a DeValue<'a> = value.get_ref();
            let named = inner.get("name").and_then(|name| name.get_ref().as_str());
            let key = match named.filter(|name| Format::Name("resource").judge(name).is_ok()) {
                Some(name) => join(&self.key, name),
                None => format!("{}[{index}]", self.key),
            };
            Spot {
                key,
                at: value.span(),
                name: self.name,
                name_at: self.name_at.clone(),
                value: inner,
            }
        };
        array.iter().enumerate().map(item).collect()
    }

    pub(super) fn text(&self) -> Option<&'a str> {
        self.value.as_str()
    }

    pub(super) fn number(&self) -> Option<u64> {
        let number = self.value.as_integer()?;
        u64::from_str_radix(number.as_str(), number.radix()).ok()
    }

    pub(super) fn flag(&self) -> Option<bool> {
        self.value.as_bool()
    }

    /// The texts of a list.
    pub(super) fn texts(&self) -> Option<Vec<String>> {
        let items = self.items();
        self.value.as_array()?;
        items
            .iter()
            .map(|item| item.text().map(str::to_string))
            .collect()
    }

    /// What the value is, with an article.
    pub(super) fn type_name(&self) -> &'static str {
        match self.value {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        }
    }
}

/// The key of something in a table.
pub(super) fn join(key: &str, name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let name = if !name.is_empty() && name.chars().all(bare) {
        name.to_string()
    } else {
        format!("{name:?}")
    };
    if key.is_empty() {
        name
    } else {
        format!("{key}.{name}")
    }
}

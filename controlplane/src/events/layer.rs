//! Takes the lines of the log that have a code.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::{SystemTime, UNIX_EPOCH};

use controlplane_api::events::{Event, Severity};
use tracing::field::{Field, Visit};
use tracing::{Level, Subscriber};
use tracing_subscriber::layer::Context;

use super::{Item, unix_ms};

/// Of what an event says so much is kept: its text, the names and the values of its figures.
pub(super) const SAID_BYTES_MAX: usize = 1024;

/// Of a code and of a name, whatever else is said.
const KEY_BYTES_MAX: usize = 64;

/// Takes lines, and waits for nobody.
pub struct Layer {
    sender: SyncSender<Item>,
    dropped: Arc<AtomicU64>,
}

impl Layer {
    pub(super) fn new(sender: SyncSender<Item>, dropped: Arc<AtomicU64>) -> Self {
        Self { sender, dropped }
    }
}

impl<S: Subscriber> tracing_subscriber::Layer<S> for Layer {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut said = Said::default();
        event.record(&mut said);
        let Some(code) = said.code.take() else {
            return;
        };
        let level = *event.metadata().level();
        let noted = Noted {
            at: SystemTime::now(),
            severity: if level == Level::ERROR {
                Severity::Error
            } else if level == Level::WARN {
                Severity::Warning
            } else {
                Severity::Info
            },
            code,
            said,
        };
        if self.sender.try_send(Item::Event(Box::new(noted))).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A line with a code.
pub(super) struct Noted {
    at: SystemTime,
    severity: Severity,
    code: String,
    said: Said,
}

impl Noted {
    /// As an event of this node, after the one with the number `last`. Numbers are microseconds since 1970 as long as the clock
    /// goes on: they rise over restarts without anything that is remembered.
    pub(super) fn numbered(self, node: &str, last: u64) -> Event {
        let since = self.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let micros = u64::try_from(since.as_micros()).unwrap_or_default();
        Event {
            node: node.to_string(),
            number: micros.max(last.saturating_add(1)),
            at_ms: unix_ms(self.at),
            severity: self.severity,
            code: self.code,
            group: self.said.group,
            volume: self.said.volume,
            text: self.said.text,
            fields: self.said.fields,
        }
    }
}

/// What a line says, so far as it is kept.
#[derive(Default)]
struct Said {
    code: Option<String>,
    group: Option<String>,
    volume: Option<String>,
    text: String,
    fields: BTreeMap<String, String>,
    bytes: usize,
}

impl Said {
    fn take(&mut self, name: &str, value: fmt::Arguments<'_>) {
        let is_key = matches!(name, "code" | "group" | "volume");
        let mut short = Short {
            text: String::new(),
            left: if is_key {
                KEY_BYTES_MAX
            } else {
                SAID_BYTES_MAX.saturating_sub(self.bytes + name.len())
            },
        };
        // What finds no room is cut; nothing else can go wrong.
        let _ = short.write_fmt(value);
        let value = short.text;
        self.bytes += if is_key { 0 } else { value.len() };
        match name {
            "message" => self.text = value,
            "code" => self.code = Some(value).filter(|code| is_code(code)),
            "group" => self.group = Some(value),
            "volume" => self.volume = Some(value),
            _ if value.is_empty() => {}
            _ => {
                self.bytes += name.len();
                self.fields.insert(name.to_string(), value);
            }
        }
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field.name(), format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field.name(), format_args!("{value}"));
    }
}

/// `LS` and four digits.
fn is_code(text: &str) -> bool {
    let digits = text.strip_prefix("LS").unwrap_or_default();
    digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Takes so many bytes, and nothing that a terminal would obey.
struct Short {
    text: String,
    left: usize,
}

impl Write for Short {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            let c = if c.is_control() { ' ' } else { c };
            if c.len_utf8() > self.left {
                self.left = 0;
                return Err(fmt::Error);
            }
            self.left -= c.len_utf8();
            self.text.push(c);
        }
        Ok(())
    }
}

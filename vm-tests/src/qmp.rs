//! QEMU's control socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::agent::lock;

const COMMAND_LIMIT: Duration = Duration::from_secs(20);

/// A connection to a running QEMU.
pub struct Qmp {
    stream: Mutex<(UnixStream, mpsc::Receiver<Value>)>,
    shutdown_reason: Arc<Mutex<Option<String>>>,
}

impl Qmp {
    pub(crate) fn new(stream: UnixStream) -> anyhow::Result<Self> {
        let (sender, replies) = mpsc::channel();
        let shutdown_reason = Arc::new(Mutex::new(None));
        let (reader, reason) = (stream.try_clone()?, Arc::clone(&shutdown_reason));
        thread::spawn(move || {
            for line in BufReader::new(reader).lines() {
                let Ok(message) =
                    line.map(|line| serde_json::from_str(&line).unwrap_or(Value::Null))
                else {
                    return;
                };
                if message["event"] == "SHUTDOWN" {
                    *lock(&reason) = message["data"]["reason"].as_str().map(str::to_owned);
                }
                let is_reply = message.get("return").is_some() || message.get("error").is_some();
                if is_reply && sender.send(message).is_err() {
                    return;
                }
            }
        });
        let qmp = Self {
            stream: Mutex::new((stream, replies)),
            shutdown_reason,
        };
        qmp.command("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Runs one command.
    ///
    /// # Errors
    /// If QEMU refuses or is gone.
    pub fn command(&self, name: &str, arguments: &Value) -> anyhow::Result<Value> {
        let mut connection = lock(&self.stream);
        let text = format!("{}\n", json!({ "execute": name, "arguments": arguments }));
        connection
            .0
            .write_all(text.as_bytes())
            .context("QEMU is gone")?;
        let reply = connection
            .1
            .recv_timeout(COMMAND_LIMIT)
            .with_context(|| format!("QEMU: no answer to {name}"))?;
        if let Some(error) = reply.get("error") {
            bail!("QEMU refuses {name}: {error}");
        }
        Ok(reply["return"].clone())
    }

    /// Why QEMU said it ends (`guest-reset`, `guest-panic`, ...), if it did.
    #[must_use]
    pub fn shutdown_reason(&self) -> Option<String> {
        lock(&self.shutdown_reason).clone()
    }
}

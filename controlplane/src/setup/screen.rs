//! The screen of the inviting end. A terminal that stands still (Ctrl-S, a full pipe) must not close the door: a thread of its own
//! writes, behind a bounded queue; what does not fit is counted, and the open tokens are shown again.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use controlplane::join::{Guest, Progress};

use super::lines_of;

/// Texts that wait to be written.
const QUEUE_MAX: usize = 64;

struct State {
    /// `None`: it is over.
    queue: Option<SyncSender<String>>,
    /// What is still to be typed, and where.
    open: BTreeMap<String, String>,
    lost: u64,
}

pub(super) struct Screen {
    address: SocketAddr,
    state: Mutex<State>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Screen {
    /// Others are told to join at `address`.
    pub(super) fn new(
        address: SocketAddr,
        mut out: impl Write + Send + 'static,
    ) -> std::io::Result<Self> {
        let (queue, texts) = sync_channel::<String>(QUEUE_MAX);
        let writer = thread::Builder::new()
            .name("screen".into())
            .spawn(move || {
                for text in texts {
                    // A reader that went away ends nothing.
                    drop(writeln!(out, "{text}").and_then(|()| out.flush()));
                }
            })?;
        Ok(Self {
            address,
            state: Mutex::new(State {
                queue: Some(queue),
                open: BTreeMap::new(),
                lost: 0,
            }),
            writer: Mutex::new(Some(writer)),
        })
    }

    pub(super) fn tell(&self, progress: &Progress) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let text = shown(progress, self.address);
        match progress {
            Progress::Token { guest, .. } => {
                state.open.insert(guest.to_string(), text.clone());
            }
            Progress::Inside { guest, .. } => {
                state.open.remove(&guest.to_string());
            }
            Progress::Waits { .. }
            | Progress::Joined { .. }
            | Progress::BrokeOff { .. }
            | Progress::Turned { .. }
            | Progress::Strangers { .. } => {}
        }
        if matches!(progress, Progress::Strangers { .. }) {
            let text = state.with_tokens(text);
            return state.say(text);
        }
        state.say(text);
    }

    /// Waits until everything is written.
    pub(super) fn end(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = std::mem::take(&mut state.lost);
        if let Some(queue) = state.queue.take()
            && lost > 0
        {
            drop(queue.send(not_shown(lost)));
        }
        drop(state);
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = writer.take() {
            drop(writer.join());
        }
    }
}

fn not_shown(count: u64) -> String {
    format!("({count} messages were not shown: the terminal stood still)")
}

impl State {
    fn with_tokens(&self, mut text: String) -> String {
        for token in self.open.values() {
            text.push('\n');
            text.push_str(token.trim_end());
        }
        text
    }

    fn say(&mut self, text: String) {
        let text = if self.lost > 0 {
            self.with_tokens(format!("{}\n{text}", not_shown(self.lost)))
        } else {
            text
        };
        let Some(queue) = &self.queue else {
            return;
        };
        match queue.try_send(text) {
            Ok(()) => self.lost = 0,
            Err(_) => self.lost += 1,
        }
    }
}

fn shown(progress: &Progress, address: SocketAddr) -> String {
    match progress {
        Progress::Token { guest, token } => {
            let (place, option) = match guest {
                Guest::Witness => ("on the witness".to_string(), String::new()),
                Guest::Node { name, .. } => (format!("on {name}"), format!(" --node {name}")),
            };
            format!(
                "{place}, type:\n    lockstep cluster join {address}{option}\n  and then this token, which works once:\n    {token}\n"
            )
        }
        Progress::Inside { guest, address } => format!("{guest}: joins, from {address}"),
        Progress::Waits { guest, whom } => {
            format!("{guest}: waits until the {whom} has joined, to get its certificate")
        }
        Progress::Joined {
            guest,
            lacks_witness: false,
        } => format!("{guest}: has joined"),
        Progress::Joined {
            guest,
            lacks_witness: true,
        } => format!(
            "{guest}: has joined, without the witness's certificate: when the witness has joined, \
             `lockstep cluster invite {guest}`, and join there again"
        ),
        Progress::BrokeOff {
            guest,
            why,
            key_is_out,
        } => {
            let out = key_is_out.as_ref().map(|out| lines_of(out, "  "));
            let lines = [lines_of(why, "  ")].into_iter().chain(out);
            let lines: Vec<String> = lines.collect();
            format!("{guest}: did not get to the end\n{}", lines.join("\n"))
        }
        Progress::Turned { address, why } => {
            format!("{address}: not let in\n{}", lines_of(why, "  "))
        }
        Progress::Strangers { count } => {
            format!("{count} connections came without a token; these are open:")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;
    use controlplane::join::{Fingerprint, Secret, Token};

    /// Writes nothing before it is let go.
    struct Still {
        go: Receiver<()>,
        out: Sender<Vec<u8>>,
    }

    impl Write for Still {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // An error: it was let go for good.
            let _ = self.go.recv();
            drop(self.out.send(bytes.to_vec()));
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn token(byte: u8) -> Token {
        Token {
            secret: Secret([byte; 16]),
            fingerprint: Fingerprint([3; 16]),
        }
    }

    fn address() -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], 7423))
    }

    #[test]
    fn a_terminal_that_stands_still_holds_nobody_up_and_shows_the_tokens_afterwards() {
        let (go, wait) = channel();
        let (out, written) = channel();
        let screen = Screen::new(address(), Still { go: wait, out }).expect("a thread");
        let guest = Guest::Witness;
        for count in 0..1000 {
            screen.tell(&Progress::Strangers { count });
        }
        // Its text is lost, the token is not.
        let token = token(1);
        let text = token.to_string();
        screen.tell(&Progress::Token { guest, token });
        drop(go);
        let mut seen = String::new();
        while !seen.contains("were not shown") {
            screen.tell(&Progress::Strangers { count: 1 });
            while let Ok(bytes) = written.try_recv() {
                seen.push_str(&String::from_utf8(bytes).expect("text"));
            }
            thread::yield_now();
        }
        screen.end();
        seen.extend(
            written
                .iter()
                .map(|bytes| String::from_utf8(bytes).expect("text")),
        );
        let after = seen.split_once("were not shown").expect("said").1;
        assert!(after.contains(&text), "{after}");
    }

    #[test]
    fn strangers_do_not_scroll_a_token_away_and_a_used_one_is_not_shown_again() {
        let (out, written) = channel();
        let (go, wait) = channel::<()>();
        drop(go);
        let screen = Screen::new(address(), Still { go: wait, out }).expect("a thread");
        let guest = Guest::Witness;
        let token = token(2);
        let text = token.to_string();
        let again = guest.clone();
        screen.tell(&Progress::Token { guest, token });
        screen.tell(&Progress::Strangers { count: 70 });
        let (guest, address) = (again, address());
        screen.tell(&Progress::Inside { guest, address });
        screen.tell(&Progress::Strangers { count: 71 });
        screen.end();
        let seen: Vec<u8> = written.iter().flatten().collect();
        let seen = String::from_utf8(seen).expect("text");
        assert_eq!(seen.matches(&text).count(), 2, "{seen}");
        let (before, after) = seen.split_once("71 connections").expect("said");
        assert!(before.contains("70 connections") && !after.contains(&text));
    }
}

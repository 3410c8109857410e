//! What stops a group on this node: operators, and what failed and waits to be cleared.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use controlplane_core::group::{Event, Order, Reason, Spent};
use mirror_core::types::Instant;

use super::failed::{ALIKE, CONDEMNED, FAILED, PING_PONG};
use super::{Service, failovers, spawn};

impl Service {
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.roots.places.run.join(&self.name).join(name)
    }

    /// `failed`: the group waits until the file is removed.
    pub(super) fn look_at_orders(&mut self, now: Instant) {
        let failed = exists(&self.file("failed"));
        if (self.failed || self.inherited) && !failed {
            // Whoever removes the file clears the group; what it rests on is forgotten with it.
            (self.failed, self.inherited, self.away) = (false, false, false);
            self.forget(None);
            self.handle(now, Event::Order(Order::Clear));
        }
        self.look_whether_away();
        // Left by an earlier run of this daemon: what failed then is not tried again either.
        self.inherited = failed && !self.failed;
        let order = if self.inherited || self.wanted.is_some() {
            Order::Stop
        } else {
            Order::Start
        };
        if order != self.order {
            self.order = order;
            let (code, group) = ("LS6049", &self.name);
            tracing::info!(code, group, ?order, failed, "an operator's word");
            self.handle(now, Event::Order(order));
        }
    }

    pub(super) fn clear(&mut self, now: Instant) {
        if remove(&self.file("failed")).is_ok() {
            self.forget(None);
            self.cleared_now(now);
        }
    }

    fn cleared_now(&mut self, now: Instant) {
        (self.failed, self.inherited, self.away) = (false, false, false);
        self.handle(now, Event::Order(Order::Clear));
        self.look_at_orders(now);
    }

    fn spent(&self, spent: Spent) -> PathBuf {
        let what = match spent {
            Spent::Takeover => "failovers",
            Spent::Move => "moves",
        };
        self.roots.state.join(format!("{}.{what}", self.name))
    }

    pub(super) fn remembered(&self) -> Vec<(Spent, Duration)> {
        let within = self.group.policy().failovers_within;
        let of = |spent| {
            let recent = failovers::recent(&self.spent(spent), within).into_iter();
            recent.map(move |ago| (spent, ago))
        };
        of(Spent::Takeover).chain(of(Spent::Move)).collect()
    }

    /// Beside this thread: a disk may be slow, and what is decided here is not.
    pub(super) fn remember(&self, spent: Spent) {
        let (path, within) = (self.spent(spent), self.group.policy().failovers_within);
        spawn("remember", move || {
            if let Err(error) = failovers::append(&path, within) {
                let path = path.display().to_string();
                tracing::error!(code = "LS6062", path, %error, "cannot remember a failover");
            }
        });
    }

    /// Beside this thread as well. `number`: of the wish that is carried out with that.
    pub(super) fn forget(&self, number: Option<u64>) {
        let spent = [Spent::Takeover, Spent::Move].map(|spent| self.spent(spent));
        let cleared = self.cleared();
        spawn("forget", move || {
            // It was told if it could not be, and is tried again by the next run.
            if spent.iter().any(|path| remove(path).is_err()) {
                return;
            }
            let Some(number) = number else { return };
            if let Err(error) = failovers::replace(&cleared, &format!("{number}\n")) {
                let path = cleared.display().to_string();
                tracing::error!(code = "LS6062", path, %error, "cannot remember what was cleared");
            }
        });
    }

    /// The wish with this number, that failures are forgotten, is carried out here once, also if this daemon ended before
    /// it was.
    pub(super) fn clear_once(&mut self, now: Instant, number: u64) {
        if self.cleared != Some(number) && remove(&self.file("failed")).is_ok() {
            self.cleared = Some(number);
            self.forget(self.cleared);
            self.cleared_now(now);
        }
    }

    /// The wish that was carried out last, as an earlier run remembered it: for a run that begins.
    pub(super) fn cleared_before(&self) -> Option<u64> {
        let text = fs::read_to_string(self.cleared()).unwrap_or_default();
        text.trim().parse().ok()
    }

    fn cleared(&self) -> PathBuf {
        self.roots.state.join(format!("{}.cleared", self.name))
    }

    pub(super) fn give_up(&mut self, reason: Reason) {
        let group = self.name.clone();
        let why = match reason {
            Reason::Resource(resource) => {
                let name = self.names.get(resource).map_or("", String::as_str);
                let why = format!("resource {name} does not start or does not stay");
                tracing::error!(
                    code = "LS6046",
                    group,
                    "{why}: not tried on this node any more"
                );
                if self.alike.contains(&resource) {
                    format!("{ALIKE} {why}, because of what is on a volume")
                } else {
                    format!("{FAILED} {why}")
                }
            }
            Reason::Monitor(monitor) => {
                let name = self.monitors.name(monitor);
                let why = format!("monitor {name} failed");
                let code = CONDEMNED;
                tracing::error!(code, group, monitor = name, "{why}: the group stops here");
                format!("{CONDEMNED} {why}")
            }
            Reason::PingPong => {
                let why = "it failed over too often";
                tracing::error!(code = "LS6047", group, "{why}: not started on this node");
                format!("{PING_PONG} {why}")
            }
        };
        self.write_failed(&why);
    }

    pub(super) fn write_failed(&mut self, why: &str) {
        let path = self.file("failed");
        let write = || -> io::Result<()> {
            if let Some(directory) = path.parent() {
                fs::create_dir_all(directory)?;
            }
            fs::write(
                &path,
                format!("{why}\n`lockstep group clear {}` clears it.\n", self.name),
            )
        };
        match write() {
            Ok(()) => (self.failed, self.away) = (true, false),
            Err(error) => {
                let path = path.display().to_string();
                tracing::error!(code = "LS6062", path, %error, "cannot write");
            }
        }
    }
}

/// What is gone is removed. What cannot be removed is told: an operator believes that it was.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            let path = path.display().to_string();
            tracing::error!(code = "LS6062", path, %error, "cannot remove what is forgotten");
            Err(error)
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn exists(path: &Path) -> bool {
    // What cannot be looked at is taken for there: it never starts anything.
    path.try_exists().unwrap_or(true)
}

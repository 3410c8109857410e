//! Processes of one resource: begun together, found again, killed together.
//!
//! With cgroup v2 they are what is in the resource's cgroup. Without it they are the processes that carry the
//! resource's name in their environment, which a process may wipe away: see docs/groups.md.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use controlplane_core::limits::MONITOR_GRACE;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Context, Limit, Places, ResourceError};

/// Tells whose process it is.
const VARIABLE: &str = "LOCKSTEP_RESOURCE";
/// Killed processes are gone within this time, or something holds them.
const KILL_TIME: Duration = Duration::from_secs(5);
/// A look of a monitor that is broken off kills in [`Cage::run`], and once more at its end: it tells what survives before it counts
/// as one that hangs.
const _: () = assert!(MONITOR_GRACE.as_secs() > 2 * KILL_TIME.as_secs());
/// Cgroups within a resource's are looked for so deep.
const CGROUP_DEPTH_MAX: usize = 16;
/// Enters the cgroup before anything of the command runs, so that none of its children can be elsewhere.
const ENTER: &str = "echo 0 > \"$0\" && exec \"$@\"";

/// The processes of one resource.
#[derive(Clone, Debug)]
pub struct Cage {
    cgroup: Option<PathBuf>,
    token: String,
}

impl Cage {
    /// Of this resource.
    pub fn of(places: &Places) -> Self {
        let cgroup = cgroup_root().map(|root| {
            let group = root.join("lockstep").join(&places.group);
            group.join(&places.resource)
        });
        Self {
            cgroup,
            token: format!("{VARIABLE}={}/{}", places.group, places.resource),
        }
    }

    /// The same, without cgroups.
    #[must_use]
    pub fn without_cgroup(self) -> Self {
        Self {
            cgroup: None,
            ..self
        }
    }

    /// Begins a command in it, with its words in the log.
    ///
    /// # Errors
    /// If it cannot be begun.
    pub fn spawn(&self, command: &[String], context: &Context) -> Result<Child, ResourceError> {
        if let Some(cgroup) = &self.cgroup {
            let what = format!("make the cgroup {}", cgroup.display());
            make(cgroup).map_err(ResourceError::io(what))?;
        }
        let log = context.places.open_log()?;
        let name = command.first().map_or("", String::as_str);
        let failed = || ResourceError::io(format!("run {name}"));
        let mut process = match &self.cgroup {
            Some(cgroup) => {
                let mut process = Command::new("/bin/sh");
                process.arg("-c").arg(ENTER);
                process.arg(cgroup.join("cgroup.procs")).args(command);
                process
            }
            None => {
                let mut process = Command::new(name);
                process.args(command.iter().skip(1));
                process
            }
        };
        let (variable, value) = self.token.split_once('=').unwrap_or_default();
        process
            .envs(context.environment.variables(name))
            .env(variable, value)
            .current_dir("/")
            .stdin(Stdio::null())
            .stderr(log.try_clone().map_err(failed())?)
            .stdout(log)
            .process_group(0);
        process.spawn().map_err(failed())
    }

    /// Runs a command to its end. What is not done in time is killed, with all that it began.
    ///
    /// # Errors
    /// If it cannot be run, or its time is over.
    pub fn run(&self, command: &[String], context: &Context) -> Result<ExitStatus, ResourceError> {
        let mut child = self.spawn(command, context)?;
        let mut status = None;
        let ended = context.limit.wait_until(|| {
            let ended = child.try_wait();
            status = ended.map_err(ResourceError::io("wait for a process"))?;
            Ok(status.is_some())
        });
        if let Err(error) = ended {
            self.kill()?;
            reap(&mut child);
            return Err(error);
        }
        context.places.bound_log();
        status.ok_or(ResourceError::Cut)
    }

    /// The living processes.
    pub fn processes(&self) -> Vec<i32> {
        match &self.cgroup {
            Some(cgroup) => within(cgroup, 0),
            None => marked(&self.token),
        }
    }

    /// Asks all to end, waits for so long, and kills what is left.
    ///
    /// # Errors
    /// If something survives.
    pub fn end(&self, patience: &Limit) -> Result<(), ResourceError> {
        let mut found = Found::default();
        send(Signal::SIGTERM, &found.left(self));
        match patience.wait_until(|| Ok(found.left(self).is_empty())) {
            Ok(()) => Ok(()),
            Err(_) => self.kill_all(&mut found, KILL_TIME),
        }
    }

    /// Kills all, and sees that they are gone.
    ///
    /// # Errors
    /// If something survives.
    pub fn kill(&self) -> Result<(), ResourceError> {
        self.kill_within(KILL_TIME)
    }

    /// The same, and waits no longer than that for their end.
    ///
    /// # Errors
    /// If something survives for so long.
    pub fn kill_within(&self, time: Duration) -> Result<(), ResourceError> {
        self.kill_all(&mut Found::default(), time)
    }

    fn kill_all(&self, found: &mut Found, time: Duration) -> Result<(), ResourceError> {
        let at_once = self
            .cgroup
            .as_ref()
            .map(|cgroup| cgroup.join("cgroup.kill"));
        let deadline = std::time::Instant::now() + time;
        loop {
            let pids = found.left(self);
            if pids.is_empty() {
                return Ok(());
            }
            if std::time::Instant::now() >= deadline {
                return Err(ResourceError::Unkillable { pids });
            }
            let killed = at_once
                .as_ref()
                .is_some_and(|file| fs::write(file, "1").is_ok());
            if !killed {
                // Older kernels: what is begun meanwhile is found in the next round.
                send(Signal::SIGKILL, &pids);
            }
            std::thread::sleep(super::limit::LOOK);
        }
    }

    /// Removes what is left of it in the kernel, if nothing runs in it.
    pub fn remove(&self) {
        let Some(cgroup) = &self.cgroup else {
            return;
        };
        // The group's own directory goes with the last resource's.
        for directory in [Some(cgroup.as_path()), cgroup.parent()]
            .into_iter()
            .flatten()
        {
            if fs::remove_dir(directory).is_err() {
                return;
            }
        }
    }
}

fn send(signal: Signal, pids: &[i32]) {
    for pid in pids {
        match kill(Pid::from_raw(*pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => tracing::warn!(pid, %errno, "cannot signal a process"),
        }
    }
}

/// Makes a cgroup. The group's may be removed at the same moment, with its last other resource.
fn make(cgroup: &Path) -> io::Result<()> {
    let made = fs::create_dir_all(cgroup);
    match made {
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir_all(cgroup),
        Ok(()) | Err(_) => made,
    }
}

/// Takes the ended child from the kernel; it was killed.
pub fn reap(child: &mut Child) {
    for _ in 0..50 {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(super::limit::LOOK),
            Ok(Some(_)) | Err(_) => return,
        }
    }
}

/// Processes of a cgroup and of those that were made in it (a container's, say).
fn within(cgroup: &Path, depth: usize) -> Vec<i32> {
    let text = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let mut found: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    let entries = fs::read_dir(cgroup).into_iter().flatten();
    for entry in entries.filter_map(Result::ok) {
        let directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if directory && depth < CGROUP_DEPTH_MAX {
            found.extend(within(&entry.path(), depth + 1));
        }
    }
    found
}

/// Processes with this word in their environment. Zombies have none.
fn marked(token: &str) -> Vec<i32> {
    let mut found = Vec::new();
    for pid in all_processes() {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let mut words = environment.split(|byte| *byte == 0);
        if words.any(|word| word == token.as_bytes()) {
            found.push(pid);
        }
    }
    found
}

/// Processes that were seen, and when each began. A process that ends loses its environment before it closes its files:
/// by its environment alone it would count as gone while it still holds a file system.
#[derive(Debug, Default)]
struct Found {
    began: BTreeMap<i32, u64>,
}

impl Found {
    /// What lives of all that was seen so far.
    fn left(&mut self, cage: &Cage) -> Vec<i32> {
        let now = cage.processes();
        self.began
            .retain(|pid, began| began_at(*pid) == Some(*began));
        let seen = now.iter().filter_map(|pid| Some((*pid, began_at(*pid)?)));
        self.began.extend(seen);
        let mut left: Vec<i32> = self.began.keys().copied().collect();
        left.extend(now);
        left.sort_unstable();
        left.dedup();
        left
    }
}

/// When a process began, in ticks since the boot; `None` for one that is not there, or a zombie.
fn began_at(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let alive = !matches!(fields.next()?, "Z" | "X");
    // The 22nd field of proc_pid_stat(5); the state is the third.
    let began = fields.nth(18)?.parse().ok()?;
    alive.then_some(began)
}

/// The numbers of all processes.
pub fn all_processes() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    let name = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    entries.filter_map(|entry| name(entry.ok()?)).collect()
}

/// Where cgroup v2 is, if this process may use it. In a container it may not: the environment has to do.
pub(crate) fn cgroup_root() -> Option<PathBuf> {
    let mounts = super::mounts::read().ok()?;
    let found = mounts.into_iter().find(|mount| mount.kind == "cgroup2")?;
    let writable = File::options()
        .write(true)
        .open(found.mount_point.join("cgroup.procs"));
    writable.ok().map(|_| found.mount_point)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use controlplane_core::group::Origin;

    use super::super::Environment;
    use super::super::environment::{Factor, Server};
    use super::*;

    fn context(directory: &Path, resource: &str) -> Context {
        Context {
            places: Places {
                run: directory.to_path_buf(),
                logs: directory.to_path_buf(),
                devices: directory.to_path_buf(),
                group: format!("cage{}", std::process::id()),
                resource: resource.to_string(),
            },
            environment: Environment {
                group: String::new(),
                resource: String::new(),
                origin: Origin::Start,
                server: Server::Home,
                previous: None,
                factor: Factor::None,
            },
            limit: Limit::new(Duration::from_secs(10), Arc::default()),
            broke: Arc::new(|_| ()),
        }
    }

    fn shell(text: &str) -> [String; 3] {
        ["/bin/sh", "-c", text].map(str::to_string)
    }

    #[test]
    fn a_process_without_its_environment_is_not_gone() {
        let directory = tempfile::tempdir().expect("a directory");
        let context = context(directory.path(), "ending");
        let cage = Cage::of(&context.places).without_cgroup();
        let word = directory.path().join("word");
        let word = word.display();
        let text = format!("until [ -e {word} ]; do sleep 0.01; done; exec env -i sleep 1000");
        let mut child = cage.spawn(&shell(&text), &context).expect("a process");
        let pid = i32::try_from(child.id()).expect("a pid");
        let mut found = Found::default();
        let mut is_left = || found.left(&cage).contains(&pid);
        let wait = |what: &mut dyn FnMut() -> bool| context.limit.wait_until(|| Ok(what()));
        wait(&mut is_left).expect("it is seen");
        fs::write(word.to_string(), "").expect("a file");
        wait(&mut || cage.processes().is_empty()).expect("it looks as if it was gone");
        assert!(is_left());
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("killed");
        wait(&mut || !is_left()).expect("it is gone");
        reap(&mut child);
    }

    #[test]
    fn without_cgroups_processes_are_known_by_their_environment() {
        let directory = tempfile::tempdir().expect("a directory");
        let context = context(directory.path(), "app");
        let cage = Cage::of(&context.places).without_cgroup();
        let command = shell("setsid sleep 1000 & exec sleep 1000");
        let mut child = cage.spawn(&command, &context).expect("a process");
        let both = || Ok(cage.processes().len() == 2);
        context.limit.wait_until(both).expect("both processes");
        cage.kill().expect("killed");
        assert!(cage.processes().is_empty());
        reap(&mut child);
    }
}

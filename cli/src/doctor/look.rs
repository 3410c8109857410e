//! Reads the machine. Nothing is changed: no disk is opened for writing, no daemon's port is taken, nothing is sent to the other
//! node.
//!
//! What the kernel tells in files is read below a [`Root`], so that tests can bring a `/proc` and a `/sys` of their own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use controlplane::config::{Checked, Config, Here};
use controlplane_api::cluster::ClusterStatus;
use controlplane_api::paths::run_directory;
use nix::unistd::gethostname;

use super::facts::{Cluster, Daemon, Facts, Program, Seen};
use crate::config;
use crate::http::{HttpError, cluster_status};
use crate::programs;

mod disks;
mod files;
mod limit;
mod network;
mod system;

use limit::{answer, soon};

/// What a process has that began anew by `/proc/self/exe`.
const BEGUN_ANEW: &str = "exe";
const DAEMON: &str = "lockstepd";

/// Where `/proc`, `/sys`, `/dev` and `/lib/modules` are.
#[derive(Clone, Debug)]
pub(crate) struct Root(PathBuf);

impl Root {
    /// This machine.
    pub(crate) fn real() -> Self {
        Self(PathBuf::from("/"))
    }

    /// For tests.
    #[cfg(test)]
    pub(crate) fn below(directory: &Path) -> Self {
        Self(directory.to_path_buf())
    }

    /// `path` begins without a slash.
    fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.0.join(path)
    }

    fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.path(path).exists()
    }

    /// A file's text, without the white space around it. Names in it may be no text: each such byte becomes a mark.
    fn text(&self, path: impl AsRef<Path>) -> io::Result<String> {
        let bytes = fs::read(self.path(path))?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_string())
    }

    /// The same, or why not, in words.
    fn seen(&self, path: impl AsRef<Path>) -> Seen<String> {
        let path = path.as_ref();
        self.text(path)
            .map_err(|error| format!("/{} cannot be read: {error}", path.display()))
    }

    /// The names in a directory, sorted; none if it is not there.
    fn names(&self, path: impl AsRef<Path>) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).into_iter().flatten();
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    /// Where a link leads, seen from this root.
    fn place(&self, path: impl AsRef<Path>) -> io::Result<PathBuf> {
        let found = fs::canonicalize(self.path(path))?;
        let root = fs::canonicalize(&self.0)?;
        Ok(found.strip_prefix(root).unwrap_or(&found).to_path_buf())
    }

    /// The numbers of all processes and their names.
    fn processes(&self) -> Vec<(u32, String)> {
        let pids = self.names("proc").into_iter();
        let named = pids.filter_map(|name| {
            let pid = name.parse().ok()?;
            let called = self.text(format!("proc/{name}/comm")).ok()?;
            Some((pid, self.process_name(pid, called)))
        });
        named.collect()
    }

    /// A `lockstepd` that began anew may be called `exe` by the kernel; and the witness is another daemon than the node's.
    fn process_name(&self, pid: u32, called: String) -> String {
        if called != BEGUN_ANEW && called != DAEMON {
            return called;
        }
        let words = self.text(format!("proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = words.split('\0');
        let first = base(words.next().unwrap_or_default());
        let name = match fs::read_link(self.path(format!("proc/{pid}/exe"))) {
            _ if called == DAEMON || first == DAEMON => DAEMON.to_string(),
            Ok(program) => base(program.to_string_lossy().trim_end_matches(" (deleted)")),
            Err(_) if !first.is_empty() => first,
            Err(_) => called,
        };
        match words.next() {
            Some(word @ "witness") if name == DAEMON => format!("{name} {word}"),
            Some(_) | None => name,
        }
    }
}

fn base(path: &str) -> String {
    path.rsplit('/').next().unwrap_or_default().to_string()
}

/// Why something cannot be read.
fn unread(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::PermissionDenied {
        return "it may not be read; run it as root".to_string();
    }
    error.to_string()
}

/// All that there is to know. `file` is `cluster.toml`, `node` this node's name in it, if it is not the host name.
pub(crate) fn facts(root: &Root, file: &Path, node: Option<&str>) -> Facts {
    let rights = system::rights(root);
    let is_root = rights.as_ref().is_ok_and(|rights| rights.user == 0);
    let (cluster, config) = cluster(file, node);
    let directory = directory_of(file);
    let (volumes, unlisted) = match disks::volumes(root, is_root) {
        Ok(volumes) => (volumes, None),
        Err(why) => (Vec::new(), Some(why)),
    };
    let links: Vec<_> = volumes
        .iter()
        .filter_map(|found| Some((found.file.as_ref()?, found.pid)))
        .collect();
    let files: Vec<_> = links.iter().map(|(file, _)| *file).collect();
    let (paths, ports) = network::of(root, config.as_ref(), &links);
    let key = directory.join("cluster.key");
    let is_set_up = soon(move || key.try_exists().map_err(|error| unread(&error))).flatten();
    let has_key = is_set_up == Ok(true);
    let secrets = files::secrets(&directory, config.as_ref(), &files, has_key);
    Facts {
        system: system::of(root, rights, is_root),
        cluster,
        is_set_up,
        programs: [DAEMON, "ublk-mirror"].map(program).to_vec(),
        daemon: daemon(cluster_status()),
        secrets,
        files: files::configurations(file, &directory, &volumes),
        directories: files::directories(&directory),
        paths,
        ports,
        volumes: volumes.into_iter().map(|found| found.volume).collect(),
        unlisted,
    }
}

/// Keys and volumes are beside the configuration that `lockstepd` reads; a draft elsewhere has none beside it.
fn directory_of(file: &Path) -> PathBuf {
    let parent = file.parent().map(Path::to_path_buf);
    let beside = soon(move || parent.filter(|parent| parent.join("cluster.key").exists()));
    beside.ok().flatten().unwrap_or_else(config::directory)
}

fn cluster(file: &Path, node: Option<&str>) -> (Cluster, Option<Config>) {
    let host = gethostname().unwrap_or_default();
    let name = node.map_or_else(|| host.to_string_lossy().into_owned(), str::to_string);
    let path = file.to_path_buf();
    // Its reader looks at programs, keys and mount points as well, wherever they are.
    let found = soon(move || read_cluster(path, &name));
    found.unwrap_or_else(|why| {
        let path = file.to_path_buf();
        (Cluster::Unseen { path, why }, None)
    })
}

fn read_cluster(path: PathBuf, name: &str) -> (Cluster, Option<Config>) {
    // What else is wrong with it, the reader says.
    if let Err(error) = limit::open(&path) {
        let kind = error.kind();
        if kind == io::ErrorKind::NotFound {
            return (Cluster::Absent { path }, None);
        }
        if kind == io::ErrorKind::PermissionDenied || kind == io::ErrorKind::InvalidInput {
            let why = unread(&error);
            return (Cluster::Unseen { path, why }, None);
        }
    }
    let read = Checked::read(&path).and_then(|mut checked| {
        checked.look(&Here::of(name));
        let warnings = checked.findings.warnings();
        Ok((checked.of(name)?, warnings))
    });
    match read {
        Ok((config, warnings)) => {
            let name = config.name.clone();
            let found = Cluster::Node {
                path,
                name,
                warnings,
                watchdog: config.watchdog.as_ref().map(|it| it.device.clone()),
            };
            (found, Some(config))
        }
        Err(error) => (Cluster::Wrong { path, error }, None),
    }
}

fn daemon(answer: Result<ClusterStatus, HttpError>) -> Daemon {
    match answer {
        Ok(status) => Daemon::Answers {
            node: status.node,
            version: status.version,
            trust: status.trust,
        },
        Err(error @ HttpError::NotRunning { .. }) => {
            let HttpError::NotRunning { source, .. } = &error else {
                return Daemon::Broken(error.to_string());
            };
            if source.kind() == io::ErrorKind::PermissionDenied {
                let place = run_directory();
                let place = place.display();
                return Daemon::Unseen(format!("{place} may not be looked into; run it as root"));
            }
            // Somebody listens, and takes nobody in.
            if source.kind() == io::ErrorKind::WouldBlock {
                return Daemon::Broken(error.to_string());
            }
            Daemon::Silent(error.to_string())
        }
        Err(error @ (HttpError::Broken { .. } | HttpError::BadAnswer { .. })) => {
            Daemon::Broken(error.to_string())
        }
    }
}

fn program(name: &'static str) -> Program {
    let command = move || {
        let mut command = match name {
            DAEMON => programs::daemon(),
            _ => programs::mirror(),
        };
        command.arg("--version");
        command
    };
    let version = answer(command).and_then(|output| {
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text.split_whitespace().last().map(str::to_string);
        version.ok_or_else(|| "it does not say its version".to_string())
    });
    Program { name, version }
}

#[cfg(test)]
mod tests;

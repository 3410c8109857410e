//! Reads the machine. Nothing is changed: no disk is opened for writing, no daemon's port is taken, nothing is sent.
//!
//! What the kernel tells in files is read below a [`Root`], so that tests can bring a `/proc` and a `/sys` of their own.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

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
mod network;
mod system;

/// A program that is asked something has so long; one that reads a stuck disk does not come back.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Nobody says more than some lines.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

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

    /// A file's text, without the white space around it.
    fn text(&self, path: impl AsRef<Path>) -> io::Result<String> {
        let text = fs::read_to_string(self.path(path))?;
        Ok(text.trim().to_string())
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
            Some((pid, self.text(format!("proc/{name}/comm")).ok()?))
        });
        named.collect()
    }
}

/// All that there is to know. `file` is `cluster.toml`, `node` this node's name in it, if it is not the host name.
pub(crate) fn facts(root: &Root, file: &Path, node: Option<&str>) -> Facts {
    let rights = system::rights(root);
    let is_root = rights.as_ref().is_ok_and(|rights| rights.user == 0);
    let (cluster, config) = cluster(file, node);
    let directory = directory_of(file);
    let volumes = disks::volumes(root, is_root);
    let files: Vec<_> = volumes
        .iter()
        .filter_map(|(_, file)| file.as_ref())
        .collect();
    let (paths, ports) = network::of(root, config.as_ref(), &files);
    let is_set_up = directory.join("cluster.key").exists();
    let secrets = files::secrets(&directory, config.as_ref(), &files, is_set_up);
    Facts {
        system: system::of(root, rights, is_root),
        cluster,
        is_set_up,
        programs: ["lockstepd", "ublk-mirror"].map(program).to_vec(),
        daemon: daemon(cluster_status()),
        secrets,
        directories: files::directories(&directory),
        paths,
        ports,
        volumes: volumes.into_iter().map(|(volume, _)| volume).collect(),
    }
}

/// Keys and volumes are beside the configuration that `lockstepd` reads; a draft elsewhere has none beside it.
fn directory_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if parent.join("cluster.key").exists() => parent.to_path_buf(),
        Some(_) | None => config::directory(),
    }
}

fn cluster(file: &Path, node: Option<&str>) -> (Cluster, Option<Config>) {
    let path = file.to_path_buf();
    match fs::File::open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return (Cluster::Absent { path }, None);
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return (Cluster::Unseen { path }, None);
        }
        // What else is wrong with it, the reader says.
        Ok(_) | Err(_) => {}
    }
    let host = gethostname().unwrap_or_default();
    let name = node.map_or_else(|| host.to_string_lossy().into_owned(), str::to_string);
    let read = Checked::read(file).and_then(|mut checked| {
        checked.look(&Here::of(&name));
        let warnings = checked.findings.warnings();
        Ok((checked.of(&name)?, warnings))
    });
    match read {
        Ok((config, warnings)) => {
            let name = config.name.clone();
            let found = Cluster::Node {
                path,
                name,
                warnings,
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
            Daemon::Silent(error.to_string())
        }
        Err(error @ (HttpError::Broken { .. } | HttpError::BadAnswer { .. })) => {
            Daemon::Broken(error.to_string())
        }
    }
}

fn program(name: &'static str) -> Program {
    let mut command = match name {
        "lockstepd" => programs::daemon(),
        _ => programs::mirror(),
    };
    command.arg("--version");
    let version = answer(command).and_then(|output| {
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text.split_whitespace().last().map(str::to_string);
        version.ok_or_else(|| "it does not say its version".to_string())
    });
    Program { name, version }
}

/// What a program says within [`ANSWER_LIMIT`].
fn answer(command: Command) -> Seen<Output> {
    answer_within(command, ANSWER_LIMIT)
}

fn answer_within(mut command: Command, limit: Duration) -> Seen<Output> {
    command.stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let pipes = (child.stdout.take(), child.stderr.take());
    let (sender, ended) = mpsc::channel();
    let read = move || {
        let said = all_of(pipes.0).and_then(|stdout| Ok((stdout, all_of(pipes.1)?)));
        // Nobody listens any more once the time is over.
        let _ = sender.send(said);
    };
    let reads = thread::Builder::new()
        .name("answer".to_string())
        .spawn(read);
    let said = match reads {
        Ok(_) => ended.recv_timeout(limit),
        Err(error) => return Err(error.to_string()),
    };
    let Ok(said) = said else {
        // Not waited for: what waits for a stuck disk does not end by that either.
        let _ = child.kill();
        return Err(format!("no answer within {limit:?}"));
    };
    let (stdout, stderr) = said.map_err(|error| error.to_string())?;
    let status = child.wait().map_err(|error| error.to_string())?;
    Ok(Output {
        status,
        stdout,
        stderr,
    })
}

fn all_of(pipe: Option<impl Read>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;

//! Two daemons on this machine, with files for disks and no block device: to open what a crash left.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{BufRead, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::process::{self, Guarded};
use crate::volume::NAME;
use crate::wait::wait_until;

const COMMAND_LIMIT: Duration = Duration::from_secs(30);
/// What a daemon says when it copies, with the cause at the end.
const COPY_BEGAN: &str = "LS2008";
const SHOWN_LINES: usize = 30;
/// The file that a daemon takes its machine's boot from.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A disk of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The data.
    Data,
    /// The metadata.
    Metadata,
}

impl Part {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Data, Self::Metadata];

    /// Name of the disk.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Metadata => "meta",
        }
    }
}

struct Node {
    directory: PathBuf,
    process: Option<Guarded>,
}

/// A pair of daemons; dropping it ends them and removes their files.
pub struct Daemons {
    program: PathBuf,
    directory: PathBuf,
    nodes: [Node; 2],
}

impl Daemons {
    /// Configures two nodes under a directory that does not exist yet.
    ///
    /// # Errors
    /// If the files cannot be written or no port is free.
    pub fn new(program: &Path, key: &[u8], directory: PathBuf) -> anyhow::Result<Self> {
        let addresses = [free_address(1)?, free_address(2)?];
        let node = |number: usize| Node {
            directory: directory.join(format!("node{}", number + 1)),
            process: None,
        };
        let daemons = Self {
            program: program.to_owned(),
            nodes: [node(0), node(1)],
            directory,
        };
        for (number, node) in daemons.nodes.iter().enumerate() {
            fs::create_dir_all(&node.directory)?;
            let key_file = node.directory.join("key");
            fs::write(&key_file, key)?;
            fs::set_permissions(&key_file, Permissions::from_mode(0o600))?;
            let end = |end: usize| {
                format!(
                    "name = \"node{}\"\naddress = \"{}\"\n",
                    end + 1,
                    addresses[end]
                )
            };
            let text = format!(
                "version = 1\nvolume = \"{NAME}\"\nbacking = \"{}\"\nmetadata = \"{}\"\nkey_file = \"{}\"\n\
                 [node]\n{}[peer]\n{}[tuning]\nkeepalive_interval_ms = 200\nlink_timeout_ms = 2000\nread_lease_ms = 1000\n",
                daemons.disk(number, Part::Data).display(),
                daemons.disk(number, Part::Metadata).display(),
                key_file.display(),
                end(number),
                end(1 - number),
            );
            fs::write(node.directory.join("volume.toml"), text)?;
        }
        Ok(daemons)
    }

    /// The file of a disk; node 0 is `node1`.
    #[must_use]
    pub fn disk(&self, node: usize, part: Part) -> PathBuf {
        self.nodes[node].directory.join(part.name())
    }

    fn command(&self, node: usize, action: &str) -> Command {
        let mut command = Command::new(&self.program);
        let config = self.nodes[node].directory.join("volume.toml");
        command.arg(action).arg("--config").arg(config);
        command
    }

    /// What `ublk-mirror check` says of both.
    ///
    /// # Errors
    /// If it refuses one.
    pub fn check(&self) -> anyhow::Result<()> {
        for node in 0..2 {
            process::run(&mut self.command(node, "check"), COMMAND_LIMIT)?;
        }
        Ok(())
    }

    /// Starts both, each in a machine that has this boot id.
    ///
    /// # Errors
    /// If one does not come up.
    pub fn start(&mut self, boots: &[String; 2]) -> anyhow::Result<()> {
        for (node, boot) in boots.iter().enumerate() {
            let directory = self.nodes[node].directory.clone();
            let log = OpenOptions::new()
                .create(true)
                .append(true)
                .open(directory.join("log"))?;
            let boot_file = directory.join("boot_id");
            fs::write(&boot_file, format!("{boot}\n"))?;
            // A boot is what the kernel says it is, so the daemon gets a mount namespace where it says so.
            let mut command = Command::new("unshare");
            if !nix::unistd::geteuid().is_root() {
                command.arg("--map-root-user");
            }
            command.args(["--mount", "--propagation", "private", "sh", "-c"]);
            command.arg(format!("mount --bind \"$0\" {BOOT_ID} && exec \"$@\""));
            command.arg(&boot_file).arg(&self.program);
            command.args(self.command(node, "run").get_args());
            command.arg("--no-device").arg("--runtime-dir");
            command.arg(directory.join("run"));
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log);
            let name = format!("the daemon of node{}", node + 1);
            self.nodes[node].process = Some(Guarded::spawn(command, &name)?);
            wait_until(COMMAND_LIMIT, &format!("{name} answers"), || {
                self.alive(node)?;
                Ok(UnixStream::connect(self.socket(node)).is_ok())
            })?;
        }
        Ok(())
    }

    fn alive(&mut self, node: usize) -> anyhow::Result<()> {
        let process = self.nodes[node].process.as_mut();
        let ended = process.context("not started")?.try_wait()?;
        ensure!(
            ended.is_none(),
            "the daemon of node{} ended: {ended:?}",
            node + 1
        );
        Ok(())
    }

    fn socket(&self, node: usize) -> PathBuf {
        self.nodes[node].directory.join(format!("run/{NAME}.sock"))
    }

    fn ask(&self, node: usize, request: &str) -> anyhow::Result<Value> {
        let mut stream = UnixStream::connect(self.socket(node))?;
        stream.set_read_timeout(Some(COMMAND_LIMIT))?;
        writeln!(stream, "{{\"schema\":\"lockstep.admin/1\",{request}}}")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("answer of node{}: {line}", node + 1))
    }

    /// Waits until both copies count, as both see it; fails at once where they refuse each other.
    ///
    /// # Errors
    /// If they do not come together in time.
    pub fn wait_in_sync(&mut self, limit: Duration) -> anyhow::Result<()> {
        let mut last = Value::Null;
        for node in 0..2 {
            let what = format!("node{} sees both copies in sync", node + 1);
            let waited = wait_until(limit, &what, || {
                self.alive(0)?;
                self.alive(1)?;
                last = self.ask(node, "\"request\":\"status\"")?["status"].take();
                let link = &last["link"]["state"];
                if link == "refused" {
                    bail!("the copies refuse each other");
                }
                Ok(link == "up" && last["copy"] == "in-sync" && last["peer_copy"] == "in-sync")
            });
            waited.with_context(|| format!("{last:#}"))?;
        }
        Ok(())
    }

    /// Bytes of the volume.
    ///
    /// # Errors
    /// If the daemon does not answer.
    pub fn volume_bytes(&self) -> anyhow::Result<u64> {
        let answer = self.ask(0, "\"request\":\"status\"")?;
        answer["status"]["size_bytes"].as_u64().context("no size")
    }

    /// Ends both in good order.
    ///
    /// # Errors
    /// If one does not end, or not well.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        for node in 0..2 {
            let answer = self.ask(node, "\"request\":\"command\",\"command\":\"stop\"")?;
            let mut process = self.nodes[node].process.take().context("not started")?;
            let status = process
                .wait(COMMAND_LIMIT)
                .with_context(|| format!("{answer}"))?;
            ensure!(
                status.success(),
                "the daemon of node{} ended with {status}",
                node + 1
            );
        }
        Ok(())
    }

    /// How the copies came together, in the daemons' words.
    #[must_use]
    pub fn cause(&self) -> String {
        let logs = [self.log(0), self.log(1)];
        let lines = logs.iter().flat_map(|log| log.lines());
        let copies = lines.filter(|line| line.contains(COPY_BEGAN));
        let words = copies.map(|line| {
            let cause = line.rsplit(": ").next().unwrap_or(line);
            // What follows the words is fields.
            cause.split(" code=").next().unwrap_or(cause)
        });
        let mut words: Vec<&str> = words.collect();
        words.sort_unstable();
        words.dedup();
        if words.is_empty() {
            "no copy: both held everything".to_owned()
        } else {
            words.join("; ")
        }
    }

    /// Everything that a daemon said.
    #[must_use]
    pub fn log(&self, node: usize) -> String {
        fs::read_to_string(self.nodes[node].directory.join("log")).unwrap_or_default()
    }

    /// The end of what both said.
    #[must_use]
    pub fn logs(&self) -> String {
        let mut all = String::new();
        for node in 0..2 {
            let log = self.log(node);
            let lines: Vec<&str> = log.lines().collect();
            let end = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
            all.push_str(&format!("--- log of node{} ---\n", node + 1));
            all.push_str(&end.join("\n"));
            all.push('\n');
        }
        all
    }

    /// Ends what runs and forgets what it wrote beside the disks.
    pub fn clear(&mut self) {
        for node in &mut self.nodes {
            node.process = None;
            // What is not there need not be removed.
            let _ = fs::remove_file(node.directory.join("log"));
            let _ = fs::remove_dir_all(node.directory.join("run"));
        }
    }
}

impl Drop for Daemons {
    fn drop(&mut self) {
        self.clear();
        // What is left is removed at the next start.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Each node has a loopback address of its own, on which no outgoing connection takes the port meanwhile.
fn free_address(node: u8) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 77, 0, node], 0)))?;
    Ok(listener.local_addr()?)
}

/// Opens a disk's file for an image or the judge.
///
/// # Errors
/// If it cannot be opened.
pub fn open(path: &Path) -> anyhow::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .with_context(|| format!("open {}", path.display()))
}

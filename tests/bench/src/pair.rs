//! Nodes as processes on this machine: a pair of daemons over loopback, and the floor beside it, on files of one directory.

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use mirror_core::disk::Superblock;
use mirror_core::types::SECTOR_BYTES;
use serde_json::Value;
use ublk_mirror::config::Config;
use ublk_mirror::format::{BITMAP_BLOCK_BYTES, Copy, FormatRequest, format};

use crate::job::Job;
use crate::line::Counts;

/// Of the volume, and of the file under the floor: 16 extents of the activity log.
pub const VOLUME_BYTES: u64 = 64 << 20;
/// Room for the metadata before the volume.
const METADATA_BYTES_MAX: u64 = 16 << 20;
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);
/// Where the files are, unless it says otherwise: in memory, so that no disk is measured.
pub const DIRECTORY_VARIABLE: &str = "LOCKSTEP_BENCH_DIR";
const MEMORY: &str = "/dev/shm";

/// A directory that goes away with its value.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Scratch> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("lockstep-bench-{}-{number}", std::process::id());
        let path = directory().join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Where files are made.
pub fn directory() -> PathBuf {
    let wanted = std::env::var_os(DIRECTORY_VARIABLE).map(PathBuf::from);
    wanted.unwrap_or_else(|| {
        let memory = PathBuf::from(MEMORY);
        if memory.is_dir() {
            memory
        } else {
            std::env::temp_dir()
        }
    })
}

/// How long a job took.
#[derive(Clone, Copy, Debug)]
pub struct Took(pub Duration);

/// A process that does what it is told.
#[derive(Debug)]
pub struct Node {
    process: Child,
    control: BufReader<UnixStream>,
    log: PathBuf,
}

impl Node {
    fn spawn(program: &Path, arguments: &[&Path], directory: &Path) -> anyhow::Result<Node> {
        let (control, theirs) = UnixStream::pair()?;
        let log = directory.join("log");
        let process = Command::new(program)
            .args(arguments)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Node {
            process,
            control: BufReader::new(control),
            log,
        })
    }

    fn ask(&mut self, line: &str) -> anyhow::Result<String> {
        self.control
            .get_mut()
            .write_all(format!("{line}\n").as_bytes())?;
        let mut answer = String::new();
        self.control.read_line(&mut answer)?;
        ensure!(
            !answer.is_empty(),
            "a node has ended:\n{}",
            fs::read_to_string(&self.log).unwrap_or_default()
        );
        Ok(answer)
    }

    /// What it has used so far.
    ///
    /// # Errors
    /// The node has ended.
    pub fn counts(&mut self) -> anyhow::Result<Counts> {
        self.ask("count")?.parse()
    }

    /// Does a job.
    ///
    /// # Errors
    /// The node has ended, or a request failed.
    pub fn run(&mut self, job: Job) -> anyhow::Result<Took> {
        let answer = self.ask(&format!("run {job}"))?;
        let words: Vec<&str> = answer.split_whitespace().collect();
        let ["done", nanos, failed] = words[..] else {
            return Err(anyhow!("the job {job} was answered with {answer:?}"));
        };
        ensure!(failed == "0", "{failed} requests of {job} failed");
        Ok(Took(Duration::from_nanos(nanos.parse()?)))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// The floor.
#[derive(Debug)]
pub struct Plain {
    /// Its process.
    pub node: Node,
    _scratch: Scratch,
}

impl Plain {
    /// `program` is bench-node.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(program: &Path) -> anyhow::Result<Plain> {
        let scratch = Scratch::new()?;
        let path = scratch.0.join("disk");
        write_all(&path, VOLUME_BYTES)?;
        let node = Node::spawn(program, &[Path::new("plain"), &path], &scratch.0)?;
        Ok(Plain {
            node,
            _scratch: scratch,
        })
    }
}

/// Two daemons whose copies are equal; the first one serves.
#[derive(Debug)]
pub struct Pair {
    /// It serves; jobs are its.
    pub active: Node,
    /// It holds a copy.
    pub standby: Node,
    scratch: Scratch,
}

/// What a job cost both of them.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// How long it took.
    pub took: Took,
    /// Of the node that serves.
    pub active: Counts,
    /// Of the other one.
    pub standby: Counts,
}

impl Pair {
    /// Makes both copies, starts both daemons, waits until both copies count, activates one. `program` is bench-node.
    ///
    /// # Errors
    /// They do not come up.
    pub fn start(program: &Path) -> anyhow::Result<Pair> {
        let scratch = Scratch::new()?;
        let (a, b) = free_addresses()?;
        let own = [("node-a", a), ("node-b", b)];
        let mut nodes = Vec::new();
        for (place, (me, peer)) in [(own[0], own[1]), (own[1], own[0])].into_iter().enumerate() {
            let directory = scratch.0.join(me.0);
            let config = prepare(&directory, me, peer, place)?;
            let arguments = [Path::new("run"), &config, &directory];
            nodes.push(Node::spawn(program, &arguments, &directory)?);
        }
        let (Some(standby), Some(active)) = (nodes.pop(), nodes.pop()) else {
            unreachable!("two were made");
        };
        let pair = Pair {
            active,
            standby,
            scratch,
        };
        for node in ["node-a", "node-b"] {
            wait(&format!("both copies count on {node}"), || {
                let status = pair
                    .admin(node, "\"request\":\"status\"")
                    .unwrap_or_default();
                let status = &status["status"];
                status["copy"] == "in-sync"
                    && status["peer_copy"] == "in-sync"
                    && status["link"]["state"] == "up"
            })
            .map_err(|error| anyhow!("{error}\n{}", pair.logs()))?;
        }
        let command = "\"request\":\"command\",\"command\":\"activate\"";
        let answer = pair.admin("node-a", command)?;
        ensure!(answer["ok"] == true, "activate: {answer}");
        Ok(pair)
    }

    /// Does a job and says what it cost.
    ///
    /// # Errors
    /// A daemon has ended, or a request failed.
    pub fn run(&mut self, job: Job) -> anyhow::Result<Cost> {
        let before = (self.active.counts()?, self.standby.counts()?);
        let took = self.active.run(job)?;
        let after = (self.active.counts()?, self.standby.counts()?);
        Ok(Cost {
            took,
            active: after.0.since(before.0),
            standby: after.1.since(before.1),
        })
    }

    /// Whether the volumes in both files are equal, and every block of 4 KiB is empty or one that was written there.
    ///
    /// # Errors
    /// They are not.
    pub fn check(&self) -> anyhow::Result<()> {
        let [ours, theirs] = ["node-a", "node-b"].map(|node| volume(&self.scratch.0.join(node)));
        let (ours, theirs) = (ours?, theirs?);
        ensure!(ours == theirs, "the copies differ");
        let mut written = 0_u64;
        for (sector, block) in (0..).step_by(8).zip(ours.chunks_exact(4096)) {
            let number = |at: usize| {
                let bytes = block[at..at + 8].first_chunk::<8>();
                bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
            };
            // In the middle of a larger write there is its payload.
            let inside = number(0) == 0xa5a5_a5a5_a5a5_a5a5;
            let empty = block.iter().all(|byte| *byte == 0);
            ensure!(
                empty || inside || (number(0) == sector && number(8) > 0),
                "sector {sector} holds what belongs to {}",
                number(0)
            );
            written += u64::from(!empty);
        }
        ensure!(written > 0, "nothing was written");
        Ok(())
    }

    fn admin(&self, node: &str, request: &str) -> anyhow::Result<Value> {
        let mut stream = UnixStream::connect(self.scratch.0.join(node).join("run/data.sock"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let line = format!("{{\"schema\":\"lockstep.admin/1\",{request}}}\n");
        stream.write_all(line.as_bytes())?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        Ok(serde_json::from_str(&answer)?)
    }

    fn logs(&self) -> String {
        let logs = [&self.active, &self.standby].map(|node| fs::read_to_string(&node.log));
        logs.into_iter().flatten().collect()
    }
}

/// Files and metadata of one node; its configuration.
fn prepare(
    directory: &Path,
    me: (&str, SocketAddr),
    peer: (&str, SocketAddr),
    place: usize,
) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(directory.join("run"))?;
    let (key, disk) = (directory.join("key"), directory.join("disk"));
    fs::write(&key, [7; 64])?;
    fs::set_permissions(&key, Permissions::from_mode(0o600))?;
    write_all(&disk, VOLUME_BYTES + METADATA_BYTES_MAX)?;
    let path = directory.join("data.toml");
    let text = format!(
        "version = 1\nvolume = \"data\"\nbacking = \"{}\"\nmetadata = \"internal\"\nkey_file = \"{}\"\n\
         [node]\nname = \"{}\"\naddress = \"{}\"\n[peer]\nname = \"{}\"\naddress = \"{}\"\n\
         [tuning]\nkeepalive_interval_ms = 2000\nlink_timeout_ms = 20000\nread_lease_ms = 10000\n",
        disk.display(),
        key.display(),
        me.0,
        me.1,
        peer.0,
        peer.1,
    );
    fs::write(&path, text)?;
    let request = FormatRequest {
        copy: if place == 0 { Copy::First } else { Copy::Joins },
        force: false,
        confirmed: Vec::new(),
        size_bytes: Some(VOLUME_BYTES),
        growth_bytes: Some(VOLUME_BYTES),
        bitmap_block_bytes: BITMAP_BLOCK_BYTES,
        runtime_dir: directory.join("run"),
    };
    format(&Config::load(&path)?, &request)?;
    Ok(path)
}

/// A file that has all its blocks: the first write to a place costs what the second one does.
fn write_all(path: &Path, bytes: u64) -> anyhow::Result<()> {
    let file = File::create(path)?;
    let zeroes = vec![0; 1 << 20];
    let mut at = 0;
    while at < bytes {
        file.write_all_at(&zeroes, at)?;
        at += zeroes.len() as u64;
    }
    file.sync_all()?;
    Ok(())
}

/// The volume's bytes in a node's file.
fn volume(directory: &Path) -> anyhow::Result<Vec<u8>> {
    let file = File::open(directory.join("disk"))?;
    let mut head = [0; 4096];
    file.read_exact_at(&mut head, 0)?;
    let superblock = Superblock::decode(&head, 0).map_err(|fault| anyhow!("{fault:?}"))?;
    let mut bytes = vec![0; usize::try_from(superblock.size_sectors * SECTOR_BYTES)?];
    file.read_exact_at(&mut bytes, superblock.data_start_sectors * SECTOR_BYTES)?;
    Ok(bytes)
}

/// Two ports that nobody listens on, below those that the kernel gives to outgoing connections.
fn free_addresses() -> anyhow::Result<(SocketAddr, SocketAddr)> {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 22_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut found = Vec::new();
    for _ in 0..COUNT {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let offset = std::process::id().wrapping_mul(64).wrapping_add(next) % COUNT;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(FIRST + offset)?));
        if TcpListener::bind(address).is_ok() {
            found.push(address);
        }
        if let [a, b] = found[..] {
            return Ok((a, b));
        }
    }
    Err(anyhow!("no two free ports on loopback"))
}

fn wait(what: &str, reached: impl Fn() -> bool) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    while !reached() {
        ensure!(Instant::now() < end, "not reached: {what}");
        thread::sleep(PAUSE);
    }
    Ok(())
}

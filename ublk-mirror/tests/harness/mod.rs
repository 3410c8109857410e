//! Daemons without a block device on this machine: regular files, loopback addresses, no privileges
//! beyond memory that can be locked.

// Each test file uses its own part of this.
#![allow(dead_code)]

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

pub(crate) const DAEMON: &str = env!("CARGO_BIN_EXE_ublk-mirror");
pub(crate) const BACKING_BYTES: u64 = 24 << 20;
/// Offsets of the two superblocks.
pub(crate) const SLOTS: [u64; 2] = [0, 64 * 1024];
const PATIENCE: Duration = Duration::from_secs(30);

/// A directory that goes away with its value.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(test: &str) -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("lockstep-{test}-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// One node's files and, while it runs, its daemon.
pub(crate) struct Node {
    pub(crate) directory: PathBuf,
    pub(crate) backing: PathBuf,
    pub(crate) address: SocketAddr,
    process: Option<Child>,
}

/// Two nodes that know each other; `node-a` listens.
pub(crate) struct Pair {
    pub(crate) a: Node,
    pub(crate) b: Node,
    pub(crate) scratch: Scratch,
}

/// A port for every node, below those that the kernel gives to outgoing connections: such a one would be in somebody's
/// hands when a daemon that was down starts again.
pub(crate) fn free_address() -> SocketAddr {
    const FIRST: u32 = 10_000;
    const COUNT_MAX: u32 = 22_000;
    static COUNT: AtomicU32 = AtomicU32::new(0);
    loop {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let offset = std::process::id().wrapping_mul(64).wrapping_add(count) % COUNT_MAX;
        let port = u16::try_from(FIRST + offset).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

impl Pair {
    /// Configured, not formatted.
    pub(crate) fn new(test: &str) -> Pair {
        let scratch = Scratch::new(test);
        let (a, b) = (free_address(), free_address());
        let a_node = Node::new(&scratch, "a", ("node-a", a), ("node-b", b));
        let b_node = Node::new(&scratch, "b", ("node-b", b), ("node-a", a));
        Pair {
            a: a_node,
            b: b_node,
            scratch,
        }
    }

    /// Formatted; the first copy holds noise.
    pub(crate) fn formatted(test: &str) -> Pair {
        let pair = Pair::new(test);
        pair.a.format(&[]);
        pair.b.format(&["--join"]);
        pair.a.fill_with_noise();
        pair
    }

    /// Running, with both copies equal.
    pub(crate) fn in_sync(test: &str) -> Pair {
        let mut pair = Pair::formatted(test);
        pair.a.start();
        pair.b.start();
        pair.wait_in_sync();
        pair
    }

    pub(crate) fn wait_in_sync(&self) {
        for node in [&self.a, &self.b] {
            node.wait_for("both copies count", |status| {
                status["copy"] == "in-sync"
                    && status["peer_copy"] == "in-sync"
                    && status["link"]["state"] == "up"
            });
        }
    }
}

impl Node {
    pub(crate) fn new(
        scratch: &Scratch,
        place: &str,
        own: (&str, SocketAddr),
        peer: (&str, SocketAddr),
    ) -> Node {
        let directory = scratch.0.join(place);
        fs::create_dir_all(&directory).unwrap();
        let node = Node {
            backing: directory.join("disk"),
            directory,
            address: own.1,
            process: None,
        };
        File::create(&node.backing)
            .unwrap()
            .set_len(BACKING_BYTES)
            .unwrap();
        node.write_key(&[7; 64]);
        node.write_config(&format!(
            "version = 1\nvolume = \"data\"\nbacking = \"{}\"\nmetadata = \"internal\"\nkey_file = \"{}\"\n\
             [node]\nname = \"{}\"\naddress = \"{}\"\n[peer]\nname = \"{}\"\naddress = \"{}\"\n\
             [tuning]\nkeepalive_interval_ms = 200\nlink_timeout_ms = 2000\nread_lease_ms = 1000\n",
            node.backing.display(),
            node.directory.join("key").display(),
            own.0,
            own.1,
            peer.0,
            peer.1,
        ));
        node
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.directory.join("data.toml")
    }

    pub(crate) fn write_config(&self, text: &str) {
        fs::write(self.config(), text).unwrap();
    }

    pub(crate) fn edit_config(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.config()).unwrap();
        assert!(text.contains(from), "{text}");
        self.write_config(&text.replace(from, to));
    }

    pub(crate) fn write_key(&self, key: &[u8]) {
        let path = self.directory.join("key");
        fs::write(&path, key).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    }

    pub(crate) fn command(&self, action: &str) -> Command {
        let mut command = Command::new(DAEMON);
        command
            .arg(action)
            .arg("--config")
            .arg(self.config())
            .stdin(Stdio::null());
        if action != "check" {
            command.arg("--runtime-dir").arg(self.directory.join("run"));
        }
        if action == "run" {
            command.arg("--no-device");
            command.arg("--state-dir").arg(self.state());
        }
        command
    }

    /// Where the daemon keeps blocks of discarded sides.
    pub(crate) fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// The daemon sees a file system of so many MiB as its state directory, and nobody else does.
    pub(crate) fn start_with_state_of(&mut self, size_mib: u32) {
        fs::create_dir_all(self.state()).unwrap();
        let run = self.command("run");
        let mut command = Command::new("unshare");
        let rights = if nix::unistd::geteuid().is_root() {
            "-m"
        } else {
            "-rm"
        };
        let mount = format!("mount -t tmpfs -o size={size_mib}m tmpfs \"$0\" && exec \"$@\"");
        command.args([rights, "sh", "-c", &mount]).arg(self.state());
        command.arg(run.get_program()).args(run.get_args());
        self.spawn(command.stdin(Stdio::null()));
    }

    /// Runs an action that ends by itself.
    pub(crate) fn run(&self, action: &str, options: &[&str]) -> Output {
        self.command(action).args(options).output().unwrap()
    }

    pub(crate) fn format(&self, options: &[&str]) {
        let output = self.run("format", options);
        assert!(output.status.success(), "{}", errors(&output));
    }

    /// Expects the metadata to be right; gives back what was said.
    pub(crate) fn checks(&self) -> String {
        let output = self.run("check", &[]);
        assert!(output.status.success(), "{}", errors(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Expects an action to be refused with that code; gives back what was said.
    pub(crate) fn refuses(&self, action: &str, options: &[&str], code: &str) -> String {
        let output = self.run(action, options);
        let said = errors(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains(&format!("{code}: ")),
            "{code} expected: {said}"
        );
        assert!(said.contains("what to do: "), "{said}");
        said
    }

    pub(crate) fn start(&mut self) {
        let mut command = self.command("run");
        self.spawn(&mut command);
    }

    fn spawn(&mut self, command: &mut Command) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.directory.join("log"))
            .unwrap();
        self.spawn_with_log(command, log.into());
    }

    /// Its log goes somewhere else than to the file that [`Node::log`] reads.
    pub(crate) fn start_with_log(&mut self, log: impl Into<Stdio>) {
        let mut command = self.command("run");
        self.spawn_with_log(&mut command, log.into());
    }

    fn spawn_with_log(&mut self, command: &mut Command, log: Stdio) {
        self.process = Some(command.stderr(log).spawn().unwrap());
        let socket = self.socket();
        self.wait("the admin socket answers", || {
            UnixStream::connect(&socket).is_ok()
        });
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("run/data.sock")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// One request to the daemon.
    pub(crate) fn ask(&self, request: &str) -> Value {
        let mut stream = self.connect();
        send(&mut stream, request);
        receive(stream)
    }

    pub(crate) fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub(crate) fn status(&self) -> Value {
        self.ask("\"request\":\"status\"")["status"].clone()
    }

    pub(crate) fn stop(&mut self) -> Value {
        let end = Instant::now() + PATIENCE;
        let answer = loop {
            let answer = self.ask("\"request\":\"command\",\"command\":\"stop\"");
            // Something is being changed or agreed on at the moment.
            if answer["problem"]["code"] != "LS1010" || Instant::now() >= end {
                break answer;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let mut process = self.process.take().unwrap();
        while process.try_wait().unwrap().is_none() {
            assert!(
                Instant::now() < end,
                "the daemon does not end: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(process.wait().unwrap().success(), "{}", self.log());
        answer
    }

    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    pub(crate) fn runs(&mut self) -> bool {
        self.process
            .as_mut()
            .is_some_and(|process| process.try_wait().unwrap().is_none())
    }

    pub(crate) fn wait_for(&self, what: &str, reached: impl Fn(&Value) -> bool) {
        let mut last = Value::Null;
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            last = self.status();
            if reached(&last) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("not reached: {what}\n{last:#}\n{}", self.log());
    }

    pub(crate) fn wait_log(&self, code: &str) {
        self.wait(&format!("{code} in the log"), || self.log().contains(code));
    }

    pub(crate) fn wait(&self, what: &str, reached: impl Fn() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !reached() {
            assert!(Instant::now() < end, "not reached: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn data_start(&self) -> u64 {
        let mut bytes = [0; 4096];
        File::open(&self.backing)
            .unwrap()
            .read_exact_at(&mut bytes, 0)
            .unwrap();
        mirror_core::disk::Superblock::decode(&bytes, 0)
            .unwrap()
            .data_start_sectors
            * 512
    }

    pub(crate) fn fill_with_noise(&self) {
        let start = self.data_start();
        let file = File::options().write(true).open(&self.backing).unwrap();
        let mut state = 1_u64;
        let mut noise = vec![0; usize::try_from(BACKING_BYTES - start).unwrap()];
        for chunk in noise.chunks_exact_mut(8) {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            chunk.copy_from_slice(&state.to_le_bytes());
        }
        file.write_all_at(&noise, start).unwrap();
        file.sync_all().unwrap();
    }

    /// The volume's bytes.
    pub(crate) fn data(&self) -> Vec<u8> {
        let mut bytes = [0; 4096];
        let file = File::open(&self.backing).unwrap();
        file.read_exact_at(&mut bytes, 0).unwrap();
        let superblock = mirror_core::disk::Superblock::decode(&bytes, 0).unwrap();
        let mut data = vec![0; usize::try_from(superblock.size_sectors * 512).unwrap()];
        file.read_exact_at(&mut data, superblock.data_start_sectors * 512)
            .unwrap();
        data
    }

    /// Spoils a superblock behind its magic.
    pub(crate) fn damage(&self, slot: usize) {
        let file = File::options().write(true).open(&self.backing).unwrap();
        file.write_all_at(&[0xff; 64], SLOTS[slot] + 100).unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            drop(process.kill());
            drop(process.wait());
        }
    }
}

pub(crate) fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

pub(crate) fn send(stream: &mut UnixStream, request: &str) {
    let line = format!("{{\"schema\":\"lockstep.admin/1\",{request}}}\n");
    stream.write_all(line.as_bytes()).unwrap();
}

pub(crate) fn receive(stream: UnixStream) -> Value {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

/// Whether there is an answer, or the daemon is gone.
pub(crate) fn answered(stream: &UnixStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let read = (&mut &*stream).read(&mut [0; 64]);
    !matches!(read, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

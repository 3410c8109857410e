//! Answers the harness: runs commands, moves files.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use vm_guest::wire::{
    CHUNK_BYTES, ExecRequest, ExitReport, Frame, FrameKind, GetRequest, Hello, PutRequest,
};
use vm_guest::{AGENT_PORT, PORT_DIRECTORY};

/// How many commands may run at the same time.
const COMMANDS_MAX: usize = 64;
/// How long output is awaited after a command's end: a daemon it left behind may hold its pipes.
const OUTPUT_GRACE: Duration = Duration::from_millis(300);

struct Running {
    group: Pid,
    stdin: Option<ChildStdin>,
}

struct Agent {
    port: Mutex<File>,
    running: Mutex<HashMap<u32, Running>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn run() -> anyhow::Result<()> {
    let path = format!("{PORT_DIRECTORY}/{AGENT_PORT}");
    let port = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .with_context(|| format!("open {path}"))?;
    let mut requests = port.try_clone()?;
    let agent = Arc::new(Agent {
        port: Mutex::new(port),
        running: Mutex::new(HashMap::new()),
    });
    let hello = Hello {
        boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id")?
            .trim()
            .to_owned(),
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?
            .trim()
            .to_owned(),
    };
    agent.send(&Frame::json(0, FrameKind::Hello, &hello)?);
    loop {
        let frame = Frame::read_from(&mut requests).context("the command channel ended")?;
        agent.handle(frame);
    }
}

impl Agent {
    fn send(&self, frame: &Frame) {
        // If the port is gone the harness is gone: nobody is left to be told.
        let _ = frame.write_to(&mut *lock(&self.port));
    }

    fn answer(&self, id: u32, result: io::Result<Frame>) {
        let failed = |error: io::Error| Frame {
            id,
            kind: FrameKind::Failed,
            payload: error.to_string().into_bytes(),
        };
        self.send(&result.unwrap_or_else(failed));
    }

    fn handle(self: &Arc<Self>, frame: Frame) {
        let id = frame.id;
        match frame.kind {
            FrameKind::Exec => {
                let agent = Arc::clone(self);
                match frame.parse() {
                    // The child is registered before the next frame is read: that may be its input.
                    Ok(request) => agent.start(id, &request),
                    Err(error) => self.answer(id, Err(error)),
                }
            }
            FrameKind::Stdin => self.feed(id, &frame.payload),
            FrameKind::Kill => {
                if let Some(running) = lock(&self.running).get(&id) {
                    let _ = killpg(running.group, Signal::SIGKILL);
                }
            }
            FrameKind::Put => self.answer(id, put(&frame)),
            FrameKind::Get => {
                // A read of a stuck disk must not block the other requests.
                let agent = Arc::clone(self);
                thread::spawn(move || agent.answer(id, get(&frame)));
            }
            FrameKind::Hello
            | FrameKind::Stdout
            | FrameKind::Stderr
            | FrameKind::Exit
            | FrameKind::Data
            | FrameKind::Failed
            | FrameKind::Done => self.answer(id, Err(io::Error::other("not a request"))),
        }
    }

    /// Input is small (the harness puts files otherwise), so a pipe takes it without blocking for long.
    fn feed(&self, id: u32, data: &[u8]) {
        if let Some(running) = lock(&self.running).get_mut(&id) {
            if data.is_empty() {
                running.stdin = None;
            } else if let Some(stdin) = &mut running.stdin {
                let _ = stdin.write_all(data);
            }
        }
    }

    fn start(self: Arc<Self>, id: u32, request: &ExecRequest) {
        if let Err(error) = self.try_start(id, request) {
            self.answer(id, Err(error));
        }
    }

    fn try_start(self: &Arc<Self>, id: u32, request: &ExecRequest) -> io::Result<()> {
        if lock(&self.running).len() >= COMMANDS_MAX {
            return Err(io::Error::other("too many commands"));
        }
        let (program, arguments) = request
            .argv
            .split_first()
            .ok_or_else(|| io::Error::other("no command"))?;
        let mut child = Command::new(program)
            .args(arguments)
            .current_dir("/root")
            .process_group(0)
            .stdin(if request.stdin {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let group = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
        lock(&self.running).insert(
            id,
            Running {
                group,
                stdin: child.stdin.take(),
            },
        );
        let pumps = self.start_pumps(id, &mut child);
        let (ended, timed_out) = start_alarm(group, Duration::from_millis(request.limit_ms));
        let agent = Arc::clone(self);
        thread::spawn(move || {
            let status = child.wait();
            drop(ended);
            // Nothing is ever sent on it: it ends when both pumps have.
            let _ = pumps.recv_timeout(OUTPUT_GRACE);
            lock(&agent.running).remove(&id);
            let code = status.map_or(-1, |status| {
                status
                    .code()
                    .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
            });
            let report = ExitReport {
                code,
                timed_out: timed_out.load(Ordering::SeqCst),
            };
            agent.answer(id, Frame::json(id, FrameKind::Exit, &report));
        });
        Ok(())
    }

    /// Sends on what the child says; the channel ends with its output.
    fn start_pumps(self: &Arc<Self>, id: u32, child: &mut Child) -> mpsc::Receiver<()> {
        let (done, pumps) = mpsc::channel::<()>();
        for (kind, pipe) in [
            (
                FrameKind::Stdout,
                child
                    .stdout
                    .take()
                    .map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
            ),
            (
                FrameKind::Stderr,
                child
                    .stderr
                    .take()
                    .map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
            ),
        ] {
            let (agent, done) = (Arc::clone(self), done.clone());
            thread::spawn(move || {
                if let Some(pipe) = pipe {
                    agent.pump(id, kind, pipe);
                }
                drop(done);
            });
        }
        drop(done);
        pumps
    }

    fn pump(&self, id: u32, kind: FrameKind, mut pipe: Box<dyn Read + Send>) {
        let mut buffer = vec![0; 32 << 10];
        while let Ok(length) = pipe.read(&mut buffer) {
            if length == 0 {
                return;
            }
            self.send(&Frame {
                id,
                kind,
                payload: buffer[..length].to_vec(),
            });
        }
    }
}

/// Kills the group after `limit`, unless the sender is dropped before.
fn start_alarm(group: Pid, limit: Duration) -> (mpsc::Sender<()>, Arc<AtomicBool>) {
    let (ended, alarm) = mpsc::channel::<()>();
    let timed_out = Arc::new(AtomicBool::new(false));
    let expired = Arc::clone(&timed_out);
    thread::spawn(move || {
        if alarm.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
            expired.store(true, Ordering::SeqCst);
            let _ = killpg(group, Signal::SIGKILL);
        }
    });
    (ended, timed_out)
}

fn put(frame: &Frame) -> io::Result<Frame> {
    let end = frame
        .payload
        .iter()
        .position(|byte| *byte == 0)
        .ok_or_else(|| io::Error::other("no header"))?;
    let request: PutRequest = serde_json::from_slice(&frame.payload[..end])?;
    let path = Path::new(&request.path);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    // A running program cannot be written to, but it can be replaced.
    if request.offset == 0 && path.is_file() {
        fs::remove_file(path)?;
    }
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(request.mode)
        .open(path)?;
    file.write_all_at(&frame.payload[end + 1..], request.offset)?;
    if request.offset == 0 && path.is_file() {
        fs::set_permissions(path, fs::Permissions::from_mode(request.mode))?;
    }
    Ok(Frame {
        id: frame.id,
        kind: FrameKind::Done,
        payload: Vec::new(),
    })
}

fn get(frame: &Frame) -> io::Result<Frame> {
    let request: GetRequest = frame.parse()?;
    let file = File::open(&request.path)?;
    let mut data = vec![0; request.length.min(CHUNK_BYTES)];
    let mut filled = 0;
    while filled < data.len() {
        let length = file.read_at(&mut data[filled..], request.offset + filled as u64)?;
        if length == 0 {
            break;
        }
        filled += length;
    }
    data.truncate(filled);
    Ok(Frame {
        id: frame.id,
        kind: FrameKind::Data,
        payload: data,
    })
}

//! The host's end of the command channel.

use std::collections::HashMap;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use vm_guest::wire::{
    CHUNK_BYTES, ExecRequest, ExitReport, Frame, FrameKind, GetRequest, Hello, PutRequest,
};

/// How much longer than the command's own limit the host waits: the guest kills and reports in it.
const ANSWER_GRACE: Duration = Duration::from_secs(20);
/// A file transfer moves one chunk in this time, or the machine is not well.
const CHUNK_LIMIT: Duration = Duration::from_secs(60);
/// Output kept of one command and stream; what comes after it is dropped.
const OUTPUT_BYTES_MAX: usize = 8 << 20;

/// How a command ended and what it said.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// Exit code, or 128 + signal.
    pub code: i32,
    /// The time limit was reached, and the command was killed.
    pub timed_out: bool,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Exit code 0 in time.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.code == 0 && !self.timed_out
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct Routes {
    by_id: HashMap<u32, mpsc::Sender<Frame>>,
    hello: Option<Hello>,
    closed: bool,
}

/// A connection to a machine's agent.
pub struct Agent {
    stream: Mutex<UnixStream>,
    routes: Arc<Mutex<Routes>>,
    next_id: AtomicU32,
}

impl Agent {
    pub(crate) fn new(stream: UnixStream) -> anyhow::Result<Self> {
        let routes = Arc::new(Mutex::new(Routes::default()));
        let (reader, shared) = (stream.try_clone()?, Arc::clone(&routes));
        thread::spawn(move || {
            read_frames(&reader, &shared);
            let mut routes = lock(&shared);
            routes.closed = true;
            // Dropping the senders wakes everyone who waits for an answer.
            routes.by_id.clear();
        });
        Ok(Self {
            stream: Mutex::new(stream),
            routes,
            next_id: AtomicU32::new(1),
        })
    }

    /// What the agent said when it started, once it has.
    #[must_use]
    pub fn hello(&self) -> Option<Hello> {
        lock(&self.routes).hello.clone()
    }

    pub(crate) fn close(&self) {
        // An error means that it is closed already.
        let _ = lock(&self.stream).shutdown(Shutdown::Both);
    }

    fn register(&self) -> anyhow::Result<(u32, mpsc::Receiver<Frame>)> {
        let id = self.next_id.fetch_add(1, Ordering::SeqCst);
        let (sender, receiver) = mpsc::channel();
        let mut routes = lock(&self.routes);
        if routes.closed {
            bail!("the machine is off");
        }
        routes.by_id.insert(id, sender);
        Ok((id, receiver))
    }

    fn send(&self, frame: &Frame) -> anyhow::Result<()> {
        frame
            .write_to(&mut *lock(&self.stream))
            .context("the machine went away")
    }

    /// Starts a command.
    ///
    /// # Errors
    /// If the machine is off.
    pub fn spawn(
        self: &Arc<Self>,
        argv: &[&str],
        stdin: &[u8],
        limit: Duration,
    ) -> anyhow::Result<Running> {
        let (id, frames) = self.register()?;
        let request = ExecRequest {
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            limit_ms: u64::try_from(limit.as_millis())?,
            stdin: !stdin.is_empty(),
        };
        self.send(&Frame::json(id, FrameKind::Exec, &request)?)?;
        if !stdin.is_empty() {
            for chunk in stdin.chunks(CHUNK_BYTES).chain([&[][..]]) {
                self.send(&Frame {
                    id,
                    kind: FrameKind::Stdin,
                    payload: chunk.to_vec(),
                })?;
            }
        }
        let deadline = Instant::now() + limit + ANSWER_GRACE;
        Ok(Running {
            agent: Arc::clone(self),
            id,
            frames,
            deadline,
            stdout: Vec::new(),
            stderr: Vec::new(),
        })
    }

    /// Writes a file in the machine.
    ///
    /// # Errors
    /// If the machine is off or its file system refuses.
    pub fn put(&self, path: &str, mode: u32, data: &[u8]) -> anyhow::Result<()> {
        let chunks: Vec<&[u8]> = if data.is_empty() {
            vec![data]
        } else {
            data.chunks(CHUNK_BYTES).collect()
        };
        for (index, chunk) in chunks.into_iter().enumerate() {
            let offset = (index * CHUNK_BYTES) as u64;
            let mut payload = serde_json::to_vec(&PutRequest {
                path: path.to_owned(),
                mode,
                offset,
            })?;
            payload.push(0);
            payload.extend_from_slice(chunk);
            self.request(FrameKind::Put, payload)
                .with_context(|| format!("put {path}"))?;
        }
        Ok(())
    }

    /// Reads part of a file or a device; less than asked for is its end.
    ///
    /// # Errors
    /// If the machine is off or the read fails.
    pub fn get(&self, path: &str, offset: u64, length: usize) -> anyhow::Result<Vec<u8>> {
        let mut data = Vec::with_capacity(length);
        while data.len() < length {
            let wanted = (length - data.len()).min(CHUNK_BYTES);
            let request = GetRequest {
                path: path.to_owned(),
                offset: offset + data.len() as u64,
                length: wanted,
            };
            let chunk = self
                .request(FrameKind::Get, serde_json::to_vec(&request)?)
                .with_context(|| format!("get {path}"))?;
            data.extend_from_slice(&chunk);
            if chunk.len() < wanted {
                break;
            }
        }
        Ok(data)
    }

    fn request(&self, kind: FrameKind, payload: Vec<u8>) -> anyhow::Result<Vec<u8>> {
        let (id, frames) = self.register()?;
        self.send(&Frame { id, kind, payload })?;
        let answer = frames.recv_timeout(CHUNK_LIMIT);
        lock(&self.routes).by_id.remove(&id);
        let answer = answer.context("no answer from the machine")?;
        if answer.kind == FrameKind::Failed {
            bail!("{}", String::from_utf8_lossy(&answer.payload));
        }
        Ok(answer.payload)
    }
}

fn read_frames(mut stream: &UnixStream, routes: &Mutex<Routes>) {
    while let Ok(frame) = Frame::read_from(&mut stream) {
        let mut routes = lock(routes);
        if frame.kind == FrameKind::Hello {
            // A second hello is an agent that was started again: nothing before it will be answered.
            routes.by_id.clear();
            routes.hello = frame.parse().ok();
        } else if let Some(sender) = routes.by_id.get(&frame.id) {
            // Nobody listens any more: the command was given up.
            let _ = sender.send(frame);
        }
    }
}

/// A command that runs in a machine; dropping it kills the command.
pub struct Running {
    agent: Arc<Agent>,
    id: u32,
    frames: mpsc::Receiver<Frame>,
    deadline: Instant,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Running {
    /// Waits for the end of the command.
    ///
    /// # Errors
    /// If the machine goes away, or the command cannot be started.
    pub fn wait(mut self) -> anyhow::Result<Output> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            match self.frames.recv_timeout(left) {
                Ok(frame) => {
                    if let Some(output) = self.take(&frame)? {
                        return Ok(output);
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => bail!("the machine does not answer"),
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    bail!("the machine went away during the command")
                }
            }
        }
    }

    /// What it said so far on standard output.
    ///
    /// # Errors
    /// If the command could not be started.
    pub fn stdout_so_far(&mut self) -> anyhow::Result<String> {
        self.stdout_from(0)
    }

    /// The same from this byte on, for who looks again and again at a command that says much.
    ///
    /// # Errors
    /// If the command ended.
    pub fn stdout_from(&mut self, from: usize) -> anyhow::Result<String> {
        while let Ok(frame) = self.frames.try_recv() {
            if let Some(output) = self.take(&frame)? {
                bail!("the command ended: {output:?}");
            }
        }
        let rest = self.stdout.get(from..).unwrap_or_default();
        Ok(String::from_utf8_lossy(rest).into_owned())
    }

    /// Kills the command and what it started.
    ///
    /// # Errors
    /// If the machine is off.
    pub fn kill(&self) -> anyhow::Result<()> {
        self.agent.send(&Frame {
            id: self.id,
            kind: FrameKind::Kill,
            payload: Vec::new(),
        })
    }

    fn take(&mut self, frame: &Frame) -> anyhow::Result<Option<Output>> {
        let sink = match frame.kind {
            FrameKind::Stdout => &mut self.stdout,
            FrameKind::Stderr => &mut self.stderr,
            FrameKind::Exit => {
                let report: ExitReport = frame.parse()?;
                lock(&self.agent.routes).by_id.remove(&self.id);
                return Ok(Some(Output {
                    code: report.code,
                    timed_out: report.timed_out,
                    stdout: String::from_utf8_lossy(&self.stdout).into_owned(),
                    stderr: String::from_utf8_lossy(&self.stderr).into_owned(),
                }));
            }
            FrameKind::Failed => {
                let reason = String::from_utf8_lossy(&frame.payload).into_owned();
                return Err(io::Error::other(reason)).context("start the command");
            }
            FrameKind::Hello
            | FrameKind::Exec
            | FrameKind::Stdin
            | FrameKind::Kill
            | FrameKind::Put
            | FrameKind::Get
            | FrameKind::Data
            | FrameKind::Done => bail!("unexpected answer {:?}", frame.kind),
        };
        let room = OUTPUT_BYTES_MAX.saturating_sub(sink.len());
        sink.extend_from_slice(&frame.payload[..frame.payload.len().min(room)]);
        Ok(None)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if lock(&self.agent.routes).by_id.remove(&self.id).is_some() {
            // If the machine is off the command is gone as well.
            let _ = self.kill();
        }
    }
}

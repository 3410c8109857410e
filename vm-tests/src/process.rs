//! Children: bounded in time, never left behind.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use std::{io, mem};

use anyhow::{Context, bail};

use crate::wait::wait_until;

/// A child that dies with us: killed when dropped, and by the kernel if we are killed.
pub struct Guarded {
    child: Child,
    name: String,
}

impl Guarded {
    /// Starts `command`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn(mut command: Command, name: &str) -> anyhow::Result<Self> {
        die_with_parent(&mut command);
        let child = spawn_from_lasting_thread(command).with_context(|| format!("start {name}"))?;
        Ok(Self {
            child,
            name: name.to_owned(),
        })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// If the kernel does not know it.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it does not end in time.
    pub fn wait(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let what = format!("end of {}", self.name);
        let mut status = None;
        wait_until(limit, &what, || {
            status = self.child.try_wait()?;
            Ok(status.is_some())
        })?;
        status.context("no status")
    }

    /// Kills it (SIGKILL) and collects it.
    pub fn kill(&mut self) {
        // Both fail only if it has been collected already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The "parent" whose death kills a child is the *thread* that started it, so one thread that never ends
/// starts them all.
fn spawn_from_lasting_thread(command: Command) -> io::Result<Child> {
    type Request = (Command, mpsc::Sender<io::Result<Child>>);
    static SPAWNER: OnceLock<mpsc::Sender<Request>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, requests) = mpsc::channel::<Request>();
        thread::spawn(move || {
            for (mut command, answer) in requests {
                // Nobody waits for the answer only if the asking thread is gone; then the child is dropped.
                let _ = answer.send(command.spawn());
            }
        });
        sender
    });
    let (answer, result) = mpsc::channel();
    spawner.send((command, answer)).map_err(io::Error::other)?;
    result.recv().map_err(io::Error::other)?
}

/// Makes the kernel kill the child when the thread that starts it ends.
fn die_with_parent(command: &mut Command) {
    // SAFETY: prctl is async-signal-safe and takes no pointers.
    unsafe {
        command.pre_exec(|| {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0 {
                Ok(())
            } else {
                Err(io::Error::last_os_error())
            }
        });
    }
}

/// Runs a command with a time limit; fails if it does, with the end of what it said.
///
/// # Errors
/// If it cannot be started, fails, or takes too long.
pub fn run(command: &mut Command, limit: Duration) -> anyhow::Result<String> {
    const SHOWN_BYTES_MAX: usize = 2000;
    let name = format!("{command:?}");
    let (reader, writer) = io::pipe()?;
    command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    let mut owned = mem::replace(command, Command::new("true"));
    die_with_parent(&mut owned);
    // The command holds the writing ends of the pipe; the spawner drops it.
    let mut guarded = Guarded {
        child: spawn_from_lasting_thread(owned).with_context(|| format!("start {name}"))?,
        name,
    };
    let output = thread::spawn(move || {
        let mut text = Vec::new();
        let _ = io::Read::read_to_end(&mut { reader }, &mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    let start = Instant::now();
    let status = guarded.wait(limit)?;
    let output = output.join().unwrap_or_default();
    if !status.success() {
        let from = output.len().saturating_sub(SHOWN_BYTES_MAX);
        let from = (from..=output.len())
            .find(|at| output.is_char_boundary(*at))
            .unwrap_or(0);
        bail!(
            "{} failed after {:?}: {status}\n{}",
            guarded.name,
            start.elapsed(),
            &output[from..]
        );
    }
    Ok(output)
}

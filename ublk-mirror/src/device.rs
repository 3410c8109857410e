//! The life of the volume's ublk device, seen from the daemon: requests to the
//! helper process, its answers, and the stable name under /dev/lockstep.
//!
//! The daemon issues no control command itself. START waits for I/O that the
//! daemon serves, STOP for I/O it holds; a daemon killed inside one of them can
//! never exit. `device_helper` runs them in a process of its own.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Where the stable names of all volumes are.
pub const NAME_DIRECTORY: &str = "/dev/lockstep";
const CLASS_DIRECTORY: &str = "/sys/class/ublk-char";
/// What the name of an isolated copy's device has behind the volume's.
pub const ISOLATED_SUFFIX: &str = ".isolated";
const NAME_BYTES_MAX: usize = 64 + ISOLATED_SUFFIX.len();
/// The hidden subcommand that turns this executable into the helper.
pub const HELPER_SUBCOMMAND: &str = "device-helper";
/// Longest request or answer line.
pub(crate) const LINE_BYTES_MAX: usize = 4096;

/// What a device is for; decides how the kernel treats it when the daemon dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// Serves the volume: survives the daemon (RECOVERY and REISSUE), writable.
    Active,
    /// Stands for a volume that must not be used here: read-only, dies with the daemon.
    Fenced,
    /// Shows an isolated copy: read-only, dies with the daemon.
    Isolated,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscardParams {
    pub granularity_bytes: u32,
    /// Largest discard and write-zeroes request. `chunk_sectors` does not split
    /// discards: one may cross several chunks.
    pub max_sectors: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceParams {
    pub kind: DeviceKind,
    pub size_sectors: u64,
    pub logical_block_bytes: u32,
    pub physical_block_bytes: u32,
    /// No read, write or write-zeroes crosses a multiple of this. 0: no such limit.
    pub chunk_sectors: u32,
    /// Largest request; at most 32 MiB, and the size of the queue's buffers.
    pub max_io_bytes: u32,
    /// At most 4096.
    pub queue_depth: u16,
    /// None: the device supports neither discard nor write-zeroes.
    pub discard: Option<DiscardParams>,
    /// Kept by the kernel and given back by `Info`: tells a restarted daemon
    /// which devices are its volume's.
    pub owner_tag: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Makes a device with an id of the kernel's choice. Answer: `Added`.
    Add(DeviceParams),
    /// Waits until all tags are fetched, then shows the disk. Answer: `Done`.
    Start { dev_id: u32, daemon_pid: i32 },
    /// Fails parked I/O and takes the disk away; every fetch ends with ENODEV.
    Stop { dev_id: u32 },
    /// Frees the id once nobody holds the disk open any more; does not wait for that.
    Delete { dev_id: u32 },
    /// Answer: `Info`.
    Info { dev_id: u32 },
    /// Takes over a dead daemon's device; waits until all its I/O has ended.
    StartRecovery { dev_id: u32, timeout_ms: u64 },
    /// Waits until all tags are fetched, then lets I/O go on.
    EndRecovery { dev_id: u32, daemon_pid: i32 },
    /// Changes the size of a live device; one that is being stopped must not be named. Answer: `Done`.
    Resize { dev_id: u32, size_sectors: u64 },
    /// From now on: if the daemon dies, delete the device and the name that leads to it.
    DeleteOnExit { dev_id: u32, name: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceState {
    /// Not started, or stopped.
    Dead,
    Live,
    /// Its daemon is gone; I/O waits for a recovery.
    Quiesced,
    Other(u16),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceInfo {
    pub dev_id: u32,
    pub state: DeviceState,
    pub kind: DeviceKind,
    pub queue_depth: u16,
    pub max_io_bytes: u32,
    pub daemon_pid: i32,
    pub owner_tag: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Done,
    Added { dev_id: u32 },
    Info(DeviceInfo),
}

/// Control command of the ublk driver, for error messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Control {
    AddDevice,
    SetParams,
    StartDevice,
    StopDevice,
    DeleteDevice,
    GetInfo,
    StartRecovery,
    EndRecovery,
    GetFeatures,
    UpdateSize,
}

/// Why the helper could not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum HelperFailure {
    #[error("ublk {command:?} of device {dev_id}: {}", io::Error::from_raw_os_error(*.errno))]
    Command {
        command: Control,
        dev_id: u32,
        errno: i32,
    },
    #[error("ublk control device: {} (module ublk_drv not loaded?)", io::Error::from_raw_os_error(*.errno))]
    NoUblk { errno: i32 },
    #[error("the kernel supports only ublk flags {granted:#x} of {wanted:#x}")]
    FlagsMasked { wanted: u64, granted: u64 },
    #[error("the kernel cannot resize a live ublk device (Linux 6.16 can)")]
    NoResize,
    #[error("block size {bytes} is not a power of two of at least 512")]
    BlockSize { bytes: u32 },
    #[error("I/O of the dead daemon of device {dev_id} did not end within {timeout_ms} ms")]
    StillBusy { dev_id: u32, timeout_ms: u64 },
    #[error("more than {limit} requests at once")]
    TooMany { limit: usize },
    #[error("unreadable request line")]
    BadRequest,
}

#[derive(Debug, Error)]
pub enum DeviceError {
    #[error("cannot start the device helper")]
    Spawn(#[source] io::Error),
    #[error("cannot talk to the device helper")]
    Pipe(#[source] io::Error),
    #[error("the device helper has gone")]
    HelperGone,
    #[error("unreadable line of the device helper")]
    BadAnswer(#[source] serde_json::Error),
    #[error(transparent)]
    Refused(#[from] HelperFailure),
    #[error("{} exists and is no symlink; something wrote to it while the volume was away", .path.display())]
    NameTaken { path: PathBuf },
    #[error("{name:?} cannot be a volume name")]
    BadName { name: String },
    #[error("cannot {action} {}", .path.display())]
    Name {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Matches an answer to its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Token(pub u64);

/// What travels in one line.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Envelope<T> {
    pub(crate) token: Token,
    pub(crate) body: T,
}

pub type Outcome = Result<Answer, HelperFailure>;

/// The daemon's end of the helper process.
#[derive(Debug)]
pub struct DeviceHelper {
    child: Child,
    socket: UnixStream,
    received: Vec<u8>,
    /// Answers that `call` read while it waited for another one.
    answered: VecDeque<(Token, Outcome)>,
    next_token: u64,
}

impl DeviceHelper {
    /// Starts this executable again as the helper. Call it before the calling
    /// thread gives up CAP_SYS_ADMIN.
    pub fn spawn() -> Result<DeviceHelper, DeviceError> {
        let (socket, theirs) = UnixStream::pair().map_err(DeviceError::Spawn)?;
        socket.set_nonblocking(true).map_err(DeviceError::Spawn)?;
        let child = Command::new("/proc/self/exe")
            .arg(HELPER_SUBCOMMAND)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .map_err(DeviceError::Spawn)?;
        Ok(DeviceHelper {
            child,
            socket,
            received: Vec::with_capacity(LINE_BYTES_MAX),
            answered: VecDeque::new(),
            next_token: 0,
        })
    }

    /// Sends a request without waiting; the answer comes through `on_readable`.
    pub fn request(&mut self, request: Request) -> Result<Token, DeviceError> {
        let token = Token(self.next_token);
        self.next_token += 1;
        tracing::debug!(?token, ?request, "device helper");
        let envelope = Envelope {
            token,
            body: request,
        };
        let mut line = serde_json::to_vec(&envelope).map_err(DeviceError::BadAnswer)?;
        line.push(b'\n');
        match self.socket.write_all(&line) {
            Ok(()) => Ok(token),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(DeviceError::HelperGone),
            Err(error) => Err(DeviceError::Pipe(error)),
        }
    }

    /// Descriptor to poll for readability.
    pub fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Takes all answers that have arrived; none is no error.
    pub fn on_readable(&mut self) -> Result<Vec<(Token, Outcome)>, DeviceError> {
        self.receive()?;
        Ok(self.answered.drain(..).collect())
    }

    /// Sends a request and waits for its answer. Never for `Start`, `EndRecovery`
    /// or `Stop` from the thread that serves the queue: they wait for it.
    pub fn call(&mut self, request: Request) -> Result<Answer, DeviceError> {
        let token = self.request(request)?;
        loop {
            self.receive()?;
            if let Some(at) = self.answered.iter().position(|(known, _)| *known == token)
                && let Some((_, outcome)) = self.answered.remove(at)
            {
                return Ok(outcome?);
            }
            let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(DeviceError::Pipe(errno.into())),
            }
        }
    }

    fn receive(&mut self) -> Result<(), DeviceError> {
        let mut chunk = [0; LINE_BYTES_MAX];
        loop {
            match self.socket.read(&mut chunk) {
                Ok(0) => return Err(DeviceError::HelperGone),
                Ok(count) => self.received.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(DeviceError::Pipe(error)),
            }
        }
        while let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.received.drain(..=end).collect();
            let envelope: Envelope<Outcome> =
                serde_json::from_slice(&line).map_err(DeviceError::BadAnswer)?;
            tracing::debug!(token = ?envelope.token, outcome = ?envelope.body, "device helper");
            self.answered.push_back((envelope.token, envelope.body));
        }
        Ok(())
    }
}

impl Drop for DeviceHelper {
    fn drop(&mut self) {
        // The helper sees end of file and does its last duties. It is not waited
        // for: it may be deleting a device whose fetches this process still holds.
        drop(self.socket.shutdown(std::net::Shutdown::Both));
        drop(self.child.try_wait());
    }
}

/// Ids of all ublk devices of this machine, whoever made them.
pub fn existing_ids() -> io::Result<Vec<u32>> {
    let entries = match fs::read_dir(CLASS_DIRECTORY) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut ids = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let id = name.to_str().and_then(|name| name.strip_prefix("ublkc"));
        ids.extend(id.and_then(|id| id.parse::<u32>().ok()));
    }
    ids.sort_unstable();
    Ok(ids)
}

/// Path of the volume's stable name.
pub fn name_path(name: &str) -> Result<PathBuf, DeviceError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
    if name.is_empty()
        || name.len() > NAME_BYTES_MAX
        || name.starts_with('.')
        || !name.bytes().all(allowed)
    {
        return Err(DeviceError::BadName {
            name: name.to_owned(),
        });
    }
    Ok(Path::new(NAME_DIRECTORY).join(name))
}

/// Lets /dev/lockstep/NAME lead to the device, atomically. Refuses to replace
/// anything but a symlink: what wrote there must be found first.
pub fn publish_name(name: &str, dev_id: u32) -> Result<(), DeviceError> {
    let path = name_path(name)?;
    let fail = |action, path: &Path| {
        let path = path.to_owned();
        move |source| DeviceError::Name {
            action,
            path,
            source,
        }
    };
    let directory = Path::new(NAME_DIRECTORY);
    fs::create_dir_all(directory).map_err(fail("create", directory))?;
    refuse_taken(&path)?;
    let temporary = directory.join(format!(".{name}.{}", std::process::id()));
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(fail("remove", &temporary)(error));
        }
        Ok(()) | Err(_) => {}
    }
    std::os::unix::fs::symlink(format!("../ublkb{dev_id}"), &temporary)
        .map_err(fail("create", &temporary))?;
    fs::rename(&temporary, &path).map_err(fail("rename to", &path))
}

fn refuse_taken(path: &Path) -> Result<(), DeviceError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.is_symlink() => Err(DeviceError::NameTaken {
            path: path.to_owned(),
        }),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(DeviceError::Name {
            action: "look at",
            path: path.to_owned(),
            source,
        }),
    }
}

/// Device that the name leads to now.
pub fn published_id(name: &str) -> Result<Option<u32>, DeviceError> {
    let path = name_path(name)?;
    refuse_taken(&path)?;
    let Ok(target) = fs::read_link(&path) else {
        return Ok(None);
    };
    let id = target.to_str().and_then(|to| to.strip_prefix("../ublkb"));
    Ok(id.and_then(|id| id.parse().ok()))
}

/// The name must be gone before the device's id is free: the kernel gives the id to the next
/// device, which may be another volume's.
pub fn retract_name_or_warn(name: &str, dev_id: u32) {
    if let Err(error) = retract_name(name, dev_id) {
        tracing::warn!(code = "LS3029", %error, dev_id, "cannot take the volume's name off its device");
    }
}

/// Removes the name if it still leads to this device.
pub fn retract_name(name: &str, dev_id: u32) -> Result<(), DeviceError> {
    if published_id(name)? != Some(dev_id) {
        return Ok(());
    }
    let path = name_path(name)?;
    fs::remove_file(&path).map_err(|source| DeviceError::Name {
        action: "remove",
        path,
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_directory_are_refused() {
        for name in ["", "..", "a/b", ".hidden", "a b"] {
            assert!(name_path(name).is_err(), "{name:?}");
        }
        assert_eq!(
            name_path("data-1").unwrap(),
            Path::new("/dev/lockstep/data-1")
        );
    }

    #[test]
    fn a_request_survives_its_line() {
        let request = Envelope {
            token: Token(7),
            body: Request::DeleteOnExit {
                dev_id: 3,
                name: "data".into(),
            },
        };
        let line = serde_json::to_string(&request).unwrap();
        assert!(!line.contains('\n'));
        let back: Envelope<Request> = serde_json::from_str(&line).unwrap();
        assert_eq!((back.token, back.body), (request.token, request.body));
    }
}

//! The daemons of this node's volumes (`ublk-mirror`): where they are, how one is started, who keeps it running.
//!
//! `lockstep volume start` and `lockstepd` start a daemon in the same way, which is [`launch`]'s. Neither does so without the
//! [`Turn`] of the volume, so that a start, a stop and the making of a copy never cross.

pub mod ended;
pub mod launch;
pub mod stopped;
pub mod watch;

use std::env;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use controlplane_api::Client;
use controlplane_api::paths::{run_directory, state_directory};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket,
    sockopt::PeerCredentials,
};

use crate::resources::mark::ProcessId;

pub use stopped::Turn;

/// Names the directory of the daemons' logs instead of [`LOG_DIRECTORY`].
const LOG_DIRECTORY_VARIABLE: &str = "LOCKSTEP_LOG_DIR";
const LOG_DIRECTORY: &str = "/var/log/lockstep";

/// Where the files of one volume's daemon are.
#[derive(Clone, Debug)]
pub struct Places {
    /// The volume's name.
    pub volume: String,
    /// `volumes/NAME.toml` is in it.
    pub config: PathBuf,
    /// Sockets and locks.
    pub run: PathBuf,
    /// What is remembered over a reboot.
    pub state: PathBuf,
    /// The daemon's words.
    pub logs: PathBuf,
}

/// Whether a daemon answers at the volume's socket.
#[derive(Debug)]
pub enum Door {
    /// Somebody listens: which process, if the kernel says so.
    Open(Option<ProcessId>),
    /// Nobody does.
    Closed,
    /// That cannot be told.
    Unclear(io::Error),
}

impl Places {
    /// On a real node; `config` is the directory of keys and configurations.
    pub fn of(volume: &str, config: &Path) -> Self {
        let logs = env::var_os(LOG_DIRECTORY_VARIABLE);
        Self {
            volume: volume.to_string(),
            config: config.to_path_buf(),
            run: run_directory(),
            state: state_directory(),
            logs: logs.map_or_else(|| PathBuf::from(LOG_DIRECTORY), PathBuf::from),
        }
    }

    /// What the daemon is started with.
    pub fn configuration(&self) -> PathBuf {
        let name = format!("{}.toml", self.volume);
        self.config.join("volumes").join(name)
    }

    /// The daemon's socket.
    pub fn socket(&self) -> PathBuf {
        self.run.join(format!("{}.sock", self.volume))
    }

    /// What the daemon holds locked as long as it lives.
    pub fn lock(&self) -> PathBuf {
        self.run.join(format!("{}.lock", self.volume))
    }

    /// The daemon's log.
    pub fn log(&self) -> PathBuf {
        self.logs.join(format!("{}.log", self.volume))
    }

    /// A connection to the daemon. Never waits, see [`Self::door`].
    ///
    /// # Errors
    /// Nobody listens (`NotFound`, `ConnectionRefused`), or who listens takes nobody in.
    pub fn connect(&self) -> io::Result<UnixStream> {
        let stream = UnixStream::from(connect_at_once(&self.socket())?);
        stream.set_nonblocking(false)?;
        Ok(stream)
    }

    /// A client of the daemon.
    pub fn client(&self) -> Client {
        Client::of_socket(&self.socket())
    }

    /// Whether a daemon answers. Never waits: one that listens and takes nobody in, such as a stopped one with a full queue, is
    /// [`Door::Unclear`] (`WouldBlock`).
    pub fn door(&self) -> Door {
        match connect_at_once(&self.socket()) {
            Ok(stream) => {
                let told = getsockopt(&stream, PeerCredentials).ok();
                let pid = told.map(|told| told.pid()).filter(|pid| *pid > 0);
                Door::Open(pid.and_then(ProcessId::of))
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Door::Closed
            }
            Err(error) => Door::Unclear(error),
        }
    }

    /// Whether a process of this volume lives, whatever it does. Only for who has the volume's [`Turn`]: the look itself
    /// holds the lock for a moment, and a daemon that starts just then would refuse to.
    pub fn is_locked(&self) -> bool {
        match std::fs::File::open(self.lock()) {
            Ok(file) => file.try_lock().is_err(),
            Err(_) => false,
        }
    }
}

/// A connection to a socket that takes it now.
fn connect_at_once(path: &Path) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let own = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(own.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(own)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    fn places(directory: &Path) -> Places {
        Places {
            volume: "data".to_string(),
            config: directory.to_path_buf(),
            run: directory.to_path_buf(),
            state: directory.to_path_buf(),
            logs: directory.to_path_buf(),
        }
    }

    #[test]
    fn a_daemon_that_takes_nobody_in_is_unclear_and_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let places = places(directory.path());
        assert!(matches!(places.door(), Door::Closed));
        let listener = UnixListener::bind(places.socket()).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let Door::Open(Some(process)) = places.door() else {
            panic!("nobody listens")
        };
        assert_eq!(process.pid, own);
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let address = UnixAddr::new(&places.socket()).unwrap();
        let mut kept = Vec::new();
        let full = loop {
            let stream = socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
            match connect(stream.as_raw_fd(), &address) {
                Ok(()) => kept.push(stream),
                Err(errno) => break errno,
            }
        };
        assert_eq!(full, nix::errno::Errno::EAGAIN);
        let (sender, door) = mpsc::channel();
        let own = places.clone();
        thread::spawn(move || sender.send(own.door()));
        let door = door.recv_timeout(Duration::from_secs(10));
        let Ok(Door::Unclear(error)) = door else {
            panic!("{door:?}")
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        let error = places.connect().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(listener);
        assert!(matches!(places.door(), Door::Closed));
    }
}

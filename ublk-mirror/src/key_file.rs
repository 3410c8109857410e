//! The file with the cluster's secrets, read again when they were rotated by a step.

use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};

use mirror_core::types::ClusterId;
use thiserror::Error;

use crate::config::{ConfigError, read_keys};
use crate::explain::Explain;
use crate::inbox::{Answer, Inbox, Message};

/// Where the secrets of this daemon's cluster are.
#[derive(Clone, Debug)]
pub struct KeyFile {
    path: PathBuf,
    cluster: ClusterId,
    /// What was read first gets to the owner thread first.
    turn: Arc<Mutex<()>>,
}

/// Why the owner thread does not get what the file holds.
#[derive(Debug, Error)]
pub enum KeyFileError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{} holds the key of another cluster ({cluster})", .path.display())]
    OtherCluster { path: PathBuf, cluster: ClusterId },
    #[error("too many requests at the same time")]
    TooMany,
}

impl Explain for KeyFileError {
    fn code(&self) -> &'static str {
        match self {
            Self::Config(error) => error.code(),
            Self::OtherCluster { .. } => "LS3012",
            Self::TooMany => "LS3022",
        }
    }

    fn advice(&self) -> String {
        match self {
            Self::Config(error) => error.advice(),
            Self::OtherCluster { .. } => {
                "put the cluster's key file in place, the same on both nodes".into()
            }
            Self::TooMany => "wait for the others, then try again".into(),
        }
    }
}

impl KeyFile {
    pub fn new(path: &Path, cluster: ClusterId) -> KeyFile {
        KeyFile {
            path: path.to_owned(),
            cluster,
            turn: Arc::default(),
        }
    }

    /// The owner thread gets what the file holds now, and answers. Blocks: not for the owner thread.
    pub fn hand_over(&self, inbox: &Inbox, answer: Answer) -> Result<(), KeyFileError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = read_keys(&self.path)?;
        if keys.cluster() != self.cluster {
            return Err(KeyFileError::OtherCluster {
                path: self.path.clone(),
                cluster: keys.cluster(),
            });
        }
        let put = inbox.put(Message::Keys(keys, answer));
        put.map_err(|_| KeyFileError::TooMany)
    }

    /// The same; nobody waits for the answer.
    pub fn read_again(&self, inbox: &Inbox) -> Result<(), KeyFileError> {
        let (nobody, _) = sync_channel(1);
        self.hand_over(inbox, nobody)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::TryLockError;
    use std::thread;

    use mirror_core::keys::Keys;
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    const KEY: [u8; 32] = [7; 32];

    fn path(name: &str) -> PathBuf {
        let name = format!("lockstep-key-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        drop(fs::remove_file(&path));
        path
    }

    fn keys() -> Keys {
        mirror_core::disk::read_keys(&KEY).unwrap()
    }

    #[test]
    fn what_cannot_be_read_again_is_an_error() {
        let path = path("again");
        let inbox = Inbox::new().unwrap();
        let file = KeyFile::new(&path, keys().cluster());
        assert_eq!(file.read_again(&inbox).unwrap_err().code(), "LS5004");
        fs::write(&path, [8; 32]).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(file.read_again(&inbox).unwrap_err().code(), "LS3012");
        fs::write(&path, KEY).unwrap();
        while file.read_again(&inbox).is_ok() {}
        assert_eq!(file.read_again(&inbox).unwrap_err().code(), "LS3022");
        fs::remove_file(path).unwrap();
    }

    /// Who reads has the turn: it is at a pipe here, and waits.
    #[test]
    fn nobody_reads_before_what_was_read_is_handed_over() {
        let path = path("turn");
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        let inbox = Arc::new(Inbox::new().unwrap());
        let file = KeyFile::new(&path, keys().cluster());
        let reads = {
            let (file, inbox) = (file.clone(), Arc::clone(&inbox));
            thread::spawn(move || file.read_again(&inbox))
        };
        let mut pipe = fs::File::options().write(true).open(&path).unwrap();
        assert!(matches!(
            file.turn.try_lock(),
            Err(TryLockError::WouldBlock)
        ));
        pipe.write_all(&KEY).unwrap();
        drop(pipe);
        reads.join().unwrap().unwrap();
        assert!(file.turn.try_lock().is_ok());
        fs::remove_file(path).unwrap();
    }
}

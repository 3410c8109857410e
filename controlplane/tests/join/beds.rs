//! Directories instead of machines, and an invitation on loopback.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use controlplane::join::{
    Doorplate, Existing, Guest, Home, Invitation, JoinError, Joined, Joining, Places, Progress,
    Secret, Token, invite, join,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub(crate) const LONG: Duration = Duration::from_secs(60);
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
/// A closed door says so for as long as a test may need, not longer.
pub(crate) const CLOSED_TIME: Duration = Duration::from_secs(2);
pub(crate) const STRANGERS_INTERVAL: Duration = Duration::from_millis(300);
pub(crate) const WITNESS: &str = "witness";
pub(crate) const NODE: &str = "node2";

pub(crate) const CONFIG: &str = r#"version = 1
[nodes.node1]
interconnects = ["127.0.0.1:7421"]
[nodes.node2]
interconnects = ["127.0.0.2:7421"]
[witness]
address = "127.0.0.1:7422"
[groups.pg]
volumes = ["data"]
"#;

/// What is in a directory: content, mode and inode of each file.
pub(crate) type Files = BTreeMap<PathBuf, (Vec<u8>, u32, u64)>;

/// `node1`, `node2` and `witness`, each a directory.
pub(crate) struct Bed {
    directory: tempfile::TempDir,
}

impl Bed {
    /// The first node is set up.
    pub(crate) fn new() -> Self {
        let bed = Self::bare();
        Home::init(&bed.places("node1"), "node1").expect("set up");
        bed
    }

    /// Only the configuration is there.
    pub(crate) fn bare() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let bed = Self { directory };
        let config = bed.places("node1").config;
        fs::create_dir_all(config.parent().expect("a directory")).expect("made");
        fs::write(config, CONFIG).expect("written");
        bed
    }

    pub(crate) fn path(&self, machine: &str) -> PathBuf {
        self.directory.path().join(machine)
    }

    pub(crate) fn places(&self, machine: &str) -> Places {
        Places::in_directory(&self.path(machine))
    }

    pub(crate) fn files(&self, machine: &str) -> Files {
        let mut files = Files::new();
        walk(&self.path(machine), &mut files);
        files
    }

    pub(crate) fn home(&self) -> Home {
        Home::open(&self.places("node1"), "node1").expect("set up")
    }

    /// Invites who has not joined.
    pub(crate) async fn invites(&self, time: Duration) -> Door {
        let home = self.home();
        let guests = home.missing();
        Door::open(home, guests, time, Existing::Stays).await
    }

    pub(crate) async fn invites_only(&self, names: &[&str], time: Duration) -> Door {
        let home = self.home();
        let guests = names.iter().map(|name| home.guest(name).expect("a guest"));
        let guests = guests.collect();
        Door::open(home, guests, time, Existing::Stays).await
    }

    pub(crate) fn joining(&self, machine: &str, address: &str, token: Token) -> Joining {
        Joining {
            address: address.to_string(),
            token,
            node: (machine != WITNESS).then(|| machine.to_string()),
            host: machine.to_string(),
            places: self.places(machine),
            witness: self.path("witness"),
            existing: Existing::Stays,
        }
    }

    pub(crate) async fn join_at(
        &self,
        machine: &str,
        address: &str,
        token: Token,
    ) -> Result<Joined, JoinError> {
        let joining = self.joining(machine, address, token);
        let joined = timeout(LIMIT, join(&joining, |_| {})).await;
        joined.expect("it comes to an end")
    }

    pub(crate) async fn joins(
        &self,
        machine: &str,
        door: &Door,
        token: Token,
    ) -> Result<Joined, JoinError> {
        self.join_at(machine, &door.address, token).await
    }
}

fn walk(directory: &Path, files: &mut Files) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries {
        let path = entry.expect("an entry").path();
        let meta = fs::metadata(&path).expect("it is there");
        if meta.is_dir() {
            walk(&path, files);
        } else {
            let content = fs::read(&path).expect("read");
            files.insert(path, (content, meta.mode() & 0o7777, meta.ino()));
        }
    }
}

/// An invitation that is open.
pub(crate) struct Door {
    pub(crate) address: String,
    pub(crate) task: JoinHandle<Result<(), JoinError>>,
    progress: mpsc::UnboundedReceiver<Progress>,
    /// Tokens that were shown and not asked for yet.
    tokens: BTreeMap<String, Token>,
}

impl Door {
    pub(crate) async fn open(
        home: Home,
        guests: Vec<Guest>,
        time: Duration,
        existing: Existing,
    ) -> Door {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let (sender, progress) = mpsc::unbounded_channel();
        let invitation = Invitation {
            guests,
            time,
            closed_time: CLOSED_TIME,
            strangers_interval: STRANGERS_INTERVAL,
            existing,
            doorplate: Doorplate::new().expect("a certificate"),
        };
        let tell = move |progress| drop(sender.send(progress));
        let task = tokio::spawn(invite(home, invitation, listener, tell));
        Door {
            address,
            task,
            progress,
            tokens: BTreeMap::new(),
        }
    }

    /// The next thing of this kind; tokens on the way are kept.
    pub(crate) async fn hears(&mut self, wanted: impl Fn(&Progress) -> bool) -> Progress {
        let next = async {
            loop {
                let progress = self.progress.recv().await.expect("it goes on");
                if let Progress::Token { guest, token } = &progress {
                    self.tokens.insert(guest.to_string(), token.clone());
                }
                if wanted(&progress) {
                    return progress;
                }
            }
        };
        timeout(LIMIT, next).await.expect("it was told in time")
    }

    /// The token that this guest shall use next.
    pub(crate) async fn token(&mut self, guest: &str) -> Token {
        if !self.tokens.contains_key(guest) {
            self.hears(|progress| matches!(progress, Progress::Token { guest: of, .. } if of.to_string() == guest))
                .await;
        }
        self.tokens.remove(guest).expect("it was told")
    }

    /// Why somebody was not let in.
    pub(crate) async fn turned(&mut self) -> String {
        let progress = self
            .hears(|progress| matches!(progress, Progress::Turned { .. }))
            .await;
        let Progress::Turned { why, .. } = progress else {
            panic!("{progress:?}")
        };
        format!("{} {}", why.code, why.message)
    }

    pub(crate) async fn ends(self) -> Result<(), JoinError> {
        let ended = timeout(LIMIT, self.task).await;
        ended.expect("it ends").expect("no panic")
    }
}

/// Known to nobody, for the right end.
pub(crate) fn wrong(token: &Token) -> Token {
    Token {
        secret: Secret([7; 16]),
        fingerprint: token.fingerprint,
    }
}

//! The witness: registers of many clusters behind mutual TLS, durable before any answer.

mod authority;
pub mod server;
pub mod store;

pub use authority::{Admission, Certified};

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use controlplane_api::arbiter::{Ask, AskLine, Hex16, Reply, ReplyLine};
use controlplane_core::register::Registers;
use mirror_core::types::{NodeId, NodeSet};

use crate::clerk;
use crate::trust::{Clusters, TrustError};
use store::{Found, Store, StoreError};

/// The registers are written again that often even if nothing changed: a disk that refuses them is told before it
/// matters.
const TOUCH_INTERVAL: Duration = Duration::from_secs(10);

/// A cluster's registers, and who speaks.
#[derive(Debug)]
struct Cluster {
    members: NodeSet,
    store: Store,
    registers: Registers,
    /// When the disk last took the registers; `None`: not in this run, or it refused them.
    saved: Option<Instant>,
    /// The newest connection of each node: older ones are not answered any more, so that a claim cannot arrive
    /// after a release that was sent later.
    newest: BTreeMap<NodeId, u64>,
}

/// What happens to a line.
#[derive(Debug, PartialEq, Eq)]
pub enum Handled {
    /// This is the answer.
    Answer(Box<ReplyLine>),
    /// The node has a newer connection: end this one.
    Outlived,
}

/// All clusters of a witness.
#[derive(Debug)]
pub struct Witness {
    directory: PathBuf,
    /// Who may speak for which cluster.
    pub trusted: Arc<Clusters>,
    open: Mutex<BTreeMap<Hex16, Arc<Mutex<Cluster>>>>,
    /// One question about trust at a time, of each cluster.
    turns: Mutex<BTreeMap<Hex16, Arc<Mutex<()>>>>,
}

impl Witness {
    /// Of a directory with `CLUSTER.cluster` files. A cluster whose registers are damaged is not served, and
    /// neither are the others hurt by it.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let witness = Self {
            directory: directory.to_path_buf(),
            trusted: Arc::new(Clusters::default()),
            open: Mutex::new(BTreeMap::new()),
            turns: Mutex::new(BTreeMap::new()),
        };
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "cluster")
                && let Err(error) = witness.admit_file(&path)
            {
                tracing::warn!(path = %path.display(), error = %error, "this cluster is not served");
            }
        }
        Ok(witness)
    }

    fn admit_file(&self, path: &Path) -> anyhow::Result<()> {
        let name = path.file_stem().and_then(|stem| stem.to_str());
        let cluster: Hex16 = name
            .unwrap_or_default()
            .parse()
            .map_err(anyhow::Error::msg)?;
        let admission: Admission = serde_json::from_str(&fs::read_to_string(path)?)?;
        anyhow::ensure!(admission.version == 1, "version {}", admission.version);
        self.admit(cluster, &admission)?;
        Ok(())
    }

    /// Serves a cluster from now on.
    ///
    /// # Errors
    /// [`AdmitError`].
    pub fn admit(&self, cluster: Hex16, admission: &Admission) -> Result<Found, AdmitError> {
        let holding = admission.holding()?;
        // First of all: without that nobody may ask for the registers.
        holding.standing()?;
        let members = NodeSet::from_bits(admission.members);
        let store = Store::new(&self.directory, cluster);
        let (registers, found) = store.load(members)?;
        match found {
            Found::Latest => tracing::info!(%cluster, "served"),
            Found::Nothing => tracing::info!(%cluster, "served; its nodes have to report first"),
            Found::Restored => tracing::warn!(
                code = "LS6003", %cluster,
                "the registers were put back from a copy: its nodes have to report first"
            ),
        }
        let place = Cluster {
            members,
            store,
            registers,
            saved: None,
            newest: BTreeMap::new(),
        };
        lock(&self.open).insert(cluster, Arc::new(Mutex::new(place)));
        authority::count(&self.trusted, cluster, &holding)?;
        Ok(found)
    }

    /// A line of a node, by its `connection`, numbered as they were accepted. Blocks until the disk has what the
    /// answer rests on.
    pub fn handle(&self, cluster: Hex16, node: NodeId, connection: u64, line: &str) -> Handled {
        let place = lock(&self.open).get(&cluster).cloned();
        let Some(place) = place else {
            return Handled::Outlived;
        };
        // It touches no register, and comes beside the connection that does, which does not wait for it.
        if let Ok(AskLine {
            number,
            ask: Ask::Trust { trust },
            ..
        }) = serde_json::from_str(line)
        {
            let turn = lock(&self.turns).entry(cluster).or_default().clone();
            let held = lock(&turn);
            let trust = self.trust(cluster, &trust);
            drop(held);
            return answer(number, Reply::Trusted { trust });
        }
        let mut place = lock(&place);
        let newest = place.newest.entry(node).or_insert(connection);
        if *newest > connection {
            return Handled::Outlived;
        }
        *newest = connection;
        let asked: AskLine = match serde_json::from_str(line) {
            Ok(asked) => asked,
            Err(error) => return answer(0, clerk::failed(format!("not understood: {error}"))),
        };
        let reply = place.carry_out(node, asked.ask);
        answer(asked.number, reply)
    }
}

fn answer(number: u64, reply: Reply) -> Handled {
    Handled::Answer(Box::new(ReplyLine::new(number, reply)))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What is behind is replaced as a whole: a panic of another thread leaves it as it was.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cluster {
    fn carry_out(&mut self, node: NodeId, ask: Ask) -> Reply {
        let mut next = self.registers.clone();
        // Who relies on this witness has to hear in time that it cannot keep what it would grant.
        let due = matches!(ask, Ask::Report { .. })
            && self.saved.is_none_or(|at| at.elapsed() >= TOUCH_INTERVAL);
        let reply = clerk::carry_out(&mut next, node, ask);
        if due || next.durable() != self.registers.durable() {
            if let Err(error) = self.store.save(self.members, &next) {
                tracing::error!(code = "LS6002", %error, "cannot make registers durable");
                self.saved = None;
                return clerk::failed(error.to_string());
            }
            self.saved = Some(Instant::now());
        }
        self.registers = next;
        reply
    }
}

/// Why a cluster is not served.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// Its registers.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its authority.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

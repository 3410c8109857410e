//! What a node trusts and shows, in files and in force: [`Credentials`]; and the authority, where its key is: [`Source`].
//!
//! Each file is replaced whole, and files that belong together never disagree: a new key comes into `node.key` beside the present one
//! before a certificate for it does, and whichever belongs to `node.pem` counts. So where a node stands is read from them, also after a
//! crash between two of them. All of it blocks: files are flushed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use controlplane_api::arbiter::Hex16;
use controlplane_api::trust::{MemberTrust, TrustAnswer, TrustAsk};
use controlplane_core::authority::Standing;
use mirror_core::admin::Problem;
use mirror_core::types::NodeId;
use rustls::{ClientConfig, ServerConfig};

use crate::durable::{replace, sync};
use crate::trust::{
    Identity, Lasting, Named, OwnKey, Subject, TrustError, belongs, both_ways, certificates,
    check_own, ends_at, key_of, keys, witness_client_config,
};

mod holding;
mod source;
pub(crate) mod told;

pub use holding::{Holding, Whose, hex, stage, standing_of};
pub use source::{Source, certificate};

/// Keys are root's alone.
pub(crate) const KEY_MODE: u32 = 0o600;
const CERTIFICATE_MODE: u32 = 0o644;

/// What connections go by that begin now.
pub struct Live {
    /// Where the node stands.
    pub standing: Standing,
    /// The end that is called.
    pub server: Arc<ServerConfig>,
    /// The end that calls the other node.
    pub client: Arc<ClientConfig>,
    /// The end that calls the witness.
    pub witness: Arc<ClientConfig>,
    holding: Holding,
}

/// What a node trusts and shows.
pub struct Credentials {
    directory: PathBuf,
    name: String,
    whose: Whose,
    me: NodeId,
    /// The other node.
    pub peer: NodeId,
    live: RwLock<Result<Arc<Live>, String>>,
    /// One change at a time.
    turn: Mutex<()>,
    /// What the status says of it.
    note: Mutex<Option<Problem>>,
    /// Replaces a file: [`replace`].
    replace: fn(&Path, &[u8], u32) -> io::Result<()>,
}

impl Credentials {
    /// From the files that `lockstep cluster` makes: `node.pem`, `node.key`, `authority.pem`, `witness.pem`. What is wrong with
    /// them is told when they are needed, and looked at again.
    pub fn open(
        directory: &Path,
        name: &str,
        cluster: Hex16,
        (me, peer): (NodeId, NodeId),
    ) -> Self {
        let who = Named::Node(me);
        let credentials = Self {
            directory: directory.to_path_buf(),
            name: name.to_string(),
            whose: Whose { cluster, who },
            me,
            peer,
            live: RwLock::new(Err("they were not read yet".to_string())),
            turn: Mutex::new(()),
            note: Mutex::new(None),
            replace,
        };
        let _ = credentials.look();
        credentials
    }

    /// The cluster.
    pub fn cluster(&self) -> Hex16 {
        self.whose.cluster
    }

    /// What connections go by that begin now.
    ///
    /// # Errors
    /// Why there is nothing.
    pub fn live(&self) -> Result<Arc<Live>, String> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        live.clone()
    }

    /// For whom a member's certificate is made.
    ///
    /// # Errors
    /// LS6181: which witness the cluster has is not known here.
    pub fn subject(&self, who: Named) -> Result<Subject, Problem> {
        let Named::Node(node) = who else {
            let live = self.live().map_err(|why| self.unusable(&why))?;
            let known = live.holding.witness.as_deref();
            let path = self.path("witness.pem");
            let known = known.ok_or_else(|| self.unusable(&told::missing(&path)))?;
            let lasting = Lasting::of(known, self.whose.cluster);
            return Ok(Subject::Witness(
                lasting.map_err(|why| self.unusable(&why))?,
            ));
        };
        Ok(Subject::Node(node))
    }

    /// What an operator should know.
    pub fn note(&self) -> Option<Problem> {
        let note = self.note.lock().unwrap_or_else(PoisonError::into_inner);
        note.clone()
    }

    /// What is on the disk is made durable, and counts from now on.
    ///
    /// # Errors
    /// LS6181. What counted before does so still.
    pub fn look(&self) -> Result<Arc<Live>, Problem> {
        let turn = self.turn();
        let looked = self.adopt();
        drop(turn);
        // That there is nothing to tell, the keeper of trust says alone: it knows who is away.
        if let Err(problem) = &looked {
            self.tell(Some(problem));
        }
        looked
    }

    /// Does what it is asked, and says how it stands then. It stands there as soon as its connections go by what is durable.
    pub fn ask(&self, ask: &TrustAsk) -> TrustAnswer {
        let turn = self.turn();
        let answered = self.carry_out(ask);
        drop(turn);
        let (mut answer, problem) = match answered {
            Ok(answer) => (answer, None),
            Err(problem) => (self.present(), Some(problem)),
        };
        self.tell(problem.as_ref());
        answer.problem = problem;
        answer
    }

    /// The same for people.
    pub fn line(&self) -> MemberTrust {
        let live = self.look();
        match live {
            Ok(live) => MemberTrust {
                member: self.name.clone(),
                leads: false,
                authority: Some(Hex16(live.standing.shown().0)),
                stage: Some(stage(live.standing)),
                certificate_ends: live.certificate_ends(),
                authority_ends: live.authority_ends(),
                problem: self.note(),
            },
            Err(problem) => MemberTrust {
                member: self.name.clone(),
                leads: false,
                authority: None,
                stage: None,
                certificate_ends: None,
                authority_ends: None,
                problem: Some(problem),
            },
        }
    }

    /// What the status says; `stuck`: why it does not get on.
    pub fn tell(&self, stuck: Option<&Problem>) {
        let said = match (stuck, self.live()) {
            (Some(problem), _) => Some(problem.clone()),
            (None, Ok(live)) => live.note(&self.name),
            (None, Err(_)) => None,
        };
        let mut note = self.note.lock().unwrap_or_else(PoisonError::into_inner);
        if said != *note
            && let Some(problem) = &said
        {
            tracing::warn!(code = problem.code, "{}", problem.message);
        }
        *note = said;
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn present(&self) -> TrustAnswer {
        let live = self.live().ok();
        let answer = live.and_then(|live| live.holding.answer().ok());
        answer.unwrap_or_default()
    }

    fn carry_out(&self, ask: &TrustAsk) -> Result<TrustAnswer, Problem> {
        let live = self.adopt()?;
        let Some(next) = live.holding.after(self.whose, ask)? else {
            return live.holding.answer().map_err(|why| self.unusable(&why));
        };
        // What cannot be used is not written: a start would end at it.
        self.make(next.clone()).map_err(told::refused)?;
        self.write(&live.holding, &next)
            .map_err(|why| self.unusable(&why))?;
        let now = self.adopt()?;
        self.log(live.standing, now.standing, ask);
        now.holding.answer().map_err(|why| self.unusable(&why))
    }

    fn unusable(&self, why: &impl std::fmt::Display) -> Problem {
        told::files(&self.name, why)
    }

    fn log(&self, before: Standing, now: Standing, ask: &TrustAsk) {
        let node = &self.name;
        match now {
            _ if before == now => {
                if matches!(ask, TrustAsk::Show { .. }) {
                    tracing::info!(code = "LS6186", %node, "another certificate is shown, with another key");
                }
            }
            Standing::Trusts { .. } => {
                tracing::info!(code = "LS6176", %node, "the next authority of the cluster is trusted as well");
            }
            Standing::Shows { .. } => {
                tracing::info!(code = "LS6176", %node, "a certificate of the next authority is shown");
            }
            Standing::Settled(_) => {
                tracing::info!(code = "LS6176", %node, "the last authority of the cluster is trusted no more");
            }
        }
    }

    /// What is there is made durable first: an earlier run may have ended before it was.
    fn adopt(&self) -> Result<Arc<Live>, Problem> {
        let mut is_over = false;
        let adopted = self.read().and_then(|(holding, over)| {
            is_over = over;
            if let Ok(live) = self.live()
                && live.holding == holding
            {
                return Ok(live);
            }
            self.make(holding).map(Arc::new)
        });
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        match adopted {
            Ok(now) => {
                *live = Ok(Arc::clone(&now));
                drop(live);
                if is_over {
                    self.put("node.key", &secrets(&now.holding), KEY_MODE)
                        .map_err(|why| self.unusable(&why))?;
                }
                Ok(now)
            }
            Err(why) => {
                if live.is_err() {
                    *live = Err(why.to_string());
                }
                Err(self.unusable(&why))
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// And whether there is a key beside that was replaced: a crash came before it was taken away. It comes before the one of
    /// `node.pem`, one that is ready comes after it.
    fn read(&self) -> Result<(Holding, bool), TrustError> {
        let text = |name: &str| {
            let path = self.path(name);
            let read = fs::read_to_string(&path).and_then(|text| sync(&path).map(|()| text));
            read.map_err(|source| {
                let what = format!("cannot read {}", path.display());
                TrustError::File { what, source }
            })
        };
        let witness = match self.path("witness.pem").exists() {
            true => Some(text("witness.pem")?),
            false => None,
        };
        let certificate = text("node.pem")?;
        let trusted = certificates(&text("authority.pem")?)?;
        let path = self.path("node.key");
        let secrets = crate::key::read_text(&path)?;
        sync(&path).map_err(|source| TrustError::File {
            what: format!("cannot make {} durable", path.display()),
            source,
        })?;
        let key = key_of(&certificate, &secrets)?;
        let (mut ready, mut is_over, mut is_after) = (None, false, false);
        for other in keys(&secrets) {
            if belongs(&certificate, &OwnKey::open(&other)?)? {
                is_after = true;
            } else if is_after {
                ready = Some(other);
            } else {
                is_over = true;
            }
        }
        let shown = Some(Identity { certificate, key });
        let holding = Holding {
            trusted,
            shown,
            ready,
            witness,
        };
        // A key of nothing is told when it is used.
        Ok((holding, is_over && is_after))
    }

    fn make(&self, holding: Holding) -> Result<Live, TrustError> {
        let Some(shown) = &holding.shown else {
            return Err(TrustError::Content {
                what: "a node's certificate",
                why: told::missing(&self.path("node.pem")),
            });
        };
        check_own(shown, (self.whose.cluster, self.me))?;
        let standing = holding.standing()?;
        let authorities = holding.authorities();
        let (server, client) = both_ways(shown, &authorities)?;
        let known = (self.whose.cluster, holding.witness.as_deref());
        let witness = witness_client_config(shown, &authorities, known)?;
        Ok(Live {
            standing,
            server: Arc::new(server),
            client: Arc::new(client),
            witness: Arc::new(witness),
            holding,
        })
    }

    /// In an order in which every crash leaves what can be used: what is needed comes before what needs it, and goes after it.
    fn write(&self, before: &Holding, next: &Holding) -> io::Result<()> {
        if let Some(witness) = &next.witness
            && before.witness != next.witness
        {
            self.put("witness.pem", witness, CERTIFICATE_MODE)?;
        }
        if next.ready.is_some() && before.ready != next.ready {
            self.put("node.key", &secrets(next), KEY_MODE)?;
        }
        if before.trusted != next.trusted {
            self.put("authority.pem", &next.authorities(), CERTIFICATE_MODE)?;
        }
        if let Some(shown) = &next.shown
            && before.shown != next.shown
        {
            self.put("node.pem", &shown.certificate, CERTIFICATE_MODE)?;
        }
        if next.ready.is_none() && before.ready.is_some() {
            self.put("node.key", &secrets(next), KEY_MODE)?;
        }
        Ok(())
    }

    fn put(&self, name: &str, text: &str, mode: u32) -> io::Result<()> {
        let path = self.path(name);
        (self.replace)(&path, text.as_bytes(), mode)
            .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))
    }
}

/// As they are in `node.key`, in this order.
fn secrets(holding: &Holding) -> String {
    let shown = holding.shown.as_ref().map(|shown| shown.key.clone());
    Vec::from_iter(shown.into_iter().chain(holding.ready.clone())).concat()
}

impl Live {
    fn certificate_ends(&self) -> Option<i64> {
        let shown = self.holding.shown.as_ref()?;
        ends_at(&shown.certificate).ok()
    }

    /// Of the one that comes to stay.
    fn authority_ends(&self) -> Option<i64> {
        ends_at(self.holding.trusted.last()?).ok()
    }

    fn note(&self, name: &str) -> Option<Problem> {
        let stage = match self.standing {
            Standing::Settled(_) => {
                let own = self.certificate_ends();
                let own = own.and_then(|ends| told::ends(name, false, ends));
                let authority = self.authority_ends();
                return own.or_else(|| authority.and_then(|ends| told::ends(name, true, ends)));
            }
            Standing::Trusts { .. } => "the next one is trusted as well",
            Standing::Shows { .. } => "certificates of the next one are shown",
        };
        Some(told::under_way(stage))
    }
}

#[cfg(test)]
mod tests;

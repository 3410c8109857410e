//! The node that has the cluster's authority: what it makes, and whom it can invite.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use controlplane_api::arbiter::Hex16;
use mirror_core::types::{NodeId, NodeSet};

use super::error::JoinError;
use super::files::{
    Draft, Existing, Note, check, failed, install, make_directory, random, read_text, sync,
};
use super::keys;
use super::token::Fingerprint;
use crate::config::{Config, RegisterKeeper};
use crate::trust::{
    Authority, Identity, OwnKey, Signers, TrustError, check_certificate, check_node, check_own,
    check_witness, read_identity, signed_by,
};

const KEY_BYTES: usize = 32;
/// Only root looks into it.
const AUTHORITY_DIRECTORY_MODE: u32 = 0o700;
/// Names the witness where a node could be named.
const WITNESS: &str = "witness";

/// Where things are on a node.
#[derive(Clone, Debug)]
pub struct Places {
    /// `cluster.toml`.
    pub config: PathBuf,
    /// `cluster.key`.
    pub key: PathBuf,
    /// `node.pem`, `node.key`, `authority.pem`, `witness.pem`.
    pub trust: PathBuf,
    /// On the inviting node alone: the authority, and whom it certified.
    pub authority: PathBuf,
    /// The volumes, a file each: they rest on the key.
    pub volumes: PathBuf,
}

impl Places {
    /// All of them in one directory, `/etc/lockstep` say.
    pub fn in_directory(directory: &Path) -> Self {
        Self {
            config: directory.join("cluster.toml"),
            key: directory.join("cluster.key"),
            trust: directory.join("trust"),
            authority: directory.join("authority"),
            volumes: directory.join("volumes"),
        }
    }

    pub(super) fn trusted(&self, name: &str) -> PathBuf {
        self.trust.join(name)
    }
}

/// Who can be invited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guest {
    /// The witness.
    Witness,
    /// The other node.
    Node {
        /// Its name in `cluster.toml`.
        name: String,
        /// Its number there.
        number: NodeId,
    },
}

impl fmt::Display for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Witness => f.write_str(WITNESS),
            Self::Node { name, .. } => f.write_str(name),
        }
    }
}

/// A node that can invite.
pub struct Home {
    /// Where things are.
    pub places: Places,
    /// As it was read.
    pub config: Config,
    /// The cluster's id.
    pub cluster: Hex16,
    /// Whom this node trusts: while the authority is changed the last and the next one.
    trusted: String,
    /// The text of `cluster.toml`.
    pub(super) config_text: String,
    /// The content of `cluster.key`.
    pub(super) key: Vec<u8>,
}

impl fmt::Debug for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Home of {}", self.cluster)
    }
}

impl Home {
    /// Makes what is missing: the cluster's key, its authority, this node's certificate. What is there stays.
    /// `node` is this node's name.
    ///
    /// # Errors
    /// [`JoinError`]: the configuration, or what is there does not fit together; then nothing is made. Or a disk that
    /// refuses in the middle: then some files are there, each whole.
    pub fn init(places: &Places, node: &str) -> Result<(Self, Vec<Note>), JoinError> {
        let config = Config::read(&places.config, node)?;
        refuse_remains(places)?;
        // Everything is made and looked at in memory first.
        let (key, is_new) = if places.key.exists() {
            (crate::key::read_secret(&places.key)?, false)
        } else {
            (new_key()?.into_bytes(), true)
        };
        let cluster = Hex16(crate::key::of_bytes(&places.key, &key)?.cluster().0);
        let (authority, made) = if places.authority.join("authority.key").exists() {
            (open_authority(places, cluster, config.me)?, None)
        } else {
            let (authority, made) = Authority::create(cluster)?;
            let trusted = authority.certificate().to_string();
            ((authority, trusted), Some(made))
        };
        let drafts = certify_this(places, &authority, (cluster, config.me))?;
        check(&drafts, Existing::Stays).map_err(in_the_way)?;
        let home = Self::with(places, config, authority.1, (cluster, key))?;
        let mut notes = if is_new {
            let draft = Draft::secret(places.key.clone(), home.key.as_slice());
            install(&[draft], Existing::Stays)?
        } else {
            vec![Note::kept(places.key.clone())]
        };
        notes.push(match made {
            Some(made) => keep_authority(places, made)?,
            None => Note::kept(places.authority.clone()),
        });
        notes.extend(install(&drafts, Existing::Stays)?);
        Ok((home, notes))
    }

    /// What [`Home::init`] made earlier.
    ///
    /// # Errors
    /// [`JoinError`], [`JoinError::NoAuthority`] where it was not run.
    pub fn open(places: &Places, node: &str) -> Result<Self, JoinError> {
        let config = Config::read(&places.config, node)?;
        if !places.authority.exists() {
            let path = places.authority.clone();
            return Err(JoinError::NoAuthority { path });
        }
        let key = crate::key::read_secret(&places.key)?;
        let cluster = Hex16(crate::key::of_bytes(&places.key, &key)?.cluster().0);
        let authority = open_authority(places, cluster, config.me)?;
        let path = places.trusted("node.pem");
        let Standing::Whole(identity) = standing(places)? else {
            let why = "this node has no certificate: `lockstep cluster init` makes it".to_string();
            return Err(JoinError::Unfit { path, why });
        };
        fits(&path, &identity, &authority.1, (cluster, config.me))?;
        Self::with(places, config, authority.1, (cluster, key))
    }

    fn with(
        places: &Places,
        config: Config,
        trusted: String,
        (cluster, key): (Hex16, Vec<u8>),
    ) -> Result<Self, JoinError> {
        // What is handed over is what was checked.
        let config_text = read_text(&places.config)?.unwrap_or_default();
        Config::parse(&places.config, &config_text, &config.name)?;
        Ok(Self {
            places: places.clone(),
            config,
            cluster,
            trusted,
            config_text,
            key,
        })
    }

    /// Names the cluster's authority.
    ///
    /// # Errors
    /// [`TrustError`] if it is none.
    pub fn fingerprint(&self) -> Result<Fingerprint, TrustError> {
        fingerprint_of(&self.trusted)
    }

    /// Who signs now, and whom the members trust now: that may have changed since the door was opened.
    pub(super) fn authority_now(&self) -> Result<(Authority, String), JoinError> {
        open_authority(&self.places, self.cluster, self.config.me)
    }

    /// Everybody who could be invited: the witness first, so that the node gets its certificate too.
    pub fn guests(&self) -> Vec<Guest> {
        let witness = matches!(self.config.keeper, Some(RegisterKeeper::Witness(_)));
        let node = Guest::Node {
            name: self.config.peer_name.clone(),
            number: self.config.peer,
        };
        witness
            .then_some(Guest::Witness)
            .into_iter()
            .chain([node])
            .collect()
    }

    /// Those who have not joined yet.
    pub fn missing(&self) -> Vec<Guest> {
        let mut guests = self.guests();
        guests.retain(|guest| !self.record(guest).exists());
        guests
    }

    /// The guest of this name.
    ///
    /// # Errors
    /// [`JoinError::NoSuchGuest`].
    pub fn guest(&self, name: &str) -> Result<Guest, JoinError> {
        let guests = self.guests();
        let found = guests.iter().find(|guest| guest.to_string() == name);
        found.cloned().ok_or_else(|| JoinError::NoSuchGuest {
            name: name.to_string(),
            known: guests.iter().map(Guest::to_string).collect(),
        })
    }

    /// The file that is there as soon as the guest has joined.
    fn record(&self, guest: &Guest) -> PathBuf {
        match guest {
            Guest::Witness => self.places.trusted("witness.pem"),
            Guest::Node { number, .. } => {
                let name = format!("n{}.pem", number.number());
                self.places.authority.join(name)
            }
        }
    }

    pub(super) fn record_draft(&self, guest: &Guest, certificate: &str) -> Draft {
        Draft::open(self.record(guest), certificate)
    }

    /// The witness's certificate, if it has joined.
    pub(super) fn witness(&self) -> Result<Option<String>, JoinError> {
        let path = self.places.trusted("witness.pem");
        let Some(text) = read_text(&path)? else {
            return Ok(None);
        };
        check_witness(&text).map_err(unfit(&path))?;
        Ok(Some(text))
    }

    /// What is in the key file now: its secret may have been rotated since the door was opened.
    pub(super) fn key_now(&self) -> Result<Vec<u8>, JoinError> {
        let path = &self.places.key;
        let bytes = crate::key::read_secret(path)?;
        if Hex16(crate::key::of_bytes(path, &bytes)?.cluster().0) == self.cluster {
            return Ok(bytes);
        }
        let (path, why) = (path.clone(), "it is another cluster's by now".to_string());
        Err(JoinError::Unfit { path, why })
    }

    /// All nodes of the cluster, one bit each.
    pub(super) fn members(&self) -> u8 {
        NodeSet::only(self.config.me).with(self.config.peer).bits()
    }
}

pub(super) fn unfit(path: &Path) -> impl Fn(TrustError) -> JoinError {
    move |error| JoinError::Unfit {
        path: path.to_path_buf(),
        why: error.to_string(),
    }
}

/// Names a certificate that is text.
pub(super) fn fingerprint_of(certificate: &str) -> Result<Fingerprint, TrustError> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes());
    let certificate = certificate.map_err(|error| TrustError::Content {
        what: "a certificate",
        why: error.to_string(),
    })?;
    Ok(Fingerprint::of(&certificate))
}

/// `init` replaces nothing, and has no word that would.
fn in_the_way(error: JoinError) -> JoinError {
    if let JoinError::Occupied { path } = error {
        return JoinError::InTheWay { path };
    }
    error
}

fn new_key() -> Result<String, JoinError> {
    let bytes: [u8; KEY_BYTES] = random()?;
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{digits}\n"))
}

/// A key or an authority that is gone must not be made anew beside what rests on it.
fn refuse_remains(places: &Places) -> Result<(), JoinError> {
    let remains = |path: PathBuf, why: String| Err(JoinError::Unfit { path, why });
    let authority = places.authority.join("authority.key");
    let certificate = places.trusted("node.pem");
    if !places.key.exists()
        && let [volume, ..] = keys::volumes(places)?.as_slice()
    {
        let why = format!(
            "the key of this volume's cluster is missing, and a new one would not open its copies: put {} back; \
             or move this file away if the volume is not needed any more",
            places.key.display()
        );
        return remains(places.volumes.join(format!("{volume}.toml")), why);
    }
    if is_filled(&places.authority)? && !authority.exists() {
        let why = format!(
            "it is missing from {}, which is there: put it back, or invite where it is",
            places.authority.display()
        );
        return remains(authority, why);
    }
    if authority.exists() && !places.key.exists() {
        let why = format!(
            "it is of the cluster whose key is missing: put {} back",
            places.key.display()
        );
        return remains(authority, why);
    }
    if certificate.exists() && !authority.exists() {
        let why = format!(
            "the authority that signed it is not here: put {} back, or invite where it is",
            authority.display()
        );
        return remains(certificate, why);
    }
    Ok(())
}

/// A directory with something in it.
fn is_filled(path: &Path) -> Result<bool, JoinError> {
    match fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("read", path)(error)),
    }
}

/// The directory appears with both files, or not at all.
fn keep_authority(places: &Places, made: Identity) -> Result<Note, JoinError> {
    let path = places.authority.clone();
    let new = path.with_extension("joining");
    if new.exists() {
        // Of an `init` that did not get to its end: nobody ever saw it.
        fs::remove_dir_all(&new).map_err(failed("remove", &new))?;
    }
    make_directory(&new, AUTHORITY_DIRECTORY_MODE)?;
    let drafts = [
        Draft::secret(new.join("authority.key"), made.key),
        Draft::open(new.join("authority.pem"), made.certificate),
    ];
    install(&drafts, Existing::Stays)?;
    fs::rename(&new, &path)
        .and_then(|()| sync(&path))
        .map_err(failed("make", &path))?;
    Ok(Note::made(path))
}

/// Who signs, and all that is trusted. While the authority is changed, the one that signed what this node shows.
fn open_authority(
    places: &Places,
    cluster: Hex16,
    me: NodeId,
) -> Result<(Authority, String), JoinError> {
    let path = places.authority.join("authority.pem");
    let signers = Signers::read(&places.authority, cluster).map_err(unfit(&path))?;
    let Some(signers) = signers else {
        let path = places.authority.join("authority.key");
        let why = "it is missing: put it back, or invite where it is".to_string();
        return Err(JoinError::Unfit { path, why });
    };
    let mut all = signers.into_all();
    let own = read_text(&places.trusted("node.pem"))?;
    let signed = |authority: &Authority| match &own {
        Some(own) => signed_by(own, authority.certificate()).unwrap_or(false),
        None => true,
    };
    let at = all.iter().position(signed).unwrap_or(0);
    if at < all.len() {
        let authority = all.swap_remove(at);
        // That its key, its certificate and the cluster's key belong together shows in what it signs.
        let probe = authority.issue(me)?;
        let named = check_certificate(&probe.certificate, authority.certificate());
        if named.is_ok_and(|named| named == (cluster, me)) {
            let trusted = read_text(&places.trusted("authority.pem"))?;
            let trusted = trusted.unwrap_or_else(|| authority.certificate().to_string());
            return Ok((authority, trusted));
        }
    }
    let why = format!(
        "this authority is not of the cluster of {} ({cluster}), or its key is another one",
        places.key.display()
    );
    Err(JoinError::Unfit { path, why })
}

/// This node's own key and certificate, as they shall be.
fn certify_this(
    places: &Places,
    (authority, trusted): &(Authority, String),
    this: (Hex16, NodeId),
) -> Result<[Draft; 3], JoinError> {
    let identity = match standing(places)? {
        Standing::Whole(identity) => {
            fits(&places.trusted("node.pem"), &identity, trusted, this)?;
            // A key that is ready for the next certificate stays beside it.
            Identity {
                key: crate::key::read_text(&places.trusted("node.key"))?,
                ..identity
            }
        }
        Standing::Key(key) => Identity {
            certificate: authority.sign(this.1, &key.request()?)?,
            key: key.pem(),
        },
        Standing::Nothing => authority.issue(this.1)?,
    };
    Ok(node_drafts(places, &identity, trusted))
}

/// Whether the certificate is this node's, as `cluster.toml` numbers it now.
fn fits(
    path: &Path,
    identity: &Identity,
    trusted: &str,
    this: (Hex16, NodeId),
) -> Result<(), JoinError> {
    check_node(identity, trusted)
        .and_then(|_| check_own(identity, this))
        .map_err(unfit(path))
}

/// In this order: the certificate says that all is there.
pub(super) fn node_drafts(places: &Places, identity: &Identity, authority: &str) -> [Draft; 3] {
    [
        Draft::open(places.trusted("authority.pem"), authority),
        Draft::secret(places.trusted("node.key"), identity.key.as_str()),
        Draft::open(places.trusted("node.pem"), identity.certificate.as_str()),
    ]
}

/// What a node has already.
pub(super) enum Standing {
    /// Neither key nor certificate.
    Nothing,
    /// A key; an earlier try did not get further.
    Key(Box<OwnKey>),
    /// Both.
    Whole(Identity),
}

pub(super) fn standing(places: &Places) -> Result<Standing, JoinError> {
    let (key, certificate) = (places.trusted("node.key"), places.trusted("node.pem"));
    match (key.exists(), certificate.exists()) {
        (false, false) => Ok(Standing::Nothing),
        (true, false) => {
            let text = crate::key::read_text(&key)?;
            let own = OwnKey::open(&text).map_err(unfit(&key))?;
            Ok(Standing::Key(Box::new(own)))
        }
        (true, true) => {
            let identity = read_identity(&places.trust, "node").map_err(unfit(&certificate))?;
            Ok(Standing::Whole(identity))
        }
        (false, true) => Err(JoinError::Unfit {
            why: format!("its key {} is missing", key.display()),
            path: certificate,
        }),
    }
}

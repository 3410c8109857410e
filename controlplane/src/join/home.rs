//! The node that has the cluster's authority: what it makes, and whom it can invite.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use controlplane_api::arbiter::Hex16;
use mirror_core::auth::cluster_id;
use mirror_core::types::{NodeId, NodeSet};

use super::error::JoinError;
use super::files::{
    Draft, Existing, Note, failed, install, make_directory, random, read_text, sync,
};
use super::token::Fingerprint;
use crate::config::{Config, RegisterKeeper};
use crate::trust::{
    Authority, Identity, OwnKey, TrustError, check_certificate, check_node, check_witness,
    read_identity,
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
}

impl Places {
    /// All of them in one directory, `/etc/lockstep` say.
    pub fn in_directory(directory: &Path) -> Self {
        Self {
            config: directory.join("cluster.toml"),
            key: directory.join("cluster.key"),
            trust: directory.join("trust"),
            authority: directory.join("authority"),
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
    pub(super) authority: Authority,
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
    /// [`JoinError`]: the configuration, or what is there does not fit together; then nothing is made.
    pub fn init(places: &Places, node: &str) -> Result<(Self, Vec<Note>), JoinError> {
        let config = Config::read(&places.config, node)?;
        refuse_remains(places)?;
        let key = Draft::secret(places.key.clone(), new_key()?);
        let mut notes = if places.key.exists() {
            let (path, written) = (key.path, false);
            vec![Note { path, written }]
        } else {
            install(&[key], Existing::Stays)?
        };
        let cluster = cluster_of(&places.key)?;
        notes.push(make_authority(places, cluster)?);
        let authority = open_authority(places, cluster, config.me)?;
        notes.extend(certify_this(places, &authority, (cluster, config.me))?);
        Ok((Self::with(places, config, cluster, authority)?, notes))
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
        let cluster = cluster_of(&places.key)?;
        let authority = open_authority(places, cluster, config.me)?;
        Self::with(places, config, cluster, authority)
    }

    fn with(
        places: &Places,
        config: Config,
        cluster: Hex16,
        authority: Authority,
    ) -> Result<Self, JoinError> {
        // What is handed over is what was checked.
        let config_text = read_text(&places.config)?.unwrap_or_default();
        Config::parse(&places.config, &config_text, &config.name)?;
        Ok(Self {
            places: places.clone(),
            config,
            cluster,
            authority,
            config_text,
            key: crate::key::read_secret(&places.key)?,
        })
    }

    /// Names the cluster's authority.
    ///
    /// # Errors
    /// [`TrustError`] if it is none.
    pub fn fingerprint(&self) -> Result<Fingerprint, TrustError> {
        fingerprint_of(self.authority.certificate())
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

fn cluster_of(key: &Path) -> Result<Hex16, JoinError> {
    Ok(Hex16(cluster_id(&crate::key::read(key)?).0))
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

/// The directory appears with both files, or not at all.
fn make_authority(places: &Places, cluster: Hex16) -> Result<Note, JoinError> {
    let path = places.authority.clone();
    if path.join("authority.key").exists() {
        let written = false;
        return Ok(Note { path, written });
    }
    let new = path.with_extension("joining");
    if new.exists() {
        // Of an `init` that did not get to its end: nobody ever saw it.
        fs::remove_dir_all(&new).map_err(failed("remove", &new))?;
    }
    make_directory(&new, AUTHORITY_DIRECTORY_MODE)?;
    let (_, made) = Authority::create(cluster)?;
    let drafts = [
        Draft::secret(new.join("authority.key"), made.key),
        Draft::open(new.join("authority.pem"), made.certificate),
    ];
    install(&drafts, Existing::Stays)?;
    fs::rename(&new, &path)
        .and_then(|()| sync(&path))
        .map_err(failed("make", &path))?;
    let written = true;
    Ok(Note { path, written })
}

fn open_authority(places: &Places, cluster: Hex16, me: NodeId) -> Result<Authority, JoinError> {
    let path = places.authority.join("authority.pem");
    let identity = read_identity(&places.authority, "authority").map_err(unfit(&path))?;
    let authority = Authority::open(cluster, &identity).map_err(unfit(&path))?;
    // That its key, its certificate and the cluster's key belong together shows in what it signs.
    let probe = authority.issue(me)?;
    let named = check_certificate(&probe.certificate, &identity.certificate);
    if named.is_ok_and(|named| named == (cluster, me)) {
        return Ok(authority);
    }
    let why = format!(
        "this authority is not of the cluster of {} ({cluster}), or its key is another one",
        places.key.display()
    );
    Err(JoinError::Unfit { path, why })
}

/// This node's own key and certificate.
fn certify_this(
    places: &Places,
    authority: &Authority,
    this: (Hex16, NodeId),
) -> Result<Vec<Note>, JoinError> {
    let identity = match standing(places)? {
        Standing::Whole(identity) => {
            let path = places.trusted("node.pem");
            let named = check_node(&identity, authority.certificate()).map_err(unfit(&path))?;
            if named != this {
                let why = format!("it names node {} of {}", named.1.number(), named.0);
                return Err(JoinError::Unfit { path, why });
            }
            identity
        }
        Standing::Key(key) => Identity {
            certificate: authority.sign(this.1, &key.request()?)?,
            key: key.pem(),
        },
        Standing::Nothing => authority.issue(this.1)?,
    };
    let drafts = node_drafts(places, &identity, authority.certificate());
    install(&drafts, Existing::Stays)
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

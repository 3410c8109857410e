//! The joining end: whom it trusts, what it gets, where it puts that.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use controlplane_api::arbiter::Hex16;
use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::PORT;
use super::error::JoinError;
use super::files::{Draft, Existing, Note, check, install, make_directory};
use super::frames::{
    Answer, Ask, FRAME_TIMEOUT, GIFT_BYTES_MAX, Role, VERSION, printable, read, write,
};
use super::home::{Places, Standing, fingerprint_of, node_drafts, standing, unfit};
use super::keys;
use super::tls::{ANOTHER, INVITATION_NAME, client_config};
use super::token::{Fingerprint, Token};
use crate::config::Config;
use crate::trust::{
    Identity, OwnKey, TrustError, check_certificate, check_node, check_witness, read_identity,
};
use crate::witness::Admission;
use crate::witness::store::Store;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Only root looks into it.
const WITNESS_DIRECTORY_MODE: u32 = 0o700;
/// The layout of an admission.
const ADMISSION_VERSION: u32 = 1;

/// How to join.
#[derive(Clone, Debug)]
pub struct Joining {
    /// Who invites: `HOST:PORT`, or `HOST` for [`PORT`].
    pub address: String,
    /// What it shows for this machine.
    pub token: Token,
    /// This machine's name in `cluster.toml`, if it was said that it becomes a node.
    pub node: Option<String>,
    /// The name that it has without that.
    pub host: String,
    /// Where things are, if it becomes a node.
    pub places: Places,
    /// Where things are, if it becomes a witness.
    pub witness: PathBuf,
    /// What happens to other files that are there.
    pub existing: Existing,
}

impl Joining {
    fn name(&self) -> &str {
        self.node.as_ref().unwrap_or(&self.host)
    }
}

/// What an operator should see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The other end is who made the token, and took it.
    Welcome {
        /// The cluster.
        cluster: Hex16,
        /// Names its authority.
        fingerprint: Fingerprint,
        /// What this machine becomes.
        role: Role,
    },
    /// The other end waits for somebody else.
    Waits {
        /// For whom.
        what: String,
    },
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The node's name; `None`: this machine is a witness.
    pub node: Option<String>,
    /// The files.
    pub notes: Vec<Note>,
}

type Stream = TlsStream<TcpStream>;

/// Joins. What is there already and is right stays; so it can be repeated.
///
/// # Errors
/// [`JoinError`]. Nothing was written; but for [`JoinError::Unconfirmed`], when everything was, and for a disk that refuses
/// in the middle: then some files are there, each whole.
pub async fn join(joining: &Joining, tell: impl Fn(Step)) -> Result<Joined, JoinError> {
    let mut stream = connect(joining).await?;
    let joined = converse(joining, &mut stream, &tell).await;
    if let Err(error) = &joined
        && !error.ended_the_conversation()
    {
        // Who hung up does not hear it; the operator reads it here.
        drop(write(&mut stream, &Ask::Refused(error.problem())).await);
    }
    drop(timeout(FRAME_TIMEOUT, stream.shutdown()).await);
    joined
}

/// Nothing is said before the other end proved that it has the certificate of the token.
async fn connect(joining: &Joining) -> Result<Stream, JoinError> {
    let address = with_port(&joining.address);
    let unreachable = |source| JoinError::Unreachable {
        address: address.clone(),
        source,
    };
    let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(&address)).await;
    let stream = stream
        .unwrap_or_else(|late| Err(late.into()))
        .map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    let connector = TlsConnector::from(Arc::new(client_config(joining.token.fingerprint)?));
    let name = ServerName::try_from(INVITATION_NAME)
        .map_err(|error| unreachable(io::Error::other(error)))?;
    let secured = timeout(FRAME_TIMEOUT, connector.connect(name, stream)).await;
    let secured = secured.unwrap_or_else(|late| Err(late.into()));
    secured.map_err(|source| {
        let cause = source.get_ref().and_then(|cause| cause.downcast_ref());
        if cause == Some(&ANOTHER) {
            let address = address.clone();
            return JoinError::Stranger { address };
        }
        JoinError::Broken {
            what: "it was asked who it is",
            source,
        }
    })
}

fn with_port(address: &str) -> String {
    if let Ok(ip) = address.parse::<IpAddr>() {
        return SocketAddr::new(ip, PORT).to_string();
    }
    let port = address.rsplit_once(':').map(|(_, port)| port);
    if port.is_some_and(|port| port.parse::<u16>().is_ok()) {
        return address.to_string();
    }
    format!("{address}:{PORT}")
}

/// The next word; a refusal is an error.
async fn hear(stream: &mut Stream, what: &'static str) -> Result<Answer, JoinError> {
    let answer = read(stream, GIFT_BYTES_MAX, FRAME_TIMEOUT).await;
    let answer = answer.map_err(|source| JoinError::Broken { what, source })?;
    if let Answer::Refused(problem) = answer {
        let (who, problem) = ("the inviting end".to_string(), printable(problem));
        return Err(JoinError::Told { who, problem });
    }
    Ok(answer)
}

fn strange(what: &'static str) -> JoinError {
    let source = io::Error::new(io::ErrorKind::InvalidData, "another word came");
    JoinError::Broken { what, source }
}

async fn converse(
    joining: &Joining,
    stream: &mut Stream,
    tell: &impl Fn(Step),
) -> Result<Joined, JoinError> {
    let what = "the token was shown";
    let hello = Ask::Hello {
        version: VERSION,
        secret: Hex16(joining.token.secret.0),
    };
    say(stream, &hello, what).await?;
    let Answer::Welcome {
        version,
        cluster,
        authority,
        role,
    } = hear(stream, what).await?
    else {
        return Err(strange(what));
    };
    if version != VERSION {
        return Err(JoinError::Version { version });
    }
    let fingerprint = fingerprint_of(&authority)?;
    tell(Step::Welcome {
        cluster,
        fingerprint,
        role,
    });
    let (node, notes) = match role {
        Role::Node => {
            let notes = become_node(joining, stream, (cluster, &authority), tell).await?;
            (Some(joining.name().to_string()), notes)
        }
        Role::Witness => {
            let notes = become_witness(joining, stream, (cluster, &authority)).await?;
            (None, notes)
        }
    };
    // From here on everything is in its place.
    let unconfirmed = |source| JoinError::Unconfirmed { source };
    write(stream, &Ask::Durable).await.map_err(unconfirmed)?;
    let answer = read(stream, GIFT_BYTES_MAX, FRAME_TIMEOUT).await;
    match answer.map_err(unconfirmed)? {
        Answer::Done => Ok(Joined { node, notes }),
        Answer::Refused(problem) => {
            let problem = printable(problem);
            let said = format!("the inviting end says: {}", problem.message);
            Err(unconfirmed(io::Error::other(said)))
        }
        Answer::Welcome { .. }
        | Answer::Wait { .. }
        | Answer::Node { .. }
        | Answer::Witness { .. } => Err(unconfirmed(io::Error::other("another word came"))),
    }
}

async fn say(stream: &mut Stream, ask: &Ask, what: &'static str) -> Result<(), JoinError> {
    let said = write(stream, ask).await;
    said.map_err(|source| JoinError::Broken { what, source })
}

/// The cluster, and the certificate of its authority.
type Cluster<'a> = (Hex16, &'a str);

async fn become_node(
    joining: &Joining,
    stream: &mut Stream,
    cluster: Cluster<'_>,
    tell: &impl Fn(Step),
) -> Result<Vec<Note>, JoinError> {
    let what = "this node was certified";
    keys::may_go(&joining.places, cluster.0, joining.existing)?;
    let own = own_key(joining, cluster)?;
    let ask = Ask::Node {
        name: joining.name().to_string(),
        request: own.key.request()?,
    };
    say(stream, &ask, what).await?;
    let mut waits = false;
    loop {
        match hear(stream, what).await? {
            Answer::Wait { mut what } if !waits => {
                waits = true;
                what.retain(|c| !c.is_control());
                tell(Step::Waits { what });
            }
            Answer::Wait { .. } => {}
            Answer::Node {
                certificate,
                key,
                config,
                witness,
            } => {
                let gift = Gift {
                    certificate,
                    key: STANDARD.decode(key).map_err(|error| TrustError::Content {
                        what: "the cluster's key",
                        why: error.to_string(),
                    })?,
                    config,
                    witness,
                };
                return keep_node(joining, cluster, own, gift);
            }
            Answer::Welcome { .. } | Answer::Witness { .. } | Answer::Done | Answer::Refused(_) => {
                return Err(strange(what));
            }
        }
    }
}

/// This node's key, and the certificate that it got earlier.
struct Own {
    key: OwnKey,
    certificate: Option<String>,
}

/// A key that is there is used again, unless it is an earlier cluster's and may be replaced.
fn own_key(joining: &Joining, (cluster, authority): Cluster<'_>) -> Result<Own, JoinError> {
    let new = || {
        let (key, certificate) = (OwnKey::generate()?, None);
        Ok(Own { key, certificate })
    };
    let identity = match standing(&joining.places) {
        Ok(Standing::Nothing) => return new(),
        Ok(Standing::Key(key)) => {
            let (key, certificate) = (*key, None);
            return Ok(Own { key, certificate });
        }
        Ok(Standing::Whole(identity)) => identity,
        Err(_) if joining.existing == Existing::Replaced => return new(),
        Err(error) => return Err(error),
    };
    let named = check_node(&identity, authority);
    if named.is_ok_and(|(of, _)| of == cluster) {
        let path = joining.places.trusted("node.key");
        return Ok(Own {
            key: OwnKey::open(&identity.key).map_err(unfit(&path))?,
            certificate: Some(identity.certificate),
        });
    }
    match joining.existing {
        Existing::Replaced => new(),
        Existing::Stays => Err(JoinError::Occupied {
            path: joining.places.trusted("node.pem"),
        }),
    }
}

struct Gift {
    certificate: String,
    key: Vec<u8>,
    config: String,
    witness: Option<String>,
}

/// Looks at everything as the daemon will, then puts it into its places.
fn keep_node(
    joining: &Joining,
    (cluster, authority): Cluster<'_>,
    own: Own,
    gift: Gift,
) -> Result<Vec<Note>, JoinError> {
    let places = &joining.places;
    let content = |what, why: String| JoinError::from(TrustError::Content { what, why });
    let keys = crate::key::of_bytes(&places.key, &gift.key)?;
    if Hex16(keys.cluster().0) != cluster {
        let why = "it is another cluster's".to_string();
        return Err(content("the cluster's key", why));
    }
    let config = Config::parse(&places.config, &gift.config, joining.name())?;
    let me = (cluster, config.me);
    let identity = Identity {
        certificate: match own.certificate {
            Some(earlier) if check_certificate(&earlier, authority).is_ok_and(|of| of == me) => {
                earlier
            }
            _ => gift.certificate,
        },
        key: own.key.pem(),
    };
    let named = check_node(&identity, authority)?;
    if named != me {
        let why = format!("it names node {} of {}", named.1.number(), named.0);
        return Err(content("the node's certificate", why));
    }
    let mut drafts = vec![
        Draft::secret(places.key.clone(), gift.key.as_slice()),
        Draft::open(places.config.clone(), gift.config),
    ];
    if let Some(witness) = gift.witness {
        check_witness(&witness)?;
        drafts.push(Draft::open(places.trusted("witness.pem"), witness));
    }
    drafts.extend(node_drafts(places, &identity, authority));
    check(&drafts, joining.existing)?;
    // Also if that came while it was waited.
    keys::may_go(places, cluster, joining.existing)?;
    let mut notes = Vec::from_iter(keys::save(places, &gift.key)?);
    notes.extend(install(&drafts, joining.existing)?);
    Ok(notes)
}

/// What must not become the witness of this cluster.
fn refuse_witness(joining: &Joining, cluster: Hex16) -> Result<(), JoinError> {
    if let Some(name) = joining.node.clone() {
        return Err(JoinError::WitnessToken { name });
    }
    let places = &joining.places;
    let of_node = [places.trusted("node.key"), places.key.clone()];
    if let Some(path) = of_node.into_iter().find(|path| path.exists())
        && joining.existing == Existing::Stays
    {
        return Err(JoinError::NodeHere { path });
    }
    // What it granted in an earlier time would be taken for the present, also by a witness that runs.
    let path = Store::new(&joining.witness, cluster).path();
    if path.exists() {
        return Err(JoinError::OldRegisters { path });
    }
    Ok(())
}

async fn become_witness(
    joining: &Joining,
    stream: &mut Stream,
    (cluster, authority): Cluster<'_>,
) -> Result<Vec<Note>, JoinError> {
    let what = "the cluster was admitted";
    refuse_witness(joining, cluster)?;
    check_authority(cluster, authority)?;
    let identity = witness_identity(joining)?;
    let ask = Ask::Witness {
        certificate: identity.certificate.clone(),
    };
    say(stream, &ask, what).await?;
    let Answer::Witness { members } = hear(stream, what).await? else {
        return Err(strange(what));
    };
    let admission = Admission {
        version: ADMISSION_VERSION,
        members,
        authority: authority.to_string(),
        ..Admission::default()
    };
    let admission =
        serde_json::to_string_pretty(&admission).map_err(|error| TrustError::Content {
            what: "an admission",
            why: error.to_string(),
        })?;
    let place = |name: &str| joining.witness.join(name);
    // The admission says that all is there.
    let drafts = [
        Draft::secret(place("witness.key"), identity.key),
        Draft::open(place("witness.pem"), identity.certificate),
        Draft::secret(place(&format!("{cluster}.cluster")), admission),
    ];
    check(&drafts, joining.existing)?;
    refuse_witness(joining, cluster)?;
    make_directory(&joining.witness, WITNESS_DIRECTORY_MODE)?;
    install(&drafts, joining.existing)
}

/// Whether it is one that a witness can work with.
fn check_authority(cluster: Hex16, authority: &str) -> Result<(), TrustError> {
    crate::trust::Clusters::default().admit(cluster, authority)
}

/// The witness's own; one that is there serves other clusters too, and stays in any case.
fn witness_identity(joining: &Joining) -> Result<Identity, JoinError> {
    let place = |name: &str| joining.witness.join(name);
    let (key, certificate) = (place("witness.key"), place("witness.pem"));
    match (key.exists(), certificate.exists()) {
        (true, true) => Ok(read_identity(&joining.witness, "witness").map_err(unfit(&key))?),
        (false, false) => Ok(crate::trust::witness_identity()?),
        // Of a try that a power cut ended.
        (true, false) => {
            let text = crate::key::read_text(&key)?;
            let own = OwnKey::open(&text).map_err(unfit(&key))?;
            Ok(Identity {
                certificate: own.witness_certificate()?,
                key: text,
            })
        }
        (false, true) => Err(JoinError::Unfit {
            why: format!("its key {} is missing", key.display()),
            path: certificate,
        }),
    }
}

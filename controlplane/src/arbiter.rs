//! A node's conversation with its arbiter, a witness or etcd: asks, reports, and comes back after a loss.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use controlplane_api::arbiter::{
    Ask, AskLine, ClaimLine, Held, Hex16, LINE_BYTES_MAX, Mark, Reply, ReplyLine,
};
use controlplane_api::trust::{TrustAnswer, TrustAsk};
use controlplane_core::register::{Answer, Refusal};
use controlplane_core::view_change::Question;
use mirror_core::types::{Epoch, NodeSet, VolumeId};
use mirror_core::view::ViewHistory;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{interval, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::authority::Credentials;
use crate::trust::{WITNESS_NAME, witness_name};

/// Between two reports at most; a quarter of the heartbeat's timeout if that is shorter, for the lease rests on them.
const REPORT_INTERVAL_MAX: Duration = Duration::from_secs(1);
/// Connecting and each answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// An answer about trust: a key is made, and a file flushed.
const TRUST_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two tries to connect.
const RETRY: Duration = Duration::from_millis(500);

/// What comes from the arbiter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It answered something that was asked at this moment of `CLOCK_BOOTTIME`, nanoseconds.
    Contact {
        /// When the question was sent.
        asked_nanos: u64,
    },
    /// A report was taken.
    Enrolled {
        /// Who else has to report before anything can be granted.
        missing: NodeSet,
        /// Of so many volumes it told.
        volumes: usize,
    },
    /// The answer to a claim.
    Answered {
        /// The question's number.
        number: u64,
        /// The answer.
        answer: Answer,
    },
    /// A release is durable.
    GivenBack {
        /// The question's number.
        number: u64,
    },
    /// It cannot be reached, or does not answer.
    Lost {
        /// Why.
        reason: String,
    },
}

/// Who keeps the registers, as a node reaches it.
pub trait Arbiter: Send {
    /// Begins a conversation; what there was before is over.
    fn connect(&mut self) -> impl Future<Output = io::Result<()>> + Send;

    /// Asks, and waits for the answer: it came from the registers, after the question.
    fn ask(&mut self, number: u64, ask: Ask) -> impl Future<Output = io::Result<Reply>> + Send;
}

/// Talks to an arbiter for ever. `held` is what is reported; `heartbeat_timeout` is the cluster's.
pub async fn talk(
    mut arbiter: impl Arbiter,
    heartbeat_timeout: Duration,
    mut questions: mpsc::Receiver<Question>,
    held: watch::Receiver<Vec<Held>>,
    heard: mpsc::Sender<Heard>,
) {
    let every = REPORT_INTERVAL_MAX.min(heartbeat_timeout / 4);
    loop {
        let lost = converse(&mut arbiter, every, &mut questions, &held, &heard).await;
        let Err(error) = lost else { return };
        let reason = error.to_string();
        if heard.send(Heard::Lost { reason }).await.is_err() {
            return;
        }
        tokio::time::sleep(RETRY).await;
        // What was asked meanwhile is asked again by whoever asked.
        while questions.try_recv().is_ok() {}
    }
}

async fn converse(
    arbiter: &mut impl Arbiter,
    every: Duration,
    questions: &mut mpsc::Receiver<Question>,
    held: &watch::Receiver<Vec<Held>>,
    heard: &mpsc::Sender<Heard>,
) -> io::Result<()> {
    timeout(TIMEOUT, arbiter.connect()).await??;
    let mut reports = interval(every);
    loop {
        // In the order in which they were said: a report must not overtake what was given back under an earlier view.
        let (number, ask) = tokio::select! {
            biased;
            question = questions.recv() => match question {
                None => return Ok(()),
                Some(question) => ask_of(question),
            },
            _ = reports.tick() => (0, Ask::Report { volumes: held.borrow().clone() }),
        };
        let asked_nanos = boottime_nanos();
        let volumes = match &ask {
            Ask::Report { volumes } => volumes.len(),
            Ask::Claim { .. } | Ask::Release { .. } | Ask::Trust { .. } => 0,
        };
        let reply = timeout(TIMEOUT, arbiter.ask(number, ask)).await??;
        let contact = Heard::Contact { asked_nanos };
        let news = news(number, volumes, reply)?;
        for item in std::iter::once(contact).chain(news) {
            if heard.send(item).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// How a node reaches its witness now: whom it trusts may have changed since the last connection.
pub enum Way {
    /// Always so: it is known by its own certificate.
    Pinned(Arc<ClientConfig>),
    /// As the node's certificates are; while those cannot be read, by its own certificate if that is known.
    Certified(Arc<Credentials>, Option<Arc<ClientConfig>>),
}

impl Way {
    fn tls(&self) -> io::Result<(Arc<ClientConfig>, ServerName<'static>)> {
        let (config, name) = match self {
            Self::Pinned(config) => (Arc::clone(config), WITNESS_NAME.to_string()),
            Self::Certified(credentials, pinned) => match credentials.live() {
                Ok(live) => (
                    Arc::clone(&live.witness),
                    witness_name(credentials.cluster()),
                ),
                Err(why) => {
                    let pinned = pinned.as_ref().ok_or_else(|| io::Error::other(why))?;
                    (Arc::clone(pinned), WITNESS_NAME.to_string())
                }
            },
        };
        let name = ServerName::try_from(name).map_err(io::Error::other)?;
        Ok((config, name))
    }
}

impl std::fmt::Debug for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Way")
    }
}

/// `lockstepd witness` on another machine.
#[derive(Debug)]
pub struct Witness {
    address: String,
    way: Way,
    /// With what it was made.
    stream: Option<(Arc<ClientConfig>, BufReader<TlsStream<TcpStream>>)>,
}

impl Witness {
    /// At `HOST:PORT`, by its own certificate.
    pub fn new(address: String, config: Arc<ClientConfig>) -> Self {
        Self::by(address, Way::Pinned(config))
    }

    /// At `HOST:PORT`.
    pub fn by(address: String, way: Way) -> Self {
        Self {
            address,
            way,
            stream: None,
        }
    }
}

async fn connect(
    address: &str,
    way: &Way,
) -> io::Result<(Arc<ClientConfig>, BufReader<TlsStream<TcpStream>>)> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (config, name) = way.tls()?;
    let connector = TlsConnector::from(Arc::clone(&config));
    let stream = connector.connect(name, stream).await?;
    Ok((config, BufReader::new(stream)))
}

/// Asks a witness about trust, on a connection of its own: what is said of registers goes on beside it. `None`: it does not know
/// such questions.
///
/// # Errors
/// It cannot be reached.
pub async fn ask_trust(
    address: &str,
    credentials: &Arc<Credentials>,
    trust: TrustAsk,
) -> io::Result<Option<TrustAnswer>> {
    let way = Way::Certified(Arc::clone(credentials), None);
    let (_, mut stream) = timeout(TIMEOUT, connect(address, &way)).await??;
    let line = AskLine::new(0, Ask::Trust { trust });
    let reply = timeout(TRUST_TIMEOUT, exchange(&mut stream, &line)).await??;
    Ok(match reply.reply {
        Reply::Trusted { trust } => Some(trust),
        Reply::Reported { .. }
        | Reply::Granted { .. }
        | Reply::Released
        | Reply::Superseded { .. }
        | Reply::Held { .. }
        | Reply::Diverged { .. }
        | Reply::NotEnrolled { .. }
        | Reply::Failed { .. } => None,
    })
}

impl Arbiter for Witness {
    async fn connect(&mut self) -> io::Result<()> {
        self.stream = None;
        self.stream = Some(connect(&self.address, &self.way).await?);
        Ok(())
    }

    async fn ask(&mut self, number: u64, ask: Ask) -> io::Result<Reply> {
        let made = self.stream.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        // With another certificate before the witness ends what was made with the last one. All that was asked there was answered.
        if !Arc::ptr_eq(&made.0, &self.way.tls()?.0) {
            self.connect().await?;
        }
        let (_, stream) = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let reply = exchange(stream, &AskLine::new(number, ask)).await?;
        Ok(reply.reply)
    }
}

async fn exchange<S>(stream: &mut BufReader<S>, line: &AskLine) -> io::Result<ReplyLine>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut text = serde_json::to_vec(line).map_err(io::Error::other)?;
    text.push(b'\n');
    stream.write_all(&text).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
    (&mut *stream)
        .take(limit)
        .read_until(b'\n', &mut answer)
        .await?;
    if answer.last() != Some(&b'\n') {
        return Err(io::Error::other("the witness closed the connection"));
    }
    let reply: ReplyLine = serde_json::from_slice(&answer).map_err(io::Error::other)?;
    if reply.number != line.number {
        return Err(io::Error::other("the witness answered another question"));
    }
    Ok(reply)
}

fn ask_of(question: Question) -> (u64, Ask) {
    match question {
        Question::Claim { number, claims } => {
            let claims = claims.into_iter().map(|claim| ClaimLine {
                volume: Hex16(claim.volume.0),
                basis: claim.basis.into(),
                next: claim.next.into(),
                history: history(&claim.history),
            });
            let claims = claims.collect();
            (number, Ask::Claim { claims })
        }
        Question::Release { number, volumes } => {
            let volumes = volumes
                .into_iter()
                .map(|(volume, view)| (Hex16(volume.0), view.into()));
            let volumes = volumes.collect();
            (number, Ask::Release { volumes })
        }
    }
}

fn history(history: &ViewHistory) -> Vec<Mark> {
    let known = history.0.iter().filter(|mark| mark.epoch != Epoch(0));
    known.map(|mark| Mark::from(*mark)).collect()
}

fn news(number: u64, volumes: usize, reply: Reply) -> io::Result<Option<Heard>> {
    let refused = |volume: Hex16, refusal: Refusal| {
        let volume = VolumeId(volume.0);
        Some(Heard::Answered {
            number,
            answer: Answer::Refused { volume, refusal },
        })
    };
    Ok(match reply {
        Reply::Reported { missing } => {
            let missing = NodeSet::from_bits(missing);
            Some(Heard::Enrolled { missing, volumes })
        }
        Reply::Granted { views } => Some(Heard::Answered {
            number,
            answer: Answer::Granted(views.into_iter().map(Into::into).collect()),
        }),
        Reply::Released => Some(Heard::GivenBack { number }),
        Reply::Superseded {
            volume,
            epoch,
            holder,
        } => refused(
            volume,
            Refusal::Superseded {
                epoch: Epoch(epoch),
                holder,
            },
        ),
        Reply::Held {
            volume,
            epoch,
            holder,
        } => refused(
            volume,
            Refusal::Held {
                epoch: Epoch(epoch),
                holder,
            },
        ),
        Reply::Diverged { volume, epoch } => refused(
            volume,
            Refusal::Diverged {
                epoch: Epoch(epoch),
            },
        ),
        Reply::NotEnrolled { volume, missing } => refused(
            volume,
            Refusal::NotEnrolled {
                missing: NodeSet::from_bits(missing),
            },
        ),
        Reply::Trusted { .. } => return Err(io::Error::other("an answer to another question")),
        Reply::Failed { reason } => return Err(io::Error::other(reason)),
    })
}

/// Nanoseconds since boot, suspend included.
pub fn boottime_nanos() -> u64 {
    use nix::time::{ClockId, clock_gettime};
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from);
    now.map_or(0, |now| u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}

//! `lockstepd`: the daemon of a node, and the witness.

mod setup;

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Parser, Subcommand};
use controlplane::arbiter::Way;
use controlplane::authority::{Credentials, Source};
use controlplane::config::{Config, RegisterKeeper};
use controlplane::etcd::{self, Etcd};
use controlplane::events;
use controlplane::heartbeat::{Heartbeats, Settings, start};
use controlplane::node::{self, Fencing, RegisterClient};
use controlplane::push;
use controlplane::rotation::{self, Keyring};
use controlplane::trust::{
    Authority, Identity, check_own, etcd_client_config, pinned_config, read_identity,
    witness_config, witness_identity,
};
use controlplane::wishes::Store;
use controlplane::witness::{Admission, Witness, server};
use controlplane_api::arbiter::Hex16;
use controlplane_api::paths::{run_directory, state_directory};
use controlplane_core::membership::Run;
use controlplane_core::wire::HeartbeatKeys;
use controlplane_core::wish::Wish;
use mirror_core::keys::Keys;
use mirror_core::types::{BootId, Incarnation, NodeId, NodeSet};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// A thread that only waits needs no more.
const CHILD_STACK_BYTES: usize = 64 * 1024;

#[derive(Parser)]
#[command(
    version,
    about = "Lockstep's control plane: a node's daemon, or a witness"
)]
struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Keep this node's volumes served.
    Run {
        /// The cluster's configuration.
        #[arg(long, default_value = "/etc/lockstep/cluster.toml")]
        config: PathBuf,
        /// This node's name; the host name without it.
        #[arg(long)]
        node: Option<String>,
        /// The cluster's key.
        #[arg(long, default_value = "/etc/lockstep/cluster.key")]
        key: PathBuf,
        /// Certificates: node.pem, node.key, witness.pem.
        #[arg(long, default_value = "/etc/lockstep/trust")]
        trust: PathBuf,
    },
    /// Arbitrate for clusters.
    Witness {
        /// Where to listen.
        #[arg(long, default_value = "0.0.0.0:7422")]
        listen: String,
        /// Registers, admitted clusters, witness.pem and witness.key.
        #[arg(long, default_value = "/var/lib/lockstep/witness")]
        state: PathBuf,
    },
    /// Make the authority, a certificate for each of both nodes, and what a witness needs.
    Trust {
        /// The cluster's key.
        #[arg(long, default_value = "/etc/lockstep/cluster.key")]
        key: PathBuf,
        /// An empty or new directory: node0/, node1/, witness/.
        #[arg(long)]
        into: PathBuf,
    },
    /// Set a cluster up; `lockstep cluster` is the command for it.
    #[command(subcommand)]
    Cluster(setup::Setup),
}

fn main() -> anyhow::Result<ExitCode> {
    let (lines, _ending) = mirror_log::standard_error()
        .and_then(|error| mirror_log::begin(error, "LS6137", || {}))
        .context("a thread for the log")?;
    mirror_log::tell_panics("lockstepd");
    let (noted, collector) = events::begin();
    let wanted = tracing_subscriber::EnvFilter::try_from_env("LOCKSTEP_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let written = tracing_subscriber::fmt::layer()
        .with_writer(lines)
        .with_ansi(false);
    tracing_subscriber::registry()
        .with(written.with_filter(wanted))
        // Whatever of the log is wanted.
        .with(noted.with_filter(LevelFilter::INFO))
        .init();
    match Arguments::parse().command {
        Action::Run {
            config,
            node,
            key,
            trust,
        } => {
            let ended = run(&config, node, &key, &trust, collector);
            events::flush();
            ended?;
        }
        Action::Witness { listen, state } => {
            // Nobody asks a witness what happened.
            drop(collector);
            witness(&listen, &state)?;
        }
        Action::Trust { key, into } => make_trust(&key, &into)?,
        Action::Cluster(command) => return Ok(setup::carry_out(command)),
    }
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot begin")
}

fn run(
    config: &Path,
    name: Option<String>,
    key: &Path,
    trust: &Path,
    collector: events::Collector,
) -> anyhow::Result<()> {
    let host = || -> anyhow::Result<String> {
        let host = nix::unistd::gethostname()?;
        Ok(host.to_string_lossy().into_owned())
    };
    let name = name.map_or_else(host, Ok)?;
    let events = keep_events(collector, &name)?;
    adopt_children()?;
    let path = config;
    let keys = match controlplane::key::read(key) {
        Ok(keys) => keys,
        Err(error) => {
            // What is wrong with the file comes first: it is written first.
            Config::read(path, &name)?;
            return Err(error.into());
        }
    };
    let cluster = Hex16(keys.cluster().0);
    let pushed = push::Store::of_node(cluster);
    let push::Loaded { config, record } = push::load(path, &name, &pushed)?;
    let fencing = Fencing::begin(&config, boot_id()?);
    let both = (config.me, config.peer);
    let credentials = Arc::new(Credentials::open(trust, &name, cluster, both));
    let arbiter = match &config.keeper {
        None => None,
        Some(keeper) => Some(register_client(keeper, &credentials, &config, trust)?),
    };
    let store = Store::of_node(cluster);
    let wishes = store
        .load()
        .map_err(|error| anyhow::anyhow!("{} {error}", error.code()))?;
    let kept = controlplane::timeouts::Store::of_node(cluster);
    let (timeouts, kept) = node::Timeouts::begin(&config, boot_id()?, kept);
    let mut seed = [0; 32];
    fill_random(&mut seed)?;
    let settings = Settings {
        me: config.me,
        peer: config.peer,
        own: Run {
            boot: boot_id()?,
            incarnation: incarnation()?,
        },
        keys: HeartbeatKeys::new(&keys),
        timing: config.timing,
        lease: config.lease,
        interconnects: config.interconnects.clone(),
        subjects: node::subjects(&config).len(),
        // What is wished about something that is not configured any more is nobody's.
        wishes: known(&config, &wishes),
        confirmed: fencing.before().confirmed(),
        span: config.span(),
        promised: kept.promised,
        word: kept.word,
    };
    let heartbeats = start_heartbeats(settings)?;
    let course = push::Course::new(Arc::clone(&heartbeats.shared), config.lease);
    let keyring = keyring(&config, &heartbeats, (path, key), keys)?;
    let parts = (course, events.clone(), keyring);
    let pusher = pusher(&config, parts, (path, credentials), (pushed, record))?;
    tracing::info!(code = "LS6021", node = %name, peer = %config.peer_name, "lockstepd runs");
    runtime()?.block_on(node::run(
        config,
        heartbeats,
        arbiter,
        seed,
        (store, wishes, timeouts),
        (pusher, fencing, events),
    ))
}

fn start_heartbeats(settings: Settings) -> anyhow::Result<Heartbeats> {
    if !controlplane::sys::lock_memory() {
        tracing::warn!(
            code = "LS6019",
            "memory cannot be locked: swapping may delay heartbeats"
        );
    }
    let heartbeats = start(settings).context("heartbeats")?;
    if !heartbeats.is_real_time {
        tracing::warn!(
            code = "LS6020",
            "no real-time priority: load may delay heartbeats"
        );
    }
    Ok(heartbeats)
}

fn keep_events(collector: events::Collector, name: &str) -> anyhow::Result<events::Log> {
    let log = collector.start(name, &state_directory().join(events::FILE));
    log.context("threads for what happens")
}

fn keyring(
    config: &Config,
    heartbeats: &Heartbeats,
    (path, key): (&Path, &Path),
    keys: Keys,
) -> anyhow::Result<Keyring> {
    let settings = rotation::Settings {
        me: config.me,
        name: config.name.clone(),
        peer_name: config.peer_name.clone(),
        path: key.to_path_buf(),
        volumes: path.parent().unwrap_or(Path::new("/")).join("volumes"),
        run: run_directory(),
        heartbeats: heartbeats.keys.clone(),
        shared: Arc::clone(&heartbeats.shared),
    };
    Keyring::begin(settings, keys).with_context(|| key.display().to_string())
}

fn pusher(
    config: &Config,
    (course, events, keyring): (push::Course, events::Log, Keyring),
    (path, credentials): (&Path, Arc<Credentials>),
    (store, record): (push::Store, push::Record),
) -> anyhow::Result<push::Handle> {
    let beside = path.parent().unwrap_or(Path::new("/")).join("authority");
    let source = Source::new(&beside, &config.name, store.cluster());
    let witness = match &config.keeper {
        Some(RegisterKeeper::Witness(address)) => Some(address.clone()),
        Some(RegisterKeeper::Etcd { .. }) | None => None,
    };
    let settings = push::Settings {
        me: config.me,
        name: config.name.clone(),
        peer_name: config.peer_name.clone(),
        path: path.to_path_buf(),
        interconnects: config.interconnects.clone(),
        store,
        credentials,
        source,
        witness,
        course,
        events,
        keyring: Arc::new(keyring),
    };
    push::Pusher::start(settings, record)
}

/// What an earlier run of `lockstepd` in this process started, before it began anew, goes on. When it ends, somebody has to
/// take it from the kernel.
fn adopt_children() -> anyhow::Result<()> {
    use nix::sys::wait::waitpid;
    for pid in controlplane::sys::children() {
        std::thread::Builder::new()
            .name("child".to_string())
            .stack_size(CHILD_STACK_BYTES)
            .spawn(move || {
                let _ = waitpid(pid, None);
            })
            .context("a thread for a child of an earlier run")?;
    }
    Ok(())
}

fn known(config: &Config, wishes: &[Wish]) -> Vec<Wish> {
    let subjects = node::subjects(config);
    let known = wishes
        .iter()
        .filter(|wish| subjects.contains(&wish.subject));
    known.copied().collect()
}

fn register_client(
    keeper: &RegisterKeeper,
    credentials: &Arc<Credentials>,
    config: &Config,
    trust: &Path,
) -> anyhow::Result<RegisterClient> {
    let cluster = credentials.cluster();
    let read = |path: &Path| {
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    };
    match keeper {
        RegisterKeeper::Witness(address) => {
            let identity = read_identity(trust, "node")?;
            check_own(&identity, (cluster, config.me)).map_err(|error| {
                let path = trust.join("node.pem");
                anyhow::anyhow!(
                    "LS6027 {}: {error}; the witness would not know this node: put the names back as they were, or move \
                     trust/node.pem and trust/node.key away and let this node join again",
                    path.display()
                )
            })?;
            let witness = read(&trust.join("witness.pem"))?;
            let tls = pinned_config(&identity, (cluster, &witness))?;
            let way = Way::Certified(Arc::clone(credentials), tls.map(Arc::new));
            let witness = controlplane::arbiter::Witness::by(address.clone(), way);
            Ok(RegisterClient::Witness(Box::new(witness)))
        }
        RegisterKeeper::Etcd {
            endpoints,
            files,
            server_name,
        } => {
            let tls = match files {
                None => None,
                Some(files) => {
                    let identity = match &files.identity {
                        None => None,
                        Some((certificate, key)) => Some(Identity {
                            certificate: read(certificate)?,
                            key: controlplane::key::read_text(key)?,
                        }),
                    };
                    let authority = read(&files.authority)?;
                    Some(Arc::new(etcd_client_config(&authority, identity.as_ref())?))
                }
            };
            let settings = etcd::Settings {
                endpoints: endpoints.clone(),
                tls,
                server_name: server_name.clone(),
                cluster,
                members: NodeSet::from_bits(3),
                me: config.me,
                patience: config.lease / 4,
            };
            Ok(RegisterClient::Etcd(Box::new(Etcd::new(settings))))
        }
    }
}

fn witness(listen: &str, state: &Path) -> anyhow::Result<()> {
    let identity = read_identity(state, "witness")?;
    let witness = Arc::new(Witness::open(state).with_context(|| state.display().to_string())?);
    let tls = witness_config(&identity, Arc::clone(&witness.trusted))?;
    runtime()?.block_on(async {
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| listen.to_string())?;
        tracing::info!(code = "LS6022", listen, "the witness listens");
        controlplane::notify::ready();
        server::serve(witness, listener, TlsAcceptor::from(Arc::new(tls))).await?;
        Ok(())
    })
}

fn make_trust(key: &Path, into: &Path) -> anyhow::Result<()> {
    let cluster = Hex16(controlplane::key::read(key)?.cluster().0);
    let (authority, own) = Authority::create(cluster)?;
    let witness = witness_identity()?;
    for number in 0..2 {
        let directory = into.join(format!("node{number}"));
        let node = NodeId::new(number).context("a node")?;
        store(&directory, "node", &authority.issue(node)?)?;
        secret(&directory.join("authority.pem"), &own.certificate)?;
        secret(&directory.join("witness.pem"), &witness.certificate)?;
    }
    let directory = into.join("witness");
    store(&directory, "witness", &witness)?;
    let admission = Admission {
        version: 1,
        members: NodeSet::from_bits(3).bits(),
        authority: own.certificate.clone(),
        ..Admission::default()
    };
    let text = serde_json::to_string_pretty(&admission)?;
    secret(&directory.join(format!("{cluster}.cluster")), &text)?;
    store(&into.join("authority"), "authority", &own)
}

fn store(directory: &Path, name: &str, identity: &Identity) -> anyhow::Result<()> {
    secret(
        &directory.join(format!("{name}.pem")),
        &identity.certificate,
    )?;
    secret(&directory.join(format!("{name}.key")), &identity.key)
}

/// A file that nobody else can read, and that was not there before.
fn secret(path: &Path, text: &str) -> anyhow::Result<()> {
    let directory = path.parent().context("a directory")?;
    fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    let mut file = fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot create {}", path.display()))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(())
}

fn boot_id() -> anyhow::Result<BootId> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let id: Hex16 = digits.parse().map_err(anyhow::Error::msg)?;
    Ok(BootId(id.0))
}

fn incarnation() -> anyhow::Result<Incarnation> {
    let mut bytes = [0; 8];
    fill_random(&mut bytes)?;
    Ok(Incarnation(u64::from_le_bytes(bytes) | 1))
}

fn fill_random(bytes: &mut [u8]) -> anyhow::Result<()> {
    use std::io::Read;
    fs::File::open("/dev/urandom")?.read_exact(bytes)?;
    Ok(())
}

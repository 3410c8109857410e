//! `lockstepd cluster ...`, which `lockstep cluster ...` becomes: what an operator sees while a cluster is set up.

mod screen;

use std::io::{BufRead, IsTerminal, Write, stderr, stdin, stdout};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use controlplane::config::{Config, RegisterKeeper};
use controlplane::join::{
    Doorplate, Existing, Guest, Home, Invitation, JoinError, Joined, Joining, Note, PORT, Places,
    Role, Step, TRIES_MAX, Token, invite, join,
};
use controlplane::push::put_aside;
use controlplane_api::paths::state_directory;
use mirror_core::admin::Problem;
use tokio::net::TcpListener;

use screen::Screen;

/// Somebody has not joined, and the time is over: what comes of it nobody can tell.
const EXIT_OVER: u8 = 3;
/// A door that was closed by wrong tokens still tells so for this long.
const CLOSED_TIME: Duration = Duration::from_secs(30);
/// Strangers are told at most so often.
const STRANGERS_INTERVAL: Duration = Duration::from_secs(10);
/// An invitation does not stay open over night by mistake.
const SECONDS_MAX: u64 = 24 * 3600;
/// A token has 69 characters; a line has room for blanks.
const LINE_BYTES_MAX: u64 = 1024;

#[derive(Subcommand)]
pub(crate) enum Setup {
    /// Make the key, the authority and this node's certificate, then invite who has not joined.
    Init {
        /// This node.
        #[command(flatten)]
        node: ThisNode,
        #[command(flatten)]
        door: DoorArguments,
    },
    /// Let others join.
    Invite {
        /// A node, or `witness`; everybody who has not joined without it.
        guest: Option<String>,
        /// Another witness than the one that joined earlier takes its place.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        node: ThisNode,
        #[command(flatten)]
        door: DoorArguments,
    },
    /// Join; the token is asked for.
    Join {
        /// Who invites.
        address: String,
        /// Also if files of another cluster are here: they are replaced.
        #[arg(long)]
        force: bool,
        /// The witness's state, if this machine becomes one.
        #[arg(long, default_value = "/var/lib/lockstep/witness")]
        witness: PathBuf,
        #[command(flatten)]
        node: ThisNode,
    },
}

#[derive(Args)]
pub(crate) struct ThisNode {
    /// The cluster's configuration; key, certificates and authority are beside it.
    #[arg(long, default_value = "/etc/lockstep/cluster.toml")]
    config: PathBuf,
    /// This node's name; the host name without it.
    #[arg(long)]
    node: Option<String>,
}

#[derive(Args)]
pub(crate) struct DoorArguments {
    /// How long, in seconds.
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 3600,
          value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    seconds: u64,
    /// Where to listen; port 7423 of the first interconnect without it.
    #[arg(long)]
    listen: Option<SocketAddr>,
}

impl ThisNode {
    fn places(&self) -> Places {
        let directory = match self.config.parent() {
            // A name alone: of the directory in which this runs.
            Some(directory) if directory.as_os_str().is_empty() => Path::new("."),
            directory => directory.unwrap_or(Path::new("/")),
        };
        let name = self.config.file_name().unwrap_or_default();
        let config = directory.join(name);
        Places {
            config,
            ..Places::in_directory(directory)
        }
    }

    /// Its name on the node that invites.
    fn name(&self) -> String {
        self.node.clone().unwrap_or_else(host_name)
    }
}

fn host_name() -> String {
    let name = nix::unistd::gethostname();
    name.map_or_else(
        |_| String::new(),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// Carries it out; an error is told as `lockstep` tells all of them.
pub(crate) fn carry_out(command: Setup) -> ExitCode {
    let done = match command {
        Setup::Init { node, door } => init(&node, &door),
        Setup::Invite {
            guest,
            force,
            node,
            door,
        } => reopen(&node, &door, guest.as_deref(), existing(force)),
        Setup::Join {
            address,
            force,
            witness,
            node,
        } => enter(address, witness, &node, existing(force)),
    };
    let Err(error) = done else {
        return ExitCode::SUCCESS;
    };
    eprintln!("{}", lines_of(&error.problem(), ""));
    if matches!(error, JoinError::Over { .. }) {
        return ExitCode::from(EXIT_OVER);
    }
    ExitCode::FAILURE
}

fn existing(force: bool) -> Existing {
    if force {
        Existing::Replaced
    } else {
        Existing::Stays
    }
}

/// Code and what, then what to do.
fn lines_of(problem: &Problem, margin: &str) -> String {
    let Problem {
        code,
        message,
        advice,
    } = problem;
    format!("{margin}{code} {message}\n{margin}  {advice}")
}

/// A reader that went away ends nothing.
fn say(text: &str) {
    let mut out = stdout().lock();
    drop(writeln!(out, "{text}").and_then(|()| out.flush()));
}

fn told(notes: &[Note]) {
    for note in notes {
        let what = match (note.written, note.replaced) {
            (true, true) => "REPLACED",
            (true, false) => "made",
            (false, _) => "kept",
        };
        say(&format!("  {what}  {}", note.path.display()));
    }
}

fn init(node: &ThisNode, door: &DoorArguments) -> Result<(), JoinError> {
    let (home, notes) = Home::init(&node.places(), &node.name())?;
    told(&notes);
    if !notes.iter().any(|note| note.written) {
        say("  nothing was changed: all of this was there");
    }
    let missing = home.missing();
    let_in(home, missing, door, Existing::Stays)
}

fn reopen(
    node: &ThisNode,
    door: &DoorArguments,
    guest: Option<&str>,
    existing: Existing,
) -> Result<(), JoinError> {
    let home = Home::open(&node.places(), &node.name())?;
    let guests = match guest {
        Some(name) => vec![home.guest(name)?],
        None => home.missing(),
    };
    let_in(home, guests, door, existing)
}

fn let_in(
    home: Home,
    guests: Vec<Guest>,
    door: &DoorArguments,
    existing: Existing,
) -> Result<(), JoinError> {
    let here = home.config.name.clone();
    say(&format!(
        "cluster {}, its authority is {}",
        home.cluster,
        home.fingerprint()?
    ));
    if guests.is_empty() {
        say(&format!("all have joined.\n{}", next_steps(&home)));
        return Ok(());
    }
    let next = next_steps(&home);
    let own = home.config.interconnects.first();
    let own = own.map_or(SocketAddr::from(([0, 0, 0, 0], PORT)), |pair| {
        SocketAddr::new(pair.local.ip(), PORT)
    });
    let listen = door.listen.unwrap_or(own);
    runtime()?.block_on(async {
        let bound = TcpListener::bind(listen).await;
        let failed = |source| JoinError::Listen {
            address: listen.to_string(),
            source,
        };
        let listener = bound.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let address = if bound.ip().is_unspecified() {
            SocketAddr::new(own.ip(), bound.port())
        } else {
            bound
        };
        say(&format!(
            "{here} listens on {bound} for {}\n",
            span(door.seconds)
        ));
        let invitation = Invitation {
            guests,
            time: Duration::from_secs(door.seconds),
            closed_time: CLOSED_TIME,
            strangers_interval: STRANGERS_INTERVAL,
            existing,
            doorplate: Doorplate::new()?,
        };
        let screen = Screen::new(address, stdout()).map_err(not_begun)?;
        let screen = Arc::new(screen);
        let tell = Arc::clone(&screen);
        let tell = move |progress| tell.tell(&progress);
        let invited = invite(home, invitation, listener, tell).await;
        screen.end();
        invited
    })?;
    say(&format!("all who were invited have joined.\n{next}"));
    Ok(())
}

fn runtime() -> Result<tokio::runtime::Runtime, JoinError> {
    let made = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    made.map_err(not_begun)
}

fn not_begun(source: std::io::Error) -> JoinError {
    JoinError::File {
        what: "start",
        path: PathBuf::from("lockstepd"),
        source,
    }
}

fn span(seconds: u64) -> String {
    match (seconds / 60, seconds % 60) {
        (minutes @ 1.., 0) => format!("{minutes} min"),
        _ => format!("{seconds} s"),
    }
}

fn next_steps(home: &Home) -> String {
    let witness = if home.guests().contains(&Guest::Witness) {
        "\n  on the witness: `lockstepd witness` (one that runs is started again, to know this cluster)"
    } else {
        ""
    };
    let Config {
        name,
        peer_name,
        keeper,
        ..
    } = &home.config;
    let etcd = match keeper {
        Some(RegisterKeeper::Etcd { files: Some(_), .. }) => {
            format!("\n  the files that [etcd] names are not handed over: copy them to {peer_name}")
        }
        Some(RegisterKeeper::Etcd { .. } | RegisterKeeper::Witness(_)) | None => String::new(),
    };
    format!(
        "next, where the units of packaging/systemd do not do it already:{witness}\n  \
         on both nodes: `lockstepd run`; it starts the daemons of the volumes as they are made{etcd}\n\
         then the volumes, if they are not made yet:\n  \
         on {name}: `lockstep volume create NAME --backing DEVICE`, then with --join on {peer_name}\n\
         `lockstep status` says whether the pair is ready."
    )
}

fn enter(
    address: String,
    witness: PathBuf,
    node: &ThisNode,
    existing: Existing,
) -> Result<(), JoinError> {
    let joining = Joining {
        address,
        token: asked()?,
        node: node.node.clone(),
        host: host_name(),
        places: node.places(),
        witness,
        existing,
    };
    let Joined { node, notes } = runtime()?.block_on(join(&joining, |step| match step {
        Step::Welcome {
            cluster,
            fingerprint,
            role,
        } => {
            let role = match role {
                Role::Node => "a node",
                Role::Witness => "the witness",
            };
            say(&format!(
                "cluster {cluster}, its authority is {fingerprint}; this machine becomes {role}"
            ));
        }
        Step::Waits { what } => say(&format!("waits until the {what} has joined")),
    }))?;
    told(&notes);
    let config = &joining.places.config;
    if notes
        .iter()
        .any(|note| note.written && note.path == *config)
    {
        // What was pushed here before is not what this node joins with.
        let state = state_directory();
        let aside = put_aside(&state);
        aside.map_err(|source| JoinError::File {
            what: "change",
            path: state,
            source,
        })?;
    }
    match node {
        None => say(
            "this machine is a witness of the cluster.\nnext: `lockstepd witness`; one that runs is started again, to know this cluster.",
        ),
        Some(name) => {
            let option = if name == host_name() {
                String::new()
            } else {
                format!(" --node {name}")
            };
            say(&format!(
                "this machine is {name}.\nnext: `lockstepd run{option}`, where its unit does not start it; then its volumes \
                 (`lockstep volume create --join`), which lockstepd starts."
            ));
        }
    }
    Ok(())
}

/// One line from the terminal or a pipe: never an argument, which every process could read.
fn asked() -> Result<Token, JoinError> {
    if stdin().is_terminal() {
        eprint!(
            "token (as the inviting end shows it; {TRIES_MAX} wrong ones close the invitation): "
        );
        drop(stderr().flush());
    }
    let mut line = String::new();
    let mut input = std::io::Read::take(stdin().lock(), LINE_BYTES_MAX);
    input
        .read_line(&mut line)
        .map_err(|source| JoinError::File {
            what: "read",
            path: PathBuf::from("/dev/stdin"),
            source,
        })?;
    Ok(line.parse()?)
}

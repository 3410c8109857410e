//! A client of PostgreSQL that commits one row after the other, and says of each whether it was told so.
//!
//! It speaks the protocol itself (version 3.0, simple queries, no password): a library's smallest time limit is longer than
//! what is measured here. A row that was not acknowledged is never sent again: its number is not used any more.

use std::fmt::Display;
use std::io::{self, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail, ensure};

const PROTOCOL_VERSION: u32 = 3 << 16;
/// Between two tries to connect.
const PAUSE: Duration = Duration::from_millis(50);
/// No answer to what is asked here is longer.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Address and port.
    #[arg(long)]
    server: SocketAddr,
    #[arg(long, default_value = "postgres")]
    user: String,
    /// Number of the first row.
    #[arg(long)]
    first: u64,
    /// Each transaction; `$` stands for the number.
    #[arg(long)]
    sql: String,
    /// It ends when this file exists.
    #[arg(long)]
    stop: PathBuf,
    /// A connection that is not made within this time is tried again.
    #[arg(long, default_value_t = 500)]
    connect_ms: u64,
    /// A connection on which nothing is heard for this time is given up.
    #[arg(long, default_value_t = 2000)]
    answer_ms: u64,
}

/// One line for each event, with the time of this machine in milliseconds:
/// `up T`, `ack ROW T`, `lost ROW T REASON`, `wait T REASON` (once for each reason), and at the end `end NEXT-ROW`.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let mut row = options.first;
    let mut told = String::new();
    while !options.stop.exists() {
        let mut session = match Session::open(options) {
            Ok(session) => session,
            Err(error) => {
                let reason = format!("{error:#}");
                if reason != told {
                    say(format_args!("wait {} {reason}", now()?))?;
                    told = reason;
                }
                thread::sleep(PAUSE);
                continue;
            }
        };
        told.clear();
        say(format_args!("up {}", now()?))?;
        while !options.stop.exists() {
            let answer = session.query(&options.sql.replace('$', &row.to_string()));
            let time = now()?;
            match &answer {
                Ok(()) => say(format_args!("ack {row} {time}"))?,
                Err(error) => say(format_args!("lost {row} {time} {error:#}"))?,
            }
            row += 1;
            if answer.is_err() {
                break;
            }
        }
    }
    say(format_args!("end {row}"))
}

fn say(line: impl Display) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush().context("tell the harness")
}

fn now() -> anyhow::Result<u128> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())
}

struct Session {
    stream: BufReader<TcpStream>,
}

/// What a server says: its kind, and the rest.
type Message = (u8, Vec<u8>);

impl Session {
    fn open(options: &Options) -> anyhow::Result<Self> {
        let limit = Duration::from_millis(options.connect_ms);
        let stream = TcpStream::connect_timeout(&options.server, limit).context("connect")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_millis(options.answer_ms)))?;
        stream.set_write_timeout(Some(Duration::from_millis(options.answer_ms)))?;
        let mut session = Self {
            stream: BufReader::new(stream),
        };
        let mut begin = PROTOCOL_VERSION.to_be_bytes().to_vec();
        begin.extend(format!("user\0{}\0database\0postgres\0\0", options.user).bytes());
        session.send(None, &begin)?;
        session.until_ready()?;
        Ok(session)
    }

    /// One transaction; Ok says that the server acknowledged its commit.
    fn query(&mut self, sql: &str) -> anyhow::Result<()> {
        let mut text = sql.as_bytes().to_vec();
        text.push(0);
        self.send(Some(b'Q'), &text)?;
        let done = self.until_ready()?;
        // It is said after the commit, never before.
        ensure!(done, "the server did not say that it is done");
        Ok(())
    }

    fn send(&mut self, kind: Option<u8>, body: &[u8]) -> anyhow::Result<()> {
        let mut bytes: Vec<u8> = kind.into_iter().collect();
        let length = u32::try_from(body.len() + size_of::<u32>())?;
        bytes.extend(length.to_be_bytes());
        bytes.extend(body);
        self.stream.get_mut().write_all(&bytes).context("send")
    }

    fn receive(&mut self) -> anyhow::Result<Message> {
        let mut head = [0; 5];
        self.stream.read_exact(&mut head).context("receive")?;
        let [kind, length @ ..] = head;
        let length = usize::try_from(u32::from_be_bytes(length))?;
        let body = length
            .checked_sub(size_of::<u32>())
            .filter(|body| *body <= MESSAGE_BYTES_MAX);
        let mut body = vec![0; body.context("a message of a wrong length")?];
        self.stream.read_exact(&mut body).context("receive")?;
        Ok((kind, body))
    }

    /// Everything up to the next question; whether a command was completed.
    fn until_ready(&mut self) -> anyhow::Result<bool> {
        let mut completed = false;
        loop {
            let (kind, body) = self.receive()?;
            match kind {
                b'C' => completed = true,
                b'E' => bail!("{}", refusal(&body)),
                b'R' => ensure!(body == [0; 4], "it asks for a password"),
                // In no transaction: a commit is not half done.
                b'Z' => {
                    ensure!(body == b"I", "a transaction is open");
                    return Ok(completed);
                }
                // Settings, the key to cancel, notices, rows.
                b'S' | b'K' | b'N' | b'T' | b'D' => {}
                other => bail!("a message of kind {other}"),
            }
        }
    }
}

/// SQLSTATE and words of an error.
fn refusal(body: &[u8]) -> String {
    let field = |kind: u8| {
        let found = body
            .split(|byte| *byte == 0)
            .find(|field| field.first() == Some(&kind))?;
        Some(String::from_utf8_lossy(&found[1..]).into_owned())
    };
    format!(
        "SQLSTATE {} {}",
        field(b'C').unwrap_or_default(),
        field(b'M').unwrap_or_default()
    )
}

//! `lockstep cluster ...`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Patience, WAIT_EXIT_CODES};

/// An invitation does not stay open over night by mistake.
const SPAN_SECONDS_MAX: u64 = 24 * 3600;

const INVITE_EXIT_CODES: &str = "\
Exit codes: 0 all who were invited have joined, 1 refused or failed (five wrong tokens
close the invitation), 3 the time is over and somebody has not joined, 64 wrong usage.";

const JOIN_AFTER: &str = "\
The token is asked for on the terminal, or read as one line from standard input:
never as an argument, which every process of the machine could read.
To join again changes nothing that is there already and is right.

Exit codes: 0 joined, 1 not (the message says what is there), 64 wrong usage.";

const KEYS_EXIT_CODES: &str = "\
Exit codes: 0 both nodes have the same generation and accept nothing else, 2 not so, 3 the other node
or this one does not answer.";

const ROTATE_AFTER: &str = "\
On either node. The first node makes the key and hands it to the other one over TLS; it is on no command
line, in no log and in no answer. The nodes' certificates and the authority are not rotated by it: see
rotate-authority.

Exit codes: 0 begun or under way, with --wait at its end; 1 refused, and nothing was changed; 2 --dry-run:
it can be rotated; 3 nobody can tell, or --wait was over before it: `lockstep cluster keys` says how it
stands; 64 wrong usage.";

const TRUST_EXIT_CODES: &str = "\
Exit codes: 0 all members trust and show one authority, 2 not so, 3 a member does not answer, or no
control plane answers here.";

const AUTHORITY_AFTER: &str = "\
On either node. The node that has /etc/lockstep/authority makes another one and drives it: all members trust
both; then they show certificates of the new one; then they trust that one alone. A member that is away is
waited for: nothing goes on without it, and nothing that is good is given up before. No key is on a command
line, in a log or in an answer.

Exit codes: 0 begun or under way, with --wait at its end; 1 refused, and nothing was changed; 2 --dry-run:
it can be done; 3 nobody can tell, or --wait was over before it: `lockstep cluster trust` says how it stands;
64 wrong usage.";

const RENEW_AFTER: &str = "\
On either node. They are renewed by themselves long before they end; this does it now, after somebody may
have seen a node's key, say.

Exit codes: 0 all have new ones, 1 refused (what is before the member that is named was renewed), 2 --dry-run:
it can be done, 3 nobody can tell: a member or no control plane answers; 64 wrong usage.";

#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    /// On the first node: make the key, the authority and this node's certificate, then invite who has not joined
    #[command(after_help = INVITE_EXIT_CODES)]
    Init {
        #[command(flatten)]
        door: Door,
    },
    /// On the first node: let another machine join; shows what to type there, and waits
    #[command(after_help = INVITE_EXIT_CODES)]
    Invite {
        /// The other node's name, or `witness` [default: everybody who has not joined]
        #[arg(value_name = "NODE|witness")]
        guest: Option<String>,
        /// A witness with another certificate takes the place of the one that joined earlier
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        door: Door,
    },
    /// On another machine: become a node or the witness, as its token says
    #[command(after_help = JOIN_AFTER)]
    Join {
        /// Where `lockstep cluster invite` listens
        #[arg(value_name = "ADDRESS:PORT")]
        address: String,
        /// This machine's name in cluster.toml, if it becomes a node [default: the host name]
        #[arg(long, value_name = "NAME")]
        node: Option<String>,
        /// Replace files of another cluster that are in the way
        #[arg(long)]
        force: bool,
    },
    /// Stop every group, and keep it stopped on both nodes, also over reboots, until the cluster is started
    #[command(after_help = WAIT_EXIT_CODES)]
    Stop(Together),
    /// Run again what `cluster stop` stopped; a group that was stopped by itself stays stopped
    #[command(after_help = WAIT_EXIT_CODES)]
    Start(Together),
    /// For maintenance: nothing is moved and nothing is taken over, by neither node; what runs goes on
    #[command(after_help = WAIT_EXIT_CODES)]
    Suspend(Together),
    /// End `cluster suspend`; a node that was suspended by itself stays suspended
    #[command(after_help = WAIT_EXIT_CODES)]
    Resume(Together),
    /// Which generation of the cluster's key each node sends and accepts
    #[command(after_help = KEYS_EXIT_CODES)]
    Keys {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Give the cluster another key while it runs: heartbeats and mirror links go by it, nothing is interrupted
    #[command(after_help = ROTATE_AFTER)]
    RotateKeys(RotateKeys),
    /// Which authority both nodes and the witness trust and show, and until when certificates are good
    #[command(after_help = TRUST_EXIT_CODES)]
    Trust {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Give the cluster another authority, and all members new certificates and keys, while it runs; nothing is interrupted
    #[command(after_help = AUTHORITY_AFTER)]
    RotateAuthority(RotateAuthority),
    /// Give all members new certificates and keys by the present authority, while it runs
    #[command(after_help = RENEW_AFTER)]
    RenewCertificates {
        /// Only say whether they can be renewed
        #[arg(long)]
        dry_run: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Together {
    #[command(flatten)]
    pub(crate) patience: Patience,
    /// Say what would be done, and change nothing
    #[arg(long, conflicts_with = "wait")]
    pub(crate) dry_run: bool,
}

#[derive(Args, Debug)]
pub(crate) struct RotateKeys {
    /// Only say whether it can be rotated
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Wait until the last key is accepted nowhere any more
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) wait: bool,
    /// With --wait: so long at most, seconds; it goes on by itself afterwards
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    pub(crate) timeout: u64,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct RotateAuthority {
    /// Only say whether it can be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Wait until the last authority is trusted nowhere any more
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) wait: bool,
    /// With --wait: so long at most, seconds; it goes on by itself afterwards
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    pub(crate) timeout: u64,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Door {
    /// The cluster's configuration; everything else is beside it [default: /etc/lockstep/cluster.toml]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// This node's name in cluster.toml [default: the host name]
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<String>,
    /// How long others may join, such as 90s, 30m or 2h
    #[arg(long = "for", value_parser = parse_span, value_name = "TIME", default_value = "1h")]
    pub(crate) seconds: u64,
    /// Where to listen [default: port 7423 of this node's first interconnect]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,
}

/// Seconds.
fn parse_span(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 3600),
        _ => (text, 1),
    };
    let number: Option<u64> = digits.parse().ok();
    let seconds = number.and_then(|number| number.checked_mul(unit));
    let seconds = seconds.filter(|seconds| (1..=SPAN_SECONDS_MAX).contains(seconds));
    seconds.ok_or_else(|| format!("`{text}` is no time such as 90s, 30m or 2h, up to 24h"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Noun};
    use clap::Parser;

    fn cluster(words: &str) -> Result<Cluster, clap::Error> {
        let cli = Cli::try_parse_from(words.split_whitespace())?;
        let Noun::Cluster(command) = cli.noun else {
            panic!("another noun")
        };
        Ok(command)
    }

    #[test]
    fn invite_takes_what_the_manual_says() {
        let words = "lockstep cluster invite node2 --for 30m --listen 10.0.0.1:7423 --node node1";
        let Ok(Cluster::Invite { guest, force, door }) = cluster(words) else {
            panic!("not an invitation")
        };
        assert_eq!((guest.as_deref(), force), (Some("node2"), false));
        assert_eq!((door.seconds, door.node.as_deref()), (1800, Some("node1")));
        assert_eq!(door.listen.unwrap().to_string(), "10.0.0.1:7423");
        let Ok(Cluster::Init { door, .. }) = cluster("lockstep cluster init") else {
            panic!("not init")
        };
        assert_eq!(door.seconds, 3600);
    }

    #[test]
    fn a_token_is_no_argument() {
        let Ok(Cluster::Join { address, node, .. }) =
            cluster("lockstep cluster join 10.0.0.1:7423 --node node2")
        else {
            panic!("not join")
        };
        assert_eq!(
            (address.as_str(), node.as_deref()),
            ("10.0.0.1:7423", Some("node2"))
        );
        let token = "05E1-0G6Z-396R-4ME2-TY0N-WMMS-BHQ6-WMJZ-6W6A-YG6W-P2EF-YXEZ-SB4Y-A7T4";
        for words in [
            format!("lockstep cluster join 10.0.0.1:7423 {token}"),
            format!("lockstep cluster join 10.0.0.1:7423 --token {token}"),
            "lockstep cluster join".to_string(),
        ] {
            assert!(cluster(&words).is_err(), "{words}");
        }
        let help = cluster("lockstep cluster join --help")
            .unwrap_err()
            .to_string();
        assert!(help.contains("standard input"), "{help}");
    }

    #[test]
    fn a_time_has_a_unit_and_an_end() {
        let cases = [
            ("90", 90),
            ("90s", 90),
            ("30m", 1800),
            ("1h", 3600),
            ("24h", 86_400),
        ];
        for (text, seconds) in cases {
            assert_eq!(parse_span(text), Ok(seconds));
        }
        for wrong in [
            "",
            "0",
            "h",
            "-1h",
            "25h",
            "1d",
            "1.5h",
            "99999999999999999999h",
            "9999999999999999h",
        ] {
            assert!(parse_span(wrong).is_err(), "{wrong}");
        }
    }
}

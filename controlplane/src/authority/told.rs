//! What is said of the authority and of certificates: to operators, in the status, in the log. Never a key.

use std::fmt::Display;
use std::path::Path;

use mirror_core::admin::Problem;

use crate::trust::{AUTHORITY_DAYS, DAY_SECONDS, day, now};

pub(crate) const SILENT: &str = "LS6178";
const SHOW: &str = "`lockstep cluster trust` says how it stands";

/// Of a certificate: the authority renews it long before.
const CERTIFICATE_WARN_DAYS: i64 = 365;
/// Clocks of members may be so far apart when a change begins.
const CLOCK_DAYS: i64 = 30;
/// And an authority that comes next ends so far from where a new one does: what it signs is good for a year then, at least.
const NEW_DAYS: i64 = 2 * 365;
/// Of the authority: an operator has to do that.
const AUTHORITY_WARN_DAYS: i64 = 2 * 365;

fn problem(code: &str, message: impl Into<String>, advice: impl Into<String>) -> Problem {
    Problem {
        code: code.to_string(),
        message: message.into(),
        advice: advice.into(),
    }
}

pub(crate) fn no_authority(node: &str, peer: &str) -> Problem {
    problem(
        "LS6177",
        format!("the key of the cluster's authority is neither on {node} nor on {peer}"),
        "put the directory `authority` (authority.pem, authority.key, mode 0600) into /etc/lockstep of one node, from where it is \
         kept; if it is lost, set the trust up anew (docs/controlplane.md, \"Another authority\")",
    )
}

pub(crate) fn two_authorities(node: &str, peer: &str) -> Problem {
    problem(
        "LS6177",
        format!("{node} and {peer} both have the key of an authority"),
        "leave /etc/lockstep/authority on the node whose authority.pem is the first one in /etc/lockstep/trust/authority.pem, and \
         move it away on the other one; then repeat the command",
    )
}

pub(crate) fn silent(member: &str, why: &str) -> Problem {
    problem(
        SILENT,
        format!("{member} cannot be asked about the cluster's authority: {why}"),
        format!(
            "no step is taken without it, and nothing that is trusted now is given up: see that {} runs there, and that TCP goes \
             through to it; what has begun goes on by itself then. If it is lost for good, let its successor join",
            if member == "witness" {
                "`lockstepd witness`"
            } else {
                "lockstepd"
            }
        ),
    )
}

pub(crate) fn unlike(member: &str) -> Problem {
    problem(
        "LS6179",
        format!("{member} runs an earlier release, which knows of no change of the authority"),
        format!(
            "let all members run the same release, restart the daemon on {member}, then repeat the command"
        ),
    )
}

pub(crate) fn elsewhere(member: &str) -> Problem {
    problem(
        "LS6180",
        format!("{member} trusts or shows something else than the other members"),
        format!(
            "files were put in place there by hand, or put back from a copy: let it join again (`lockstep cluster invite {member}` \
             on the node with the authority, `lockstep cluster join --force` there); nothing goes on until then"
        ),
    )
}

pub(crate) fn files(node: &str, why: &impl Display) -> Problem {
    problem(
        "LS6181",
        format!("the certificates and keys on {node} cannot be used or replaced: {why}"),
        format!(
            "put that right on {node}: connections go on with what was read before, and it is tried again by itself"
        ),
    )
}

pub(crate) fn under_way(stage: &str) -> Problem {
    problem(
        "LS6182",
        format!("the cluster's authority is being changed: {stage}"),
        format!("it goes on by itself; {SHOW}"),
    )
}

pub(crate) fn renew_waits() -> Problem {
    problem(
        "LS6187",
        "certificates are not renewed while the authority is being changed: all members get new ones in the course of that",
        format!("wait for its end; {SHOW}"),
    )
}

/// Certificates would end at another time than everybody thinks. `why`: what differs.
pub(crate) fn clocks(why: &str) -> Problem {
    problem(
        "LS6188",
        format!("a clock is wrong, and certificates would end at the wrong time: {why}"),
        "compare `date` on all members and put the wrong clock right (`timedatectl`); then repeat the command",
    )
}

/// How far the clock of a member is from the one here, if that is too far to make certificates.
pub(crate) fn apart(member: &str, there: i64, here: i64) -> Option<Problem> {
    let days = (there - here) / DAY_SECONDS;
    let is_behind = days < 0;
    let way = if is_behind { "behind" } else { "ahead of" };
    let days = days.abs();
    (days > CLOCK_DAYS).then(|| clocks(&format!("{member} is {days} days {way} this node")))
}

/// Whether an authority that is new ends when a new one should, by the clock here.
pub(crate) fn ends_as_new(authority_ends: i64, here: i64) -> Result<(), Problem> {
    let expected = here + AUTHORITY_DAYS * DAY_SECONDS;
    let days = (authority_ends - expected) / DAY_SECONDS;
    if days.abs() <= NEW_DAYS {
        return Ok(());
    }
    Err(clocks(&format!(
        "the next authority ends on {}, one that is made now should end on {}; the clock of the node that made it or the one \
         here is wrong, or the change began more than two years ago",
        day(authority_ends),
        day(expected)
    )))
}

/// A question that fits no step, and what was signed by nobody who may.
pub(crate) fn refused(why: impl Display) -> Problem {
    problem(
        "LS6185",
        format!("a step of a change of the authority was refused: {why}"),
        format!(
            "{SHOW}; what has begun is tried again by itself. If it stays, somebody put files in place by hand"
        ),
    )
}

pub(crate) fn not_from_there() -> Problem {
    refused("it is not the step after the one where this member stands")
}

pub(super) fn not_understood() -> Problem {
    refused("it is not understood")
}

/// What is here cannot be used.
pub(crate) fn fault(why: impl Display) -> Problem {
    refused(format!("what is here cannot be used: {why}"))
}

pub(super) fn missing(path: &Path) -> String {
    format!("{} is not there", path.display())
}

/// What is said of a certificate that ends soon, or has ended. `who`: a node, `witness`, or the authority.
pub(crate) fn ends(who: &str, is_authority: bool, ends_at: i64) -> Option<Problem> {
    let left = (ends_at - now()) / DAY_SECONDS;
    let (warn, cure) = if is_authority {
        let cure = "`lockstep cluster rotate-authority` while the cluster runs; without it the nodes cannot talk with each other \
                    or with the witness after that day";
        (AUTHORITY_WARN_DAYS, cure.to_string())
    } else {
        let cure = format!(
            "the node with the authority renews it by itself when it can reach {who}: `lockstep cluster trust` says why it does \
             not; `lockstep cluster renew-certificates` does it now"
        );
        (CERTIFICATE_WARN_DAYS, cure)
    };
    let what = if is_authority {
        "the certificate of the cluster's authority".to_string()
    } else {
        format!("the certificate of {who}")
    };
    if ends_at <= now() {
        let message = format!("{what} has ended on {}", day(ends_at));
        return Some(problem(
            "LS6184",
            message,
            "see that the clocks of all machines are right. If they are: let the member join again (`lockstep cluster invite`, \
             `lockstep cluster join --force`); if it is the authority's, set the trust up anew (docs/controlplane.md, \"Another \
             authority\")",
        ));
    }
    (left < warn).then(|| {
        let message = format!("{what} ends on {}, in {left} days", day(ends_at));
        problem("LS6183", message, cure)
    })
}

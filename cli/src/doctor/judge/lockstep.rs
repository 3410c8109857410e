//! The programs, `lockstepd`, `cluster.toml`.

use mirror_core::admin::Problem;

use super::{error, good, unseen, warning};
use crate::doctor::facts::{Cluster, Daemon, Facts, Program};
use crate::doctor::{Area, Check, Fault, Outcome};

/// This release.
const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    let programs = facts
        .programs
        .iter()
        .map(|found| Check::new(Area::Lockstep, "program", program(found)).at(found.name));
    let mut checks: Vec<Check> = programs.collect();
    checks.push(cluster(&facts.cluster));
    checks.push(Check::new(Area::Lockstep, "lockstepd", daemon(facts)));
    let outcome = match &facts.daemon {
        Daemon::Answers { trust, .. } => certificates(trust.as_ref()),
        // That it does not, another check says.
        Daemon::Silent(_) | Daemon::Broken(_) | Daemon::Unseen(_) => {
            Outcome::Nothing("no lockstepd answers that would say how they are".to_string())
        }
    };
    checks.push(Check::new(Area::Lockstep, "certificates", outcome));
    checks
}

/// As the running daemon says: it shows them.
fn certificates(said: Option<&Problem>) -> Outcome {
    const WHY: &str =
        "the nodes and the witness know each other by certificates of the cluster's authority";
    let Some(said) = said else {
        return good("nothing ends soon, and all members trust one authority".to_string());
    };
    let fault = Fault::new(&said.code, &said.message, WHY, &said.advice);
    match said.code.as_str() {
        // One that ends soon; a change that gets on, or waits for a member.
        "LS6178" | "LS6179" | "LS6182" | "LS6183" => Outcome::Warning(fault),
        _ => Outcome::Error(fault),
    }
}

fn program(program: &Program) -> Outcome {
    let name = program.name;
    match &program.version {
        Ok(version) if version == VERSION => good(format!("release {version}")),
        Ok(version) => warning(
            "LS6158",
            format!("{name} is of release {version}, lockstep of {VERSION}"),
            "programs of two releases need not understand each other",
            "install all of them from one release, beside each other",
        ),
        Err(why) => error(
            "LS6158",
            format!("{name} cannot be run: {why}"),
            "a node needs all three programs",
            format!("install {name} beside `lockstep` or in PATH"),
        ),
    }
}

fn cluster(cluster: &Cluster) -> Check {
    let (path, outcome) = match cluster {
        Cluster::Absent { path } => (
            path,
            Outcome::Nothing(
                "it is not there: this machine is no node of a cluster yet".to_string(),
            ),
        ),
        Cluster::Unseen { path, why } => (path, unseen(why)),
        Cluster::Wrong { path, error } => {
            let list = error.0.list();
            let fault = match list.first() {
                Some(first) => Fault::new(
                    first.code,
                    match list.len() {
                        1 => first.what.clone(),
                        count => format!("{}; {} more", first.what, count - 1),
                    },
                    first.why.clone(),
                    format!("{}; `lockstep config check` shows all of it", first.advice),
                ),
                None => Fault::new(
                    "LS6034",
                    "it cannot be used",
                    "lockstepd does not start",
                    "see `lockstep config check`",
                ),
            };
            (path, Outcome::Error(fault))
        }
        Cluster::Node {
            path,
            name,
            warnings: 0,
            ..
        } => (path, good(format!("can be used; this machine is {name}"))),
        Cluster::Node {
            path,
            name,
            warnings,
            ..
        } => (
            path,
            good(format!(
                "can be used; this machine is {name}; `lockstep config check` has warnings: {warnings}"
            )),
        ),
    };
    Check::new(Area::Lockstep, "configuration", outcome).at(path.display().to_string())
}

fn daemon(facts: &Facts) -> Outcome {
    const WHY: &str = "nobody moves this node's groups or starts its volumes' daemons";
    const START: &str = "`systemctl enable --now lockstepd.service lockstepd.path`, or `lockstepd run`; its log says why it ended";
    let name = match &facts.cluster {
        Cluster::Node { name, .. } => Some(name),
        Cluster::Absent { .. } | Cluster::Unseen { .. } | Cluster::Wrong { .. } => None,
    };
    match (&facts.daemon, name) {
        (Daemon::Answers { node, .. }, Some(name)) if node != name => error(
            "LS6159",
            format!("lockstepd runs here as {node}, and this machine is {name}"),
            "one of both names is wrong, and a machine that runs as the wrong node would be both",
            format!(
                "see how it is started; or say `lockstep doctor --node {node}` if that is right"
            ),
        ),
        (Daemon::Answers { version, .. }, _) => match version.as_deref() {
            Some(VERSION) => good(format!("answers, release {VERSION}")),
            version => warning(
                "LS6158",
                format!(
                    "lockstepd runs in release {}, lockstep is of {VERSION}",
                    version.unwrap_or("that does not tell its number")
                ),
                "programs of two releases need not understand each other",
                "`systemctl restart lockstepd` lets the installed one run; volumes and services go on",
            ),
        },
        (Daemon::Unseen(why), _) => unseen(why),
        (Daemon::Broken(why), _) => error(
            "LS6159",
            format!("lockstepd gives no good answer: {why}"),
            "it hangs, or is of another release",
            "read its log; `systemctl restart lockstepd`: volumes and services go on",
        ),
        (Daemon::Silent(silent), Some(_)) => match &facts.is_set_up {
            Ok(true) => error(
                "LS6159",
                format!("lockstepd does not run: {silent}"),
                WHY,
                START,
            ),
            Ok(false) => Outcome::Nothing(
                "it does not run, and waits for `lockstep cluster init` or `join`".to_string(),
            ),
            Err(why) => unseen(&format!(
                "it does not run; whether it should, the cluster's key would say: {why}"
            )),
        },
        (Daemon::Silent(_), None) => match &facts.cluster {
            Cluster::Unseen { .. } => {
                unseen("it does not run; whether it should, the configuration would say")
            }
            Cluster::Wrong { .. } => {
                unseen("it does not run, and cannot before the configuration is right")
            }
            Cluster::Absent { .. } | Cluster::Node { .. } => Outcome::Nothing(
                "it does not run, and this machine is no node of a cluster".to_string(),
            ),
        },
    }
}

//! `lockstep group prepare`: the first time that a group's volumes are used.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use controlplane::config::{Config, Kind};
use controlplane_api::cluster::{ClusterStatus, Group, Resources, ResourcesState, Want};
use controlplane_api::verbs::Asked;
use mirror_core::admin::{Problem, Role};

use crate::cmd::group::{escaped, unknown};
use crate::config::directory;
use crate::failure::Failure;
use crate::http::{HttpError, cluster_status, tell};
use crate::prepare::content::Step;
use crate::prepare::{Order, Place, carry_out};
use crate::waiting::served_by;

/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// A group that was cleared begins within this time.
const BEGINS_MAX: Duration = Duration::from_secs(15);
/// A machine that has just become a node starts its control plane within this time, or again.
const APPEARS_MAX: Duration = Duration::from_secs(10);
const DEVICES: &str = "/dev/lockstep";

#[derive(Args, Debug)]
pub(crate) struct Prepare {
    /// The group
    name: String,
    /// Run the command as this user, who comes to own the root directory of what is made
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Format this volume whatever is on it; that is lost on both servers
    #[arg(long, value_name = "VOLUME")]
    confirm: Option<String>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Wait no longer than this for the volumes to be served here, and for the group to run afterwards
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
    /// Run in the mount point of the first file system, with all of them mounted
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// How far the group is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Readiness {
    /// Its volumes are served here, and nothing of it runs.
    Ready,
    /// It will come to that, or not.
    Waits(String),
    /// It is no group to be prepared here.
    Refused(Problem),
}

pub(crate) fn run(wanted: Prepare) -> Result<u8, Failure> {
    let (name, dry_run) = (&wanted.name.clone(), wanted.dry_run);
    let patience = Duration::from_secs(wanted.timeout);
    let node = until_ready(name, patience)?;
    let places = places(name, &node)?;
    let order = Order {
        command: wanted.command,
        user: wanted.user,
        confirm: wanted.confirm,
    };
    if dry_run {
        return foretell(&places, &order);
    }
    carry_out(&places, &order)?;
    let path = format!("/v1/groups/{}/clear", escaped(name));
    tell(&path, &Asked { node: None }).map_err(|error| unknown(&error))??;
    until_it_runs(name, patience)?;
    println!("{name} runs on {node}");
    Ok(0)
}

/// This node's name, once the group's volumes are served here and nothing uses them.
fn until_ready(name: &str, patience: Duration) -> Result<String, Failure> {
    let began = Instant::now();
    let mut last = String::new();
    loop {
        match cluster_status() {
            Ok(status) => match readiness(name, &status) {
                Readiness::Ready => return Ok(status.node),
                Readiness::Refused(problem) => return Err(problem.into()),
                Readiness::Waits(going) => say(&mut last, going, began),
            },
            Err(error) if appears(&error, began, patience) => {
                say(&mut last, "no control plane answers yet".to_string(), began);
            }
            Err(error) => return Err(unknown(&error)),
        }
        if began.elapsed() > patience {
            return Err(late(patience, &last));
        }
        sleep(LOOK_INTERVAL);
    }
}

fn until_it_runs(name: &str, patience: Duration) -> Result<(), Failure> {
    let began = Instant::now();
    let mut last = String::new();
    let mut begun = false;
    loop {
        let status = match cluster_status() {
            Err(error) if appears(&error, began, patience) => {
                say(&mut last, "no control plane answers".to_string(), began);
                sleep(LOOK_INTERVAL);
                continue;
            }
            answer => answer.map_err(|error| unknown(&error))?,
        };
        let group = status.groups.iter().find(|group| group.name == *name);
        let resources = group.and_then(|group| group.resources.as_ref());
        let failed = resources.is_some_and(|it| it.state == ResourcesState::StartFailed);
        begun |= !failed;
        match resources {
            Some(Resources {
                state: ResourcesState::Online,
                ..
            }) => return Ok(()),
            // As it was before it was cleared, or again.
            Some(resources) if failed && (begun || began.elapsed() > BEGINS_MAX) => {
                return Err(Failure::new(
                    "LS6214",
                    format!("{name} is prepared and does not start: {}", resources.text),
                    "mend that, then `lockstep group clear NAME`, or run the command again; what is made already stays",
                ));
            }
            Some(resources) => say(&mut last, resources.text.clone(), began),
            None => say(&mut last, "it is not told how it is".to_string(), began),
        }
        if began.elapsed() > patience {
            return Err(late(patience, &last));
        }
        sleep(LOOK_INTERVAL);
    }
}

/// Whether nobody listens yet, and there is time for that to change.
fn appears(error: &HttpError, began: Instant, patience: Duration) -> bool {
    let absent = matches!(error, HttpError::NotRunning { source, .. }
        if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused));
    absent && began.elapsed() < APPEARS_MAX.min(patience)
}

fn say(last: &mut String, going: String, began: Instant) {
    if *last != going {
        println!("  {:>3} s  {going}", began.elapsed().as_secs());
        *last = going;
    }
}

fn late(patience: Duration, last: &str) -> Failure {
    Failure::new(
        "LS6215",
        format!(
            "{} s are over, and it is not as it has to be: {last}",
            patience.as_secs()
        ),
        "`lockstep status` and `lockstep why` say what it waits for; then run the command again",
    )
}

fn readiness(name: &str, status: &ClusterStatus) -> Readiness {
    let refused = |code: &str, message: String, advice: &str| {
        Readiness::Refused(Problem {
            code: code.to_string(),
            message,
            advice: advice.replace("NAME", name),
        })
    };
    let Some(group) = status.groups.iter().find(|group| group.name == *name) else {
        let message = format!("there is no group {name} in this cluster");
        return refused("LS6080", message, "see /etc/lockstep/cluster.toml");
    };
    match group.wish.as_ref().map(|wish| wish.want) {
        Some(Want::Stopped) => {
            let message = format!("{name} is stopped: its volumes are served nowhere");
            return refused("LS6211", message, "`lockstep group start NAME` first");
        }
        Some(Want::Moves) => return Readiness::Waits(format!("{name} moves to the other node")),
        Some(Want::Runs) | None => {}
    }
    let node = &status.node;
    if !is_served_here(group) {
        return match served_by(group) {
            Some(other) if other != node => {
                let message = format!("{name} is served on {other}, not here");
                refused("LS6210", message, &format!("run the command on {other}"))
            }
            Some(_) | None => {
                Readiness::Waits("not all of its volumes are served here yet".to_string())
            }
        };
    }
    let Some(resources) = &group.resources else {
        let message = format!("{name} has no resources");
        let advice =
            "name its file systems in cluster.toml; without any its volumes are used as they are";
        return refused("LS6212", message, advice);
    };
    let advice = match resources.state {
        ResourcesState::StartFailed => return Readiness::Ready,
        ResourcesState::Online => {
            "there is nothing to be prepared; `lockstep group stop NAME` ends it"
        }
        ResourcesState::StopFailed | ResourcesState::Failed => {
            "mend what it waits for, then `lockstep group clear NAME`"
        }
        ResourcesState::Unknown
        | ResourcesState::Offline
        | ResourcesState::Starting
        | ResourcesState::Stopping => return Readiness::Waits(resources.text.clone()),
    };
    refused(
        "LS6211",
        format!("{name} on {node}: {}", resources.text),
        advice,
    )
}

fn is_served_here(group: &Group) -> bool {
    group.volumes.iter().all(|volume| {
        let status = volume.status.as_deref();
        status.is_some_and(|status| status.role == Role::Active)
    })
}

/// The group's file systems, in the order of their mounts.
fn places(name: &str, node: &str) -> Result<Vec<Place>, Failure> {
    let path = directory().join("cluster.toml");
    let config = Config::read(&path, node).map_err(|error| {
        Failure::new(
            "LS6212",
            format!("{} cannot be used: {error}", path.display()),
            "`lockstep config check` says what is wrong with it",
        )
    })?;
    let group = config.groups.into_iter().find(|group| group.name == *name);
    let resources = group.map(|group| group.resources).unwrap_or_default();
    let place = |kind: Kind| match kind {
        Kind::FileSystem(settings) => Some(Place {
            device: device(&settings.volume),
            settings,
        }),
        Kind::FloatingIp(_) | Kind::Exec(_) | Kind::Program(_) | Kind::Systemd(_) => None,
    };
    let places: Vec<Place> = resources
        .into_iter()
        .filter_map(|it| place(it.kind))
        .collect();
    if places.is_empty() {
        return Err(Failure::new(
            "LS6212",
            format!("{name} has no file systems"),
            "name them in cluster.toml; without any its volumes are used as they are",
        ));
    }
    Ok(places)
}

fn device(volume: &str) -> PathBuf {
    Path::new(DEVICES).join(volume)
}

fn foretell(places: &[Place], order: &Order) -> Result<u8, Failure> {
    for place in places {
        let (kind, point) = (&place.settings.kind, place.settings.mount_point.display());
        let device = place.device.display();
        match place.step(order)? {
            Step::Mount => println!("  {device} holds {kind} already: mounted on {point}"),
            Step::Make { force: false } => {
                println!("  {device} is empty: {kind} is made and mounted on {point}")
            }
            Step::Make { force: true } => {
                println!("  what {device} holds is lost: {kind} is made and mounted on {point}")
            }
        }
    }
    if !order.command.is_empty() {
        let user = order.user.as_deref().unwrap_or("root");
        println!("  {} runs `{}`", user, order.command.join(" "));
    }
    println!("  all is unmounted, and the group starts");
    println!("nothing was done");
    Ok(0)
}

#[cfg(test)]
mod tests {
    use controlplane_api::cluster::WishOrigin;

    use super::*;
    use crate::cluster::{good, group, wish};

    fn status(
        state: Option<ResourcesState>,
        serves: Option<&str>,
        want: Option<Want>,
    ) -> ClusterStatus {
        let mut status = good();
        let mut group = group(serves);
        group.wish = want.map(|want| wish(5, want, WishOrigin::Operator));
        group.resources = state.map(|state| Resources {
            state,
            text: "as it is".to_string(),
        });
        status.groups = vec![group];
        status
    }

    fn said(readiness: &Readiness) -> &str {
        match readiness {
            Readiness::Ready => "ready",
            Readiness::Waits(_) => "waits",
            Readiness::Refused(problem) => &problem.code,
        }
    }

    #[test]
    fn only_a_group_that_is_served_here_and_waits_is_prepared() {
        use ResourcesState::{
            Failed, Offline, Online, StartFailed, Starting, StopFailed, Stopping, Unknown,
        };
        let here = Some("node1");
        let table = [
            (Some(StartFailed), here, None, "ready"),
            (Some(StartFailed), here, Some(Want::Runs), "ready"),
            (Some(StartFailed), here, Some(Want::Stopped), "LS6211"),
            (Some(StartFailed), here, Some(Want::Moves), "waits"),
            (Some(StartFailed), None, None, "waits"),
            (Some(StartFailed), Some("node2"), None, "LS6210"),
            (Some(Unknown), here, None, "waits"),
            (Some(Offline), here, None, "waits"),
            (Some(Starting), here, None, "waits"),
            (Some(Stopping), here, None, "waits"),
            (Some(Online), here, None, "LS6211"),
            (Some(StopFailed), here, None, "LS6211"),
            (Some(Failed), here, None, "LS6211"),
            (None, here, None, "LS6212"),
        ];
        for (state, serves, want, expected) in table {
            let ready = readiness("pg", &status(state, serves, want));
            assert_eq!(
                said(&ready),
                expected,
                "{state:?} {serves:?} {want:?}: {ready:?}"
            );
        }
        let status = status(Some(StartFailed), here, None);
        assert_eq!(said(&readiness("other", &status)), "LS6080");
    }
}

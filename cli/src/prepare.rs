//! The file systems of a new group: made where nothing is, mounted, given to a command, unmounted.
//!
//! What is on a volume is looked at before it is formatted, and nothing that anybody could want is written over without a word.

pub(crate) mod content;

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use controlplane::resources::FileSystem;
use controlplane::resources::filesystem::parse_options;
use controlplane::resources::mounts::{self, Mount, name_users};
use nix::errno::Errno;
use nix::mount::{MntFlags, mount, umount2};
use nix::unistd::User;
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;
use content::{Content, Step, step};

/// A busy mount is tried again for so long: what the command left may be on its way out.
const BUSY_TIME: Duration = Duration::from_secs(3);
const BUSY_INTERVAL: Duration = Duration::from_millis(100);

/// One file system of the group.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) settings: FileSystem,
    /// The volume's device.
    pub(crate) device: PathBuf,
}

/// What is run on them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Order {
    /// Program and arguments; empty: nothing is run.
    pub(crate) command: Vec<String>,
    /// Who runs it, and owns what is made.
    pub(crate) user: Option<String>,
    /// The volume that may be formatted whatever is on it.
    pub(crate) confirm: Option<String>,
}

impl Place {
    /// What is to be done before it can be mounted.
    pub(crate) fn step(&self, order: &Order) -> Result<Step, Failure> {
        let content = Content::of(&self.device)?;
        let confirmed = order.confirm.as_deref() == Some(self.settings.volume.as_str());
        step(&content, &self.settings, confirmed)
    }

    fn make(&self, force: bool) -> Result<(), Failure> {
        let device = self.device.display().to_string();
        run(Command::new(format!("mkfs.{}", self.settings.kind))
            .args(making(&self.settings.kind, force))
            .arg(device))
    }

    /// What is mounted there, the uppermost last.
    fn mounted(&self) -> Result<Vec<Mount>, Failure> {
        let mountinfo = Path::new("/proc/self/mountinfo");
        let mut all = mounts::read().map_err(|error| Failure::file(mountinfo, "read", &error))?;
        all.retain(|mount| mount.mount_point == self.settings.mount_point);
        Ok(all)
    }

    /// Mounted by this, or by an earlier run that was cut short.
    fn mount(&self) -> Result<(), Failure> {
        let point = &self.settings.mount_point;
        let device = fs::canonicalize(&self.device)
            .map_err(|error| Failure::file(&self.device, "find", &error))?;
        if let Some(other) = self.mounted()?.pop() {
            if Path::new(&other.source) == device {
                return Ok(());
            }
            return Err(Failure::new(
                "LS6214",
                format!(
                    "{} holds a mount of {} already",
                    point.display(),
                    other.source
                ),
                "unmount it, and see who mounts it (fstab? a unit?)",
            ));
        }
        fs::create_dir_all(point).map_err(|error| Failure::file(point, "make", &error))?;
        let (flags, data) = parse_options(&self.settings.options);
        let data = (!data.is_empty()).then_some(data.as_str());
        let kind = Some(self.settings.kind.as_str());
        mount(Some(&device), point, kind, flags, data).map_err(|errno| {
            Failure::new(
                "LS6214",
                format!(
                    "cannot mount {} on {}: {errno}",
                    device.display(),
                    point.display()
                ),
                "`dmesg` says what the kernel does not like",
            )
        })
    }

    /// Away, whatever the command left.
    fn unmount(&self) -> Result<(), Failure> {
        let point = &self.settings.mount_point;
        let began = Instant::now();
        while !self.mounted()?.is_empty() {
            match umount2(point, MntFlags::UMOUNT_NOFOLLOW) {
                Err(Errno::EBUSY) if began.elapsed() < BUSY_TIME => sleep(BUSY_INTERVAL),
                Ok(()) => {}
                Err(errno) => {
                    let users = if errno == Errno::EBUSY {
                        format!(": {}", name_users(point))
                    } else {
                        String::new()
                    };
                    return Err(Failure::new(
                        "LS6214",
                        format!("cannot unmount {}: {errno}{users}", point.display()),
                        "end what uses it, `umount` it, then run the command again or `lockstep group clear`",
                    ));
                }
            }
        }
        Ok(())
    }
}

/// What makes a file system of this type; a discard of the whole volume would count as a write of all of it.
fn making(kind: &str, force: bool) -> Vec<&'static str> {
    let (quiet, forced) = match kind {
        "xfs" => (vec!["-q", "-K"], "-f"),
        "btrfs" => (vec!["-q", "-K"], "-f"),
        _ => (vec!["-q", "-E", "nodiscard"], "-F"),
    };
    let forced = force.then_some(forced);
    quiet.into_iter().chain(forced).collect()
}

fn run(command: &mut Command) -> Result<(), Failure> {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let words = words.join(" ");
    println!("  {words}");
    let status = command.status().map_err(|error| {
        Failure::new(
            "LS6214",
            format!("cannot run `{words}`: {error}"),
            "see that the program is installed and its path right, then run the command again",
        )
    })?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(
        "LS6214",
        format!("`{words}` ended with {status}; nothing was started"),
        "mend what it complains of, then run the command again: what is made already stays",
    ))
}

/// Makes what is missing, mounts all, runs the command, unmounts all. What was mounted is unmounted also if something failed.
///
/// # Errors
/// [`Failure`], LS6213 and LS6214.
pub(crate) fn carry_out(places: &[Place], order: &Order) -> Result<(), Failure> {
    let user = order.user.as_deref().map(known).transpose()?;
    // Nothing is made before all can be.
    let steps: Result<Vec<Step>, Failure> = places.iter().map(|place| place.step(order)).collect();
    let steps = steps?;
    let done = on_all(places, &steps, order, user.as_ref());
    for place in places.iter().rev() {
        let unmounted = place.unmount();
        if done.is_ok() {
            unmounted?;
        }
    }
    done
}

fn on_all(
    places: &[Place],
    steps: &[Step],
    order: &Order,
    user: Option<&User>,
) -> Result<(), Failure> {
    for (place, step) in places.iter().zip(steps) {
        if let Step::Make { force } = *step {
            place.make(force)?;
        }
        place.mount()?;
        let point = &place.settings.mount_point;
        println!("  mounted on {}", point.display());
        if let (Step::Make { .. }, Some(user)) = (step, user) {
            let (owner, group) = (user.uid.as_raw(), user.gid.as_raw());
            chown(point, Some(owner), Some(group))
                .map_err(|error| Failure::file(point, "change the owner of", &error))?;
        }
    }
    let (Some((program, arguments)), Some(first)) = (order.command.split_first(), places.first())
    else {
        return Ok(());
    };
    let mut command = as_user(program, arguments, user);
    let _caught = Caught::new()?;
    run(command.current_dir(&first.settings.mount_point))
}

fn as_user(program: &str, arguments: &[String], user: Option<&User>) -> Command {
    let Some(user) = user else {
        let mut command = Command::new(program);
        command.args(arguments);
        return command;
    };
    // It opens no session, as `su` would.
    let mut command = Command::new("setpriv");
    let reuid = format!("--reuid={}", user.uid);
    let regid = format!("--regid={}", user.gid);
    command
        .args([&reuid, &regid, "--init-groups", "--", program])
        .args(arguments)
        .env("HOME", &user.dir)
        .env("USER", &user.name)
        .env("LOGNAME", &user.name);
    command
}

fn known(name: &str) -> Result<User, Failure> {
    let user = User::from_name(name).ok().flatten();
    user.ok_or_else(|| {
        Failure::new(
            "LS6214",
            format!("this machine has no user {name}"),
            "install what brings the user, or name another one with --user",
        )
    })
}

/// What ends the command from the terminal ends it alone: the file systems are unmounted then.
struct Caught {
    _runtime: tokio::runtime::Runtime,
}

impl Caught {
    fn new() -> Result<Self, Failure> {
        let caught = || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .build()?;
            let entered = runtime.enter();
            for kind in [
                SignalKind::interrupt(),
                SignalKind::hangup(),
                SignalKind::terminate(),
            ] {
                // From now on it does not end this process; nobody has to listen.
                drop(signal(kind)?);
            }
            drop(entered);
            Ok(Self { _runtime: runtime })
        };
        caught().map_err(|error| Failure::file(Path::new("signals"), "listen to", &error))
    }
}

#[cfg(test)]
mod tests;

//! `ublk-mirror`: the daemon of one volume, and the tools that make and check its copy.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mirror_log::last_words;
use ublk_mirror::adopt::{self, AdoptRequest, Adopted};
use ublk_mirror::config::Config;
use ublk_mirror::device::{HELPER_SUBCOMMAND, HelperFailure};
use ublk_mirror::device_helper::Features;
use ublk_mirror::explain::Explain;
use ublk_mirror::format::{self, BITMAP_BLOCK_BYTES, FormatRequest};
use ublk_mirror::log;
use ublk_mirror::startup::{self, RunOptions, Ublk};

/// The data plane of Lockstep: one mirrored volume as a block device.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Serve a volume (in the foreground)
    Run {
        /// The volume's configuration
        #[arg(long)]
        config: PathBuf,
        /// Only hold a copy; regular files will do
        #[arg(long, hide = true)]
        no_device: bool,
        /// Where sockets, locks and records are
        #[arg(long, hide = true, default_value_os_t = runtime_directory())]
        runtime_dir: PathBuf,
        /// Where blocks of discarded sides are kept
        #[arg(long, hide = true, default_value_os_t = state_directory())]
        state_dir: PathBuf,
    },
    /// Make this node's copy: writes the metadata, destroys what they stand on
    Format {
        /// The volume's configuration
        #[arg(long)]
        config: PathBuf,
        /// The other node holds the data; this copy will be filled from it
        #[arg(long)]
        join: bool,
        /// Also where something else is found on the devices
        #[arg(long)]
        force: bool,
        /// With --force: the name of the volume whose copy on the device is thrown away
        #[arg(long, value_name = "NAME", requires = "force")]
        confirm: Vec<String>,
        /// Bytes of the volume; without it all that fits
        #[arg(long, value_name = "BYTES")]
        size: Option<u64>,
        /// Bytes that the volume may grow to later; without it 4 times its size
        #[arg(long, value_name = "BYTES")]
        grow_to: Option<u64>,
        /// Bytes that one bit of the bitmap stands for, a power of two
        #[arg(long, value_name = "BYTES", default_value_t = BITMAP_BLOCK_BYTES)]
        bitmap_block: u64,
        /// Where sockets, locks and records are
        #[arg(long, hide = true, default_value_os_t = runtime_directory())]
        runtime_dir: PathBuf,
    },
    /// Make the backing device the volume's although it is another disk than the one that the metadata know
    AdoptDisk {
        /// The volume's configuration
        #[arg(long)]
        config: PathBuf,
        /// The volume's name: all of its data are on this disk
        #[arg(long, value_name = "NAME")]
        confirm: String,
        /// Where sockets, locks and records are
        #[arg(long, hide = true, default_value_os_t = runtime_directory())]
        runtime_dir: PathBuf,
    },
    /// Look whether the configuration is right and the metadata belongs to it
    Check {
        /// The volume's configuration
        #[arg(long)]
        config: PathBuf,
    },
    /// Say as JSON what the ublk driver can do, of what is used here (needs root)
    Features,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    if arguments
        .nth(1)
        .is_some_and(|first| first == HELPER_SUBCOMMAND)
    {
        return help();
    }
    match carry_out(Arguments::parse().action) {
        Ok(()) => ExitCode::SUCCESS,
        Err(()) => ExitCode::FAILURE,
    }
}

/// What went wrong was told.
fn carry_out(action: Action) -> Result<(), ()> {
    match action {
        Action::Run {
            config,
            no_device,
            runtime_dir,
            state_dir,
        } => {
            let ublk = if no_device { Ublk::Without } else { Ublk::With };
            run(&RunOptions {
                config,
                runtime_dir,
                state_dir,
                ublk,
            })
        }
        Action::Format {
            config,
            join,
            force,
            confirm,
            size,
            grow_to,
            bitmap_block,
            runtime_dir,
        } => {
            let request = FormatRequest {
                copy: if join {
                    format::Copy::Joins
                } else {
                    format::Copy::First
                },
                force,
                confirmed: confirm,
                size_bytes: size,
                growth_bytes: grow_to,
                bitmap_block_bytes: bitmap_block,
                runtime_dir,
            };
            make(&config, &request)
        }
        Action::AdoptDisk {
            config,
            confirm,
            runtime_dir,
        } => {
            let request = AdoptRequest {
                confirm,
                runtime_dir,
            };
            adopt_disk(&config, &request)
        }
        Action::Check { config } => check(&config),
        Action::Features => features(),
    }
}

/// The device helper: until its daemon is gone.
fn help() -> ExitCode {
    let _log = match log::begin() {
        Ok(log) => log,
        Err(error) => {
            no_log(&error);
            return ExitCode::FAILURE;
        }
    };
    match ublk_mirror::device_helper::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "device helper");
            ExitCode::FAILURE
        }
    }
}

/// The daemon: until an operator ends it.
fn run(options: &RunOptions) -> Result<(), ()> {
    let _log = log::begin().map_err(|error| no_log(&error))?;
    startup::run(options).map_err(|error| tell(&error))
}

fn no_log(error: &io::Error) {
    last_words(&format!(
        "ublk-mirror: LS3035: cannot start the thread of the log: {error}\n  what to do: {}",
        "see how many threads and open files this machine allows"
    ));
}

fn make(config: &Path, request: &FormatRequest) -> Result<(), ()> {
    log::begin_at_once();
    let config = Config::load(config).map_err(|error| tell(&error))?;
    let made = format::format(&config, request).map_err(|error| tell(&error))?;
    // It is made, whether that can be told or not.
    say(&made).or(Ok(()))
}

fn adopt_disk(config: &Path, request: &AdoptRequest) -> Result<(), ()> {
    log::begin_at_once();
    let config = Config::load(config).map_err(|error| tell(&error))?;
    let volume = &config.volume;
    let backing = config.backing.display();
    let done = match adopt::adopt(&config, request).map_err(|error| tell(&error))? {
        Adopted::Already => format!(
            "volume {volume}: nothing says that {backing} is another disk; nothing was changed"
        ),
        Adopted::Now(says) => format!("volume {volume}: its disk is {backing} now ({says})"),
    };
    // It is done, whether that can be told or not.
    say(&done).or(Ok(()))
}

fn check(config: &Path) -> Result<(), ()> {
    log::begin_at_once();
    let config = Config::load(config).map_err(|error| tell(&error))?;
    let found = format::check(&config).map_err(|error| tell(&error))?;
    say(&found)
}

fn features() -> Result<(), ()> {
    log::begin_at_once();
    let found = ublk_mirror::device_helper::features().map_err(|failure| {
        let (code, advice) = why_not_asked(&failure);
        farewell(code, &failure, advice);
    })?;
    let Features { recovery, resize } = found;
    let line = serde_json::json!({"recovery": recovery, "resize": resize});
    say(&line)
}

/// Why the driver does not answer, and what to do.
fn why_not_asked(failure: &HelperFailure) -> (&'static str, &'static str) {
    use nix::libc;
    const RIGHTS: &str = "run it as root; in a container, hand /dev/ublk-control in and allow it";
    const LOAD: &str = "`modprobe ublk_drv`; it is part of Linux 6.8 and later";
    const RING: &str = "allow io_uring here: `sysctl kernel.io_uring_disabled` is 0 or 1, and no filter (seccomp, a container's \
                        profile) forbids it; and see that the kernel is 6.8 or later";
    match failure {
        HelperFailure::NoUblk { errno } => match *errno {
            libc::EACCES | libc::EPERM => ("LS3020", RIGHTS),
            _ => ("LS3020", LOAD),
        },
        HelperFailure::Command { errno, .. } => match *errno {
            // io_uring itself, or a filter before it: the driver was opened.
            libc::EPERM | libc::EACCES | libc::ENOSYS | libc::ENOMEM => ("LS3033", RING),
            _ => ("LS3020", "boot a kernel of 6.8 or later"),
        },
        HelperFailure::FlagsMasked { .. }
        | HelperFailure::NoResize
        | HelperFailure::BlockSize { .. }
        | HelperFailure::StillBusy { .. }
        | HelperFailure::TooMany { .. }
        | HelperFailure::BadRequest => ("LS3020", "boot a kernel of 6.8 or later"),
    }
}

/// Tests put it elsewhere, for this program and for `lockstep` alike.
fn runtime_directory() -> PathBuf {
    std::env::var_os("LOCKSTEP_RUN_DIR")
        .map_or_else(|| PathBuf::from(startup::RUNTIME_DIRECTORY), PathBuf::from)
}

fn state_directory() -> PathBuf {
    std::env::var_os("LOCKSTEP_STATE_DIR")
        .map_or_else(|| PathBuf::from(startup::STATE_DIRECTORY), PathBuf::from)
}

fn tell(error: &impl Explain) {
    farewell(error.code(), &error.chain(), &error.advice());
}

/// `lockstepd` looks for these words in the log of a daemon that ended.
fn farewell(code: &str, why: &dyn Display, advice: &str) {
    last_words(&format!(
        "ublk-mirror: {code}: {why}\n  what to do: {advice}"
    ));
}

/// What was asked for; an error if nobody can be told.
fn say(what: &dyn Display) -> Result<(), ()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{what}")
        .and_then(|()| out.flush())
        .map_err(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::libc;
    use ublk_mirror::device::Control;

    #[test]
    fn why_the_driver_does_not_answer_is_said_by_the_reason() {
        let told = |failure| why_not_asked(&failure);
        let absent = told(HelperFailure::NoUblk {
            errno: libc::ENOENT,
        });
        assert!(absent.0 == "LS3020" && absent.1.contains("modprobe"));
        let refused = told(HelperFailure::NoUblk {
            errno: libc::EACCES,
        });
        assert!(refused.0 == "LS3020" && !refused.1.contains("modprobe"));
        let command = |errno| HelperFailure::Command {
            command: Control::GetFeatures,
            dev_id: u32::MAX,
            errno,
        };
        let filtered = told(command(libc::ENOSYS));
        assert!(filtered.0 == "LS3033" && filtered.1.contains("io_uring"));
        let old = told(command(libc::EOPNOTSUPP));
        assert!(old.0 == "LS3020" && old.1.contains("kernel"));
    }
}

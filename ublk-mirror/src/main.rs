//! `ublk-mirror`: the daemon of one volume, and the tools that make and check its copy.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;
use ublk_mirror::adopt::{self, AdoptRequest, Adopted};
use ublk_mirror::config::Config;
use ublk_mirror::device::{HELPER_SUBCOMMAND, HelperFailure};
use ublk_mirror::device_helper::Features;
use ublk_mirror::explain::Explain;
use ublk_mirror::format::{self, BITMAP_BLOCK_BYTES, FormatRequest};
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
    if std::env::args_os()
        .nth(1)
        .is_some_and(|first| first == HELPER_SUBCOMMAND)
    {
        start_log();
        return match ublk_mirror::device_helper::run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!(%error, "device helper");
                ExitCode::FAILURE
            }
        };
    }
    let arguments = Arguments::parse();
    start_log();
    match carry_out(arguments.action) {
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
            startup::run(&RunOptions {
                config,
                runtime_dir,
                state_dir,
                ublk,
            })
            .map_err(|error| tell(&error))
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

fn make(config: &Path, request: &FormatRequest) -> Result<(), ()> {
    let config = Config::load(config).map_err(|error| tell(&error))?;
    let made = format::format(&config, request).map_err(|error| tell(&error))?;
    println!("{made}");
    Ok(())
}

fn adopt_disk(config: &Path, request: &AdoptRequest) -> Result<(), ()> {
    let config = Config::load(config).map_err(|error| tell(&error))?;
    let volume = &config.volume;
    let backing = config.backing.display();
    match adopt::adopt(&config, request).map_err(|error| tell(&error))? {
        Adopted::Already => println!(
            "volume {volume}: nothing says that {backing} is another disk; nothing was changed"
        ),
        Adopted::Now(says) => println!("volume {volume}: its disk is {backing} now ({says})"),
    }
    Ok(())
}

fn check(config: &Path) -> Result<(), ()> {
    let config = Config::load(config).map_err(|error| tell(&error))?;
    let found = format::check(&config).map_err(|error| tell(&error))?;
    println!("{found}");
    Ok(())
}

fn features() -> Result<(), ()> {
    let found = ublk_mirror::device_helper::features().map_err(|failure| {
        let (code, advice) = why_not_asked(&failure);
        eprintln!("ublk-mirror: {code}: {failure}");
        eprintln!("  what to do: {advice}");
    })?;
    let Features { recovery, resize } = found;
    let line = serde_json::json!({"recovery": recovery, "resize": resize});
    println!("{line}");
    Ok(())
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

/// Times are RFC 3339 in UTC; `RUST_LOG` changes what is shown.
fn start_log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_env_filter(filter)
        .init();
}

fn tell(error: &impl Explain) {
    eprintln!("ublk-mirror: {}: {}", error.code(), error.chain());
    eprintln!("  what to do: {}", error.advice());
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

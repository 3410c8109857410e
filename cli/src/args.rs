//! The command line.

mod cluster;

use std::path::PathBuf;

pub(crate) use cluster::{Cluster, Door, RotateAuthority, RotateKeys, Together};

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

use crate::config::NodeAddress;
use crate::size::parse_size;

const EXIT_CODES: &str = "\
Exit codes of `status` and `volume status`:
  0  healthy: the volume is served and both copies are equal
  1  degraded: it is served, but one good copy is all there is
  2  down: nobody serves it, its writes are frozen, or no daemon runs here
  3  unknown: this node cannot tell
  With several volumes the worst counts: 2, then 3, then 1.
Exit codes of everything else: 0 done, 1 refused or failed (nothing was changed
unless the message says so), 64 wrong usage; `config plan`: 2 something changes.";

const VERIFY_EXIT_CODES: &str = "\
Exit codes with --wait: 0 the whole volume was compared and both copies are equal now, 1 not so.";

const WAIT_EXIT_CODES: &str = "\
Exit codes: 0 done (without --wait: both nodes will come to it), 1 refused, or it
came to nothing, 3 nobody can tell: no control plane answers, or the time is over.";

const POWER_AFTER: &str = "\
This node is suspended as long as its groups leave. If a group cannot be moved, the machine
stays up; what was moved until then stays moved.
Exit codes: 0 the machine goes down, 1 refused or failed, 3 nobody can tell: no control plane
answers, or a volume's daemon does not say who serves it.";

const PREPARE_AFTER: &str = "\
For example:
  lockstep group prepare pg --user postgres -- /usr/lib/postgresql/15/bin/initdb -D /srv/pg/data

On the node that serves the group's volumes, while nothing of it runs. A file system is made
where the volume is empty; one that is there is mounted as it is; anything else is refused. If
something fails nothing stays mounted, and the command can be typed again.
Exit codes: 0 the group runs, 1 refused or failed, 3 no control plane answers.";

const DOCTOR_EXIT_CODES: &str = "\
Exit codes: 0 all that was looked at is right, 1 warnings, 2 errors, 3 something could
not be looked at (mostly for want of root), 64 wrong usage. With several of them: 2, then
3, then 1. What is not there yet, such as volumes before the first one is created, counts
as nothing. No program is started but `lockstepd --version`, `ublk-mirror --version`,
`check` and `features`; nothing is written, armed, or sent to the other node.";

const EVENTS_EXIT_CODES: &str = "\
Exit codes: 0 told (also if the other node could not be asked, which is said), 3 no control plane
answers here, 64 wrong usage.";

const WHY_EXIT_CODES: &str = "\
Exit codes: 0 told, 1 there is no such group or volume, 3 no control plane answers here, 64 wrong
usage.";

const COMPLETIONS_AFTER: &str = "Where the system's shells look for it:
  bash  lockstep completions bash > /usr/share/bash-completion/completions/lockstep
  zsh   lockstep completions zsh > /usr/local/share/zsh/site-functions/_lockstep
  fish  lockstep completions fish > /etc/fish/completions/lockstep.fish";

const MAN_AFTER: &str = "\
A page is called lockstep.8, lockstep-volume.8, lockstep-volume-create.8 and so on. Pages
that are there are replaced.";

/// One block device, kept identical on two servers.
#[derive(Debug, Parser)]
#[command(name = "lockstep", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) noun: Noun,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Noun {
    /// Mirrored volumes
    #[command(subcommand)]
    Volume(Box<Volume>),
    /// Groups of volumes and what runs on them
    #[command(subcommand)]
    Group(Group),
    /// The servers
    #[command(subcommand)]
    Node(Node),
    /// For backup windows: how long the nodes wait for each other, longer for a while; without a word what is in force
    Timeouts(crate::cmd::timeouts::Timeouts),
    /// The cluster: make its keys and certificates, let the other machines join; stop, start or suspend all of it
    #[command(subcommand)]
    Cluster(Cluster),
    /// Say how the cluster is, as this node's control plane sees it
    #[command(after_help = EXIT_CODES)]
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Again every second
        #[arg(long)]
        watch: bool,
    },
    /// What happened in the cluster, the newest last: one line for each event, with its time, node, severity and code
    #[command(after_help = EVENTS_EXIT_CODES)]
    Events(crate::cmd::events::Events),
    /// Why this node decided what it decided about its groups, what it waits for, and what ends that
    #[command(after_help = WHY_EXIT_CODES)]
    Why {
        /// A group, or a volume of one [default: all groups]
        #[arg(value_name = "GROUP|VOLUME")]
        name: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Look whether this server has what Lockstep needs: kernel, driver, networks, disks, keys; nothing is changed
    #[command(after_help = DOCTOR_EXIT_CODES)]
    Doctor {
        /// The cluster's configuration [default: /etc/lockstep/cluster.toml]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// This node's name in it [default: the host name]
        #[arg(long, value_name = "NAME")]
        node: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// What a code such as LS1002 means and what to do
    Explain {
        /// The code
        code: String,
    },
    /// The cluster's configuration file, /etc/lockstep/cluster.toml
    #[command(subcommand)]
    Config(crate::cmd::config::Command),
    /// Print what makes a shell complete the words of this command
    #[command(after_help = COMPLETIONS_AFTER)]
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Write a manual page for each command into a directory
    #[command(after_help = MAN_AFTER)]
    Man {
        /// The directory, such as /usr/local/share/man/man8; it is made if it is not there
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
}

/// A shell that completes words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    /// GNU Bash, with the package bash-completion
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Group {
    /// Run the group on the other node: its resources stop here, its volumes are handed over, all starts there
    #[command(after_help = WAIT_EXIT_CODES)]
    Move {
        /// The group
        name: String,
        /// Where it shall run [default: the node that does not serve it]
        #[arg(long, value_name = "NODE")]
        to: Option<String>,
        #[command(flatten)]
        patience: Patience,
    },
    /// Stop the group, and keep it stopped on both nodes, also over reboots, until it is started
    #[command(after_help = WAIT_EXIT_CODES)]
    Stop {
        /// The group
        name: String,
        #[command(flatten)]
        patience: Patience,
    },
    /// Run a stopped group again
    #[command(after_help = WAIT_EXIT_CODES)]
    Start {
        /// The group
        name: String,
        /// The node that begins [default: where it ran]
        #[arg(long, value_name = "NODE")]
        on: Option<String>,
        #[command(flatten)]
        patience: Patience,
    },
    /// The first time: make the file systems of an empty group, run a command on them, such as initdb, and let it start
    #[command(after_help = PREPARE_AFTER)]
    Prepare(crate::cmd::prepare::Prepare),
    /// Forget on both nodes what failed: resources that did not start or stop, counted failovers
    Clear {
        /// The group
        name: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct Patience {
    /// Wait until it is done, and show the progress
    #[arg(long)]
    pub(crate) wait: bool,
    /// With --wait: no longer than this
    #[arg(long, value_name = "SECONDS", default_value_t = 300, requires = "wait")]
    pub(crate) timeout: u64,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Node {
    /// For maintenance: the node takes nothing over and nothing is moved to it; what it serves it goes on serving
    Suspend {
        /// The node [default: this one]
        name: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Move all groups that run on this node to the other one, one after the other, before this machine goes down
    #[command(after_help = WAIT_EXIT_CODES)]
    Leave {
        /// No longer than this for each group
        #[arg(long, value_name = "SECONDS", default_value_t = 300)]
        timeout: u64,
    },
    /// Move all groups that run on this node to the other one, then switch this machine off
    #[command(after_help = POWER_AFTER)]
    Shutdown(Power),
    /// Move all groups that run on this node to the other one, then reboot this machine
    #[command(after_help = POWER_AFTER)]
    Reboot(Power),
    /// The node takes over again
    Resume {
        /// The node [default: this one]
        name: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Power {
    /// The node: only the one on which this is typed [default: this one]
    pub(crate) name: Option<String>,
    /// Stop a group that runs here and cannot be moved: it stays stopped until `lockstep group start`
    #[arg(long)]
    pub(crate) force: bool,
    /// Say what would be done, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// No longer than this for each group
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub(crate) timeout: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Volume {
    /// Make this node's copy of a volume: configuration, key, metadata
    Create(Create),
    /// Start the volume's daemon on this node; it does not serve the volume by itself
    Start {
        /// The volume
        name: String,
    },
    /// Stop the volume's daemon on this node
    Stop {
        /// The volume
        name: String,
    },
    /// Say how volumes are
    #[command(after_help = EXIT_CODES)]
    Status {
        /// The volume; all of this node without it
        name: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Again every second
        #[arg(long)]
        watch: bool,
    },
    /// Serve the volume on this node, as /dev/lockstep/NAME
    Activate {
        /// The volume
        name: String,
        /// Also if lockstepd would undo it (it does, unless it is stopped before), or this node is suspended (it is kept)
        #[arg(long)]
        by_hand: bool,
    },
    /// Stop serving the volume on this node
    Deactivate {
        /// The volume
        name: String,
        /// Also if it is mounted or open, or its writes are frozen: its users get I/O errors
        #[arg(long)]
        force: bool,
        /// Also if lockstepd keeps it served: it begins again at once, unless it is stopped before or this node is suspended
        #[arg(long)]
        by_hand: bool,
    },
    /// Make the volume larger, while it is served; the backing devices of both nodes are enlarged before
    Grow {
        /// The volume
        name: String,
        /// The new size, such as 20GiB; without it all that both backing devices have room for
        #[arg(long, value_parser = parse_size, value_name = "SIZE")]
        size: Option<u64>,
    },
    /// Go on without the other node, which you know to be off
    Takeover {
        /// The volume
        name: String,
        /// "PEER is off", with the other node's name: what you vouch for
        #[arg(long, value_name = "WORDS")]
        confirm: Option<String>,
        /// Also if lockstepd would undo it (it does, unless it is stopped before), or this node is suspended (it is kept)
        #[arg(long)]
        by_hand: bool,
    },
    /// After a split brain: show both sides; with --discard, throw this node's side away
    Resolve {
        /// The volume
        name: String,
        /// The node whose copy is discarded: the one on which this is run
        #[arg(long, value_name = "NODE", requires = "confirm")]
        discard: Option<String>,
        /// The volume's name once more: what was written on the discarded side alone is gone from the volume
        #[arg(long, value_name = "NAME", requires = "discard")]
        confirm: Option<String>,
        /// Keep what only this side has in this new file [default: one in /var/lib/lockstep/discarded]
        #[arg(
            long,
            value_name = "FILE",
            requires = "discard",
            conflicts_with = "no_keep"
        )]
        keep: Option<PathBuf>,
        /// Keep nothing of it
        #[arg(long, requires = "discard")]
        no_keep: bool,
    },
    /// What a discarded side of a split brain had alone: list, look, take out
    #[command(subcommand)]
    Discarded(Discarded),
    /// Make this node's copy the only one that counts although it is not complete
    Force {
        /// The volume
        name: String,
        /// The volume's name once more: acknowledged writes are lost
        #[arg(long, value_name = "NAME")]
        confirm: Option<String>,
    },
    /// On the standby: keep its copy as it is now, and show it read-only as /dev/lockstep/NAME.isolated
    Isolate {
        /// The volume
        name: String,
    },
    /// End an isolation: what the copy here missed is copied, and it counts again
    Attach {
        /// The volume
        name: String,
        /// Also if the read-only device is mounted or open: its users get I/O errors
        #[arg(long)]
        force: bool,
    },
    /// Compare both copies while the volume is used, and repair them where they differ
    #[command(after_help = VERIFY_EXIT_CODES)]
    Verify(Verify),
    /// Give up the copy on this node: it stops to count, and all of it is copied again
    Invalidate {
        /// The volume
        name: String,
        /// The volume's name once more
        #[arg(long, value_name = "NAME")]
        confirm: Option<String>,
    },
    /// The backing device is another disk now: its data were copied there on purpose. The volume's daemon does not run
    AdoptDisk {
        /// The volume
        name: String,
        /// The volume's name once more: all of its data are on the disk that `backing` names
        #[arg(long, value_name = "NAME")]
        confirm: Option<String>,
    },
    /// Pause the resync that this node is the source of, or let it go on
    #[command(group(ArgGroup::new("what").required(true)))]
    Resync {
        /// The volume
        name: String,
        /// Send nothing more, until --resume or the daemon's end
        #[arg(long, group = "what")]
        pause: bool,
        /// Go on
        #[arg(long, group = "what")]
        resume: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Discarded {
    /// The files that there are on this node
    List {
        /// Another directory than /var/lib/lockstep/discarded
        directory: Option<PathBuf>,
    },
    /// What is in a file; every checksum is looked at
    Show {
        /// The file
        file: PathBuf,
        /// Every range
        #[arg(long)]
        all: bool,
    },
    /// Write the blocks to their places in a new image, or over a device that nobody uses
    Export(Export),
}

#[derive(Args, Debug)]
#[command(group(ArgGroup::new("where").required(true)))]
pub(crate) struct Export {
    /// The file
    pub(crate) file: PathBuf,
    /// A new sparse image of the volume's size; what is not in the file is a hole
    #[arg(long, value_name = "IMAGE", group = "where")]
    pub(crate) to: Option<PathBuf>,
    /// A block device that is not in use: its blocks are OVERWRITTEN
    #[arg(long, value_name = "DEVICE", group = "where")]
    pub(crate) onto: Option<PathBuf>,
    /// With --onto: the name of the volume that the blocks are of
    #[arg(long, value_name = "NAME", requires = "onto")]
    pub(crate) confirm: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Verify {
    /// The volume
    pub(crate) name: String,
    /// Write blocks that differ, from this node's copy to the other one
    #[arg(long)]
    pub(crate) repair: bool,
    /// The node whose copy is right; implies --repair
    #[arg(long, value_name = "NODE")]
    pub(crate) repair_from: Option<String>,
    /// With --repair-from the other node, whose blocks are written over what applications see here: the volume's name
    #[arg(long, value_name = "NAME", requires = "repair_from")]
    pub(crate) confirm: Option<String>,
    /// Wait for the end, and show the progress
    #[arg(long)]
    pub(crate) wait: bool,
    /// End the verify that runs
    #[arg(long, conflicts_with_all = ["repair", "repair_from", "confirm", "wait"])]
    pub(crate) stop: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Create {
    /// The volume's name, the same on both nodes
    pub(crate) name: String,
    /// The block device that holds this copy
    #[arg(long, value_name = "DEVICE")]
    pub(crate) backing: PathBuf,
    /// A block device for the metadata; without it a part of the backing device is used
    #[arg(long, value_name = "DEVICE")]
    pub(crate) metadata: Option<PathBuf>,
    /// This node: its name, and its address on the mirror link, or two for two paths [default: as in cluster.toml, the first
    /// two interconnects, port 7420]
    #[arg(long, value_name = "NAME=IP:PORT[,IP:PORT]", requires = "peer")]
    pub(crate) node: Option<NodeAddress>,
    /// The other node, with as many addresses in the same order
    #[arg(long, value_name = "NAME=IP:PORT[,IP:PORT]", requires = "node")]
    pub(crate) peer: Option<NodeAddress>,
    /// The cluster key, the same on both nodes [default: cluster.key beside the configuration]
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// This copy is to be filled from the other node: what is on the device here is lost
    #[arg(long)]
    pub(crate) join: bool,
    /// Also if the device seems to hold something
    #[arg(long)]
    pub(crate) force: bool,
    /// With --force: the name of the volume whose copy on the device is thrown away
    #[arg(long, value_name = "NAME", requires = "force")]
    pub(crate) confirm: Vec<String>,
    /// Size of the volume, such as 10GiB; without it all that fits
    #[arg(long, value_parser = parse_size, value_name = "SIZE")]
    pub(crate) size: Option<u64>,
    /// Reserve metadata for a volume of up to this size
    #[arg(long, value_parser = parse_size, value_name = "SIZE")]
    pub(crate) grow_to: Option<u64>,
    /// What one bit of the bitmap stands for: a power of two from 4KiB to 512KiB, no less than the device's logical block [default: 4KiB]
    #[arg(long, value_parser = parse_size, value_name = "SIZE")]
    pub(crate) bitmap_block: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed_and_documents_its_exit_codes() {
        Cli::command().debug_assert();
        let help = Cli::command().render_long_help().to_string();
        assert!(help.contains("64 wrong usage"), "{help}");
    }

    #[test]
    fn a_move_takes_what_the_manual_says() {
        let words = "lockstep group move pg --to node2 --wait --timeout 60 --json";
        let cli = Cli::try_parse_from(words.split_whitespace()).unwrap();
        let Noun::Group(Group::Move { name, to, patience }) = cli.noun else {
            panic!("not a move")
        };
        assert_eq!((name.as_str(), to.as_deref()), ("pg", Some("node2")));
        assert!(patience.wait && patience.json && patience.timeout == 60);
        let words = "lockstep group move pg --timeout 60";
        assert!(Cli::try_parse_from(words.split_whitespace()).is_err());
    }

    #[test]
    fn create_takes_what_the_manual_says() {
        let words = "lockstep volume create data --backing /dev/vdb --node node1=10.77.3.1:7420 \
                     --peer node2=10.77.3.2:7420 --size 1GiB --bitmap-block 64KiB --join";
        let cli = Cli::try_parse_from(words.split_whitespace()).unwrap();
        let Noun::Volume(volume) = cli.noun else {
            panic!("not a volume")
        };
        let Volume::Create(create) = *volume else {
            panic!("not create")
        };
        assert_eq!(create.size, Some(1 << 30));
        assert_eq!(create.bitmap_block, Some(64 << 10));
        assert!(create.join && !create.force);
        assert_eq!(create.peer.map(|peer| peer.name).as_deref(), Some("node2"));
        let half = "lockstep volume create data --backing /dev/vdb --node node1=10.77.3.1:7420";
        assert!(Cli::try_parse_from(half.split(' ')).is_err());
        let name_alone = "lockstep volume create data --backing /dev/vdb --confirm data";
        assert!(Cli::try_parse_from(name_alone.split(' ')).is_err());
        let forced = format!("{name_alone} --force");
        assert!(Cli::try_parse_from(forced.split(' ')).is_ok());
    }
}

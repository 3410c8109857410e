//! Where things are on a node, with the environment variables that tests set.

use std::env;
use std::path::PathBuf;

use mirror_core::limits::VOLUME_NAME_BYTES_MAX;

/// Names the directory of the admin sockets instead of [`RUN_DIRECTORY`].
pub const RUN_DIRECTORY_VARIABLE: &str = "LOCKSTEP_RUN_DIR";
/// Where the admin sockets are.
pub const RUN_DIRECTORY: &str = "/run/lockstep";

/// The directory of the admin sockets.
pub fn run_directory() -> PathBuf {
    env::var_os(RUN_DIRECTORY_VARIABLE).map_or_else(|| PathBuf::from(RUN_DIRECTORY), PathBuf::from)
}

/// The admin socket of a volume.
pub fn admin_socket(volume: &str) -> PathBuf {
    run_directory().join(format!("{volume}.sock"))
}

/// Names the directory of what the control plane remembers instead of [`STATE_DIRECTORY`].
pub const STATE_DIRECTORY_VARIABLE: &str = "LOCKSTEP_STATE_DIR";
/// What the control plane remembers over a reboot.
pub const STATE_DIRECTORY: &str = "/var/lib/lockstep";

/// The directory of what the control plane remembers over a reboot.
pub fn state_directory() -> PathBuf {
    let directory = env::var_os(STATE_DIRECTORY_VARIABLE);
    directory.map_or_else(|| PathBuf::from(STATE_DIRECTORY), PathBuf::from)
}

/// The socket of a node's control plane. A directory of its own: no volume can have its name.
pub fn node_socket() -> PathBuf {
    run_directory().join("lockstepd/api.sock")
}

/// The file that a volume's daemon holds locked (`flock`) as long as it lives.
pub fn daemon_lock(volume: &str) -> PathBuf {
    run_directory().join(format!("{volume}.lock"))
}

/// Whether `name` can be a volume's name: it becomes a file name, a device name and 64 bytes on disk.
pub fn volume_name_is_legal(name: &str) -> bool {
    let legal = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.')
    };
    name.len() < VOLUME_NAME_BYTES_MAX
        && name.bytes().all(legal)
        && name
            .bytes()
            .next()
            .is_some_and(|first| first.is_ascii_lowercase() || first.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_name_cannot_leave_its_directory() {
        for legal in ["data", "pg-data.1", "a_b"] {
            assert!(volume_name_is_legal(legal), "{legal}");
        }
        for illegal in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "-x",
            "Data",
            "with space",
            &"x".repeat(64),
        ] {
            assert!(!volume_name_is_legal(illegal), "{illegal}");
        }
    }
}

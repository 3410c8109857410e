//! Tells the service manager that the daemon is ready (`sd_notify`, `Type=notify`), if it asks for that.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Where the service manager listens.
const SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";

/// The daemon is ready.
pub fn ready() {
    let Some(socket) = env::var_os(SOCKET_VARIABLE) else {
        return;
    };
    if let Err(error) = tell(&socket, b"READY=1") {
        tracing::warn!(code = "LS6129", socket = %socket.display(), %error, "the service manager cannot be told that the daemon is ready");
    }
}

fn tell(socket: &OsStr, words: &[u8]) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
    };
    let sender = UnixDatagram::unbound()?;
    // A manager that does not read holds nothing up.
    sender.set_nonblocking(true)?;
    sender.send_to_addr(words, &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_and_an_abstract_name_are_reached() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify");
        let name = format!("lockstep-notify-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name).expect("a name");
        let cases = [
            (
                path.clone().into_os_string(),
                UnixDatagram::bind(&path).expect("a socket"),
            ),
            (
                format!("@{name}").into(),
                UnixDatagram::bind_addr(&abstract_name).expect("a socket"),
            ),
        ];
        for (socket, manager) in cases {
            tell(&socket, b"READY=1").expect("told");
            let mut words = [0; 16];
            let length = manager.recv(&mut words).expect("words");
            assert_eq!(&words[..length], b"READY=1");
        }
        assert!(tell(OsStr::new("/nowhere/notify"), b"READY=1").is_err());
    }
}

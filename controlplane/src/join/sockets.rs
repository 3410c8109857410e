//! A machine that vanishes without a word is noticed soon: it comes back with a new token.

use std::io;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::TcpStream;

/// What was sent is acknowledged within this time, or the connection is over.
pub(super) const GONE_TIMEOUT: Duration = Duration::from_secs(10);
/// Silence after which the other machine is asked whether it is there, and between two such questions.
const ASK_SECONDS: u32 = 3;

/// Sets a connection up.
pub(super) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let millis = u32::try_from(GONE_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    // It also ends the questions of the keepalive.
    setsockopt(stream, sockopt::TcpUserTimeout, &millis)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &ASK_SECONDS)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &ASK_SECONDS)?;
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::getsockopt;

    /// A cable that is drawn cannot be had on loopback: the kernel is asked what it will do.
    #[tokio::test]
    async fn a_connection_that_is_silent_or_not_acknowledged_ends() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        let _near = TcpStream::connect(address).await.expect("it listens");
        let (stream, _) = listener.accept().await.expect("it comes");
        prepare(&stream).expect("prepared");
        assert_eq!(getsockopt(&stream, sockopt::TcpUserTimeout), Ok(10_000));
        assert_eq!(getsockopt(&stream, sockopt::KeepAlive), Ok(true));
        assert_eq!(getsockopt(&stream, sockopt::TcpKeepIdle), Ok(3));
        assert_eq!(getsockopt(&stream, sockopt::TcpKeepInterval), Ok(3));
    }
}

//! Whether whoever gave a command still waits for it. An operator's word is about the moment at which it was said: a
//! daemon that stood still meanwhile must not carry it out when he may have done something else since, such as
//! switching a machine on again that was off then.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::sys;

/// Who waits for a command, and how long.
#[derive(Debug)]
pub struct Waits {
    /// From then on it must not begin: time of [`sys::boottime`]. `None`: its client did not say (an older one).
    pub until: Option<Duration>,
    /// The connection that it came over. `None`: there was no descriptor to spare for looking.
    pub client: Option<UnixStream>,
}

impl Waits {
    /// Whether nobody waits any more: the time is over, or the client has closed its connection. One that only says
    /// that nothing more will come still waits.
    pub fn is_over(&self) -> bool {
        let late = self.until.is_some_and(|until| sys::boottime() >= until);
        late || self.client.as_ref().is_some_and(has_gone)
    }
}

fn has_gone(client: &UnixStream) -> bool {
    let mut asked = [PollFd::new(client.as_fd(), PollFlags::empty())];
    let hung_up = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
    poll(&mut asked, PollTimeout::ZERO).is_ok_and(|count| count > 0)
        && asked[0]
            .revents()
            .is_some_and(|events| events.intersects(hung_up))
}

#[cfg(test)]
mod tests {
    use std::net::Shutdown;

    use super::*;

    fn waits(client: &UnixStream) -> Waits {
        let client = client.try_clone().ok();
        assert!(client.is_some());
        Waits {
            until: None,
            client,
        }
    }

    #[test]
    fn a_client_waits_until_it_closes_its_connection() {
        let (ours, theirs) = UnixStream::pair().unwrap_or_else(|error| panic!("{error}"));
        let waits = waits(&ours);
        assert!(!waits.is_over());
        assert!(theirs.shutdown(Shutdown::Write).is_ok());
        assert!(!waits.is_over(), "it reads on");
        drop(theirs);
        assert!(waits.is_over());
    }

    #[test]
    fn a_time_that_is_over_is_over() {
        let until = |until| Waits {
            until: Some(until),
            client: None,
        };
        assert!(until(sys::boottime()).is_over());
        assert!(!until(sys::boottime() + Duration::from_secs(60)).is_over());
    }
}

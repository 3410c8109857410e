//! What the link tells, given to the core.

use mirror_core::event::Event;

use super::Driver;
use crate::front::Front;
use crate::peer_link::LinkEvent;
use crate::sys;
use crate::tell::tell;

impl<F: Front> Driver<F> {
    /// Tells what the link has to tell. Whether there was anything.
    pub(super) fn link_events(&mut self) -> bool {
        let mut any = false;
        while let Some(event) = self.parts.link.take_event() {
            any = true;
            match event {
                LinkEvent::Opened { session, dialled } => {
                    self.feed(sys::wall_clock());
                    self.feed(Event::SessionOpened { session, dialled })
                }
                LinkEvent::Closed { session, reason } => {
                    self.feed(Event::SessionClosed { session, reason })
                }
                LinkEvent::Path(notice) => tell(&notice),
                LinkEvent::Garbage(garbage) => tracing::warn!(
                    code = "LS2012",
                    advice = "see who connects to the mirror port, and close it to strangers",
                    "closed a connection that does not speak our protocol: {garbage}"
                ),
            }
        }
        any
    }
}

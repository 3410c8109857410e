//! What happened on the other node, asked for through the door between the nodes, and told through it.

use std::time::Duration;

use controlplane_api::events::{Event, Page, Query};
use controlplane_core::push::Ask;
use mirror_core::admin::Problem;

use super::Pusher;
use super::judge::problem;
use super::words::AskFrame;

/// The other node has so long to answer: whoever asks reads what happened here in the meantime.
const PATIENCE: Duration = Duration::from_secs(3);
/// Whoever asks this node waits no longer, whatever holds its question up here.
pub(super) const LIMIT: Duration = Duration::from_secs(4);
/// So much at most, before JSON makes it longer: it goes into one frame.
const PAGE_BYTES_MAX: usize = 512 * 1024;

impl Pusher {
    /// What happened here, for the other node.
    pub(super) fn happened_here(&self, query: &Query) -> Page {
        self.events.page(query, PAGE_BYTES_MAX)
    }

    /// What happened there.
    ///
    /// # Errors
    /// Why that is not known here.
    pub(super) async fn happened_there(&self, query: Query) -> Result<Page, Problem> {
        let peer = &self.peer_name;
        if !self.course.is_alive() {
            return Err(untold(format!("{peer} is not heard")));
        }
        let mut locals = self.interconnects.iter().map(|pair| pair.local);
        if let Some(volume) = locals.find_map(|local| self.needs(local)) {
            // Its daemon over there would take the question for a stranger's.
            return Err(untold(format!(
                "the mirror link of volume {volume} has the port where {peer} would be asked"
            )));
        }
        let query = Query {
            peer: false,
            peer_after: None,
            wait_ms: 0,
            ..query
        };
        let frame = AskFrame {
            events: Some(query),
            ..AskFrame::new(&Ask::State)
        };
        let answer = tokio::time::timeout(PATIENCE, self.exchange(&frame)).await;
        let (_, answer) = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(problem)) => return Err(untold(problem.message)),
            Err(_) => {
                let seconds = PATIENCE.as_secs();
                return Err(untold(format!("{peer} did not answer within {seconds} s")));
            }
        };
        let page = answer.events;
        let page = page.ok_or_else(|| untold(format!("{peer} runs an earlier release")))?;
        Ok(Page {
            node: peer.clone(),
            events: page
                .events
                .into_iter()
                .map(|event| self.heard(event))
                .collect(),
            ..page
        })
    }

    /// As that node's, whatever it says, and printable.
    fn heard(&self, event: Event) -> Event {
        let printable = |mut text: String| {
            text.retain(|c| !c.is_control());
            text
        };
        Event {
            node: self.peer_name.clone(),
            code: printable(event.code),
            group: event.group.map(printable),
            volume: event.volume.map(printable),
            text: printable(event.text),
            fields: event
                .fields
                .into_iter()
                .map(|(name, value)| (printable(name), printable(value)))
                .collect(),
            ..event
        }
    }
}

pub(super) fn untold(why: String) -> Problem {
    problem(
        "LS6162",
        format!("what happened there is not known here: {why}"),
        "`lockstep events` on that node tells it; `lockstep status` says what of the connection is missing",
    )
}

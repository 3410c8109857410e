//! What happened: `GET /v1/events?...` at [`node_socket`](crate::paths::node_socket). The answer is [`Events`], the question
//! [`Query`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The schema of [`Events`]; a later one only adds.
pub const SCHEMA: &str = "lockstep.events/1";
/// A question waits for something new no longer than this, milliseconds.
pub const WAIT_MS_MAX: u64 = 30_000;

/// What is asked for; all that is kept, if nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Query {
    /// Nothing from before, milliseconds since 1970.
    pub since_ms: Option<u64>,
    /// Only with a higher number, of the node that is asked.
    pub after: Option<u64>,
    /// The same of the other node.
    pub peer_after: Option<u64>,
    /// No more than the last so many.
    pub count: Option<usize>,
    /// Only with this code.
    pub code: Option<String>,
    /// Only of this group.
    pub group: Option<String>,
    /// The other node's as well.
    pub peer: bool,
    /// With `after`: if there is nothing new the answer waits for it so long, at most [`WAIT_MS_MAX`].
    pub wait_ms: u64,
}

impl Query {
    /// As what follows the question mark. Codes and names of groups need no escapes; what does need one is left out.
    pub fn text(&self) -> String {
        let number = |name: &str, value: Option<u64>| value.map(|value| format!("{name}={value}"));
        let plain = |name: &str, value: &Option<String>| {
            let value = value.as_ref().filter(|value| is_plain(value));
            value.map(|value| format!("{name}={value}"))
        };
        let count = self.count.and_then(|count| u64::try_from(count).ok());
        let parts = [
            number("since_ms", self.since_ms),
            number("after", self.after),
            number("peer_after", self.peer_after),
            number("count", count),
            plain("code", &self.code),
            plain("group", &self.group),
            self.peer.then(|| "peer=true".to_string()),
            number("wait_ms", Some(self.wait_ms).filter(|wait| *wait > 0)),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join("&")
    }

    /// What [`Self::text`] wrote; `None` if it is something else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut query = Self::default();
        for part in text.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=')?;
            let number = || value.parse::<u64>().ok();
            let plain = || is_plain(value).then(|| value.to_string());
            match name {
                "since_ms" => query.since_ms = Some(number()?),
                "after" => query.after = Some(number()?),
                "peer_after" => query.peer_after = Some(number()?),
                "count" => query.count = Some(usize::try_from(number()?).ok()?),
                "code" => query.code = Some(plain()?),
                "group" => query.group = Some(plain()?),
                "peer" => query.peer = value.parse().ok()?,
                "wait_ms" => query.wait_ms = number()?.min(WAIT_MS_MAX),
                // Of a later release.
                _ => {}
            }
        }
        Some(query)
    }

    /// Whether an event is asked for, by its node's own `after`.
    pub fn takes(&self, event: &Event) -> bool {
        let is = |wanted: &Option<String>, value: Option<&String>| {
            wanted.as_ref().is_none_or(|wanted| value == Some(wanted))
        };
        self.after.is_none_or(|after| event.number > after)
            && self.since_ms.is_none_or(|since| event.at_ms >= since)
            && is(&self.code, Some(&event.code))
            && is(&self.group, event.group.as_ref())
    }
}

fn is_plain(value: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !value.is_empty() && value.bytes().all(plain)
}

/// Something that happened, as the daemon of a node logged it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The node.
    pub node: String,
    /// Rises on its node, also over restarts.
    pub number: u64,
    /// When, by that node's clock, milliseconds since 1970.
    pub at_ms: u64,
    /// How grave it is.
    pub severity: Severity,
    /// The code of docs/codes.md.
    pub code: String,
    /// The group that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The volume that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// What.
    pub text: String,
    /// Figures and names that belong to it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, String>,
}

/// How grave an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Somebody should look.
    Warning,
    /// Something failed.
    Error,
}

/// What one node keeps of what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The node.
    pub node: String,
    /// The oldest first.
    pub events: Vec<Event>,
    /// Older ones that were asked for as well and are not here, because of their number or size.
    pub left_out: u64,
    /// The number of the newest event that is kept, asked for or not: what to give as `after`.
    pub newest: u64,
    /// When the oldest one was that is kept, milliseconds since 1970; absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_ms: Option<u64>,
    /// What that node's clock showed, milliseconds since 1970.
    pub now_ms: u64,
}

/// What happened in the cluster, as far as the node that was asked can tell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Events {
    /// [`SCHEMA`].
    pub schema: String,
    /// Of both nodes, the oldest first, by the times that each tells.
    pub events: Vec<Event>,
    /// The node that was asked, then the other one if it was asked as well.
    pub logs: Vec<Log>,
}

/// How the record of a node stands; see [`Page`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Log {
    /// The node.
    pub node: String,
    /// See [`Page::left_out`].
    pub left_out: u64,
    /// See [`Page::newest`].
    pub newest: u64,
    /// See [`Page::oldest_ms`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_ms: Option<u64>,
    /// What its clock shows more than that of the node that was asked, milliseconds; what the question took on its way is in it.
    #[serde(default)]
    pub ahead_ms: i64,
    /// Why its events are not here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<mirror_core::admin::Problem>,
}

impl Events {
    /// What the node that was asked keeps, and what came of asking the other one, if it was. `count`: of both together.
    pub fn of(
        own: Page,
        peer: Option<(String, Result<Page, mirror_core::admin::Problem>)>,
        count: Option<usize>,
    ) -> Self {
        let own_ms = own.now_ms;
        let (mut events, log) = Log::of(own, own_ms);
        let mut logs = vec![log];
        match peer {
            None => {}
            Some((_, Ok(page))) => {
                let (more, log) = Log::of(page, own_ms);
                events.extend(more);
                logs.push(log);
            }
            Some((node, Err(problem))) => logs.push(Log {
                node,
                left_out: 0,
                newest: 0,
                oldest_ms: None,
                ahead_ms: 0,
                problem: Some(problem),
            }),
        }
        // Stable: what one node says at the same time stays in its order.
        events.sort_by_key(|event| event.at_ms);
        let surplus = events.len().saturating_sub(count.unwrap_or(usize::MAX));
        for event in events.drain(..surplus) {
            let of = logs.iter_mut().find(|log| log.node == event.node);
            if let Some(log) = of {
                log.left_out += 1;
            }
        }
        Self {
            schema: SCHEMA.to_string(),
            events,
            logs,
        }
    }
}

impl Log {
    fn of(page: Page, own_ms: u64) -> (Vec<Event>, Self) {
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        let log = Self {
            node: page.node,
            left_out: page.left_out,
            newest: page.newest,
            oldest_ms: page.oldest_ms,
            ahead_ms: signed(page.now_ms) - signed(own_ms),
            problem: None,
        };
        (page.events, log)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(node: &str, number: u64, at_ms: u64) -> Event {
        Event {
            node: node.to_string(),
            number,
            at_ms,
            severity: Severity::Info,
            code: "LS6021".to_string(),
            group: None,
            volume: None,
            text: "lockstepd runs".to_string(),
            fields: BTreeMap::new(),
        }
    }

    fn page(node: &str, times: &[u64]) -> Page {
        let numbered = (1..).zip(times);
        Page {
            node: node.to_string(),
            events: numbered
                .map(|(number, at)| event(node, number, *at))
                .collect(),
            left_out: 0,
            newest: 9,
            oldest_ms: times.first().copied(),
            now_ms: 1000,
        }
    }

    #[test]
    fn a_question_is_read_as_it_was_written() {
        let query = Query {
            since_ms: Some(5),
            after: Some(6),
            peer_after: Some(7),
            count: Some(8),
            code: Some("LS6017".to_string()),
            group: Some("pg-1.a".to_string()),
            peer: true,
            wait_ms: 900,
        };
        assert_eq!(Query::parse(&query.text()), Some(query));
        assert_eq!(Query::parse(""), Some(Query::default()));
        assert_eq!(Query::parse("later=1"), Some(Query::default()));
        for wrong in ["after=x", "count=-1", "peer=1", "group=a%20b", "code"] {
            assert_eq!(Query::parse(wrong), None, "{wrong}");
        }
        let long = Query::parse("wait_ms=999999999").expect("read");
        assert_eq!(long.wait_ms, WAIT_MS_MAX);
    }

    #[test]
    fn an_event_is_taken_if_all_that_is_said_fits() {
        let mut one = event("node1", 7, 500);
        one.group = Some("pg".to_string());
        let takes = |text: &str| Query::parse(text).expect("read").takes(&one);
        assert!(takes("") && takes("since_ms=500&after=6&code=LS6021&group=pg"));
        for other in ["since_ms=501", "after=7", "code=LS6022", "group=web"] {
            assert!(!takes(other), "{other}");
        }
    }

    #[test]
    fn both_nodes_events_are_told_by_time_and_the_oldest_are_left_out_first() {
        let peer = || Some(("node2".to_string(), Ok(page("node2", &[20, 40]))));
        let all = Events::of(page("node1", &[10, 30, 40]), peer(), None);
        let times: Vec<u64> = all.events.iter().map(|event| event.at_ms).collect();
        assert_eq!(times, [10, 20, 30, 40, 40]);
        assert_eq!(all.events[3].node, "node1");
        let few = Events::of(page("node1", &[10, 30, 40]), peer(), Some(2));
        let times: Vec<u64> = few.events.iter().map(|event| event.at_ms).collect();
        assert_eq!(times, [40, 40]);
        assert_eq!((few.logs[0].left_out, few.logs[1].left_out), (2, 1));
    }

    #[test]
    fn a_node_that_cannot_be_asked_is_named_with_the_reason() {
        let problem = mirror_core::admin::Problem {
            code: "LS6162".to_string(),
            message: "m".to_string(),
            advice: "a".to_string(),
        };
        let peer = Some(("node2".to_string(), Err(problem.clone())));
        let told = Events::of(page("node1", &[10]), peer, None);
        assert_eq!(told.events.len(), 1);
        assert_eq!(told.logs[1].problem, Some(problem));
    }
}

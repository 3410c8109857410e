//! Why this node decided what it decided: what was written down then, with its names.

use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use controlplane_api::why::{Found, GroupWhy, PathWhy, PeerWhy, SCHEMA, Why};
use controlplane_core::failure_detector::Evidence;
use controlplane_core::keeper::why::{Moment, Ruling};
use controlplane_core::partition::Targets;
use mirror_core::types::Instant;

use super::targets::Purpose;
use super::{Node, now};
use crate::heartbeat::state_number;
use crate::report;
use crate::why::{self, Names, ago_ms, resources, ruling, sentence, waits};

impl Node {
    pub(super) fn why(&self) -> Why {
        let current = now();
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        let unix_ms = unix.unwrap_or_default().as_millis();
        let [present, before] = &self.found;
        let found = |evidence: &Option<Evidence>| {
            let evidence = evidence.as_ref();
            evidence.map(|evidence| self.found_then(current, evidence))
        };
        Why {
            schema: SCHEMA.to_string(),
            node: self.config.name.clone(),
            at_ms: u64::try_from(unix_ms).unwrap_or(u64::MAX),
            peer: PeerWhy {
                name: self.config.peer_name.clone(),
                present: found(present),
                before: found(before),
                paths: self.paths_now(current),
            },
            groups: (0..self.groups.len())
                .map(|group| self.group_why(current, group))
                .collect(),
        }
    }

    fn found_then(&self, current: Instant, evidence: &Evidence) -> Found {
        let path = |(number, seen): (usize, &controlplane_core::failure_detector::Seen)| PathWhy {
            name: report::path_name(&self.config, number),
            state: report::path_state(state_number(seen.state)),
            heard_ms: seen.heard.map(|at| ago_ms(current, at)),
        };
        Found {
            presence: report::presence(evidence.presence),
            since_ms: ago_ms(current, evidence.at),
            paths: evidence.paths().iter().enumerate().map(path).collect(),
        }
    }

    fn paths_now(&self, current: Instant) -> Vec<PathWhy> {
        let paths = report::paths(&self.config, &self.shared).into_iter();
        let figures = self.shared.paths.iter();
        let path = |(path, figures): (
            controlplane_api::cluster::Path,
            &crate::heartbeat::PathFigures,
        )| {
            let heard = figures.heard_nanos.load(Ordering::Relaxed);
            PathWhy {
                name: path.name,
                state: path.state,
                heard_ms: (heard > 0).then(|| ago_ms(current, Instant::from_nanos(heard))),
            }
        };
        paths.zip(figures).map(path).collect()
    }

    fn group_why(&self, current: Instant, number: usize) -> GroupWhy {
        let group = &self.groups[number];
        let clients: Option<Targets> = self.targets_of(Purpose::Clients);
        let names = Names {
            node: &self.config.name,
            peer: &self.config.peer_name,
            group: &group.name,
            arbiter: report::arbiter_kind(&self.config),
            clients: clients.is_some(),
        };
        let record = group.keeper.why();
        let told = |of: Option<&Ruling>, moment: Moment| {
            let of = of?;
            let volumes = self.config.groups[number].volumes.iter();
            let seen = |name: &String| {
                let id = group.ids.get(name);
                let stood = id.and_then(|id| group.keeper.stood(*id, moment));
                (name.clone(), stood)
            };
            let volumes: Vec<why::Seen> = volumes.map(seen).collect();
            Some(ruling(current, of, moment, volumes, &names))
        };
        let present = record.present.as_ref();
        let same = |other: &&Ruling| {
            let shown = [record.present.as_ref(), record.before.as_ref()];
            let mut shown = shown.into_iter().flatten();
            shown.all(|it| it.first.at != other.first.at)
        };
        let reasons = self.services.reasons(current, number);
        let (resources, later) = match &reasons {
            Some(reasons) => {
                let (resources, later) = resources(current, reasons, &names);
                (Some(resources), later)
            }
            None => (None, None),
        };
        GroupWhy {
            name: group.name.clone(),
            text: present.map_or_else(
                || "nothing was decided yet".to_string(),
                |it| sentence(it, &names),
            ),
            waits: present
                .and_then(|it| waits(current, it, &names))
                .or_else(|| self.waits_after_failure(current, number, &names))
                .or(later),
            present: told(present, Moment::Now),
            before: told(record.before.as_ref(), Moment::Before),
            acted: told(record.acted.as_ref().filter(same), Moment::Acted),
            resources,
        }
    }
}

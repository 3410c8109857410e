//! `lockstep cluster stop`, `start`, `suspend`, `resume`: what operators wish of the whole cluster.

use std::time::Duration;

use controlplane_api::cluster::ClusterStatus;
use controlplane_api::together::{AskedTogether, ClusterVerb, Part, SaidTogether};
use controlplane_api::verbs::GroupVerb;
use serde_json::json;

use crate::args::Together;
use crate::cmd::group::{refuse, said, until};
use crate::cmd::volume::status::Form;
use crate::failure::Failure;
use crate::http::{TIMEOUT, post};
use crate::waiting::{Progress, Wait, progress_of_all, progress_of_nodes};

pub(crate) fn run(verb: ClusterVerb, how: Together) -> Result<u8, Failure> {
    let Together { patience, dry_run } = how;
    let form = Form::from(patience.json);
    let said: SaidTogether = match said(tell(verb, dry_run), form)? {
        Ok(said) => said,
        Err(code) => return Ok(code),
    };
    if form == Form::Screen {
        println!("{}", said.message);
        for part in &said.parts {
            println!("  {:<12}{}", part.name, part.message);
        }
    }
    if patience.wait {
        let patience = Duration::from_secs(patience.timeout);
        match until(|status| progress(verb, &said.parts, status), patience, form) {
            Ok(message) if form == Form::Screen && !message.is_empty() => println!("{message}"),
            Ok(_) => {}
            Err(failure) if form == Form::Json => return Ok(refuse(failure)),
            Err(failure) => return Err(failure),
        }
    }
    if form == Form::Json {
        println!("{:#}", json!(said));
    }
    Ok(0)
}

fn tell(
    verb: ClusterVerb,
    dry_run: bool,
) -> Result<Result<SaidTogether, mirror_core::admin::Problem>, crate::http::HttpError> {
    let word = match verb {
        ClusterVerb::Stop => "stop",
        ClusterVerb::Start => "start",
        ClusterVerb::Suspend => "suspend",
        ClusterVerb::Resume => "resume",
    };
    let path = format!("/v1/cluster/{word}");
    post(&path, &AskedTogether { dry_run }, TIMEOUT)
}

fn progress(verb: ClusterVerb, parts: &[Part], status: &ClusterStatus) -> Progress {
    let group = |verb: GroupVerb, part: &Part| Wait {
        group: part.name.clone(),
        verb,
        number: part.number.unwrap_or(0),
        by: part.by.clone().unwrap_or_default(),
        node: None,
    };
    let changed = parts.iter().filter(|part| part.changed);
    match verb {
        // Also those that were stopped already: nothing is left then.
        ClusterVerb::Stop => {
            let waits = parts.iter().map(|part| group(GroupVerb::Stop, part));
            progress_of_all(&waits.collect::<Vec<_>>(), status)
        }
        ClusterVerb::Start => {
            let waits = changed.map(|part| group(GroupVerb::Start, part));
            progress_of_all(&waits.collect::<Vec<_>>(), status)
        }
        ClusterVerb::Suspend => progress_of_nodes(&names(parts.iter()), true, status),
        ClusterVerb::Resume => progress_of_nodes(&names(changed), false, status),
    }
}

fn names<'a>(parts: impl Iterator<Item = &'a Part>) -> Vec<String> {
    parts.map(|part| part.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{good, group, wish};
    use controlplane_api::cluster::{Presence, Want, WishOrigin};

    fn part(name: &str, changed: bool) -> Part {
        Part {
            name: name.to_string(),
            changed,
            number: Some(5),
            by: Some("node1".to_string()),
            message: String::new(),
        }
    }

    #[test]
    fn a_cluster_is_stopped_when_the_last_group_is() {
        let mut status = good();
        for (name, serves) in [("pg", None), ("db", Some("node2"))] {
            let mut group = group(serves);
            group.name = name.to_string();
            group.wish = Some(wish(5, Want::Stopped, WishOrigin::Together));
            status.groups.push(group);
        }
        let parts = [part("pg", true), part("db", false)];
        let going = progress(ClusterVerb::Stop, &parts, &status);
        let text = "db: node2 serves its volumes".to_string();
        assert_eq!(going, Progress::Going(text));
        status.groups.pop();
        let done = progress(ClusterVerb::Stop, &parts[..1], &status);
        assert_eq!(done, Progress::Done("pg is stopped".to_string()));
        let nothing = progress(ClusterVerb::Start, &parts[1..], &status);
        assert_eq!(nothing, Progress::Done(String::new()));
    }

    #[test]
    fn a_cluster_is_suspended_when_both_nodes_know_it() {
        let mut status = good();
        status.agreed = false;
        status.suspended = vec!["node1".to_string(), "node2".to_string()];
        let parts = [part("node1", true), part("node2", false)];
        status.peer.presence = Presence::Dead;
        let Progress::Going(text) = progress(ClusterVerb::Suspend, &parts, &status) else {
            panic!("it is over")
        };
        assert!(text.contains("node2 is not heard"), "{text}");
        status.agreed = true;
        let done = progress(ClusterVerb::Suspend, &parts, &status);
        assert!(matches!(done, Progress::Done(_)), "{done:?}");
        // Node2 stays suspended by itself.
        let resumed = progress(ClusterVerb::Resume, &parts, &status);
        assert!(matches!(resumed, Progress::Failed(_)), "{resumed:?}");
        status.suspended.remove(0);
        let resumed = progress(ClusterVerb::Resume, &parts, &status);
        assert!(matches!(resumed, Progress::Done(_)), "{resumed:?}");
    }
}

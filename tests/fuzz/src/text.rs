//! What people and programs write as text: configuration, requests, answers.

use std::path::Path;

use controlplane::config::{Checked, Findings, Severity, plan};
use controlplane_api::admin::{AnswerLine, RequestLine, parse_done};
use ublk_mirror::admin_server;
use ublk_mirror::config::Config;

/// A configuration. What is accepted keeps its own rules.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match Config::parse(Path::new("/etc/lockstep/volumes/data.toml"), text) {
        Err(error) => assert!(!error.to_string().is_empty(), "an error says what is wrong"),
        Ok(config) => {
            let tuning = config.tuning;
            assert!(
                config.node.name != config.peer.name,
                "one name for two nodes"
            );
            assert!(config.node_id() != config.peer_id(), "one number for two");
            assert!(tuning.keepalive_interval * 2 <= tuning.link_timeout);
            assert!(tuning.read_lease <= tuning.link_timeout);
            assert!(
                controlplane_api::paths::admin_socket(&config.volume).parent()
                    == Some(&controlplane_api::paths::run_directory()),
                "a name leaves its directory"
            );
            assert!(config.padded_name().contains(&0), "a name has an end");
        }
    }
}

/// The cluster's configuration. What is refused has a place and a reason; what is accepted is two nodes and their groups.
pub fn cluster_config(data: &[u8]) {
    let path = Path::new("/etc/lockstep/cluster.toml");
    match Checked::parse(path, data) {
        Err(error) => {
            assert!(error.0.errors() > 0, "refused without a reason");
            told(&error.0, Severity::Error);
            let text = error.to_string();
            assert!(
                !text.contains(|c: char| c.is_control() && c != '\n'),
                "control characters reach the terminal"
            );
        }
        Ok(checked) => {
            told(&checked.findings, Severity::Warning);
            let summary = checked.summary();
            assert!(!summary.is_empty(), "it means something");
            assert!(
                !summary.contains(|c: char| c.is_control() && c != '\n'),
                "control characters reach the terminal"
            );
            let cluster = checked.cluster;
            let [one, two] = &cluster.nodes;
            assert!(one.name < two.name, "the first one by name is number 0");
            assert_eq!(one.interconnects.len(), two.interconnects.len());
            assert!(cluster.timing.timeout >= cluster.timing.interval * 4);
            let same = plan(&cluster, &cluster, path, path);
            assert!(same.changes.is_empty(), "nothing changes: {}", same.text());
        }
    }
}

fn told(findings: &Findings, severity: Severity) {
    for finding in findings.list() {
        assert_eq!(finding.severity, severity);
        assert!(!finding.what.is_empty() && !finding.why.is_empty() && !finding.advice.is_empty());
    }
}

/// A request, as the daemon reads it. What a client may write, the daemon understands.
pub fn request(data: &[u8]) {
    let Ok(line) = std::str::from_utf8(data) else {
        return;
    };
    let understood = admin_server::is_request(line);
    if let Ok(request) = serde_json::from_str::<RequestLine>(line) {
        let again = serde_json::to_string(&request).expect("a request is JSON");
        let current = request.schema == controlplane_api::admin::SCHEMA;
        assert_eq!(
            admin_server::is_request(&again),
            current,
            "client and daemon disagree"
        );
        assert_eq!(understood, current, "client and daemon disagree");
    }
}

/// An answer, as a client reads it.
pub fn answer(data: &[u8]) {
    let Ok(line) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(answer) = serde_json::from_str::<AnswerLine>(line) else {
        return;
    };
    if let Some(done) = &answer.done {
        let _ = parse_done(done);
    }
    let again = serde_json::to_string(&answer).expect("an answer is JSON");
    let read: AnswerLine = serde_json::from_str(&again).expect("it reads what it writes");
    assert_eq!(read, answer, "it reads what it writes");
}

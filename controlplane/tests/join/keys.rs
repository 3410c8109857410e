//! The key of the last copy, the registers of an earlier time, and the role of a machine stay safe while machines join.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use controlplane::join::{Existing, Home, JoinError, Joined, Progress, Step, join};
use controlplane::trust::OwnKey;
use mirror_core::disk::keys_bytes;
use mirror_core::keys::Secret;
use serde_json::json;
use tokio::time::timeout;

use crate::beds::*;
use crate::raw::{Raw, hello};

/// `node2` was a node of another cluster, whose first node was lost; `node1` was installed anew.
async fn survivor() -> (Bed, String) {
    let (bed, old) = (Bed::new(), Bed::new());
    let mut door = old.invites_only(&["node2"], LONG).await;
    let token = door.token(NODE).await;
    let mut joining = old.joining("node2", &door.address, token);
    joining.places = bed.places("node2");
    join(&joining, |_| {}).await.expect("joined");
    let volumes = bed.path("node2").join("volumes");
    fs::create_dir(&volumes).expect("made");
    fs::write(volumes.join("data.toml"), "").expect("written");
    (bed, old.home().cluster.to_string())
}

async fn joins_as(bed: &Bed, machine: &str, existing: Existing) -> Result<Joined, JoinError> {
    let mut door = bed.invites_only(&[machine], LONG).await;
    let token = door.token(machine).await;
    let mut joining = bed.joining(machine, &door.address, token);
    joining.existing = existing;
    timeout(LIMIT, join(&joining, |_| {}))
        .await
        .expect("it comes to an end")
}

#[tokio::test]
async fn the_key_of_a_copy_that_survived_stays_with_force_and_without() {
    let (bed, old) = survivor().await;
    let before = bed.files("node2");
    for existing in [Existing::Stays, Existing::Replaced] {
        let error = joins_as(&bed, "node2", existing).await.expect_err("kept");
        let problem = error.problem();
        assert_eq!(problem.code, "LS6078", "{problem:?}");
        for word in ["cluster.key is the key of", &old, "the volume data"] {
            assert!(problem.message.contains(word), "{problem:?}");
        }
        assert!(
            problem.advice.contains("--force changes nothing"),
            "{problem:?}"
        );
        assert_eq!(bed.files("node2"), before);
    }
}

#[tokio::test]
async fn a_key_that_is_replaced_keeps_a_name_of_its_cluster() {
    let (bed, old) = survivor().await;
    fs::remove_dir_all(bed.path("node2").join("volumes")).expect("needed no more");
    let before = bed.files("node2");
    let error = joins_as(&bed, "node2", Existing::Stays).await;
    let problem = error.expect_err("without force").problem();
    assert_eq!(problem.code, "LS6078", "{problem:?}");
    assert!(
        problem.message.contains(&old) && problem.advice.contains("--force"),
        "{problem:?}"
    );
    assert_eq!(bed.files("node2"), before);
    let key = bed.places("node2").key;
    let joined = joins_as(&bed, "node2", Existing::Replaced).await;
    let notes = joined.expect("with force").notes;
    let note = |path| notes.iter().find(|note| note.path == path).expect("told");
    assert!(note(key.clone()).replaced);
    let kept = key.with_file_name(format!("cluster.key.{old}"));
    assert!(!note(kept.clone()).replaced);
    let after = bed.files("node2");
    // The same file, mode and all.
    assert_eq!(after[&kept], before[&key]);
    assert_ne!(after[&key].0, before[&key].0);
    assert_eq!(
        after[&key].0,
        fs::read(bed.places("node1").key).expect("the key")
    );
}

#[tokio::test]
async fn a_witness_that_served_before_does_not_bring_what_it_granted_then() {
    let bed = Bed::new();
    joins_as(&bed, "witness", Existing::Stays)
        .await
        .expect("joined");
    let registers = bed
        .path("witness")
        .join(format!("{}.json", bed.home().cluster));
    fs::write(&registers, "{}").expect("written");
    // Another one may have taken its place since; its own admission says nothing about that.
    for gone in [None, Some(bed.places("node1").trust.join("witness.pem"))] {
        if let Some(gone) = gone {
            fs::remove_file(gone).expect("removed");
        }
        for existing in [Existing::Stays, Existing::Replaced] {
            let before = bed.files("witness");
            let error = joins_as(&bed, "witness", existing)
                .await
                .expect_err("the past");
            let problem = error.problem();
            assert_eq!(problem.code, "LS6027", "{problem:?}");
            assert!(
                problem.message.contains(".json is there already"),
                "{problem:?}"
            );
            assert!(problem.advice.contains("Stop `lockstepd`"), "{problem:?}");
            assert_eq!(bed.files("witness"), before);
        }
    }
    fs::rename(&registers, registers.with_extension("old")).expect("moved away");
    joins_as(&bed, "witness", Existing::Stays)
        .await
        .expect("joined");
}

/// Takes what a node gets, and hangs up.
#[tokio::test]
async fn who_takes_the_key_and_goes_is_named_and_gets_no_other_token() {
    let bed = Bed::new();
    let mut door = bed.invites_only(&["node2"], LONG).await;
    let token = door.token(NODE).await;
    let mut raw = Raw::to(&door).await;
    let address = raw
        .0
        .get_ref()
        .0
        .local_addr()
        .expect("an address")
        .to_string();
    raw.says(&hello(&token)).await;
    raw.hears().await.expect("welcome");
    let request = OwnKey::generate()
        .expect("a key")
        .request()
        .expect("signed");
    raw.says(&json!({ "say": "node", "name": "node2", "request": request }))
        .await;
    let gift = raw.hears().await.expect("the gift");
    assert!(gift["key"].is_string(), "{gift}");
    drop(raw);
    let told = door
        .hears(|progress| matches!(progress, Progress::BrokeOff { .. }))
        .await;
    let Progress::BrokeOff { key_is_out, .. } = told else {
        panic!("{told:?}")
    };
    let out = key_is_out.expect("it has the key");
    assert_eq!(out.code, "LS6077");
    assert!(out.message.contains(&address), "{out:?}");
    // It ends by itself: nobody is awaited any more, so that there is no other token.
    let error = timeout(LIMIT, &mut door.task).await.expect("it ends");
    let problem = error.expect("no panic").expect_err("not joined").problem();
    assert_eq!(problem.code, "LS6077");
    assert!(problem.message.contains(&address), "{problem:?}");
    assert!(!bed.places("node1").authority.join("n1.pem").exists());
    joins_as(&bed, "node2", Existing::Stays)
        .await
        .expect("invited again");
}

#[tokio::test]
async fn a_machine_becomes_what_it_was_told_to_become_or_nothing() {
    let bed = Bed::new();
    let mut door = bed.invites_only(&["witness"], LONG).await;
    let token = door.token(WITNESS).await;
    let mut joining = bed.joining("node2", &door.address, token);
    let error = join(&joining, |_| {}).await.expect_err("it is a node");
    assert!(matches!(error, JoinError::WitnessToken { .. }), "{error}");
    assert_eq!(error.code(), "LS6033");
    // The host name says nothing, but what a node has does.
    joining.node = None;
    for name in ["cluster.key", "trust/node.key"] {
        let path = bed.path("node2").join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        fs::write(&path, "something").expect("written");
        joining.token = door.token(WITNESS).await;
        let error = join(&joining, |_| {}).await.expect_err("it is a node");
        assert!(matches!(error, JoinError::NodeHere { .. }), "{error}");
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!(bed.files("witness"), Files::default());
        fs::remove_file(path).expect("removed");
    }
    fs::write(bed.places("node2").key, "something").expect("written");
    joining.token = door.token(WITNESS).await;
    joining.existing = Existing::Replaced;
    let told = std::sync::Mutex::new(Vec::new());
    let tell = |step| told.lock().expect("no panic").push(step);
    join(&joining, tell).await.expect("with force");
    let told = told.into_inner().expect("no panic");
    let role = controlplane::join::Role::Witness;
    assert!(
        matches!(&told[..], [Step::Welcome { role: of, .. }] if *of == role),
        "{told:?}"
    );
}

/// The other node is renamed so that it comes first: then this one has the other number.
#[test]
fn a_certificate_that_does_not_fit_the_configuration_any_more_is_told() {
    let bed = Bed::new();
    let places = bed.places("node1");
    fs::write(places.trust.join("witness.pem"), "not read").expect("written");
    let config = CONFIG.replace("node2", "anode");
    fs::write(&places.config, config).expect("written");
    let error = Home::open(&places, "node1").expect_err("it is node 1 now");
    assert_eq!(error.code(), "LS6027", "{error}");
    let said = error.to_string();
    assert!(
        said.contains("names node 0") && said.contains("this is node 1"),
        "{said}"
    );
    let daemon = Command::new(env!("CARGO_BIN_EXE_lockstepd"))
        .args(["run", "--node", "node1", "--config"])
        .arg(&places.config)
        .arg("--key")
        .arg(&places.key)
        .arg("--trust")
        .arg(&places.trust)
        .output()
        .expect("it starts");
    assert!(!daemon.status.success());
    let said = String::from_utf8(daemon.stderr).expect("text");
    assert!(
        said.contains("LS6027 ") && said.contains("names node 0"),
        "{said}"
    );
    fs::remove_file(places.trust.join("node.pem")).expect("removed");
    let error = Home::open(&places, "node1").expect_err("it has none");
    assert!(
        error.to_string().contains("`lockstep cluster init`"),
        "{error}"
    );
}

#[tokio::test]
async fn a_token_whose_bearer_is_inside_is_told_so_on_both_ends() {
    let bed = Bed::new();
    let mut door = bed.invites_only(&["node2"], LONG).await;
    let token = door.token(NODE).await;
    let mut raw = Raw::to(&door).await;
    let address = raw
        .0
        .get_ref()
        .0
        .local_addr()
        .expect("an address")
        .to_string();
    raw.says(&hello(&token)).await;
    raw.hears().await.expect("welcome");
    let error = bed.joins("node2", &door, token).await.expect_err("in use");
    let expected = format!("this token is in use: node2 joins with it from {address}");
    let problem = error.problem();
    assert_eq!(problem.code, "LS6028");
    assert!(problem.message.ends_with(&expected), "{problem:?}");
    assert!(door.turned().await.ends_with(&expected));
}

/// The timer of a connection's other end: 2 is the keepalive.
fn timer(of_port: u16, to_port: u16) -> Option<String> {
    let table = fs::read_to_string("/proc/net/tcp").expect("the kernel's table");
    let ends = (format!(":{of_port:04X}"), format!(":{to_port:04X}"));
    table.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let found = words[1].ends_with(&ends.0) && words[2].ends_with(&ends.1);
        found.then(|| words[5].to_string())
    })
}

/// A cable that is drawn cannot be had on loopback: the kernel says that it asks.
#[tokio::test]
async fn the_kernel_asks_whether_a_silent_guest_is_there() {
    let bed = Bed::new();
    let mut door = bed.invites_only(&["node2"], LONG).await;
    let token = door.token(NODE).await;
    let mut raw = Raw::to(&door).await;
    raw.says(&hello(&token)).await;
    raw.hears().await.expect("welcome");
    let socket = raw.0.get_ref().0;
    let near = socket.local_addr().expect("an address").port();
    let far = socket.peer_addr().expect("an address").port();
    let asks = async {
        // First the timer is that of what was sent last.
        while timer(far, near).expect("connected").split(':').next() != Some("02") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT, asks).await.expect("the keepalive runs");
}

#[tokio::test]
async fn strangers_are_told_once_and_then_counted() {
    const COUNT: u64 = 20;
    let bed = Bed::new();
    let mut door = bed.invites_only(&["witness"], LONG).await;
    let token = door.token(WITNESS).await;
    for _ in 0..COUNT {
        drop(
            tokio::net::TcpStream::connect(&door.address)
                .await
                .expect("connected"),
        );
    }
    let (mut counted, mut told) = (0, 0);
    while counted < COUNT {
        let progress = door
            .hears(|progress| {
                matches!(
                    progress,
                    Progress::Turned { .. } | Progress::Strangers { .. }
                )
            })
            .await;
        if let Progress::Strangers { count } = progress {
            counted += count;
        } else {
            told += 1;
        }
    }
    assert_eq!((counted, told), (COUNT, 1));
    // What tells something of a token is always told.
    for _ in 0..2 {
        let refused = bed.joins("witness", &door, wrong(&token)).await;
        refused.expect_err("wrong");
        assert!(door.turned().await.starts_with("LS6028"));
    }
}

/// The mode of what is kept stays that of a secret.
#[tokio::test]
async fn a_key_that_others_can_read_is_not_taken_for_one() {
    let (bed, _) = survivor().await;
    let key = bed.places("node2").key;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("a mode");
    let before = bed.files("node2");
    let error = joins_as(&bed, "node2", Existing::Replaced).await;
    let problem = error.expect_err("refused").problem();
    assert!(problem.message.contains("chmod 600"), "{problem:?}");
    assert_eq!(bed.files("node2"), before);
}

/// The door is open for an hour, say: what counts is the file when somebody comes in.
#[tokio::test]
async fn who_joins_after_a_step_of_a_rotation_gets_the_key_file_as_it_is_then() {
    let bed = Bed::new();
    let mut door = bed.invites_only(&["node2"], LONG).await;
    let token = door.token(NODE).await;
    let key = bed.places("node1").key;
    let first = controlplane::key::read(&key).expect("a key");
    let next = first.step(Some(Secret::new([9; 32]))).expect("a step");
    fs::write(&key, keys_bytes(&next)).expect("written");
    bed.joins("node2", &door, token).await.expect("joined");
    let joined = controlplane::key::read(&bed.places("node2").key);
    assert_eq!(joined.expect("a key"), next);
    // It is the same cluster's: the next invitation finds nothing in its way.
    let mut door = bed.invites_only(&["node2"], LONG).await;
    let token = door.token(NODE).await;
    let again = bed.joins("node2", &door, token).await.expect("joined");
    assert!(again.notes.iter().all(|note| !note.written));
}

/// What was rotated away is not kept, and who joins a second time finds nothing in the way.
#[tokio::test]
async fn a_node_joins_again_after_each_rotation_and_keeps_no_old_secret() {
    let bed = Bed::new();
    joins_as(&bed, "node2", Existing::Stays)
        .await
        .expect("joined");
    let key = bed.places("node1").key;
    let names = |machine| -> Vec<_> { bed.files(machine).into_keys().collect() };
    let before = names("node2");
    for round in 0..2 {
        let mut keys = controlplane::key::read(&key).expect("a key");
        for _ in 0..3 {
            keys = keys
                .step(Some(Secret::new([9 + round; 32])))
                .expect("a step");
        }
        fs::write(&key, keys_bytes(&keys)).expect("written");
        let joined = joins_as(&bed, "node2", Existing::Replaced).await;
        joined.expect("joined");
        let there = controlplane::key::read(&bed.places("node2").key);
        assert_eq!(there.expect("a key"), keys);
        assert_eq!(names("node2"), before);
    }
}

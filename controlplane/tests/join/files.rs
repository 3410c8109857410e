//! What is made, what stays, what stands in the way.

use std::fs;
use std::path::Path;

use controlplane::authority::{Credentials, Source};
use controlplane::join::{Existing, Guest, Home, JoinError, Progress, join};
use controlplane::trust::{Subject, check_certificate};
use controlplane_api::arbiter::Hex16;
use controlplane_api::trust::TrustAsk;
use mirror_core::types::NodeId;

use crate::beds::*;

#[test]
fn init_makes_what_is_missing_and_changes_nothing_the_second_time() {
    let bed = Bed::bare();
    let places = bed.places("node1");
    let (home, notes) = Home::init(&places, "node1").expect("made");
    assert_eq!(notes.len(), 5);
    assert!(notes.iter().all(|note| note.written), "{notes:?}");
    let files = bed.files("node1");
    for secret in ["cluster.key", "authority/authority.key", "trust/node.key"] {
        assert_eq!(files[&bed.path("node1").join(secret)].1, 0o600, "{secret}");
    }
    let text = |path: &Path| fs::read_to_string(path).expect("text");
    let certificate = text(&places.trust.join("node.pem"));
    let authority = text(&places.authority.join("authority.pem"));
    let (cluster, node) = check_certificate(&certificate, &authority).expect("signed");
    assert_eq!((cluster, node.number()), (home.cluster, 0));
    let names: Vec<String> = home.missing().iter().map(Guest::to_string).collect();
    assert_eq!(names, ["witness", "node2"]);

    let (_, notes) = Home::init(&places, "node1").expect("again");
    assert!(notes.iter().all(|note| !note.written), "{notes:?}");
    assert_eq!(bed.files("node1"), files);
}

#[test]
fn init_goes_on_where_it_was_broken_off() {
    let bed = Bed::bare();
    let places = bed.places("node1");
    Home::init(&places, "node1").expect("made");
    let key = fs::read(places.trust.join("node.key")).expect("the key");
    fs::remove_file(places.trust.join("node.pem")).expect("removed");
    fs::create_dir(places.authority.with_extension("joining")).expect("a leftover");
    Home::init(&places, "node1").expect("again");
    assert_eq!(
        fs::read(places.trust.join("node.key")).expect("the key"),
        key
    );
}

/// A new key or authority beside what rests on the old one would cut the cluster in two.
#[test]
fn init_makes_nothing_anew_on_which_something_rests() {
    let cases = [
        ("cluster.key", "authority/authority.key", "put"),
        ("authority", "trust/node.pem", "is not here"),
        (
            "authority/authority.pem",
            "authority/authority.pem",
            "cannot read",
        ),
        ("trust/node.key", "trust/node.pem", "is missing"),
    ];
    for (gone, named, why) in cases {
        let bed = Bed::new();
        let gone = bed.path("node1").join(gone);
        match gone.is_dir() {
            true => fs::remove_dir_all(&gone).expect("removed"),
            false => fs::remove_file(&gone).expect("removed"),
        }
        let before = bed.files("node1");
        let error = Home::init(&bed.places("node1"), "node1").expect_err("refused");
        let problem = error.problem();
        assert_eq!(problem.code, "LS6027", "{problem:?}");
        let said = &problem.message;
        assert!(said.contains(named) && said.contains(why), "{said}");
        assert_eq!(bed.files("node1"), before);
    }
}

/// Whatever `init` cannot go on with is found before the first file is made, and is not mended by a word that it has not.
#[test]
fn init_looks_at_everything_before_it_makes_anything() {
    let other = Bed::new();
    let authority = fs::read(other.places("node1").trust.join("authority.pem")).expect("there");
    let key = fs::read(other.places("node1").trust.join("node.key")).expect("there");
    let cases: [(&str, &[u8], u32, &str); 5] = [
        ("trust/authority.pem", &authority, 0o644, "is there already"),
        ("trust/node.key", &key, 0o644, "can be read by others"),
        ("trust/node.key", b"no key\n", 0o600, "a key"),
        (
            "authority/n1.pem",
            b"",
            0o644,
            "authority.key: it is missing",
        ),
        (
            "volumes/data.toml",
            b"",
            0o644,
            "volumes/data.toml: the key of",
        ),
    ];
    for (name, content, mode, expected) in cases {
        let bed = Bed::bare();
        let path = bed.path("node1").join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        fs::write(&path, content).expect("written");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(&path, mode).expect("a mode");
        let before = bed.files("node1");
        let error = Home::init(&bed.places("node1"), "node1").expect_err("refused");
        let problem = error.problem();
        assert_eq!(problem.code, "LS6027", "{problem:?}");
        assert!(problem.message.contains(expected), "{problem:?}");
        assert!(!problem.advice.contains("--force"), "{problem:?}");
        assert_eq!(bed.files("node1"), before, "{name}");
    }
}

#[test]
fn an_authority_of_another_cluster_is_not_used() {
    let (one, two) = (Bed::new(), Bed::new());
    let (from, to) = (two.places("node1"), one.places("node1"));
    for name in ["authority.key", "authority.pem"] {
        fs::copy(from.authority.join(name), to.authority.join(name)).expect("copied");
    }
    let error = Home::init(&to, "node1").expect_err("refused");
    assert!(
        error.to_string().contains("is not of the cluster"),
        "{error}"
    );
}

#[test]
fn a_configuration_that_is_missing_or_wrong_is_told_before_anything_is_made() {
    let cases = [
        (None, "node1", "the file does not exist"),
        (Some("version = 2"), "node1", "LS6026"),
        (Some(CONFIG), "node9", "this node is \"node9\""),
    ];
    for (text, node, expected) in cases {
        let bed = Bed::bare();
        let config = bed.places("node1").config;
        match text {
            Some(text) => fs::write(&config, text).expect("written"),
            None => fs::remove_file(&config).expect("removed"),
        }
        let before = bed.files("node1").len();
        let error = Home::init(&bed.places("node1"), node).expect_err("refused");
        let problem = error.problem();
        let said = format!("{} {}", problem.code, problem.message);
        assert!(said.contains(expected), "{said}");
        assert_eq!(bed.files("node1").len(), before);
    }
}

#[test]
fn only_who_is_in_the_configuration_can_be_invited_and_only_from_where_the_authority_is() {
    let bed = Bed::new();
    let error = bed.home().guest("node9").expect_err("nobody");
    assert_eq!(error.code(), "LS6033");
    let config = CONFIG.replace("[witness]\naddress = \"127.0.0.1:7422\"\n", "");
    fs::write(bed.places("node1").config, config).expect("written");
    let error = bed.home().guest("witness").expect_err("there is none");
    assert!(error.to_string().contains("there are node2"), "{error}");
    fs::remove_dir_all(bed.places("node1").authority).expect("removed");
    let error = Home::open(&bed.places("node1"), "node1").expect_err("not here");
    assert!(matches!(error, JoinError::NoAuthority { .. }), "{error}");
}

/// What stands in the way of a node, and of a witness.
const IN_THE_WAY: [(&str, &str); 7] = [
    ("node2", "cluster.toml"),
    ("node2", "cluster.key"),
    ("node2", "trust/witness.pem"),
    ("node2", "trust/authority.pem"),
    ("node2", "trust/node.key"),
    ("node2", "trust/node.pem"),
    ("witness", "CLUSTER.cluster"),
];

#[tokio::test]
async fn a_file_in_the_way_is_named_and_nothing_is_written_without_force() {
    let other = Bed::new();
    for (machine, name) in IN_THE_WAY {
        let bed = Bed::new();
        let name = name.replace("CLUSTER", &bed.home().cluster.to_string());
        let path = bed.path(machine).join(&name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        if name == "trust/node.pem" {
            // A node of another cluster, key and all.
            for name in ["node.pem", "node.key"] {
                let from = other.places("node1").trust.join(name);
                fs::copy(from, path.with_file_name(name)).expect("copied");
            }
        } else {
            fs::write(&path, "something else\n").expect("written");
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            fs::set_permissions(&path, mode).expect("a mode");
        }
        let before = bed.files(machine);
        let mut door = bed.invites(LONG).await;
        let mut token = door.token(machine).await;
        if machine == NODE {
            let witness = door.token(WITNESS).await;
            bed.joins("witness", &door, witness).await.expect("joined");
        }
        let error = bed
            .joins(machine, &door, token)
            .await
            .expect_err("in the way");
        let problem = error.problem();
        let code = if name == "cluster.key" {
            "LS6078"
        } else {
            "LS6027"
        };
        assert_eq!(problem.code, code, "{name}: {problem:?}");
        assert!(problem.message.contains(&name), "{name}: {problem:?}");
        assert_eq!(bed.files(machine), before, "{name}");
        let told = door
            .hears(|progress| matches!(progress, Progress::BrokeOff { .. }))
            .await;
        let Progress::BrokeOff { why, .. } = told else {
            panic!("{told:?}")
        };
        // It is a file of the other machine.
        let said = format!("{machine} says: ");
        assert!(why.message.starts_with(&said), "{why:?}");
        assert!(why.message.contains(&name), "{why:?}");
        assert!(why.advice.starts_with("there: "), "{why:?}");

        // It may have been the one that got the key: then there is no new token.
        door = bed.invites_only(&[machine], LONG).await;
        token = door.token(machine).await;
        let mut joining = bed.joining(machine, &door.address, token);
        joining.existing = Existing::Replaced;
        join(&joining, |_| {}).await.expect("with force");
        let after = bed.files(machine);
        assert_ne!(after[&path].0, before[&path].0, "{name}");
    }
}

/// The inviting end has a witness already.
#[tokio::test]
async fn another_witness_takes_the_place_of_the_first_only_with_force() {
    let bed = Bed::new();
    let mut door = bed.invites_only(&["witness"], LONG).await;
    let token = door.token(WITNESS).await;
    bed.joins("witness", &door, token).await.expect("joined");
    door.ends().await.expect("joined");
    let before = bed.files("node1");
    fs::remove_dir_all(bed.path("witness")).expect("a new machine");

    let mut door = bed.invites_only(&["witness"], LONG).await;
    let token = door.token(WITNESS).await;
    let error = bed
        .joins("witness", &door, token)
        .await
        .expect_err("refused");
    let problem = error.problem();
    assert_eq!(problem.code, "LS6027", "{error}");
    let expected = "the inviting end says: another witness has joined";
    assert!(problem.message.starts_with(expected), "{problem:?}");
    let there = problem.advice.starts_with("there: ");
    assert!(
        there && problem.advice.contains("invite witness --force"),
        "{problem:?}"
    );
    assert_eq!(bed.files("node1"), before);
    assert_eq!(bed.files("witness"), Files::default());

    let home = bed.home();
    let guest = home.guest("witness").expect("a guest");
    let mut door = Door::open(home, vec![guest], LONG, Existing::Replaced).await;
    let token = door.token(WITNESS).await;
    bed.joins("witness", &door, token).await.expect("joined");
    door.ends().await.expect("joined");
    let file = |machine: &str, name: &str| fs::read(bed.path(machine).join(name)).expect("there");
    assert_eq!(
        file("node1", "trust/witness.pem"),
        file("witness", "witness.pem")
    );
}

/// The authority is changed in the middle of it: a machine gets what the members trust then, and a certificate of the one that the
/// inviting node shows.
#[test]
fn who_invites_while_the_authority_is_changed_hands_out_what_all_trust_then() {
    let bed = Bed::new();
    let places = bed.places("node1");
    let key = controlplane::key::read(&places.key).expect("a key");
    let cluster = Hex16(key.cluster().0);
    let source = Source::new(&places.authority, "node1", cluster);
    let both = [0, 1].map(|number| NodeId::new(number).expect("a node"));
    let node = Credentials::open(&places.trust, "node1", cluster, (both[0], both[1]));
    let signers = || source.signers().expect("readable").expect("here");
    let before = Home::open(&places, "node1").expect("a home");
    let next = source.begin(&signers()).expect("begun");
    let own = node.look().expect("certificates").standing;
    let trusts = own.step(Some(next)).expect("a step");
    let shows = trusts.step(None).expect("a step");
    let fingerprint = before.fingerprint().expect("a print");
    for (from, to) in [(own, trusts), (trusts, shows)] {
        let request = node.ask(&TrustAsk::Prepare).request;
        let named = (Subject::Node(both[0]), request.as_deref());
        let step = source.step(&signers(), (from, to), named, None);
        let answer = node.ask(&step.expect("a step").expect("a request"));
        assert_eq!(answer.problem, None);
        let (home, notes) = Home::init(&places, "node1").expect("as it was");
        assert!(notes.iter().all(|note| !note.written), "{notes:?}");
        assert_eq!(home.fingerprint().expect("a print"), fingerprint);
        Home::open(&places, "node1").expect("a home");
    }
}

//! The cluster's authority is changed, and certificates are renewed, between the same two `lockstepd` and a witness: all of them hear
//! each other all the time.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use controlplane::trust::{Authority, Identity, OwnKey, Subject, node_config, read_identity};
use controlplane::witness::Admission;
use controlplane_api::cluster::{ClusterStatus, Presence};
use controlplane_api::trust::{MemberTrust, TrustDone, TrustOutcome, TrustShow, TrustStage};
use mirror_core::admin::Problem;
use mirror_core::types::NodeId;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use super::beds::{Bed, eventually};

const ROTATE: &str = "/v1/trust/rotate";
const RENEW: &str = "/v1/trust/renew";

fn wish(bed: &Bed, node: usize, path: &str, body: &str) -> Result<TrustDone, Problem> {
    let said = bed.post(node, path, body)?;
    Ok(serde_json::from_str(&said).expect("an answer"))
}

fn shown(bed: &Bed, node: usize) -> TrustShow {
    serde_json::from_str(&bed.get(node, "/v1/trust")).expect("a state")
}

fn status(bed: &Bed, node: usize) -> ClusterStatus {
    serde_json::from_str(&bed.get(node, "/v1/status")).expect("a status")
}

/// Both nodes hear each other, and the witness answers both.
fn all_talk(bed: &Bed) -> bool {
    (0..2).all(|node| {
        let status = status(bed, node);
        let answers = status.arbiter.answers == Some(true);
        answers && status.peer.presence == Presence::Alive
    })
}

fn ready() -> Bed {
    let mut bed = Bed::with_witness();
    bed.start_both();
    eventually("all talk", || all_talk(&bed));
    bed
}

fn authorities(bed: &Bed, node: usize) -> usize {
    let text = fs::read_to_string(bed.file(node, "trust/authority.pem")).expect("a file");
    text.matches("BEGIN").count()
}

/// All show and trust the same authority alone, another one than before.
fn ends(bed: &Bed, node: usize, before: &TrustShow) {
    let old = before.members[0].authority.expect("an authority");
    let is = || {
        let now = shown(bed, node);
        let new = now.members[0].authority.expect("an authority");
        new != old && now.members.len() == 3 && now.members.iter().all(|member| member.has(new))
    };
    eventually("the end of the change", is);
    for node in 0..2 {
        assert_eq!(authorities(bed, node), 1);
    }
    eventually("its key is gone", || {
        let keys = fs::read_to_string(bed.file(0, "authority/authority.key")).expect("a key");
        keys.matches("BEGIN").count() == 1
    });
}

type Line = StreamOwned<ClientConnection, TcpStream>;

/// A connection to the witness of somebody with this certificate.
fn line(bed: &Bed, identity: &Identity) -> Line {
    let own = fs::read_to_string(bed.file(0, "witness/witness.pem")).expect("a certificate");
    let config = node_config(identity, &own).expect("TLS");
    let name = ServerName::try_from("witness.lockstep.internal").expect("a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("TLS");
    let stream = TcpStream::connect(bed.witness_address()).expect("a witness");
    StreamOwned::new(connection, stream)
}

/// Whether the witness answers there.
fn answers(line: &mut Line) -> bool {
    let ask = "{\"schema\":\"lockstep.arbiter/1\",\"number\":1,\"ask\":\"trust\",\"trust\":{\"step\":\"look\"}}\n";
    let said = line.write_all(ask.as_bytes());
    let mut last = [0];
    let mut end = |line: &mut Line| {
        while last != *b"\n" {
            line.read_exact(&mut last)?;
        }
        Ok(())
    };
    said.and_then(|()| end(line)).is_ok()
}

/// Whether the witness answers somebody with this certificate.
fn is_heard(bed: &Bed, identity: &Identity) -> bool {
    answers(&mut line(bed, identity))
}

#[test]
fn the_authority_is_changed_while_all_hear_each_other_and_the_old_certificates_are_over() {
    let mut bed = ready();
    let before = shown(&bed, 0);
    let old = read_identity(&bed.file(1, "trust"), "node").expect("an identity");
    assert!(is_heard(&bed, &old));
    let registers = || fs::read(bed.admission().with_extension("json"));
    let held = registers().expect("registers");
    // Whichever is asked.
    let possible = wish(&bed, 1, ROTATE, r#"{"dry_run":true}"#).expect("possible");
    assert_eq!(possible.outcome, TrustOutcome::Possible);
    assert_eq!(authorities(&bed, 0), 1);
    let begun = wish(&bed, 1, ROTATE, "{}").expect("begun");
    assert_eq!(begun.outcome, TrustOutcome::Begun);
    // Somebody else who has an old certificate, and holds on to what was made with it.
    let mut standing = line(&bed, &old);
    assert!(answers(&mut standing));
    let again = wish(&bed, 0, ROTATE, "{}").expect("under way");
    assert_eq!(
        (again.outcome, again.authority),
        (TrustOutcome::UnderWay, begun.authority)
    );
    let waits = wish(&bed, 0, RENEW, "{}").expect_err("not now");
    assert_eq!(waits.code, "LS6187");
    eventually("it is told", || {
        status(&bed, 1).trust.is_some_and(|it| it.code == "LS6182")
    });
    ends(&bed, 1, &before);
    assert!(all_talk(&bed));
    for node in 0..2 {
        eventually("nothing is left to tell", || {
            status(&bed, node).trust.is_none()
        });
        for lost in ["LS6016", "LS6181", "LS6185", "LS6180"] {
            assert!(
                !bed.words(node).contains(lost),
                "{lost} {}",
                bed.words(node)
            );
        }
        let mode = fs::metadata(bed.file(node, "trust/node.key"))
            .expect("a key")
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    assert!(!is_heard(&bed, &old) && !answers(&mut standing));
    let new = read_identity(&bed.file(1, "trust"), "node").expect("an identity");
    assert_ne!(old.key, new.key);
    // The witness holds what it granted, in a file that nobody touched.
    let line = |bytes: &[u8]| {
        let value: serde_json::Value = serde_json::from_slice(bytes).expect("JSON");
        value["registers"].clone()
    };
    assert_eq!(line(&held), line(&registers().expect("registers")));
    // Everything comes up by the new ones.
    for node in 0..2 {
        bed.kill(node);
    }
    bed.kill_witness();
    bed.start_witness();
    bed.start_both();
    eventually("all talk", || all_talk(&bed));
    // And by certificates that are renewed.
    let before = shown(&bed, 0);
    let renewed = wish(&bed, 1, RENEW, "{}").expect("renewed");
    assert_eq!(renewed.outcome, TrustOutcome::Renewed);
    let again = read_identity(&bed.file(1, "trust"), "node").expect("an identity");
    assert!(again.key != new.key && again.certificate != new.certificate);
    let after = shown(&bed, 0);
    assert_eq!(before.members[0].authority, after.members[0].authority);
    assert!(all_talk(&bed) && is_heard(&bed, &new) && !is_heard(&bed, &old));
}

fn stage(bed: &Bed) -> TrustStage {
    let own = &shown(bed, 0).members[0];
    own.stage.expect("a stage")
}

/// All processes are killed at each stage, and begin anew. A file that the other node cannot replace holds the stage.
#[test]
fn a_crash_at_each_stage_is_taken_up_where_it_was() {
    let mut bed = ready();
    let before = shown(&bed, 0);
    let held = [
        (TrustStage::TrustsNext, "trust/.authority.pem.new"),
        (TrustStage::ShowsNext, "trust/.node.pem.new"),
    ];
    for (_, file) in held {
        fs::create_dir(bed.file(1, file)).expect("in the way");
    }
    wish(&bed, 0, ROTATE, "{}").expect("begun");
    for (reached, file) in held {
        let refused = |bed: &Bed| {
            let note = status(bed, 0).trust;
            stage(bed) == reached && note.is_some_and(|note| note.code == "LS6181")
        };
        eventually("the stage", || refused(&bed));
        for node in 0..2 {
            bed.kill(node);
        }
        bed.kill_witness();
        bed.start_witness();
        bed.start_both();
        eventually("the same stage", || all_talk(&bed) && refused(&bed));
        fs::remove_dir(bed.file(1, file)).expect("away");
    }
    ends(&bed, 0, &before);
    assert!(all_talk(&bed));
}

#[test]
fn a_member_that_is_away_is_named_and_waited_for_and_not_cut_off() {
    let mut bed = ready();
    let before = shown(&bed, 0);
    let files = |bed: &Bed| -> Vec<Vec<u8>> {
        let names = [
            "trust/authority.pem",
            "trust/node.pem",
            "authority/authority.pem",
        ];
        let paths = names.map(|name| -> PathBuf { bed.file(0, name) });
        paths
            .iter()
            .map(|path| fs::read(path).expect("a file"))
            .collect()
    };
    let old = files(&bed);
    // Before it begins, nothing is changed.
    bed.kill_witness();
    let problem = wish(&bed, 0, ROTATE, "{}").expect_err("the witness is away");
    assert_eq!(problem.code, "LS6178", "{problem:?}");
    assert!(
        problem.message.contains("witness") && !problem.advice.is_empty(),
        "{problem:?}"
    );
    bed.start_witness();
    eventually("all talk", || all_talk(&bed));
    bed.kill(1);
    let problem = wish(&bed, 0, ROTATE, "{}").expect_err("the other node is away");
    assert_eq!(problem.code, "LS6178", "{problem:?}");
    assert!(problem.message.contains("node2"), "{problem:?}");
    assert_eq!(files(&bed), old);
    bed.start(1);
    eventually("all talk", || all_talk(&bed));
    // After it began, no step is taken without it.
    wish(&bed, 0, ROTATE, "{}").expect("begun");
    bed.kill_witness();
    eventually("it is named", || {
        let note = status(&bed, 0).trust;
        note.is_some_and(|note| note.code == "LS6178" && note.message.contains("witness"))
    });
    assert_ne!(stage(&bed), TrustStage::ShowsNext);
    for node in 0..2 {
        assert_eq!(status(&bed, node).peer.presence, Presence::Alive);
        assert!(bed.show(node).peer.is_some());
    }
    bed.start_witness();
    ends(&bed, 0, &before);
    eventually("all talk", || all_talk(&bed));
}

/// The node that leads got a certificate of the next authority by a clock that was years behind. It has ended for all others.
#[test]
fn a_leader_whose_certificate_has_ended_in_mid_change_gets_another_one_and_goes_on() {
    let mut bed = Bed::with_witness();
    let read = |name: &str| fs::read_to_string(bed.file(0, name)).expect("a file");
    let last = Identity {
        certificate: read("authority/authority.pem"),
        key: read("authority/authority.key"),
    };
    let (next, made) = Authority::create(bed.cluster()).expect("an authority");
    let both = [last.certificate.as_str(), &made.certificate].concat();
    for file in [
        bed.file(0, "authority/authority.pem"),
        bed.file(0, "trust/authority.pem"),
        bed.file(1, "trust/authority.pem"),
    ] {
        fs::write(file, &both).expect("written");
    }
    let keys = [last.key.as_str(), &made.key].concat();
    fs::write(bed.file(0, "authority/authority.key"), keys).expect("written");
    let text = fs::read_to_string(bed.admission()).expect("an admission");
    let mut admission: Admission = serde_json::from_str(&text).expect("JSON");
    admission.authority = both;
    let text = serde_json::to_string(&admission).expect("JSON");
    fs::write(bed.admission(), text).expect("written");
    let key = OwnKey::generate().expect("a key");
    let own = Subject::Node(NodeId::new(0).expect("a node"));
    let request = key.request().expect("a request");
    let ended = next.sign_for(own, &request, -1).expect("a certificate");
    fs::write(bed.file(0, "trust/node.pem"), ended).expect("written");
    fs::write(bed.file(0, "trust/node.key"), key.pem()).expect("written");
    bed.kill_witness();
    bed.start_witness();
    bed.start_both();
    eventually("the end of the change", || {
        let members = shown(&bed, 0).members;
        let new = members[0].authority.expect("an authority");
        members.len() == 3 && members.iter().all(|member| member.has(new))
    });
    eventually("all talk", || all_talk(&bed));
}

/// Nobody heard whether the witness has gone it: it is told, and nothing is forgotten until it was heard.
#[test]
fn the_last_step_is_followed_until_all_have_gone_it() {
    let mut bed = ready();
    let before = shown(&bed, 0);
    let in_the_way = bed
        .admission()
        .with_file_name(format!(".{}.cluster.new", bed.cluster()));
    let blocked = bed.file(1, "trust/.node.pem.new");
    fs::create_dir(&blocked).expect("in the way");
    wish(&bed, 0, ROTATE, "{}").expect("begun");
    eventually("the stage", || {
        let members = shown(&bed, 0).members;
        let is = |member: &MemberTrust| member.stage == Some(TrustStage::ShowsNext);
        members.iter().filter(|member| is(member)).count() == 2
    });
    // The witness takes no further step from here.
    fs::create_dir(&in_the_way).expect("in the way");
    fs::remove_dir(&blocked).expect("away");
    eventually("the nodes are through", || {
        (0..2).all(|node| authorities(&bed, node) == 1)
    });
    bed.kill_witness();
    eventually("it is named", || {
        let note = status(&bed, 0).trust;
        note.is_some_and(|note| note.code == "LS6178" && note.message.contains("witness"))
    });
    let again = wish(&bed, 0, ROTATE, "{}").expect("under way");
    assert_eq!(again.outcome, TrustOutcome::UnderWay);
    let keys = fs::read_to_string(bed.file(0, "authority/authority.key")).expect("keys");
    assert_eq!(keys.matches("BEGIN").count(), 2);
    fs::remove_dir(&in_the_way).expect("away");
    bed.start_witness();
    ends(&bed, 0, &before);
}

#[test]
fn without_the_authority_s_key_and_with_two_of_them_nothing_begins() {
    let bed = ready();
    let own = bed.file(0, "authority");
    let other = bed.file(1, "authority");
    fs::create_dir(&other).expect("a directory");
    for name in ["authority.pem", "authority.key"] {
        fs::copy(own.join(name), other.join(name)).expect("copied");
    }
    for node in 0..2 {
        let problem = wish(&bed, node, ROTATE, "{}").expect_err("two of them");
        assert_eq!(problem.code, "LS6177", "{problem:?}");
    }
    for directory in [&own, &other] {
        fs::remove_dir_all(directory).expect("removed");
    }
    for node in 0..2 {
        let problem = wish(&bed, node, ROTATE, "{}").expect_err("none");
        assert_eq!(problem.code, "LS6177", "{problem:?}");
    }
    assert_eq!(authorities(&bed, 0), 1);
}

//! Who is not let in, and who is not told anything.

use std::sync::Arc;
use std::time::Duration;

use controlplane::join::{Doorplate, JoinError, Progress};
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::beds::*;
use crate::raw::{Raw, hello};

fn code(error: &JoinError) -> String {
    error.problem().code
}

#[tokio::test]
async fn a_wrong_token_is_refused_and_the_right_one_works_afterwards() {
    let bed = Bed::new();
    let mut door = bed.invites_only(&["witness"], LONG).await;
    let token = door.token(WITNESS).await;
    let refused = bed.joins("witness", &door, wrong(&token)).await;
    let error = refused.expect_err("wrong");
    assert_eq!(code(&error), "LS6028");
    assert!(error.to_string().contains("4 more"), "{error}");
    assert!(door.turned().await.starts_with("LS6028 a wrong token"));
    assert_eq!(bed.files("witness"), Files::default());
    bed.joins("witness", &door, token).await.expect("joined");
    door.ends().await.expect("joined");
}

#[tokio::test]
async fn a_used_token_is_refused() {
    let bed = Bed::new();
    let mut door = bed.invites(LONG).await;
    let token = door.token(WITNESS).await;
    let again = token.clone();
    bed.joins("witness", &door, token).await.expect("joined");
    let error = bed.joins("witness", &door, again).await.expect_err("used");
    assert_eq!(code(&error), "LS6028");
    assert!(error.to_string().contains("used already"), "{error}");
    assert!(door.turned().await.contains("used already"));
}

#[tokio::test]
async fn five_wrong_tokens_close_the_door_for_everybody_and_both_ends_say_why() {
    let bed = Bed::new();
    let mut door = bed.invites(LONG).await;
    let (witness, node) = (door.token(WITNESS).await, door.token(NODE).await);
    for expected in ["LS6028", "LS6028", "LS6028", "LS6028", "LS6029"] {
        let refused = bed.joins("witness", &door, wrong(&witness)).await;
        assert_eq!(code(&refused.expect_err("wrong")), expected);
        assert!(door.turned().await.starts_with(expected));
    }
    for (machine, token) in [("witness", witness), ("node2", node)] {
        let error = bed.joins(machine, &door, token).await.expect_err("closed");
        assert_eq!(code(&error), "LS6029", "{error}");
        assert!(door.turned().await.starts_with("LS6029"));
        assert_eq!(bed.files(machine), Files::default());
    }
    let error = door.ends().await.expect_err("closed");
    assert!(matches!(error, JoinError::Closed { tries: 5 }), "{error}");
}

#[tokio::test]
async fn a_node_that_waits_for_the_witness_is_turned_away_when_the_door_closes() {
    let bed = Arc::new(Bed::new());
    let mut door = bed.invites(LONG).await;
    let (witness, node) = (door.token(WITNESS).await, door.token(NODE).await);
    let (early, address) = (Arc::clone(&bed), door.address.clone());
    let early = tokio::spawn(async move { early.join_at("node2", &address, node).await });
    door.hears(|progress| matches!(progress, Progress::Waits { .. }))
        .await;
    for _ in 0..5 {
        let refused = bed.joins("witness", &door, wrong(&witness)).await;
        refused.expect_err("wrong");
    }
    let error = early.await.expect("no panic").expect_err("closed");
    assert_eq!(code(&error), "LS6029", "{error}");
    assert_eq!(bed.files("node2"), Files::default());
}

#[tokio::test]
async fn after_its_time_the_invitation_says_who_is_missing_and_waiting_nodes_hear_it() {
    let bed = Bed::new();
    let mut door = bed.invites(Duration::from_millis(500)).await;
    let (_, node) = (door.token(WITNESS).await, door.token(NODE).await);
    let again = node.clone();
    // It waits for the witness until the end.
    let error = bed.joins("node2", &door, node).await.expect_err("over");
    assert_eq!(code(&error), "LS6030", "{error}");
    let address = door.address.clone();
    let error = door.ends().await.expect_err("over");
    let said = error.to_string();
    assert!(said.ends_with("not joined: witness, node2"), "{said}");
    let error = bed.join_at("node2", &address, again).await;
    let error = error.expect_err("nobody listens");
    assert!(matches!(error, JoinError::Unreachable { .. }), "{error}");
    assert_eq!(bed.files("node2"), Files::default());
}

/// Somebody in between, with a certificate of its own: it gets a handshake that breaks off, and nothing after it.
#[tokio::test]
async fn the_secret_is_told_to_nobody_but_the_end_that_the_token_names() {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["invitation.lockstep.internal".to_string()]);
    let certificate = params.expect("a name").self_signed(&key).expect("signed");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("TLS");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let between = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("it comes");
        match acceptor.accept(stream).await {
            Ok(mut stream) => {
                let mut heard = Vec::new();
                drop(stream.read_to_end(&mut heard).await);
                Some(heard)
            }
            Err(_) => None,
        }
    });
    let bed = Bed::new();
    let mut door = bed.invites_only(&["node2"], LONG).await;
    let token = door.token(NODE).await;
    let error = bed.join_at("node2", &address, token.clone()).await;
    let error = error.expect_err("somebody else");
    assert_eq!(code(&error), "LS6031", "{error}");
    assert_eq!(between.await.expect("no panic"), None, "something was said");
    assert_eq!(bed.files("node2"), Files::default());
    // Nothing was lost by it.
    bed.joins("node2", &door, token).await.expect("joined");
}

/// Also a token of an earlier invitation of the same node.
#[tokio::test]
async fn a_token_of_another_invitation_is_not_tried() {
    let bed = Bed::new();
    let mut first = bed.invites_only(&["node2"], LONG).await;
    let token = first.token(NODE).await;
    let mut second = bed.invites_only(&["node2"], LONG).await;
    let error = bed.joins("node2", &second, token).await;
    assert_eq!(code(&error.expect_err("another one")), "LS6031");
    assert!(
        second.turned().await.starts_with("LS6032"),
        "no try is counted"
    );
}

#[tokio::test]
async fn a_name_that_the_token_is_not_for_is_refused_with_those_that_are_there() {
    let bed = Bed::new();
    let cases = [
        (
            "node9",
            "nobody called \"node9\" can be invited; there are witness, node2",
        ),
        (
            "witness",
            "this token is for node2, and witness came with it",
        ),
    ];
    for (name, expected) in cases {
        let mut door = bed.invites_only(&["node2"], LONG).await;
        let token = door.token(NODE).await;
        let mut joining = bed.joining("node2", &door.address, token);
        joining.node = Some(name.to_string());
        let error = controlplane::join::join(&joining, |_| {}).await;
        let problem = error.expect_err("refused").problem();
        assert_eq!(
            (problem.code, problem.message),
            (
                "LS6033".to_string(),
                format!("the inviting end says: {expected}")
            )
        );
        assert_eq!(bed.files("node2"), Files::default());
        // It may come again as who it is.
        let token = door.token(NODE).await;
        bed.joins("node2", &door, token).await.expect("joined");
        std::fs::remove_dir_all(bed.path("node2")).expect("a new machine");
    }
}

#[tokio::test]
async fn oversized_and_garbage_frames_are_refused_and_count_as_no_try() {
    let bed = Bed::new();
    let long = vec![b' '; 1025];
    let durable = json!({ "say": "durable" }).to_string();
    let short = json!({ "say": "hello", "version": 1, "secret": "12" }).to_string();
    let frames: [(u32, &[u8], &str); 7] = [
        (u32::MAX, b"", "a frame of 4294967295 bytes; at most 1024"),
        (1025, &long, "a frame of 1025 bytes; at most 1024"),
        (0, b"", "not understood"),
        (4, b"\xff\xfe\x00{", "not understood"),
        (17, b"{\"say\":\"nothing\"}", "not understood"),
        (
            u32::try_from(durable.len()).expect("short"),
            durable.as_bytes(),
            "another word",
        ),
        (
            u32::try_from(short.len()).expect("short"),
            short.as_bytes(),
            "not understood",
        ),
    ];
    for (length, text, expected) in frames {
        // Of one address only the first is told.
        let mut door = bed.invites_only(&["witness"], LONG).await;
        let mut raw = Raw::to(&door).await;
        raw.bytes(length, text).await;
        let turned = door.turned().await;
        assert!(
            turned.starts_with("LS6032") && turned.contains(expected),
            "{turned}"
        );
        // Nothing of the cluster is said; if anything, why not.
        let heard = raw.hears().await;
        assert!(heard.is_none_or(|word| word["say"] == "refused"));
    }
    let mut door = bed.invites_only(&["witness"], LONG).await;
    let token = door.token(WITNESS).await;
    for (length, text, _) in frames {
        let mut raw = Raw::to(&door).await;
        raw.bytes(length, text).await;
        raw.hears().await;
    }
    bed.joins("witness", &door, token).await.expect("joined");
    door.ends().await.expect("seven of these closed nothing");
}

#[tokio::test]
async fn nothing_is_said_before_the_token_and_nothing_foreign_is_signed_after_it() {
    let bed = Bed::new();
    let mut door = bed.invites_only(&["node2"], LONG).await;
    let before = bed.files("node1");
    let node = |request: &str| json!({ "say": "node", "name": "node2", "request": request });
    let large = "A".repeat(70_000);
    let words = [
        node("no request"),
        node(&large),
        node("-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n"),
        json!({ "say": "witness", "certificate": "none" }),
        json!({ "say": "durable" }),
        json!([1, 2]),
    ];
    for word in words {
        let mut raw = Raw::to(&door).await;
        let token = door.token(NODE).await;
        raw.says(&hello(&token)).await;
        let welcome = raw.hears().await.expect("welcome");
        assert_eq!(
            (&welcome["say"], &welcome["role"]),
            (&json!("welcome"), &json!("node"))
        );
        raw.says(&word).await;
        let heard = raw.hears().await;
        assert!(heard.is_none_or(|word| word["say"] == "refused"));
        door.hears(|progress| matches!(progress, Progress::BrokeOff { .. }))
            .await;
    }
    assert_eq!(bed.files("node1"), before);
    let token = door.token(NODE).await;
    bed.joins("node2", &door, token).await.expect("joined");
}

/// The cluster's key goes only to who has the token: a frame that follows at once is not answered.
#[tokio::test]
async fn a_stranger_that_does_not_wait_for_the_answer_gets_nothing() {
    let bed = Bed::new();
    let mut door = bed.invites_only(&["node2"], LONG).await;
    let token = wrong(&door.token(NODE).await);
    let mut raw = Raw::to(&door).await;
    raw.says(&hello(&token)).await;
    raw.says(&json!({ "say": "durable" })).await;
    let heard = raw.hears().await.expect("why not");
    assert_eq!(
        (&heard["say"], &heard["code"]),
        (&json!("refused"), &json!("LS6028"))
    );
    assert_eq!(raw.hears().await, None);
}

/// A release that says something else is told so, and may come again.
#[tokio::test]
async fn another_version_is_refused_after_the_token() {
    let bed = Bed::new();
    let mut door = bed.invites_only(&["node2"], LONG).await;
    let token = door.token(NODE).await;
    let mut raw = Raw::to(&door).await;
    let mut later = hello(&token);
    later["version"] = json!(2);
    raw.says(&later).await;
    let heard = raw.hears().await.expect("why not");
    assert!(
        heard["message"].to_string().contains("version 2"),
        "{heard}"
    );
    let token = door.token(NODE).await;
    bed.joins("node2", &door, token).await.expect("joined");
}

#[tokio::test]
async fn silent_strangers_keep_nobody_out() {
    let bed = Bed::new();
    let mut door = bed.invites_only(&["node2"], LONG).await;
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(TcpStream::connect(&door.address).await.expect("connected"));
    }
    let raw = Raw::to(&door).await;
    let token = door.token(NODE).await;
    bed.joins("node2", &door, token).await.expect("joined");
    door.ends().await.expect("it waits for none of them");
    drop((silent, raw));
}

#[test]
fn two_invitations_have_two_certificates() {
    let one = Doorplate::new().expect("a certificate");
    let two = Doorplate::new().expect("a certificate");
    assert_ne!(one.fingerprint, two.fingerprint);
}

//! A cluster comes together on loopback, with directories instead of machines; and everything that may go wrong then.

mod beds;
mod broken;
mod files;
mod keys;
mod raw;
mod screen;
mod strangers;
// Of the talk of a node only the contact is needed here.
#[allow(dead_code)]
#[path = "../arbiters/talk.rs"]
mod talk;

use std::net::TcpListener as StdListener;
use std::sync::Arc;

use controlplane::arbiter;
use controlplane::config::Config;
use controlplane::join::{Guest, Joined, Progress};
use controlplane::trust::{node_config, read_identity, witness_config};
use controlplane::witness::{Witness, server};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use beds::*;
use talk::Node;

/// A real witness of the files that joining left.
async fn witness_of(bed: &Bed) -> String {
    let directory = bed.path("witness");
    let identity = read_identity(&directory, "witness").expect("an identity");
    let witness = Arc::new(Witness::open(&directory).expect("a witness"));
    let config = witness_config(&identity, Arc::clone(&witness.trusted)).expect("TLS");
    let listener = StdListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a socket");
    let address = listener.local_addr().expect("an address").to_string();
    let listener = TcpListener::from_std(listener).expect("a listener");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move { server::serve(witness, listener, acceptor).await });
    address
}

/// What `lockstepd run` does with a node's files.
fn node_of(bed: &Bed, name: &str, address: &str) -> Node {
    let places = bed.places(name);
    let config = Config::read(&places.config, name).expect("a configuration");
    assert_eq!(config.name, name);
    controlplane::key::read(&places.key).expect("the key");
    let identity = read_identity(&places.trust, "node").expect("an identity");
    let witness = std::fs::read_to_string(places.trust.join("witness.pem")).expect("the witness");
    let tls = node_config(&identity, &witness).expect("TLS");
    Node::talking(arbiter::Witness::new(address.to_string(), Arc::new(tls)))
}

async fn both_have_contact(bed: &Bed) {
    let address = witness_of(bed).await;
    for name in ["node1", "node2"] {
        node_of(bed, name, &address).reports().await;
    }
}

#[tokio::test]
async fn a_witness_and_a_node_join_and_both_nodes_have_contact_with_the_witness() {
    let bed = Bed::new();
    let mut door = bed.invites(LONG).await;
    let (witness, node) = (door.token(WITNESS).await, door.token(NODE).await);
    let joined = bed.joins("witness", &door, witness).await.expect("joined");
    assert_eq!(joined.node, None);
    let joined = bed.joins("node2", &door, node).await.expect("joined");
    assert_eq!(joined.node.as_deref(), Some("node2"));
    assert!(joined.notes.iter().all(|note| note.written));
    door.task.await.expect("no panic").expect("all have joined");
    both_have_contact(&bed).await;
}

/// In which order both commands are typed is nobody's worry.
#[tokio::test]
async fn a_node_that_comes_first_waits_for_the_witness_and_gets_its_certificate() {
    let bed = Arc::new(Bed::new());
    let mut door = bed.invites(LONG).await;
    let (witness, node) = (door.token(WITNESS).await, door.token(NODE).await);
    let (early, address) = (Arc::clone(&bed), door.address.clone());
    let early = tokio::spawn(async move { early.join_at("node2", &address, node).await });
    door.hears(|progress| {
        matches!(
            progress,
            Progress::Waits {
                whom: Guest::Witness,
                ..
            }
        )
    })
    .await;
    assert_eq!(bed.files("node2"), Files::default(), "before the witness");
    bed.joins("witness", &door, witness).await.expect("joined");
    early.await.expect("no panic").expect("joined");
    door.task.await.expect("no panic").expect("all have joined");
    both_have_contact(&bed).await;
}

/// A witness that joins later is made known to the node by inviting that one again.
#[tokio::test]
async fn a_node_that_joined_without_the_witness_gets_its_certificate_by_joining_again() {
    let bed = Bed::new();
    let mut door = bed.invites_only(&["node2"], LONG).await;
    let token = door.token(NODE).await;
    bed.joins("node2", &door, token).await.expect("joined");
    let joined = door
        .hears(|progress| matches!(progress, Progress::Joined { .. }))
        .await;
    assert!(
        matches!(
            joined,
            Progress::Joined {
                lacks_witness: true,
                ..
            }
        ),
        "{joined:?}"
    );
    let before = bed.files("node2");
    let mut door = bed.invites(LONG).await;
    let token = door.token(WITNESS).await;
    bed.joins("witness", &door, token).await.expect("joined");
    door.task
        .await
        .expect("no panic")
        .expect("only it was missing");
    let mut door = bed.invites_only(&["node2"], LONG).await;
    let token = door.token(NODE).await;
    let Joined { notes, .. } = bed.joins("node2", &door, token).await.expect("again");
    let written = notes.iter().filter(|note| note.written);
    let written: Vec<_> = written.map(|note| note.path.clone()).collect();
    assert_eq!(written, [bed.places("node2").trust.join("witness.pem")]);
    let after = bed.files("node2");
    assert!(
        before
            .iter()
            .all(|(path, file)| after.get(path) == Some(file))
    );
    both_have_contact(&bed).await;
}

#[tokio::test]
async fn a_witness_of_other_clusters_keeps_its_certificate_and_serves_both() {
    let (one, two) = (Bed::new(), Bed::new());
    let mut door = one.invites_only(&["witness"], LONG).await;
    let token = door.token(WITNESS).await;
    one.joins("witness", &door, token).await.expect("joined");
    let before = one.files("witness");
    let mut door = two.invites_only(&["witness"], LONG).await;
    let token = door.token(WITNESS).await;
    one.joins("witness", &door, token).await.expect("joined");
    let after = one.files("witness");
    assert_eq!((before.len(), after.len()), (3, 4));
    assert!(
        before
            .iter()
            .all(|(path, file)| after.get(path) == Some(file))
    );
    let address = witness_of(&one).await;
    for bed in [&one, &two] {
        node_of(bed, "node1", &address).reports().await;
    }
}

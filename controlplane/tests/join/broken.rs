//! A connection that breaks after each record of TLS: to join again is all that it costs.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use controlplane::join::{JoinError, Progress, Token};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::beds::*;

const RECORD_HEAD_BYTES: usize = 5;
/// Type of an encrypted record.
const ENCRYPTED: u8 = 23;

/// Passes so many records on, of both directions together, then breaks the connection.
struct Relay {
    address: String,
}

impl Relay {
    async fn to(target: &str, records_max: usize) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let (target, passed) = (target.to_string(), AtomicUsize::new(0));
        tokio::spawn(async move {
            let (near, _) = listener.accept().await.expect("it comes");
            let far = TcpStream::connect(target).await.expect("it listens");
            let (near_in, near_out) = near.into_split();
            let (far_in, far_out) = far.into_split();
            let may = || passed.fetch_add(1, Ordering::SeqCst) < records_max;
            // Whoever ends first ends both: everything is dropped then.
            tokio::select! {
                ended = pass(near_in, far_out, &may) => drop(ended),
                ended = pass(far_in, near_out, &may) => drop(ended),
            }
        });
        Relay { address }
    }
}

async fn record(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; RECORD_HEAD_BYTES];
    from.read_exact(&mut bytes).await?;
    let length = u16::from_be_bytes([bytes[3], bytes[4]]);
    bytes.resize(RECORD_HEAD_BYTES + usize::from(length), 0);
    from.read_exact(&mut bytes[RECORD_HEAD_BYTES..]).await?;
    Ok(bytes)
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    may: &impl Fn() -> bool,
) -> io::Result<()> {
    loop {
        let bytes = record(&mut from).await?;
        if !may() {
            return Ok(());
        }
        to.write_all(&bytes).await?;
    }
}

/// What the inviting end made of a connection.
enum Outcome {
    /// Its token still works.
    Turned,
    /// A new token is needed.
    BrokeOff,
    /// The cluster's key was under way: nobody gets a new token.
    KeyIsOut,
    Joined,
}

async fn outcome(door: &mut Door) -> Outcome {
    let progress = door
        .hears(|progress| {
            matches!(
                progress,
                Progress::Turned { .. } | Progress::BrokeOff { .. } | Progress::Joined { .. }
            )
        })
        .await;
    if matches!(progress, Progress::Turned { .. }) {
        return Outcome::Turned;
    }
    if let Progress::BrokeOff { key_is_out, .. } = progress {
        return match key_is_out {
            None => Outcome::BrokeOff,
            Some(_) => Outcome::KeyIsOut,
        };
    }
    Outcome::Joined
}

/// How a broken connection ended, by what is on the disk of the joining machine.
#[derive(Default)]
struct Ends {
    nothing: usize,
    all: usize,
    /// All is there, and the inviting end has it written down, but its last word was lost.
    believed: usize,
    /// The inviting end had begun to hand the cluster's key over.
    out: usize,
}

/// Breaks after `records_max` records, then joins again; whether it came to the end before.
async fn breaks_after(machine: &str, whole: usize, records_max: usize, ends: &mut Ends) -> bool {
    let bed = Bed::new();
    let mut door = bed.invites_only(&[machine], LONG).await;
    let token = door.token(machine).await;
    let relay = Relay::to(&door.address, records_max).await;
    let joined = bed.join_at(machine, &relay.address, token.clone()).await;
    let files = bed.files(machine);
    let Err(error) = joined else {
        assert_eq!(files.len(), whole);
        return true;
    };
    assert_eq!(error.problem().code, "LS6032", "{records_max}: {error}");
    let unconfirmed = matches!(error, JoinError::Unconfirmed { .. });
    assert_eq!(
        files.len(),
        if unconfirmed { whole } else { 0 },
        "{records_max}: {error}"
    );
    let token: Token = match outcome(&mut door).await {
        Outcome::Turned => token,
        Outcome::BrokeOff => door.token(machine).await,
        Outcome::KeyIsOut => {
            ends.out += 1;
            let error = door.ends().await.expect_err("who has it?");
            assert_eq!(error.problem().code, "LS6077", "{error}");
            door = bed.invites_only(&[machine], LONG).await;
            door.token(machine).await
        }
        Outcome::Joined => {
            assert!(unconfirmed, "{records_max}: joined, and not all is there");
            ends.believed += 1;
            door.ends().await.expect("it believes that all joined");
            door = bed.invites_only(&[machine], LONG).await;
            door.token(machine).await
        }
    };
    match unconfirmed {
        true => ends.all += 1,
        false => ends.nothing += 1,
    }
    bed.joins(machine, &door, token).await.expect("again");
    door.ends().await.expect("joined");
    let after = bed.files(machine);
    assert_eq!(after.len(), whole);
    assert!(
        !unconfirmed || after == files,
        "{records_max}: what was there was changed"
    );
    false
}

#[tokio::test]
async fn a_connection_that_breaks_at_any_record_leaves_nothing_half_done_and_joining_again_works() {
    for (machine, whole) in [("node2", 5), ("witness", 3)] {
        let mut ends = Ends::default();
        let mut records_max = 0;
        while !breaks_after(machine, whole, records_max, &mut ends).await {
            records_max += 1;
            assert!(records_max < 100, "it never came to its end");
        }
        // Hello, welcome, request, gift, durable, done: one record each, after those of the handshake.
        assert!(records_max > 8, "{records_max} records");
        assert!(ends.nothing > 4 && ends.all > 0 && ends.believed > 0);
        assert_eq!(ends.out > 0, machine == NODE, "only a node gets it");
    }
}

/// A power cut while the files are put into their places leaves the first ones of this order.
const ORDER: [(&str, &[&str]); 2] = [
    (
        "node2",
        &[
            "cluster.key",
            "cluster.toml",
            "trust/witness.pem",
            "trust/authority.pem",
            "trust/node.key",
            "trust/node.pem",
        ],
    ),
    (
        "witness",
        &["witness.key", "witness.pem", "CLUSTER.cluster"],
    ),
];

#[tokio::test]
async fn a_machine_that_lost_its_power_among_the_files_joins_again_and_keeps_what_it_has() {
    for (machine, names) in ORDER {
        for count in 0..=names.len() {
            let bed = Bed::new();
            let mut door = bed.invites(LONG).await;
            let witness = door.token(WITNESS).await;
            bed.joins("witness", &door, witness).await.expect("joined");
            if machine == NODE {
                let token = door.token(NODE).await;
                bed.joins("node2", &door, token).await.expect("joined");
            }
            let cluster = bed.home().cluster.to_string();
            for name in &names[count..] {
                let name = name.replace("CLUSTER", &cluster);
                std::fs::remove_file(bed.path(machine).join(name)).expect("it was there");
            }
            if machine == WITNESS {
                std::fs::remove_file(bed.places("node1").trust.join("witness.pem"))
                    .expect("it did not hear of it");
            }
            let before = bed.files(machine);
            assert_eq!(before.len(), count);
            let mut door = bed.invites_only(&[machine], LONG).await;
            let token = door.token(machine).await;
            bed.joins(machine, &door, token).await.expect("again");
            let after = bed.files(machine);
            assert_eq!(after.len(), names.len(), "{machine}, {count}");
            let kept = before
                .iter()
                .all(|(path, file)| after.get(path) == Some(file));
            assert!(kept, "{machine}, {count}");
            if machine == NODE {
                crate::both_have_contact(&bed).await;
            }
        }
    }
}

/// Holds the first word after the handshake back until it is let go.
async fn held(target: &str) -> (String, watch::Sender<bool>, watch::Receiver<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let target = target.to_string();
    let (let_go, mut wait) = watch::channel(false);
    let (holds, held) = watch::channel(false);
    tokio::spawn(async move {
        let (near, _) = listener.accept().await.expect("it comes");
        let far = TcpStream::connect(target).await.expect("it listens");
        let (mut near_in, mut near_out) = near.into_split();
        let (mut far_in, mut far_out) = far.into_split();
        tokio::spawn(async move { tokio::io::copy(&mut far_in, &mut near_out).await });
        let mut encrypted = 0;
        while let Ok(bytes) = record(&mut near_in).await {
            encrypted += usize::from(bytes[0] == ENCRYPTED);
            // The first encrypted one ends the handshake.
            if encrypted == 2 {
                holds.send_replace(true);
                wait.wait_for(|go| *go).await.expect("let go");
            }
            far_out.write_all(&bytes).await.expect("it listens");
        }
    });
    (address, let_go, held)
}

#[tokio::test]
async fn a_right_token_that_comes_after_its_time_is_refused() {
    let bed = Arc::new(Bed::new());
    let mut door = bed
        .invites_only(&["node2"], std::time::Duration::from_millis(1500))
        .await;
    let token = door.token(NODE).await;
    let (address, let_go, mut held) = held(&door.address).await;
    let late = Arc::clone(&bed);
    let late = tokio::spawn(async move { late.join_at("node2", &address, token).await });
    held.wait_for(|held| *held).await.expect("it was held");
    // The door does not open any more as soon as nobody new is let in.
    while TcpStream::connect(&door.address).await.is_ok() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let_go.send_replace(true);
    let error = late.await.expect("no panic").expect_err("over");
    assert_eq!(error.problem().code, "LS6030", "{error}");
    assert!(door.turned().await.starts_with("LS60"));
    let error = door.ends().await.expect_err("over");
    assert!(matches!(error, JoinError::Over { .. }), "{error}");
    assert_eq!(bed.files("node2"), Files::default());
}

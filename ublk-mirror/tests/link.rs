//! Two daemons and strangers on a real network stack: what a peer, a wrong peer, or anybody who can
//! reach the port may do to a volume.

// A test that cannot go on panics, and helpers of tests are no tests to the linter.
#![allow(clippy::unwrap_used)]

mod harness;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use harness::{Node, Pair};
use mirror_core::auth::cluster_id;
use mirror_core::disk::{keys_bytes, read_keys};
use mirror_core::keys::Secret;
use mirror_core::types::{Epoch, NodeId, SectorRange};
use mirror_core::wire::{
    FRAME_HEADER_BYTES, Frame, FrameKind, Hello, Refused, RefusedCode, decode_header,
    encode_header, payload_crc,
};

#[test]
fn the_first_copy_makes_both_sides_equal() {
    let mut pair = Pair::in_sync("first-copy");
    assert_eq!(pair.a.stop()["done"], "stopped");
    assert_eq!(pair.b.stop()["done"], "stopped");
    assert_eq!(pair.a.data(), pair.b.data());
    assert!(pair.a.data().iter().any(|byte| *byte != 0));
}

#[test]
fn the_status_names_everything_an_operator_asks_for() {
    let pair = Pair::in_sync("status");
    let status = pair.a.status();
    assert_eq!(status["schema"], "lockstep.volume-status/1");
    assert_eq!(status["volume"], "data");
    assert_eq!(
        (&status["node"], &status["peer"]),
        (&"node-a".into(), &"node-b".into())
    );
    assert_eq!(status["role"], "fenced");
    assert_eq!(status["view"]["insync"].as_array().unwrap().len(), 2);
    assert_eq!(status["volume_id"], pair.b.status()["volume_id"]);
    let answer = pair.a.ask("\"request\":\"command\",\"command\":\"dance\"");
    assert_eq!(
        (&answer["ok"], &answer["problem"]["code"]),
        (&false.into(), &"LS3031".into())
    );
}

#[test]
fn a_member_that_was_killed_comes_back_without_a_copy() {
    let mut pair = Pair::in_sync("killed");
    pair.b.kill();
    pair.a.wait_log("LS2002");
    pair.b.start();
    pair.wait_in_sync();
    assert_eq!(
        pair.a.log().matches("LS2008").count(),
        1,
        "{}",
        pair.a.log()
    );
}

#[test]
fn a_command_for_which_nobody_waits_any_more_changes_nothing() {
    let pair = Pair::in_sync("too-late");
    let force = "\"request\":\"command\",\"command\":\"force\",\"confirm\":\"data\"";
    let late = pair.a.ask(&format!("{force},\"until_ms\":1"));
    assert_eq!(late["problem"]["code"], "LS1084", "{late}");
    let in_time = pair.a.ask(&format!("{force},\"until_ms\":{}", u64::MAX));
    assert_eq!(in_time["problem"]["code"], "LS1003", "{in_time}");
}

#[test]
fn an_activation_without_ublk_is_refused_and_nothing_breaks() {
    let mut pair = Pair::in_sync("activate");
    let answer = pair
        .a
        .ask("\"request\":\"command\",\"command\":\"activate\"");
    assert_eq!(answer["ok"], false, "{answer}");
    assert!(pair.a.runs() && pair.b.runs());
    pair.a
        .wait_for("it is fenced again", |status| status["role"] == "fenced");
}

#[test]
fn sigterm_ends_a_daemon_that_does_not_serve() {
    let mut pair = Pair::in_sync("sigterm");
    let pid = pair.b.pid().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    for _ in 0..500 {
        if !pair.b.runs() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!pair.b.runs(), "{}", pair.b.log());
    assert!(pair.b.log().contains("LS2022"), "{}", pair.b.log());
}

#[test]
fn a_peer_with_another_cluster_key_is_refused() {
    let mut pair = Pair::new("key");
    pair.b.write_key(&[8; 64]);
    pair.a.format(&[]);
    pair.b.format(&["--join"]);
    pair.a.start();
    pair.b.start();
    pair.a.wait_log("the cluster keys differ");
    pair.b.wait_log("the cluster keys differ");
    assert_eq!(pair.b.status()["copy"], "blank");
}

/// The nodes are a step apart all the time, and each step is followed by a connection that proves what counts then.
#[test]
fn a_link_stands_through_a_rotation_of_the_key_and_the_last_key_is_refused_after_it() {
    let mut pair = Pair::in_sync("rotation");
    let mut keys = read_keys(&[7; 64]).unwrap();
    for _ in 0..3 {
        keys = keys.step(Some(Secret::new([9; 32]))).unwrap();
        let place = keys.place().0;
        pair.a.write_key(&keys_bytes(&keys));
        assert_eq!(pair.a.ask("\"request\":\"keys\"")["keys"], place);
        assert_eq!(pair.a.status()["link"]["state"], "up", "it is not cut");
        // Its file is a step behind.
        pair.b.stop();
        pair.b.start();
        pair.wait_in_sync();
        pair.b.write_key(&keys_bytes(&keys));
        assert_eq!(pair.b.ask("\"request\":\"keys\"")["keys"], place);
    }
    assert!(!pair.a.log().contains("the cluster keys differ"));
    pair.b.stop();
    pair.b.write_key(&[7; 64]);
    pair.b.start();
    pair.a.wait_log("the cluster keys differ");
    // Nor does a file of another cluster, or a damaged one, count in a daemon that runs.
    pair.a.write_key(&[8; 64]);
    let answer = pair.a.ask("\"request\":\"keys\"");
    assert_eq!(answer["problem"]["code"], "LS3012", "{answer}");
    pair.a.write_key(&keys_bytes(&keys)[..90]);
    let answer = pair.a.ask("\"request\":\"keys\"");
    assert_eq!(answer["problem"]["code"], "LS6258", "{answer}");
}

#[test]
fn two_first_copies_never_become_one_volume() {
    let mut pair = Pair::new("two-first");
    pair.a.format(&[]);
    pair.b.format(&[]);
    pair.a.fill_with_noise();
    let before = pair.b.data();
    pair.a.start();
    pair.b.start();
    pair.a.wait_log("its metadata belongs to another volume");
    assert_eq!(pair.b.data(), before);
}

#[test]
fn a_second_peer_does_not_disturb_the_first() {
    let mut pair = Pair::in_sync("second");
    let address = harness::free_address();
    let mut third = Node::new(
        &pair.scratch,
        "third",
        ("node-b", address),
        ("node-a", pair.a.address),
    );
    third.format(&["--join"]);
    third.start();
    third.wait_for("it is refused", |status| {
        status["link"]["state"] == "refused"
    });
    assert!(third.log().contains("LS2011"), "{}", third.log());
    pair.wait_in_sync();
    assert!(pair.a.runs() && pair.b.runs());
    assert_eq!(third.status()["copy"], "blank");
}

/// A stranger's connection to the listening side.
fn stranger(node: &Node) -> TcpStream {
    let stream = TcpStream::connect(node.address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream
}

/// Whether the other side has closed, after whatever it still had to say.
fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn garbage_on_the_port_is_closed_and_told() {
    let mut pair = Pair::in_sync("garbage");
    let mut stream = stranger(&pair.a);
    stream
        .write_all(
            b"GET / HTTP/1.1\r\nHost: whatever, as long as it is longer than a header\r\n\r\n",
        )
        .unwrap();
    assert!(is_closed(&mut stream));
    pair.a.wait_log("LS2012");
    pair.wait_in_sync();
    assert!(pair.a.runs());
}

#[test]
fn a_frame_over_its_bound_is_closed_before_a_byte_of_it_is_stored() {
    let pair = Pair::in_sync("oversized");
    let mut stream = stranger(&pair.a);
    let mut frame = Frame::new(FrameKind::Hello, Epoch(0), 0);
    frame.length_bytes = 1 << 30;
    stream.write_all(&encode_header(&frame, 0)).unwrap();
    assert!(is_closed(&mut stream));
    pair.a.wait_log("where 1024 are allowed");
    pair.wait_in_sync();
}

#[test]
fn data_before_the_handshake_are_closed_and_never_written() {
    let mut pair = Pair::in_sync("early");
    let mut stream = stranger(&pair.a);
    let mut frame = Frame::new(FrameKind::Write, Epoch(2), 1);
    (frame.range, frame.length_bytes) = (SectorRange::new(0, 8), 4096);
    stream
        .write_all(&encode_header(&frame, payload_crc(&[0xee; 4096])))
        .unwrap();
    stream.write_all(&[0xee; 4096]).unwrap();
    assert!(is_closed(&mut stream));
    pair.a.wait_log("before the handshake was done");
    pair.a.stop();
    assert_ne!(pair.a.data()[..4096], [0xee; 4096]);
}

#[test]
fn a_damaged_body_is_closed() {
    let pair = Pair::in_sync("damaged");
    let mut stream = stranger(&pair.a);
    let mut frame = Frame::new(FrameKind::Hello, Epoch(0), 0);
    frame.length_bytes = 128;
    stream.write_all(&encode_header(&frame, 1234)).unwrap();
    stream.write_all(&[1; 128]).unwrap();
    assert!(is_closed(&mut stream));
    pair.a.wait_log("do not match their checksum");
}

fn hello(version: u16) -> Hello {
    let mut volume_name = [0; 64];
    volume_name[..4].copy_from_slice(b"data");
    Hello {
        version_min: version,
        version_max: version,
        features: 0,
        node: NodeId::new(1).unwrap(),
        peer: NodeId::new(0).unwrap(),
        cluster_id: cluster_id(&blake3::derive_key(
            "lockstep 2026-11 cluster key",
            &[7; 64],
        )),
        nonce: [1; 32],
        volume_name,
    }
}

fn send(stream: &mut TcpStream, kind: FrameKind, body: &[u8]) {
    let mut frame = Frame::new(kind, Epoch(0), 0);
    frame.length_bytes = u32::try_from(body.len()).unwrap();
    stream
        .write_all(&encode_header(&frame, payload_crc(body)))
        .unwrap();
    stream.write_all(body).unwrap();
}

fn receive(stream: &mut TcpStream) -> (FrameKind, Vec<u8>) {
    let mut header = [0; FRAME_HEADER_BYTES];
    stream.read_exact(&mut header).unwrap();
    let (frame, crc) = decode_header(&header).unwrap();
    let mut body = vec![0; frame.length_bytes as usize];
    stream.read_exact(&mut body).unwrap();
    assert_eq!(payload_crc(&body), crc);
    (frame.kind, body)
}

#[test]
fn another_protocol_version_is_refused_with_both_versions() {
    let pair = Pair::in_sync("version");
    let mut stream = stranger(&pair.a);
    send(&mut stream, FrameKind::Hello, &hello(99).encode());
    assert_eq!(receive(&mut stream).0, FrameKind::Hello);
    let (kind, body) = receive(&mut stream);
    assert_eq!(kind, FrameKind::Refused);
    let refused = Refused::decode(&body).unwrap();
    assert_eq!(
        (refused.code, refused.ours, refused.yours),
        (RefusedCode::Version, 1, 99)
    );
    assert!(is_closed(&mut stream));
    pair.wait_in_sync();
}

#[test]
fn a_proof_without_the_key_is_refused() {
    let pair = Pair::in_sync("proof");
    let mut stream = stranger(&pair.a);
    send(&mut stream, FrameKind::Hello, &hello(1).encode());
    assert_eq!(receive(&mut stream).0, FrameKind::Hello);
    send(&mut stream, FrameKind::Auth, &[0; 32]);
    loop {
        let (kind, body) = receive(&mut stream);
        if kind == FrameKind::Refused {
            assert_eq!(Refused::decode(&body).unwrap().code, RefusedCode::Key);
            break;
        }
        assert_eq!(
            kind,
            FrameKind::Auth,
            "nothing but the handshake is said to a stranger"
        );
    }
    assert!(is_closed(&mut stream));
    pair.wait_in_sync();
}

#[test]
fn silent_strangers_do_not_keep_the_peer_out() {
    let mut pair = Pair::formatted("silent");
    pair.a.start();
    let strangers: Vec<TcpStream> = (0..3).map(|_| stranger(&pair.a)).collect();
    pair.b.start();
    pair.wait_in_sync();
    drop(strangers);
}

#[test]
fn a_full_disk_under_the_copy_is_told_on_both_sides() {
    let mut pair = Pair::new("full");
    let small = pair.b.directory.join("small");
    std::fs::create_dir(&small).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"])
        .arg(&small)
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("skipped: this process may not mount");
        return;
    }
    let backing = small.join("disk");
    std::fs::File::create(&backing)
        .unwrap()
        .set_len(harness::BACKING_BYTES)
        .unwrap();
    pair.b.edit_config(
        &pair.b.backing.display().to_string(),
        &backing.display().to_string(),
    );
    pair.a.format(&[]);
    pair.b.format(&["--join"]);
    pair.a.fill_with_noise();
    pair.a.start();
    pair.b.start();
    let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        pair.b.wait_log("LS3001");
        pair.a.wait_for("the copy does not count", |status| {
            status["peer_copy"] != "in-sync"
        });
        assert!(pair.b.log().contains("kernel error 28"), "{}", pair.b.log());
    }));
    pair.b.kill();
    drop(Command::new("umount").arg("--lazy").arg(&small).status());
    told.unwrap();
    assert!(pair.a.runs());
}

//! `lockstep config push` between two `lockstepd`: all of them or none, whoever breaks off, and nothing that nobody pushed.

mod authority;
mod beds;
mod happened;
mod raised;
mod rotation;

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::thread;

use beds::{Bed, eventually, lives};
use controlplane::push::{Record, Text, digest};
use controlplane::trust::Authority;
use controlplane_api::config::{Outcome, PushAsk, PushStage};
use controlplane_core::push::{Proposal, PushId, Stage, Times};
use mirror_core::types::NodeId;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const LONGER: &str = "[timing]\nheartbeat_timeout_ms = 4000\n";
const WATCHED: &str = "[watchdog]\ndevice = \"/nonexistent/watchdog\"\n";
const BY_HAND: &str = "# by hand\n";

fn replacing(text: String) -> PushAsk {
    PushAsk {
        text,
        replace_edited: true,
        ..PushAsk::default()
    }
}

#[test]
fn a_push_is_in_force_on_both_and_what_runs_goes_on() {
    let mut bed = Bed::new();
    bed.start_both();
    bed.says(0, "online");
    let pid = bed.pid();
    let new = bed.text("# pushed\n");
    let possible = PushAsk {
        text: new.clone(),
        dry_run: true,
        ..PushAsk::default()
    };
    let said = bed.push(1, &possible).expect("possible");
    assert_eq!((said.outcome, said.number), (Outcome::Possible, 1));
    assert!(bed.record(0).is_none() && bed.record(1).is_none());
    let before = bed.show(0).own.digest;
    // From the node that runs nothing; its file is written as well.
    let said = bed.push_text(1, &new).expect("decided");
    assert_eq!((said.outcome, said.number), (Outcome::Decided, 1));
    bed.both_run(&new);
    for node in 0..2 {
        assert!(bed.runs(node), "it begins anew in its process");
        assert_eq!(bed.words(node).matches("LS6116").count(), 1);
        let status = bed.get(node, "/v1/status");
        assert!(!status.contains("\"config\""), "{status}");
    }
    assert_eq!(bed.pid(), pid);
    assert!(lives(pid), "adopted, not started again");
    // Its parent is the same process, which was another program then.
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("killed");
    eventually("it is started again", || {
        bed.pid() != pid && lives(bed.pid())
    });
    // The same again is nothing; what was in force before is no more.
    let said = bed.push_text(0, &new).expect("nothing");
    assert_eq!((said.outcome, said.number), (Outcome::Nothing, 1));
    let stale = PushAsk {
        text: bed.text("# another\n"),
        replaces: Some(before[..12].to_string()),
        ..PushAsk::default()
    };
    let problem = bed.push(0, &stale).expect_err("somebody pushed");
    assert_eq!(problem.code, "LS6103");
    assert!(problem.message.contains(&said.digest), "{problem:?}");
}

#[test]
fn times_that_both_count_with_change_in_two_steps() {
    let mut bed = Bed::new();
    bed.start_both();
    let mut runs = 0;
    // The last one is waited for by the other node before it can be armed.
    for text in [bed.text(LONGER), bed.text(""), bed.text(WATCHED)] {
        bed.push_text(0, &text).expect("decided");
        bed.both_run(&text);
        runs += 2;
        for node in 0..2 {
            let words = bed.words(node);
            assert_eq!(words.matches("LS6116").count(), runs, "{words}");
        }
    }
    // Nobody would pet what an earlier run armed.
    let problem = bed.push_text(0, &bed.text("")).expect_err("refused");
    assert_eq!(problem.code, "LS6105", "{problem:?}");
}

#[test]
fn what_cannot_be_pushed_to_both_changes_neither() {
    let mut bed = Bed::new();
    bed.start(0);
    let (old, new) = (bed.text(""), bed.text("# pushed\n"));
    // The other node is not there.
    let problem = bed.push_text(0, &new).expect_err("alone");
    assert_eq!(problem.code, "LS6101", "{problem:?}");
    bed.start_both_again();
    let other = old.replace("\"manual\"", "\"none\"");
    let cases = [
        (format!("{new}[clients]\n"), "LS6037"),
        (new.replace("version = 1", "version = 2"), "LS6098"),
        (other, "LS6105"),
        (new.replace("\"data\"", "\"logs\""), "LS6105"),
    ];
    for (text, code) in cases {
        let problem = bed.push_text(0, &text).expect_err("refused");
        assert_eq!(problem.code, code, "{problem:?}");
        assert!(!problem.advice.is_empty());
    }
    // Somebody changed it by hand, here or there.
    for node in 0..2 {
        fs::write(bed.config(node), bed.text(BY_HAND)).expect("written");
        let problem = bed.push_text(0, &new).expect_err("edited");
        assert_eq!(problem.code, "LS6104", "{problem:?}");
        let name = ["node1", "node2"][node];
        assert!(problem.message.contains(name) && problem.advice.contains("diff"));
        eventually("the status tells", || {
            bed.get(node, "/v1/status").contains("LS6111")
        });
        fs::write(bed.config(node), &old).expect("written");
    }
    for node in 0..2 {
        assert!(bed.record(node).is_none());
        assert_eq!(bed.says_config(node), old);
        assert!(!bed.words(node).contains("LS6116"));
    }
}

#[test]
fn over_an_edited_file_only_if_it_is_said_and_a_copy_is_kept() {
    let mut bed = Bed::new();
    bed.start_both();
    let (edited, new) = (bed.text(BY_HAND), bed.text("# pushed\n"));
    fs::write(bed.config(1), &edited).expect("written");
    bed.push(0, &replacing(new.clone())).expect("decided");
    bed.both_run(&new);
    let peer = bed.show(0).peer.expect("the other node");
    let [aside] = peer.set_aside.as_slice() else {
        panic!("{peer:?}");
    };
    assert_eq!(fs::read_to_string(aside).expect("kept"), edited);
    bed.says(1, "LS6108");
    eventually("the status tells", || {
        bed.get(1, "/v1/status").contains("LS6108")
    });
    // The file that is pushed may be the edited one itself.
    let next = bed.text("# next\n");
    fs::write(bed.config(0), &next).expect("written");
    bed.push_text(0, &next).expect("decided");
    bed.both_run(&next);
}

/// A push by the first node, as it is durable on a node.
fn pending(bed: &Bed, stage: Stage, new: &str) -> Record {
    let mut record = Record::of_file(&bed.text(""));
    let proposal = Proposal {
        id: PushId([5; 16]),
        by: NodeId::new(0).expect("a node"),
        number: 1,
        digest: digest(new.as_bytes()),
        replaces: [record.durable.in_force.digest; 2],
        times: Times::Differ,
    };
    record.durable.pending = Some((proposal, stage));
    record.pending = Some(Text::now(new));
    record
}

#[test]
fn what_is_promised_and_what_was_edited_meanwhile_is_not_loaded() {
    let mut bed = Bed::new();
    let new = bed.text(LONGER);
    let record = pending(&bed, Stage::Promised, &new);
    let base = controlplane::push::hex(&record.durable.in_force.digest);
    bed.store(1).save(&record).expect("saved");
    fs::write(bed.config(1), bed.text(BY_HAND)).expect("written");
    for _ in 0..2 {
        bed.start(1);
        let own = bed.show(1).own;
        assert_eq!((&own.runs, own.edited), (&base, true));
        let push = own.push.expect("a push");
        assert_eq!(
            (push.stage, push.by.as_str()),
            (PushStage::Promised, "node1")
        );
        eventually("the status tells", || {
            bed.get(1, "/v1/status").contains("\"config\"")
        });
        let problem = bed.push_text(1, &new).expect_err("under way");
        assert_eq!(problem.code, "LS6102");
        bed.kill(1);
    }
    // Whoever drove it is back, and did not decide it: it never will.
    bed.start_both();
    bed.says(1, "LS6114");
    let own = bed.show(1).own;
    assert!(
        own.push.is_none() && own.runs == base && own.number == 0,
        "{own:?}"
    );
    assert_eq!(bed.show(0).own.number, 0);
    // Nothing blocks the next one.
    bed.push(0, &replacing(new.clone())).expect("decided");
    bed.both_run(&new);
}

#[test]
fn what_is_promised_can_be_taken_back_and_what_is_decided_cannot() {
    let mut bed = Bed::new();
    let new = bed.text(LONGER);
    for stage in [Stage::Promised, Stage::Decided] {
        let record = pending(&bed, stage, &new);
        bed.store(1).save(&record).expect("saved");
        bed.start(1);
        let said = bed.post(1, "/v1/config/abandon", "{}");
        match stage {
            Stage::Promised => assert!(said.expect("taken back").contains("taken back")),
            Stage::Decided => assert_eq!(said.expect_err("decided").code, "LS6102"),
        }
        let left = bed.show(1).own.push.is_some();
        assert_eq!(left, stage == Stage::Decided);
        bed.kill(1);
    }
}

/// The driver decided, and both went down; on the other node somebody edited the file before it heard of that.
#[test]
fn what_is_decided_is_carried_out_when_the_nodes_meet() {
    for heard in [Some(Stage::Promised), None] {
        let mut bed = Bed::new();
        let new = bed.text(LONGER);
        bed.store(0)
            .save(&pending(&bed, Stage::Decided, &new))
            .expect("saved");
        if let Some(stage) = heard {
            bed.store(1)
                .save(&pending(&bed, stage, &new))
                .expect("saved");
            fs::write(bed.config(1), bed.text(BY_HAND)).expect("written");
        }
        bed.start(0);
        let own = bed.show(0).own;
        assert_ne!(own.runs, own.push.expect("decided").digest, "not alone");
        bed.start_both_again();
        bed.both_run(&new);
        let aside = bed.show(1).own.set_aside.len();
        assert_eq!(aside, usize::from(heard.is_some()));
        // A crash now loads what was pushed, whatever is written into the file.
        bed.kill(1);
        fs::write(bed.config(1), bed.text(BY_HAND)).expect("written");
        bed.start(1);
        bed.says(1, "LS6111");
        let own = bed.show(1).own;
        assert!(
            own.runs == own.digest && own.number == 1 && own.edited,
            "{own:?}"
        );
    }
}

/// Where nothing was pushed yet, and somebody copied another file to the second node: other times, too.
#[test]
fn nodes_that_differ_become_the_same_only_if_it_is_said() {
    let mut bed = Bed::new();
    fs::write(bed.config(1), bed.text(LONGER)).expect("written");
    bed.start_both();
    let own = bed.text("");
    let problem = bed.push_text(0, &own).expect_err("they differ");
    assert_eq!(problem.code, "LS6103", "{problem:?}");
    bed.push(0, &replacing(own.clone())).expect("decided");
    bed.both_run(&own);
    for node in 0..2 {
        // The times change on one node alone, and both go between them.
        assert_eq!(bed.words(node).matches("LS6116").count(), 2);
    }
    let [aside] = &bed.show(1).own.set_aside[..] else {
        panic!("{:?}", bed.show(1));
    };
    assert_eq!(fs::read_to_string(aside).expect("kept"), bed.text(LONGER));
    assert!(bed.show(0).own.set_aside.is_empty());
}

#[test]
fn of_two_operators_at_once_one_wins() {
    let mut bed = Bed::new();
    bed.start_both();
    let texts = ["# one\n", "# two\n"].map(|own| bed.text(own));
    let outcomes = thread::scope(|scope| {
        let push = |node: usize| {
            let (bed, text) = (&bed, &texts[node]);
            scope.spawn(move || bed.push_text(node, text))
        };
        let pushes = [push(0), push(1)];
        pushes.map(|push| push.join().expect("an answer"))
    });
    let won: Vec<usize> = (0..2).filter(|node| outcomes[*node].is_ok()).collect();
    let [winner] = won.as_slice() else {
        panic!("{outcomes:?}");
    };
    let lost = outcomes[1 - winner].as_ref().expect_err("refused");
    assert!(
        ["LS6102", "LS6103"].contains(&lost.code.as_str()),
        "{lost:?}"
    );
    bed.both_run(&texts[*winner]);
}

/// Somebody makes a volume whose mirror link has the port of an interconnect, as was possible in earlier releases.
#[test]
fn a_volume_gets_its_port_and_the_door_comes_back() {
    let mut bed = Bed::new();
    let volumes = bed.file(0, "volumes");
    let (file, address) = (volumes.join("logs.toml"), bed.address(0));
    fs::create_dir(&volumes).expect("a directory");
    let text = format!("[node]\nname = \"node1\"\naddress = \"{address}\"\n");
    fs::write(&file, &text).expect("written");
    bed.start(0);
    bed.says(0, "LS6110");
    // Nobody is in the way of the volume's daemon.
    drop(TcpListener::bind(&address).expect("free"));
    fs::remove_file(&file).expect("removed");
    eventually("a door", || TcpStream::connect(&address).is_ok());
    fs::write(&file, &text).expect("written");
    eventually("the door gives way", || TcpListener::bind(&address).is_ok());
}

#[test]
fn nobody_but_the_other_node_is_heard() {
    let mut bed = Bed::new();
    // The second node shows a certificate of another authority.
    let (other, _) = Authority::create(bed.cluster()).expect("an authority");
    bed.trusts(1, &other);
    bed.start(0);
    bed.start(1);
    let problem = bed
        .push_text(0, &bed.text("# pushed\n"))
        .expect_err("a stranger");
    assert_eq!(problem.code, "LS6101", "{problem:?}");
    eventually("a door", || TcpStream::connect(bed.address(0)).is_ok());
    let mut stranger = TcpStream::connect(bed.address(0)).expect("a door");
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("said");
    assert!(bed.show(0).own.push.is_none());
    assert!(bed.record(0).is_none() && bed.record(1).is_none());
}

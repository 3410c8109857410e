//! `lockstep node shutdown` beside a control plane that this test plays, in which something happens while the groups leave: the
//! machine goes down when nothing is left on it, whatever was so at the beginning, and nothing is stopped that runs elsewhere.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

const VOLUME: &str = r#"{"schema":"lockstep.volume-status/1","volume":"NAME","volume_id":"00000000000000000000000000000007","node":"node1","peer":"node2","role":"ROLE","frozen":null,"copy":"in-sync","peer_copy":"in-sync","link":{"state":"up","last_heard_ms":3,"refusal":null},"view":{"epoch":5,"id":"00000000000000000000000000000005","active":ACTIVE,"insync":["node1","node2"],"sealed_epoch":0},"size_bytes":1,"progress":null,"out_of_sync_bytes":0,"inflight":0,"counters":{"reads":0,"writes":0,"flushes":0,"failed":0,"written_bytes":0,"peer_writes":0,"longest_wait_ms":0},"device":null,"problems":[]}"#;
const DONE: &str = r#"{"schema":"lockstep.verb/1","ok":true,"number":5,"by":"node1","node":"node2","message":"so be it"}"#;
const REFUSED: &str = r#"{"schema":"lockstep.verb/1","ok":false,"problem":{"code":"LS6081","message":"no","advice":"wait"}}"#;

/// Who serves a group.
#[derive(Clone, Copy, PartialEq)]
enum At {
    Here,
    There,
    Nobody,
    /// The volume's daemon on this node does not answer.
    Untold,
}

struct Group {
    name: &'static str,
    at: At,
    /// Of its resources here.
    state: Option<&'static str>,
    /// What is wished, where, and why.
    wish: Option<(&'static str, &'static str, &'static str)>,
}

fn group(name: &'static str, at: At) -> Group {
    let state = (at != At::Untold).then_some(if at == At::Here { "online" } else { "offline" });
    Group {
        name,
        at,
        state,
        wish: None,
    }
}

impl Group {
    fn text(&self) -> String {
        let name = self.name;
        let (role, active) = match self.at {
            At::Here => ("active", "\"node1\""),
            At::There => ("fenced", "\"node2\""),
            At::Nobody | At::Untold => ("fenced", "null"),
        };
        let status = VOLUME.replace("NAME", name).replace("ROLE", role);
        let status = match self.at {
            At::Untold => String::new(),
            At::Here | At::There | At::Nobody => {
                format!(r#","status":{}"#, status.replace("ACTIVE", active))
            }
        };
        let resources = self.state.map_or(String::new(), |state| {
            format!(r#","resources":{{"state":"{state}","text":"{state}"}}"#)
        });
        let wish = self.wish.map_or(String::new(), |(want, node, origin)| {
            format!(
                r#","wish":{{"number":5,"by":"node1","want":"{want}","node":"{node}","origin":"{origin}"}}"#
            )
        });
        format!(r#"{{"name":"{name}","volumes":[{{"name":"{name}"{status}}}]{resources}{wish}}}"#)
    }

    fn stops(&mut self) {
        self.wish = Some(("stopped", "node1", "operator"));
        (self.at, self.state) = (At::Nobody, self.state.map(|_| "offline"));
    }

    fn arrives_there(&mut self) {
        self.wish = Some(("runs", "node2", "arrived"));
        (self.at, self.state) = (At::There, self.state.map(|_| "offline"));
    }
}

/// What the cluster makes of a look (an empty line), or of a verb: whether it is accepted.
type Plays = Box<dyn FnMut(&mut Vec<Group>, &str) -> bool + Send>;

struct World {
    groups: Vec<Group>,
    agreed: bool,
    told: Vec<String>,
    plays: Plays,
}

impl World {
    fn is_suspended(&self) -> bool {
        let verbs = self.told.iter().rev();
        let mut nodes = verbs.filter(|verb| verb.ends_with("node1"));
        nodes.next().is_some_and(|verb| verb.starts_with("suspend"))
    }
}

fn answer(stream: &mut UnixStream, world: &mut World) {
    let mut request = String::new();
    let mut bytes = [0; 4096];
    while !request.contains("\r\n\r\n") || request.starts_with("POST") && !request.ends_with('}') {
        match stream.read(&mut bytes) {
            Ok(length @ 1..) => request += &String::from_utf8_lossy(&bytes[..length]),
            Ok(0) | Err(_) => return,
        }
    }
    let mut words = request.split(' ');
    let (status, body) = if words.next() == Some("GET") {
        (world.plays)(&mut world.groups, "");
        let groups: Vec<String> = world.groups.iter().map(Group::text).collect();
        let body = format!(
            r#"{{"schema":"lockstep.cluster/1","node":"node1","peer":{{"name":"node2","presence":"alive","since_ms":1}},"paths":[],"arbiter":{{"kind":"manual"}},"agreed":{},"suspended":[{}],"groups":[{}]}}"#,
            world.agreed,
            if world.is_suspended() {
                "\"node1\""
            } else {
                ""
            },
            groups.join(",")
        );
        ("200 OK", body)
    } else {
        let path = words.next().unwrap_or_default();
        let verb = path.rsplitn(3, '/').take(2).collect::<Vec<_>>();
        let verb = format!("{} {}", verb[0], verb[1]);
        world.told.push(verb.clone());
        if verb.ends_with("node1") || (world.plays)(&mut world.groups, &verb) {
            ("200 OK", DONE.to_string())
        } else {
            ("409 Conflict", REFUSED.to_string())
        }
    };
    let length = body.len();
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
}

struct Bed {
    directory: tempfile::TempDir,
    world: Arc<Mutex<World>>,
}

impl Bed {
    fn new(
        groups: Vec<Group>,
        plays: impl FnMut(&mut Vec<Group>, &str) -> bool + Send + 'static,
    ) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        for name in ["lockstepd", "bin"] {
            fs::create_dir_all(path.join(name)).expect("a directory");
        }
        for program in ["systemctl", "shutdown"] {
            let script = format!("#!/bin/sh\necho down >>{}/down\n", path.display());
            let program = path.join("bin").join(program);
            fs::write(&program, script).expect("a program");
            fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("a program");
        }
        let listener = UnixListener::bind(path.join("lockstepd/api.sock")).expect("a socket");
        let world = Arc::new(Mutex::new(World {
            groups,
            agreed: true,
            told: Vec::new(),
            plays: Box::new(plays),
        }));
        let played = Arc::clone(&world);
        thread::spawn(move || {
            for mut stream in listener.incoming().filter_map(Result::ok) {
                answer(&mut stream, &mut played.lock().expect("a world"));
            }
        });
        Self { directory, world }
    }

    /// Nothing else than what is in this directory can be run, so that no machine goes down.
    fn shutdown(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_lockstep"))
            .args(["node", "shutdown", "--timeout", "20"])
            .args(words)
            .env("LOCKSTEP_RUN_DIR", self.directory.path())
            .env("PATH", self.directory.path().join("bin"))
            .output()
            .expect("lockstep")
    }

    fn told(&self) -> String {
        self.world.lock().expect("a world").told.join(", ")
    }

    fn is_down(&self) -> bool {
        self.directory.path().join("down").exists()
    }
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_group_that_comes_while_another_one_leaves_leaves_as_well() {
    let bed = Bed::new(
        vec![group("a", At::Here), group("b", At::There)],
        |groups, verb| {
            match verb {
                "move a" => {
                    groups[0].arrives_there();
                    // It was on its way before this node was suspended.
                    groups[1] = group("b", At::Here);
                }
                "move b" => groups[1].arrives_there(),
                _ => {}
            }
            true
        },
    );
    let output = bed.shutdown(&[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(
        bed.told(),
        "suspend node1, move a, move b, resume node1",
        "nothing comes while they leave, and what came leaves"
    );
    assert!(bed.is_down());
}

#[test]
fn a_group_on_its_way_here_is_waited_for_and_leaves() {
    let mut looks = 0;
    let mut pg = group("pg", At::There);
    pg.wish = Some(("moves", "node1", "operator"));
    let bed = Bed::new(vec![pg], move |groups, verb| {
        looks += 1;
        match verb {
            "" if looks == 3 => groups[0] = group("pg", At::Here),
            "move pg" => groups[0].arrives_there(),
            _ => {}
        }
        true
    });
    let output = bed.shutdown(&[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    // Suspended before, nobody would have begun with it.
    assert_eq!(bed.told(), "suspend node1, move pg, resume node1");
    assert!(bed.is_down());
}

#[test]
fn what_is_stopped_with_the_cluster_is_waited_for_and_stays_the_clusters() {
    let mut looks = 0;
    let mut pg = group("pg", At::Here);
    pg.state = Some("stopping");
    pg.wish = Some(("stopped", "node1", "together"));
    let bed = Bed::new(vec![pg], move |groups, _| {
        looks += 1;
        if looks == 5 {
            (groups[0].at, groups[0].state) = (At::Nobody, Some("offline"));
        }
        true
    });
    let output = bed.shutdown(&["--force"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(bed.told(), "suspend node1, resume node1");
    assert!(bed.is_down());
}

/// The mirror link is up and the other machine alive; its control plane is not.
#[test]
fn a_machine_that_is_forced_goes_down_beside_a_control_plane_that_cannot_be_told() {
    let bed = Bed::new(vec![group("pg", At::Here)], |groups, verb| {
        if verb == "stop pg" {
            groups[0].stops();
            // A node that does not know it would begin with the volumes.
            groups[0].at = At::Here;
        }
        verb == "stop pg"
    });
    bed.world.lock().expect("a world").agreed = false;
    let output = bed.shutdown(&["--force"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(bed.told(), "suspend node1, move pg, stop pg, resume node1");
    assert!(bed.is_down());
}

/// A stop is one of the whole cluster: it would end where it runs.
#[test]
fn nothing_is_stopped_that_does_not_run_here() {
    let bed = Bed::new(
        vec![group("silent", At::Untold), group("left", At::Here)],
        |groups, verb| {
            if verb == "move left" {
                groups[1].arrives_there();
                groups[1].wish = Some(("runs", "node2", "in-vain"));
            }
            true
        },
    );
    let stays = bed.shutdown(&[]);
    assert_eq!(stays.status.code(), Some(3), "{stays:?}");
    assert!(
        words(&stays).contains("silent and left did not leave it, or did not arrive"),
        "{stays:?}"
    );
    assert!(!bed.is_down());
    bed.world.lock().expect("a world").groups[1] = group("left", At::Here);
    let output = bed.shutdown(&["--force"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(!bed.told().contains("stop"), "{}", bed.told());
    assert!(bed.is_down());
}

/// It gave its volumes up, and nobody begins with it as long as this node is suspended: nothing else is moved before.
#[test]
fn a_move_that_comes_to_nothing_half_way_ends_the_leaving_at_once() {
    let bed = Bed::new(
        vec![group("pg", At::Here), group("db", At::Here)],
        |groups, verb| {
            match verb {
                "move pg" => {
                    (groups[0].at, groups[0].state) = (At::Nobody, Some("offline"));
                    groups[0].wish = Some(("runs", "node1", "in-vain"));
                }
                "move db" => groups[1].arrives_there(),
                "stop pg" => groups[0].stops(),
                _ => {}
            }
            true
        },
    );
    let stays = bed.shutdown(&[]);
    assert_eq!(stays.status.code(), Some(1), "{stays:?}");
    assert_eq!(bed.told(), "suspend node1, move pg, resume node1");
    {
        let mut world = bed.world.lock().expect("a world");
        world.groups[0] = group("pg", At::Here);
        world.told.clear();
    }
    let forced = bed.shutdown(&["--force"]);
    assert_eq!(forced.status.code(), Some(0), "{forced:?}");
    assert_eq!(
        bed.told(),
        "suspend node1, move pg, stop pg, move db, resume node1",
        "it would begin here when this node is resumed"
    );
    assert!(bed.is_down());
}

#[test]
fn a_group_that_cannot_be_stopped_keeps_the_machine_up_and_the_others_are_named() {
    let bed = Bed::new(
        vec![group("stuck", At::Here), group("pg", At::Here)],
        |groups, verb| {
            match verb {
                "stop stuck" => {
                    groups[0].wish = Some(("stopped", "node1", "operator"));
                    groups[0].state = Some("stop-failed");
                }
                "stop pg" => groups[1].stops(),
                _ => {}
            }
            verb.starts_with("stop")
        },
    );
    let output = bed.shutdown(&["--force"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let words = words(&output);
    assert!(
        words.contains("LS6094") && words.contains("LS6220"),
        "{words}"
    );
    assert!(words.contains("stuck did not leave it"), "{words}");
    assert!(
        words.contains("told to stop, until `lockstep group start`: stuck and pg"),
        "{words}"
    );
    let told = bed.told();
    assert!(
        told.ends_with("stop stuck, stop pg, resume node1"),
        "{told}"
    );
    assert!(!bed.is_down());
}

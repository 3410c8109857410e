//! Two nodes and a witness, with files and TLS on loopback: whoever talked before a step talks after it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::thread;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ServerConnection, StreamOwned};

use super::*;
use crate::trust::{Authority, CERTIFICATE_DAYS, node_name, peer_of, witness_identity};
use crate::trust::{witness_config, witness_name};
use crate::witness::{Admission, Witness};

const CLUSTER: Hex16 = Hex16([7; 16]);

struct Bed {
    directory: tempfile::TempDir,
    nodes: [Credentials; 2],
    source: Source,
    witness: Arc<Witness>,
}

fn node(number: u8) -> NodeId {
    NodeId::new(number).expect("a node")
}

fn put(path: &Path, text: &str, mode: u32) {
    fs::create_dir_all(path.parent().expect("a directory")).expect("made");
    replace(path, text.as_bytes(), mode).expect("written");
}

impl Bed {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        let (authority, made) = Authority::create(CLUSTER).expect("an authority");
        put(
            &at("authority/authority.pem"),
            &made.certificate,
            CERTIFICATE_MODE,
        );
        put(&at("authority/authority.key"), &made.key, KEY_MODE);
        let own = witness_identity().expect("an identity");
        for number in 0..2 {
            let issued = authority.issue(node(number)).expect("a certificate");
            let trust = at(&format!("node{number}"));
            put(
                &trust.join("authority.pem"),
                &made.certificate,
                CERTIFICATE_MODE,
            );
            put(
                &trust.join("node.pem"),
                &issued.certificate,
                CERTIFICATE_MODE,
            );
            put(&trust.join("node.key"), &issued.key, KEY_MODE);
            put(
                &trust.join("witness.pem"),
                &own.certificate,
                CERTIFICATE_MODE,
            );
        }
        put(
            &at("witness/witness.pem"),
            &own.certificate,
            CERTIFICATE_MODE,
        );
        put(&at("witness/witness.key"), &own.key, KEY_MODE);
        let admission = Admission {
            version: 1,
            members: 3,
            authority: made.certificate,
            ..Admission::default()
        };
        let text = serde_json::to_string(&admission).expect("JSON");
        put(&at(&format!("witness/{CLUSTER}.cluster")), &text, KEY_MODE);
        Self {
            nodes: [0, 1].map(|number| open(directory.path(), number)),
            source: Source::new(&at("authority"), "node1", CLUSTER),
            witness: Arc::new(Witness::open(&at("witness")).expect("a witness")),
            directory,
        }
    }

    /// All processes end without a word, and begin anew.
    fn crash(&mut self) {
        let root = self.directory.path();
        self.nodes = [0, 1].map(|number| open(root, number));
        self.witness = Arc::new(Witness::open(&root.join("witness")).expect("a witness"));
    }

    fn live(&self, number: usize) -> Arc<Live> {
        self.nodes[number].live().expect("certificates")
    }

    fn witness_tls(&self) -> Arc<ServerConfig> {
        let own = crate::trust::read_identity(&self.directory.path().join("witness"), "witness");
        let trusted = Arc::clone(&self.witness.trusted);
        Arc::new(witness_config(&own.expect("an identity"), trusted).expect("TLS"))
    }

    /// Both nodes talk with each other, whoever calls, and with the witness.
    fn all_talk(&self) {
        for (caller, called) in [(0, 1), (1, 0)] {
            let name = node_name(CLUSTER, node(u8::try_from(called).expect("a number")));
            let caller = self.live(caller);
            assert!(
                talk(&caller.client, &name, &self.live(called).server),
                "{called}"
            );
        }
        for number in 0..2 {
            let name = witness_name(CLUSTER);
            let caller = self.live(number);
            assert!(
                talk(&caller.witness, &name, &self.witness_tls()),
                "{number}"
            );
        }
    }

    fn ask(&self, member: usize, ask: &TrustAsk) -> TrustAnswer {
        let answer = match self.nodes.get(member) {
            Some(node) => node.ask(ask),
            None => self.witness.trust(CLUSTER, ask),
        };
        assert_eq!(answer.problem, None);
        answer
    }

    /// The next step of one member. The witness is the last one.
    fn step(&self, member: usize) {
        let signers = self.source.signers().expect("readable").expect("here");
        let look = self.ask(member, &TrustAsk::Prepare);
        let from = standing_of(&look).expect("a place");
        let new = signers
            .all()
            .last()
            .map(|last| last.print().expect("a print"));
        let to = from.step(new).expect("a step");
        let who = self.subject(member);
        let witness = self.ask(2, &TrustAsk::Look).certificate;
        let witness = witness.filter(|_| to.is_settled());
        let step = self.source.step(
            &signers,
            (from, to),
            (who, look.request.as_deref()),
            witness.as_deref(),
        );
        let moved = self.ask(member, &step.expect("a step").expect("a request"));
        assert_eq!(standing_of(&moved), Some(to));
    }

    fn subject(&self, member: usize) -> Subject {
        let who = match u8::try_from(member).expect("a number") {
            2 => Named::Witness,
            number => Named::Node(node(number)),
        };
        self.nodes[0].subject(who).expect("known")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

fn open(root: &Path, number: u8) -> Credentials {
    let both = (node(number), node(1 - number));
    let name = format!("node{}", number + 1);
    Credentials::open(&root.join(format!("node{number}")), &name, CLUSTER, both)
}

/// Over a real socket, a byte each way; no session is taken up again.
fn talk(client: &Arc<ClientConfig>, name: &str, server: &Arc<ServerConfig>) -> bool {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let config = Arc::clone(server);
    let served = thread::spawn(move || {
        let (stream, _) = listener.accept().expect("somebody");
        let connection = ServerConnection::new(config).expect("TLS");
        let mut stream = StreamOwned::new(connection, stream);
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        assert!(peer_of(stream.conn.peer_certificates()).is_some());
        stream.write_all(&byte)
    });
    let name = ServerName::try_from(name.to_string()).expect("a name");
    let connection = ClientConnection::new(Arc::clone(client), name).expect("TLS");
    let stream = TcpStream::connect(address).expect("connected");
    let mut stream = StreamOwned::new(connection, stream);
    let mut byte = [7];
    let talked = stream
        .write_all(&byte)
        .and_then(|()| stream.read_exact(&mut byte));
    drop(stream);
    let served = served.join().expect("its end");
    talked.is_ok() && served.is_ok()
}

#[test]
fn all_talk_before_and_after_each_step_and_each_crash_and_the_old_certificates_are_over() {
    let mut bed = Bed::new();
    bed.all_talk();
    let old = [bed.live(0), bed.live(1)];
    let signers = bed.source.signers().expect("readable").expect("here");
    let own = old[0].standing;
    assert_eq!(bed.source.next(&signers, own), Ok(None));
    let next = bed.source.begin(&signers).expect("begun");
    // A change that began is known after a crash.
    bed.crash();
    let signers = bed.source.signers().expect("readable").expect("here");
    assert_eq!(bed.source.next(&signers, own), Ok(Some(next)));
    for _ in 0..3 {
        for member in 0..3 {
            bed.step(member);
            bed.all_talk();
            bed.crash();
            bed.all_talk();
        }
        // The files of the authority follow its own node.
        let signers = bed.source.signers().expect("readable").expect("here");
        let looked = bed.source.next(&signers, bed.live(0).standing);
        assert_eq!(looked, Ok(None));
    }
    assert_eq!(bed.live(0).standing, Standing::Settled(next));
    let signers = bed.source.signers().expect("readable").expect("here");
    assert_eq!(signers.all().len(), 2);
    let keys = fs::read_to_string(bed.file("authority/authority.key")).expect("keys");
    bed.source.finish(&signers).expect("over");
    // As if the end had come between its two files.
    put(&bed.file("authority/authority.key"), &keys, KEY_MODE);
    let signers = bed.source.signers().expect("readable").expect("here");
    assert!(signers.all().len() == 1 && signers.has_more_keys());
    let looked = bed.source.next(&signers, bed.live(0).standing);
    assert_eq!(looked, Ok(None));
    let keys = fs::read_to_string(bed.file("authority/authority.key")).expect("keys");
    assert_eq!(keys.matches("BEGIN").count(), 1);
    // Who has what was good before is heard by nobody, and hears nobody.
    let name = node_name(CLUSTER, node(1));
    assert!(!talk(&old[0].client, &name, &bed.live(1).server));
    assert!(!talk(&bed.live(0).client, &name, &old[1].server));
    assert!(!talk(
        &old[0].witness,
        &witness_name(CLUSTER),
        &bed.witness_tls()
    ));
    // Nor is the witness known by its own certificate any more.
    let own = crate::trust::read_identity(&bed.file("witness"), "witness").expect("its own");
    let alone = witness_config(&own, Arc::clone(&bed.witness.trusted)).expect("TLS");
    bed.witness.trusted.show(CLUSTER, None).expect("nothing");
    let name = witness_name(CLUSTER);
    assert!(!talk(&bed.live(0).witness, &name, &Arc::new(alone)));
}

/// After the next one everything is as after the first one.
#[test]
fn one_change_after_the_other() {
    let bed = Bed::new();
    for _ in 0..2 {
        let signers = bed.source.signers().expect("readable").expect("here");
        bed.source.begin(&signers).expect("begun");
        for _ in 0..3 {
            for member in 0..3 {
                bed.step(member);
            }
        }
        let signers = bed.source.signers().expect("readable").expect("here");
        let own = bed.live(0).standing;
        assert!(Source::is_ending(&signers, own));
        bed.source.finish(&signers).expect("over");
        bed.source.next(&signers, own).expect("over");
        bed.all_talk();
    }
    let keys = fs::read_to_string(bed.file("node0/node.key")).expect("a key");
    assert_eq!(keys.matches("BEGIN").count(), 1);
    for name in [
        "authority/authority.key",
        "node0/node.key",
        "node1/node.key",
    ] {
        let mode = fs::metadata(bed.file(name)).expect("there").mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
    let mode = fs::metadata(bed.file(&format!("witness/{CLUSTER}.cluster")));
    assert_eq!(mode.expect("there").mode() & 0o777, 0o600);
}

/// A witness that another one replaced has certificates of the authority, and what it granted then.
#[test]
fn a_witness_that_was_replaced_is_not_taken_although_the_authority_certified_it() {
    let bed = Bed::new();
    let steps = |bed: &Bed| {
        let signers = bed.source.signers().expect("readable").expect("here");
        bed.source.begin(&signers).expect("begun");
        for _ in 0..3 {
            (0..3).for_each(|member| bed.step(member));
        }
        let signers = bed.source.signers().expect("readable").expect("here");
        let own = bed.live(0).standing;
        assert!(Source::is_ending(&signers, own));
        bed.source.finish(&signers).expect("over");
        bed.source.next(&signers, own).expect("over");
    };
    steps(&bed);
    bed.all_talk();
    let name = witness_name(CLUSTER);
    let certified = bed.witness_tls();
    // Another witness joins, as both nodes are told.
    let other = witness_identity().expect("an identity");
    for number in 0..2 {
        let known = bed.file(&format!("node{number}/witness.pem"));
        put(&known, &other.certificate, CERTIFICATE_MODE);
        bed.nodes[number].look().expect("read");
        assert!(!talk(&bed.live(number).witness, &name, &certified));
    }
    put(
        &bed.file("witness/witness.pem"),
        &other.certificate,
        CERTIFICATE_MODE,
    );
    put(&bed.file("witness/witness.key"), &other.key, KEY_MODE);
    let admission = bed.file(&format!("witness/{CLUSTER}.cluster"));
    let before = fs::read_to_string(&admission).expect("an admission");
    let mut fresh: serde_json::Value = serde_json::from_str(&before).expect("JSON");
    fresh.as_object_mut().expect("an object").remove("shown");
    put(&admission, &fresh.to_string(), KEY_MODE);
    bed.ask(2, &TrustAsk::Look);
    bed.all_talk();
    // And it is certified by the next authority, for itself.
    steps(&bed);
    bed.all_talk();
    let certified = bed.witness_tls();
    for number in 0..2 {
        let known = fs::read_to_string(bed.file(&format!("node{number}/witness.pem")));
        let lasting = |certificate: &str| Lasting::of(certificate, CLUSTER).expect("a witness");
        assert_eq!(lasting(&known.expect("known")), lasting(&other.certificate));
        assert!(talk(&bed.live(number).witness, &name, &certified));
    }
}

/// Root on the other node wants an authority of his own beside the next one.
#[test]
fn what_comes_with_something_beside_it_is_stored_by_nobody() {
    let bed = Bed::new();
    let signers = bed.source.signers().expect("readable").expect("here");
    let next = bed.source.begin(&signers).expect("begun");
    let signers = bed.source.signers().expect("readable").expect("here");
    let (evil, _) = Authority::create(CLUSTER).expect("an authority");
    let from = bed.live(0).standing;
    let to = from.step(Some(next)).expect("a step");
    let step = bed
        .source
        .step(&signers, (from, to), (bed.subject(0), None), None);
    let Some(TrustAsk::Trust {
        authority,
        endorsement,
    }) = step.expect("a step")
    else {
        panic!("another question");
    };
    let both = TrustAsk::Trust {
        authority: [authority.as_str(), evil.certificate()].concat(),
        endorsement,
    };
    let admission = bed.file(&format!("witness/{CLUSTER}.cluster"));
    let before = fs::read(&admission).expect("an admission");
    for answer in [bed.nodes[1].ask(&both), bed.witness.trust(CLUSTER, &both)] {
        assert_eq!(answer.problem.expect("refused").code, "LS6185");
        assert_eq!(answer.trusted.len(), 1);
    }
    assert_eq!(fs::read(&admission).expect("an admission"), before);
    // What is on the witness's disk already is not served.
    let mut stored: serde_json::Value = serde_json::from_slice(&before).expect("JSON");
    let three = [
        signers.all()[0].certificate(),
        &authority,
        evil.certificate(),
    ]
    .concat();
    stored["authority"] = three.into();
    put(&admission, &stored.to_string(), KEY_MODE);
    let witness = Witness::open(&bed.file("witness")).expect("a witness");
    let own = crate::trust::read_identity(&bed.file("witness"), "witness").expect("its own");
    let tls = witness_config(&own, Arc::clone(&witness.trusted)).expect("TLS");
    assert!(!talk(
        &bed.live(0).witness,
        &witness_name(CLUSTER),
        &Arc::new(tls)
    ));
    put(
        &admission,
        std::str::from_utf8(&before).expect("text"),
        KEY_MODE,
    );
}

/// Root on the witness wants a node to store what it cannot start with.
#[test]
fn a_witness_s_certificate_with_something_beside_it_is_stored_by_no_node() {
    let bed = Bed::new();
    let signers = bed.source.signers().expect("readable").expect("here");
    bed.source.begin(&signers).expect("begun");
    let signers = bed.source.signers().expect("readable").expect("here");
    let (evil, _) = Authority::create(CLUSTER).expect("an authority");
    // The witness shows something more than its certificate at the last step.
    for member in [0, 1, 2, 0, 1, 2] {
        bed.step(member);
    }
    let files = |bed: &Bed| {
        ["witness.pem", "node.pem", "authority.pem"]
            .map(|name| fs::read(bed.file(&format!("node1/{name}"))).expect("a file"))
    };
    let before = files(&bed);
    let from = bed.live(1).standing;
    let to = from.step(None).expect("a step");
    let shown = bed.ask(2, &TrustAsk::Look).certificate.expect("certified");
    for junk in [
        evil.certificate(),
        "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n",
    ] {
        let shown = [shown.as_str(), junk].concat();
        let named = (bed.subject(1), None);
        let asked = bed.source.step(&signers, (from, to), named, Some(&shown));
        let answer = bed.nodes[1].ask(&asked.expect("a step").expect("a question"));
        assert_eq!(answer.problem.expect("refused").code, "LS6185");
        assert_eq!(files(&bed), before);
    }
    let asked = bed
        .source
        .step(&signers, (from, to), (bed.subject(1), None), Some(&shown));
    bed.ask(1, &asked.expect("a step").expect("a question"));
    assert_eq!(bed.live(1).standing, to);
}

/// Every disk error between two files leaves what can be used, and the same question comes through later.
#[test]
fn a_crash_between_two_files_of_a_step_is_nothing() {
    for step in 0..3 {
        for file in ["node.key", "authority.pem", "node.pem", "witness.pem"] {
            let mut bed = Bed::new();
            let signers = bed.source.signers().expect("readable").expect("here");
            bed.source.begin(&signers).expect("begun");
            for _ in 0..step {
                (0..3).for_each(|member| bed.step(member));
            }
            for member in [0, 2] {
                bed.step(member);
            }
            let before = bed.live(1).standing;
            let key = |bed: &Bed| bed.live(1).holding.shown.clone().expect("shown").key;
            let old = key(&bed);
            bed.nodes[1].replace = refuse(file);
            let signers = bed.source.signers().expect("readable").expect("here");
            let to = bed.live(0).standing;
            let own = bed.subject(1);
            let look = bed.nodes[1].ask(&TrustAsk::Prepare);
            let witness = bed.ask(2, &TrustAsk::Look).certificate;
            let request = look.request.clone();
            let asked = bed.source.step(
                &signers,
                (before, to),
                (own, request.as_deref()),
                witness.as_deref().filter(|_| to.is_settled()),
            );
            if let Some(asked) = asked.expect("a step") {
                let answer = bed.nodes[1].ask(&asked);
                if let Some(problem) = answer.problem {
                    assert_eq!(problem.code, "LS6181", "{problem:?}");
                }
            }
            bed.all_talk();
            bed.crash();
            bed.all_talk();
            if bed.live(1).standing != to {
                bed.step(1);
            }
            bed.all_talk();
            // The key that was to be replaced is certified never again.
            if let Standing::Shows { .. } = to {
                assert_ne!(key(&bed), old, "{file}");
                let all = fs::read_to_string(bed.file("node1/node.key")).expect("keys");
                assert!(!all.contains(&old), "{file}");
                let ready = bed.ask(1, &TrustAsk::Prepare).request.expect("a request");
                let signers = bed.source.signers().expect("readable").expect("here");
                let own = (bed.subject(1), to.shown());
                let signed = certificate(signers.of(own.1).expect("a key"), own.0, &ready);
                let certificate = signed.expect("a certificate");
                let witness = None;
                bed.ask(
                    1,
                    &TrustAsk::Show {
                        certificate,
                        witness,
                    },
                );
                assert_ne!(key(&bed), old, "{file}");
            }
        }
    }
}

fn refuse(name: &str) -> fn(&Path, &[u8], u32) -> io::Result<()> {
    fn unless(name: &str, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        if path.ends_with(name) {
            return Err(io::Error::other("no room"));
        }
        replace(path, bytes, mode)
    }
    match name {
        "node.key" => |path, bytes, mode| unless("node.key", path, bytes, mode),
        "authority.pem" => |path, bytes, mode| unless("authority.pem", path, bytes, mode),
        "node.pem" => |path, bytes, mode| unless("node.pem", path, bytes, mode),
        _ => |path, bytes, mode| unless("witness.pem", path, bytes, mode),
    }
}

#[test]
fn what_is_wrong_with_the_files_is_told_and_connections_go_on() {
    let bed = Bed::new();
    let key = bed.file("node0/node.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("a mode");
    let problem = bed.nodes[0].look().err().expect("refused");
    assert_eq!(problem.code, "LS6181");
    assert!(problem.message.contains("chmod 600"), "{problem:?}");
    assert_eq!(bed.nodes[0].note(), Some(problem));
    bed.all_talk();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("a mode");
    bed.nodes[0].look().expect("as before");
    // Nobody but the keeper of trust takes back what it said.
    assert!(bed.nodes[0].note().is_some());
    bed.nodes[0].tell(None);
    assert_eq!(bed.nodes[0].note(), None);
    // Of the other node, say.
    fs::copy(bed.file("node1/node.pem"), bed.file("node0/node.pem")).expect("copied");
    let problem = bed.nodes[0].look().err().expect("refused");
    assert_eq!(problem.code, "LS6181");
    bed.all_talk();
}

#[test]
fn what_ends_soon_is_told_and_what_has_ended_is_told_otherwise() {
    let bed = Bed::new();
    let signers = bed.source.signers().expect("readable").expect("here");
    let sign = |days| {
        let look = bed.ask(0, &TrustAsk::Prepare);
        let request = look.request.expect("a request");
        let own = bed.subject(0);
        let signed = signers.all()[0].sign_for(own, &request, days);
        signed.expect("a certificate")
    };
    let certificate = sign(CERTIFICATE_DAYS);
    bed.ask(
        0,
        &TrustAsk::Show {
            certificate,
            witness: None,
        },
    );
    assert_eq!(bed.nodes[0].note(), None);
    let certificate = sign(100);
    bed.ask(
        0,
        &TrustAsk::Show {
            certificate,
            witness: None,
        },
    );
    assert_eq!(
        bed.nodes[0].note().map(|it| it.code).as_deref(),
        Some("LS6183")
    );
    let ends = crate::trust::now() - 1;
    let over = told::ends("node1", false, ends).expect("over");
    assert_eq!(over.code, "LS6184");
    let years = |years: i64| crate::trust::now() + years * 365 * crate::trust::DAY_SECONDS;
    assert_eq!(
        told::ends("node1", true, years(1)).expect("soon").code,
        "LS6183"
    );
    assert!(told::ends("node1", true, years(3)).is_none());
}

//! Where every search begins: good bytes, cut ones, ones with a wrong bit, lengths at a bound, and
//! inputs that once found something.

use mirror_core::types::{Epoch, SectorRange, ViewId};
use mirror_core::wire::{
    Accept, Auth, Frame, FrameKind, Grow, GrowDone, GrowRefused, GrowStep, Hello, MARKS_WORDS,
    Marks, PROTOCOL_VERSION, Propose, Purpose, Refused, RefusedCode, encode_header,
};

use crate::samples::{self, node};

/// Name and bytes.
pub type Seed = (String, Vec<u8>);

/// The seeds of a target.
pub fn seeds(target: &str) -> Vec<Seed> {
    match target {
        "frame-header" => headers(),
        "session" => sessions(),
        "superblock" | "activity-log" | "bitmap" => damages(target),
        "metadata" => metadata(),
        "kept-file" => kept(),
        "cluster-key" => keys(),
        "rejoin" => rejoins(),
        "config" => texts(&CONFIGS),
        "cluster-config" => texts(&CLUSTERS),
        "admin-request" => texts(&REQUESTS),
        "admin-answer" => texts(&ANSWERS),
        body => bodies(body),
    }
}

fn seed(name: &str, bytes: impl Into<Vec<u8>>) -> Seed {
    (name.to_string(), bytes.into())
}

fn texts(texts: &[(&str, &str)]) -> Vec<Seed> {
    texts.iter().map(|(name, text)| seed(name, *text)).collect()
}

fn headers() -> Vec<Seed> {
    let view = samples::view(5, None, samples::superblock(0, node(0)).view.insync);
    let mut write = Frame::new(FrameKind::Write, view.epoch, 7);
    write.range = SectorRange::new(8, 8);
    write.length_bytes = 4096;
    let mut largest = write;
    (largest.range.count, largest.length_bytes) = (1024, 512 * 1024);
    let mut huge = write;
    huge.length_bytes = u32::MAX;
    let mut far = write;
    far.range.start = u64::MAX - 7;
    let mut discard = write;
    (discard.kind, discard.length_bytes) = (FrameKind::Discard, 0);
    discard.range.count = u32::MAX;
    let mut state = Frame::new(FrameKind::State, Epoch(0), 0);
    state.length_bytes = 560;
    let mut body = state;
    body.length_bytes = 1025;
    let ping = Frame::new(FrameKind::Ping, view.epoch, u64::MAX);
    let frames = [
        ("write", write),
        ("write-largest", largest),
        ("length-of-4-gib", huge),
        ("range-past-the-end-of-numbers", far),
        ("discard-of-everything", discard),
        ("state", state),
        ("body-one-too-long", body),
        ("ping", ping),
    ];
    let mut seeds: Vec<Seed> = frames
        .iter()
        .map(|(name, frame)| seed(name, encode_header(frame, 0xdead_beef)))
        .collect();
    seeds.push(seed("cut", &encode_header(&write, 0)[..63]));
    let mut wrong = encode_header(&write, 0);
    wrong[20] ^= 1;
    seeds.push(seed("one-wrong-bit", wrong));
    seeds
}

fn grow_body(target: &str) -> Vec<u8> {
    match target {
        "body-grow" => Grow {
            step: GrowStep::Prepare,
            from_sectors: 4096,
            to_sectors: 8192,
        }
        .encode()
        .to_vec(),
        "body-grow-done" => GrowDone {
            step: GrowStep::Measure,
            refused: Some(GrowRefused::NoRoom),
            room_sectors: 8192,
        }
        .encode()
        .to_vec(),
        _ => Vec::new(),
    }
}

/// Whole, cut by one byte, longer by one byte, and with one wrong bit.
fn bodies(target: &str) -> Vec<Seed> {
    let superblock = samples::superblock(4, node(0));
    let good = match target {
        "body-hello" => Hello {
            version_min: 1,
            version_max: PROTOCOL_VERSION,
            features: 0,
            node: node(0),
            peer: node(1),
            cluster_id: superblock.cluster_id,
            nonce: [3; 32],
            volume_name: samples::name(),
        }
        .encode()
        .to_vec(),
        "body-auth" => Auth { proof: [0xab; 32] }.encode().to_vec(),
        "body-refused" => Refused {
            code: RefusedCode::Size,
            ours: 1,
            yours: 2,
        }
        .encode()
        .to_vec(),
        "body-state" => samples::state(&superblock).encode().to_vec(),
        "body-propose" => Propose {
            view: superblock.view,
            purpose: Purpose::Settle,
            copy_id: superblock.lineage,
            volume_id: superblock.volume_id,
        }
        .encode()
        .to_vec(),
        "body-accept" => Accept {
            view_id: ViewId([5; 16]),
            refused: true,
        }
        .encode()
        .to_vec(),
        "body-marks" => Marks {
            first_word: 1 << 41,
            next_word: Some(u64::MAX - 1),
            block_sectors: 1024,
            words: [u64::MAX; MARKS_WORDS],
        }
        .encode()
        .to_vec(),
        "body-evidence" => samples::evidence(&superblock).encode().to_vec(),
        _ => grow_body(target),
    };
    let mut wrong = good.clone();
    if let Some(byte) = wrong.get_mut(16) {
        *byte ^= 0x80;
    }
    vec![
        seed("cut", good.get(1..).unwrap_or_default()),
        seed("longer", [&good[..], &[0]].concat()),
        seed("one-wrong-bit", wrong),
        seed("whole", good),
    ]
}

/// Sealed or not, how many changes, then the changes (see [`crate::input::patch`]).
const DAMAGES: [(&str, &[u8]); 8] = [
    ("whole", &[0, 0]),
    ("one-wrong-bit", &[0, 1, 4, 100, 0, 3]),
    ("torn-in-the-middle", &[0, 1, 3, 0, 8, 128, 0]),
    ("blank", &[0, 2, 3, 0, 0, 255, 0, 3, 240, 15, 16, 0]),
    ("second-block", &[0, 1, 0, 0, 20, 1]),
    ("number-at-its-end", &[1, 1, 2, 16, 0, 15]),
    ("place-at-its-end", &[1, 1, 2, 24, 0, 15]),
    ("count-too-large", &[1, 1, 2, 32, 0, 9]),
];

fn damages(target: &str) -> Vec<Seed> {
    let before: &[u8] = if target == "superblock" { &[0x80] } else { &[] };
    DAMAGES
        .iter()
        .map(|(name, damage)| seed(name, [before, damage].concat()))
        .collect()
}

/// Device, kind of superblock, three damages, what an application asks.
fn metadata() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for kind in 0..samples::KINDS {
        let whole: [u8; 8] = [kind & 1, kind, 0, 0, 0, 0, 0, 0];
        seeds.push(seed(&format!("kind-{kind}"), whole));
    }
    for (name, damage) in DAMAGES {
        let log = [&[1, 4, 0, 0], damage, &[0, 0, 1, 9, 0]].concat();
        let pages = [&[1, 4, 0, 0, 0, 0], damage, &[1, 9, 0]].concat();
        let slots = [&[1, 0x84], damage, &[0, 0, 0, 0, 1, 9, 0]].concat();
        seeds.push(seed(&format!("log-{name}"), log));
        seeds.push(seed(&format!("bitmap-{name}"), pages));
        seeds.push(seed(&format!("superblock-{name}"), slots));
    }
    // A write to an extent that the log does not name: the log's next state has the number after it.
    let elsewhere = [1, 5, 0, 0, 1, 2, 2, 16, 0, 15, 0, 64, 0, 5, 0, 0, 1, 9, 0];
    seeds.push(seed("log-number-at-its-end-and-written", elsewhere));
    seeds
}

/// Sealed or not, how much is cut off, how many changes, then the changes.
fn kept() -> Vec<Seed> {
    let whole: [(&str, &[u8]); 10] = [
        ("whole", &[0, 0, 0]),
        ("sealed", &[1, 0, 0]),
        ("cut-in-the-digest", &[0, 1, 0]),
        ("cut-before-the-end", &[0, 64, 0]),
        ("one-wrong-bit", &[0, 0, 1, 4, 100, 0, 3]),
        ("size-at-its-end", &[1, 0, 1, 2, 208, 0, 15]),
        ("block-size-of-zero", &[1, 0, 1, 2, 216, 0, 0]),
        ("run-past-the-end", &[1, 0, 1, 2, 8, 2, 14]),
        ("run-without-length", &[1, 0, 1, 2, 16, 2, 0]),
        ("data-without-bound", &[1, 0, 1, 2, 16, 2, 9]),
    ];
    whole.iter().map(|(name, data)| seed(name, *data)).collect()
}

/// What it is, how much is cut off, how many zeroes follow, and changes; or, after a 2, the file itself.
fn keys() -> Vec<Seed> {
    let changed: [(&str, &[u8]); 12] = [
        ("never-rotated", &[0]),
        ("next-accepted", &[4]),
        ("last-accepted", &[8]),
        ("rotated", &[12]),
        ("cut", &[4, 36]),
        ("longer", &[4, 0, 1]),
        ("one-wrong-bit", &[4, 0, 0, 1, 4, 60, 0, 3]),
        ("another-magic", &[4, 0, 0, 1, 4, 0, 0, 0]),
        ("another-version", &[5, 0, 0, 1, 0, 8, 0, 2]),
        ("kind-at-its-end", &[5, 0, 0, 1, 0, 12, 0, 0xff]),
        ("generation-at-its-end", &[5, 0, 0, 1, 2, 32, 0, 15]),
        ("both-secrets-alike", &[5, 0, 0, 1, 3, 40, 0, 8, 4]),
    ];
    let mut seeds: Vec<Seed> = changed
        .iter()
        .map(|(name, data)| seed(name, *data))
        .collect();
    seeds.push(seed("a-secret", [2; 33]));
    seeds.push(seed("a-short-secret", [2; 32]));
    seeds.push(seed("the-magic-alone", *b"\x02LSCLKEYS"));
    seeds
}

fn rejoins() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for one in 0..samples::KINDS {
        let other = samples::counterpart(one);
        let choice = one + other * samples::KINDS;
        seeds.push(seed(&format!("kinds-{one}-{other}"), [choice]));
        // A flag, another boot, a mark of the other side's history.
        let changes = [
            choice, 0, 72, 0, 2, 1, 112, 0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 136, 0, 208, 2,
        ];
        seeds.push(seed(&format!("kinds-{one}-{other}-changed"), changes));
    }
    seeds
}

/// The session's script: who, marks, no changes of the state, come together; then steps.
fn sessions() -> Vec<Seed> {
    let steps: [(&str, &[u8]); 9] = [
        ("quiet", &[17, 12, 2, 12, 5, 12, 7]),
        (
            "writes-and-a-flush",
            &[
                0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 7, 0, 0, 2, 0, 0, 2, 0, 0, 0, 2, 0, 3, 0, 0, 4, 0, 0,
                3, 2, 0, 0, 17,
            ],
        ),
        (
            "write-past-the-end",
            &[0, 0, 0, 0, 1, 0, 0, 2, 0, 0, 15, 0, 17],
        ),
        (
            "copy-writes",
            &[0, 1, 0, 0, 1, 0, 0, 0, 1, 0, 7, 0, 14, 0, 17],
        ),
        (
            "marks-wanted-at-the-end-of-numbers",
            &[0, 9, 0, 1, 15, 0, 0, 0],
        ),
        ("widened", &[0, 7, 0, 0, 0, 0, 0, 4, 0, 17]),
        (
            "activated-and-written",
            &[
                21, 0, 10, 17, 18, 0, 19, 0, 8, 0, 7, 17, 8, 0, 0, 8, 0, 0, 21, 3, 18, 0, 17, 10,
            ],
        ),
        ("leaves", &[0, 11, 0, 0, 0, 0, 0, 0, 17, 10, 17]),
        (
            "taken-over",
            &[23, 0, 12, 7, 21, 6, 17, 12, 7, 17, 18, 0, 22, 0, 0],
        ),
    ];
    let mut seeds = Vec::new();
    for kind in 0..samples::KINDS * 2 {
        for (name, steps) in steps {
            let script = [&[kind, 1, 0, 0], steps].concat();
            seeds.push(seed(&format!("kind-{kind:02}-{name}"), script));
        }
    }
    seeds
}

const CONFIGS: [(&str, &str); 5] = [
    ("whole", GOOD_CONFIG),
    ("no-peer", "version = 1\nvolume = \"data\"\n"),
    ("unknown-key", "version = 1\ncolour = \"red\"\n"),
    (
        "tuning",
        "[tuning]\nkeepalive_interval_ms = 18446744073709551615\n",
    ),
    ("number-too-large", "version = 99999999999999999999\n"),
];
const CLUSTERS: [(&str, &str); 7] = [
    ("whole", GOOD_CLUSTER),
    (
        "etcd",
        "version = 1\n[etcd]\nendpoints = [\"127.0.0.1:2379\", \"e:1\"]\nkey = \"k\"\n",
    ),
    (
        "one-node",
        "version = 1\n[nodes.a]\ninterconnects = []\n[groups]\n",
    ),
    (
        "unknown-key",
        "version = 1\nversoin = 1\n\"\\u001b[31m\" = 2\n",
    ),
    (
        "numbers",
        "version = 1\n[timing]\nheartbeat_interval_ms = 9223372036854775807\nheartbeat_timeout_ms = -1\n",
    ),
    (
        "control-character-in-a-number",
        "version = 1\n[timing]\nheartbeat_interval_ms = 92\u{0}3\n",
    ),
    ("no-toml", "[nodes\nx = \"\ny = [1, {a = }\n[[[\n"),
];
const GOOD_CLUSTER: &str = r#"version = 1
[nodes.node1]
interconnects = ["10.0.0.1:7421", "[fd00::1]:7421"]
[nodes.node2]
interconnects = ["10.0.0.2:7421", "[fd00::2]:7421"]
[witness]
address = "10.0.0.5:7422"
[timing]
heartbeat_timeout_ms = 3000
[groups.pg]
volumes = ["data"]
nodes = ["node2", "node1"]
stop_failure = "hold"
[[groups.pg.resources]]
kind = "filesystem"
name = "fs"
volume = "data"
type = "ext4"
mount_point = "/srv/data"
[[groups.pg.resources]]
kind = "floating_ip"
name = "ip"
address = "10.0.0.20/24"
[[groups.pg.resources]]
kind = "exec"
name = "prepare"
start = ["/usr/bin/prepare"]
[[groups.pg.resources]]
kind = "program"
name = "app"
command = ["/usr/bin/app"]
"#;
const GOOD_CONFIG: &str = r#"version = 1
volume = "data"
backing = "/dev/vdb"
metadata = "internal"
key_file = "/etc/lockstep/key"

[node]
name = "node1"
address = "10.0.0.1:7420"

[peer]
name = "node2"
address = "[fd00::2]:7420"

[tuning]
keepalive_interval_ms = 500
link_timeout_ms = 3000
read_lease_ms = 2000
"#;

const REQUESTS: [(&str, &str); 9] = [
    (
        "status",
        r#"{"schema":"lockstep.admin/1","request":"status"}"#,
    ),
    (
        "deactivate",
        r#"{"schema":"lockstep.admin/1","request":"command","command":"deactivate","force":true}"#,
    ),
    (
        "takeover",
        r#"{"schema":"lockstep.admin/1","request":"command","command":"takeover","confirm":"node2 is off"}"#,
    ),
    (
        "another-schema",
        r#"{"schema":"lockstep.admin/2","request":"status"}"#,
    ),
    ("cut", r#"{"schema":"lockstep.admin/1","requ"#),
    (
        "resolve-keep",
        r#"{"schema":"lockstep.admin/1","request":"command","command":"resolve","discard":"a","confirm":"data","keep":{"file":"/x"}}"#,
    ),
    ("deep", "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["),
    (
        "isolate",
        r#"{"schema":"lockstep.admin/1","request":"command","command":"isolate"}"#,
    ),
    (
        "attach",
        r#"{"schema":"lockstep.admin/1","request":"command","command":"attach","force":true}"#,
    ),
];

const ANSWERS: [(&str, &str); 5] = [
    (
        "done",
        r#"{"schema":"lockstep.admin/1","ok":true,"done":"already-fenced"}"#,
    ),
    (
        "problem",
        r#"{"schema":"lockstep.admin/1","ok":false,"problem":{"code":"LS1008","message":"m","advice":"a"}}"#,
    ),
    (
        "kept",
        r#"{"schema":"lockstep.admin/1","ok":true,"done":"discarded","kept":{"file":"/x","kept_bytes":2,"data_bytes":1}}"#,
    ),
    ("status", STATUS),
    ("cut", r#"{"schema":"lockstep.admin/1","ok":tr"#),
];
const STATUS: &str = r#"{"schema":"lockstep.admin/1","ok":true,"status":{"schema":"lockstep.volume-status/1","volume":"data","volume_id":"00","node":"a","peer":"b","role":"active","frozen":"peer-lost","copy":"in-sync","peer_copy":"copying","link":{"state":"up","last_heard_ms":3,"refusal":null},"view":{"epoch":5,"id":"00","active":"a","insync":["a"],"sealed_epoch":0},"size_bytes":1,"progress":{"cause":"first-copy","source":true,"copied_bytes":1,"total_bytes":2,"rate_bytes_per_s":3,"eta_s":null},"out_of_sync_bytes":0,"inflight":0,"counters":{"reads":0,"writes":0,"flushes":0,"failed":0,"written_bytes":0,"peer_writes":0,"longest_wait_ms":0},"device":null,"problems":[]}}"#;

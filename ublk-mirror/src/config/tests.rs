use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

const GOOD: &str = r#"version = 1
volume = "data"
backing = "/dev/vdb"
metadata = "internal"
key_file = "KEY"
[node]
name = "node1"
address = "10.77.3.1:7420"
[peer]
name = "node2"
address = "[fd00::2]:7420"
"#;

fn load(text: &str, key: &[u8], mode: u32) -> Result<Config, ConfigError> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let directory =
        std::env::temp_dir().join(format!("lockstep-config-{}-{number}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let key_path = directory.join("key");
    fs::write(&key_path, key).unwrap();
    fs::set_permissions(&key_path, fs::Permissions::from_mode(mode)).unwrap();
    let path = directory.join("data.toml");
    fs::write(&path, text.replace("KEY", &key_path.display().to_string())).unwrap();
    let result = Config::load(&path);
    fs::remove_dir_all(&directory).unwrap();
    result
}

#[test]
fn a_good_file_is_taken_and_the_lower_name_is_node_0() {
    let config = load(GOOD, &[7; 32], 0o600).unwrap();
    assert_eq!(config.node_id().number(), 0);
    assert_eq!(config.peer_id().number(), 1);
    assert_eq!(config.tuning.link_timeout, Duration::from_millis(3000));
    assert_eq!(config.tuning.disk_timeout, Duration::from_secs(45));
    assert!(config.peer.addresses[0].is_ipv6());
}

#[test]
fn an_unknown_key_is_refused_with_file_line_and_what_is_allowed() {
    let error = load(&GOOD.replace("backing", "baking"), &[7; 32], 0o600).unwrap_err();
    assert_eq!(error.code(), "LS5001");
    let text = error.to_string();
    assert!(
        text.contains("data.toml, line 3") && text.contains("baking") && text.contains("backing"),
        "{text}"
    );
    let error = load(
        &format!("{GOOD}[tuning]\nlink_timeout = 1\n"),
        &[7; 32],
        0o600,
    )
    .unwrap_err();
    assert_eq!(error.code(), "LS5001");
    assert!(error.to_string().contains("link_timeout_ms"), "{error}");
}

#[test]
fn bad_values_are_refused_with_key_line_and_what_is_allowed() {
    let bad = [
        ("version = 1", "version = 2", "line 1"),
        ("\"data\"", "\"DATA/x\"", "line 2"),
        ("\"/dev/vdb\"", "\"vdb\"", "line 3"),
        ("\"internal\"", "\"inside\"", "line 4"),
        ("10.77.3.1:7420", "node1", "line 8"),
        ("node2", "node1", "line 10"),
        ("version = 1", "version = \"x\"", "line 1"),
        ("version = 1", "version = ", "line 1"),
    ];
    for (from, to, line) in bad {
        let error = load(&GOOD.replacen(from, to, 1), &[7; 32], 0o600).unwrap_err();
        assert_eq!(error.code(), "LS5002", "{to}");
        assert!(error.to_string().contains(line), "{error}");
    }
    let tuned = format!("{GOOD}[tuning]\nlink_timeout_ms = 100\n");
    let error = load(&tuned, &[7; 32], 0o600).unwrap_err();
    assert!(error.to_string().contains("1000 to 60000"), "{error}");
    let tuned = format!("{GOOD}[tuning]\ndisk_timeout_ms = 999\n");
    let error = load(&tuned, &[7; 32], 0o600).unwrap_err();
    assert_eq!(error.code(), "LS5002");
    assert!(error.to_string().contains("1000 to 600000"), "{error}");
}

#[test]
fn a_missing_key_is_named() {
    let error = load(&GOOD.replace("volume = \"data\"\n", ""), &[7; 32], 0o600).unwrap_err();
    assert_eq!(error.code(), "LS5002");
    assert!(
        error.to_string().contains("missing key `volume`"),
        "{error}"
    );
}

#[test]
fn a_weak_or_open_cluster_key_is_refused() {
    assert!(matches!(
        load(GOOD, &[7; 31], 0o600),
        Err(ConfigError::KeyShort { bytes: 31, .. })
    ));
    assert!(matches!(
        load(GOOD, &[7; 32], 0o640),
        Err(ConfigError::KeyMode { mode: 0o640, .. })
    ));
}

#[test]
fn a_missing_file_is_told_with_its_name() {
    let error = Config::load(Path::new("/nonexistent/data.toml")).unwrap_err();
    assert_eq!(error.code(), "LS5003");
    assert!(error.chain().contains("/nonexistent/data.toml"));
}

const PAIRS: [[&str; 2]; 2] = [
    ["10.77.3.1:7420", "10.77.4.1:7420"],
    ["10.77.3.2:7420", "10.77.4.2:7420"],
];

/// A configuration with these values of `address`.
fn with_addresses(node: &str, peer: &str) -> Result<Config, ConfigError> {
    let text = GOOD.replacen("\"10.77.3.1:7420\"", node, 1);
    let text = text.replacen("\"[fd00::2]:7420\"", peer, 1);
    load(&text, &[7; 32], 0o600)
}

fn list(one: &str, other: &str) -> String {
    format!("[\"{one}\", \"{other}\"]")
}

#[test]
fn one_or_two_addresses_make_pairs() {
    let [[a, b], [c, d]] = PAIRS;
    let config = with_addresses(&list(a, b), &list(c, d)).unwrap();
    assert_eq!(config.node.addresses[1].to_string(), b);
    assert_eq!(config.peer.addresses[0].to_string(), c);
    let one = with_addresses(&format!("[\"{a}\"]"), &format!("\"{c}\"")).unwrap();
    assert_eq!(one.node.addresses.len(), 1);
}

#[test]
fn addresses_that_make_no_pairs_are_refused_with_the_line() {
    let [[a, b], [c, d]] = PAIRS;
    let refused = |node: String, peer: String, code: &str, line: &str, why: &str| {
        let error = with_addresses(&node, &peer).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        let text = error.to_string();
        assert!(text.contains(line) && text.contains(why), "{text}");
    };
    let (single, twice) = (format!("\"{c}\""), list(c, c));
    let pairs = "LS5070";
    let why = "node1 has 2 and node2 has 1";
    refused(list(a, b), single, pairs, "line 11", why);
    let why = "node1 has 10.77.3.1:7420 twice";
    refused(list(a, a), list(c, d), pairs, "line 8", why);
    let why = "node2 has 10.77.3.2:7420 twice";
    refused(list(a, b), twice, pairs, "line 11", why);
    let why = "both nodes have 10.77.3.1:7420";
    refused(list(a, b), list(c, a), pairs, "line 11", why);
    let value = "LS5002";
    refused(
        list(a, b),
        "[]".into(),
        value,
        "line 11",
        "1 to 2 addresses",
    );
    let why = "\"x\" is not allowed";
    refused(list(a, "x"), list(c, d), value, "line 8", why);
    refused("7".into(), list(c, d), value, "line 8", "or a list of two");
}

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
    assert!(config.peer.address.is_ipv6());
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

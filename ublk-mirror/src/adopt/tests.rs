//! Two volumes with metadata on devices of their own, and equal data disks that change places.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;

use mirror_core::types::{BackingId, NodeId};

use super::*;
use crate::format::{BITMAP_BLOCK_BYTES, Copy, FormatRequest, format};
use crate::identity::tests::{SDB, SDC, boot};

/// Files of both volumes, that go away with the value.
struct Server(PathBuf);

impl Drop for Server {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

impl Server {
    fn new(test: &str) -> Self {
        let name = format!("lockstep-{test}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        let key = path.join("key");
        fs::write(&key, [7; 64]).unwrap();
        fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
        Self(path)
    }

    /// A volume, formatted; nothing is known of its backing device, which is a file.
    fn volume(&self, name: &str) -> Config {
        let place = |part: &str| self.0.join(format!("{name}-{part}"));
        for part in ["data", "meta"] {
            let file = File::create(place(part)).unwrap();
            file.set_len(16 << 20).unwrap();
        }
        let text = format!(
            "version = 1\nvolume = \"{name}\"\nbacking = \"{}\"\nmetadata = \"{}\"\nkey_file = \"{}\"\n\
             [node]\nname = \"a\"\naddress = \"127.0.0.1:7\"\n[peer]\nname = \"b\"\naddress = \"127.0.0.1:8\"\n",
            place("data").display(),
            place("meta").display(),
            self.0.join("key").display(),
        );
        let path = place("toml");
        fs::write(&path, text).unwrap();
        let config = Config::load(&path).unwrap();
        self.format(&config);
        config
    }

    fn format(&self, config: &Config) {
        let request = FormatRequest {
            copy: Copy::First,
            force: true,
            confirmed: Vec::new(),
            size_bytes: None,
            growth_bytes: None,
            bitmap_block_bytes: BITMAP_BLOCK_BYTES,
            runtime_dir: self.0.join("run"),
        };
        format(config, &request).unwrap();
    }
}

fn metadata_of(config: &Config) -> File {
    let path = config.metadata_path();
    File::options().read(true).write(true).open(path).unwrap()
}

fn superblock(config: &Config) -> Superblock {
    metadata::read(&metadata_of(config), config)
        .unwrap()
        .superblock
}

fn put(config: &Config, superblock: &Superblock) {
    for slot in 0..2 {
        metadata::write_slot(&metadata_of(config), config, superblock, slot).unwrap();
    }
}

fn devices(identity: Identity) -> Devices {
    Devices {
        size_bytes: 16 << 20,
        logical_block_bytes: 512,
        metadata_size_bytes: 16 << 20,
        identity,
    }
}

/// A daemon that starts on a disk; what it would keep.
fn start(config: &Config, disk: Identity) -> Result<BackingId, MetadataError> {
    let loaded = metadata::load(&metadata_of(config), config, &devices(disk))?;
    Ok(loaded.superblock.backing)
}

#[test]
fn data_disks_that_changed_places_are_refused_and_nothing_is_written() {
    let server = Server::new("exchanged");
    let (one, two) = (server.volume("one"), server.volume("two"));
    let first = boot("aa", "bb");
    for (config, number) in [(&one, SDB), (&two, SDC)] {
        let kept = first.identity(number).kept();
        put(
            config,
            &Superblock {
                backing: kept,
                ..superblock(config)
            },
        );
        assert_eq!(start(config, first.identity(number)).unwrap(), kept);
    }
    let before = superblock(&one);
    let next = boot("bb", "aa");
    for (config, number) in [(&one, SDB), (&two, SDC)] {
        let error = start(config, next.identity(number)).unwrap_err();
        assert_eq!(error.code(), "LS3049");
        let name = &config.volume;
        assert!(
            error
                .to_string()
                .contains("says of itself: wwid naa.5000c500"),
            "{error}"
        );
        let advice = error.advice();
        assert!(advice.contains("/dev/disk/by-id"), "{advice}");
        let verb = format!("lockstep volume adopt-disk {name} --confirm {name}");
        assert!(advice.contains(&verb), "{advice}");
    }
    assert_eq!(superblock(&one), before);
    // Under its other name it is the same disk.
    assert!(start(&one, next.identity(SDC)).is_ok());
}

#[test]
fn an_adopted_disk_is_the_volumes_from_then_on_and_the_old_one_is_not() {
    let server = Server::new("adopted");
    let config = server.volume("one");
    let disks = boot("aa", "bb");
    let kept = disks.identity(SDB).kept();
    put(
        &config,
        &Superblock {
            backing: kept,
            ..superblock(&config)
        },
    );
    let before = superblock(&config);
    let after = adopted(before.clone(), &disks.identity(SDC)).unwrap();
    let expected = Superblock {
        sequence: before.sequence + 1,
        backing: disks.identity(SDC).kept(),
        ..before
    };
    assert_eq!(after, expected, "nothing else changes");
    put(&config, &after);
    assert!(start(&config, disks.identity(SDC)).is_ok());
    assert_eq!(
        start(&config, disks.identity(SDB)).unwrap_err().code(),
        "LS3049"
    );
    assert_eq!(adopted(after, &disks.identity(SDC)), None);
}

#[test]
fn a_disk_of_which_nothing_is_known_is_accepted_and_known_from_then_on() {
    let server = Server::new("not-known");
    let config = server.volume("one");
    let disk = boot("aa", "bb").identity(SDB);
    assert!(superblock(&config).backing.is_none());
    assert!(start(&config, Identity::default()).unwrap().is_none());
    assert_eq!(start(&config, disk.clone()).unwrap(), disk.kept());
    assert!(
        superblock(&config).backing.is_none(),
        "a start alone writes nothing"
    );
    put(
        &config,
        &Superblock {
            backing: disk.kept(),
            ..superblock(&config)
        },
    );
    assert_eq!(start(&config, Identity::default()).unwrap(), disk.kept());
}

#[test]
fn the_verb_wants_the_name_and_no_daemon_and_leaves_a_disk_alone_that_nothing_speaks_against() {
    let server = Server::new("verb");
    let config = server.volume("one");
    let request = |confirm: &str| AdoptRequest {
        confirm: confirm.into(),
        runtime_dir: server.0.join("run"),
    };
    let before = superblock(&config);
    assert_eq!(
        adopt(&config, &request("two")).unwrap_err().code(),
        "LS4015"
    );
    assert_eq!(adopt(&config, &request("one")).unwrap(), Adopted::Already);
    let lock = VolumeLock::take(&server.0.join("run"), "one").unwrap();
    assert_eq!(
        adopt(&config, &request("one")).unwrap_err().code(),
        "LS3021"
    );
    drop(lock);
    assert_eq!(superblock(&config), before);
    // What else is wrong stays wrong.
    let foreign = Superblock {
        volume_name: [b'x'; 64],
        ..before
    };
    put(&config, &foreign);
    assert_eq!(
        adopt(&config, &request("one")).unwrap_err().code(),
        "LS3017"
    );
}

#[test]
fn metadata_on_the_backing_device_itself_go_where_the_disk_goes() {
    let server = Server::new("internal");
    let config = server.volume("one");
    let path = config.path.clone();
    let text = fs::read_to_string(&path).unwrap();
    let place = format!("{:?}", config.metadata_path().display().to_string());
    fs::write(&path, text.replace(&place, "\"internal\"")).unwrap();
    let config = Config::load(&path).unwrap();
    server.format(&config);
    let disks = boot("aa", "bb");
    assert!(start(&config, disks.identity(SDB)).unwrap().is_none());
    // A copy that another program wrote one into is not refused for it either.
    let kept = disks.identity(SDB).kept();
    put(
        &config,
        &Superblock {
            backing: kept,
            ..superblock(&config)
        },
    );
    assert_eq!(start(&config, disks.identity(SDC)).unwrap(), kept);
}

#[test]
fn metadata_for_another_peer_are_refused() {
    let server = Server::new("peer");
    let config = server.volume("one");
    let other = Superblock {
        peer: NodeId::new(2).unwrap(),
        ..superblock(&config)
    };
    put(&config, &other);
    let error = start(&config, Identity::default()).unwrap_err();
    assert_eq!(error.code(), "LS3017");
    assert!(
        error
            .to_string()
            .contains("a pair with node 2, the configuration makes the other node 1"),
        "{error}"
    );
}

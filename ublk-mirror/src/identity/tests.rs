//! A made-up `/sys` with disks of all kinds.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// A `/sys` that goes away with its value.
pub(crate) struct Sys(PathBuf);

impl Drop for Sys {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

impl Sys {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("lockstep-sys-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(path.join("dev/block")).unwrap();
        Self(path)
    }

    /// A device with these files in its directory, such as `devices/pci/block/sdb`.
    fn with(self, number: DeviceNumber, place: &str, files: &[(&str, &str)]) -> Self {
        let directory = self.0.join(place);
        fs::create_dir_all(&directory).unwrap();
        for (name, text) in files {
            let file = directory.join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        let DeviceNumber { major, minor } = number;
        let link = self.0.join(format!("dev/block/{major}:{minor}"));
        symlink(&directory, link).unwrap();
        self
    }

    pub(crate) fn identity(&self, number: DeviceNumber) -> Identity {
        Identity::of(&self.0, number)
    }

    fn words(&self, number: DeviceNumber) -> String {
        self.identity(number).words().to_owned()
    }
}

fn numbers(major: u32, minor: u32) -> DeviceNumber {
    DeviceNumber { major, minor }
}

pub(crate) const SDB: DeviceNumber = DeviceNumber {
    major: 8,
    minor: 16,
};
pub(crate) const SDC: DeviceNumber = DeviceNumber {
    major: 8,
    minor: 32,
};

/// Two disks, in the order in which this boot found them.
pub(crate) fn boot(sdb: &str, sdc: &str) -> Sys {
    let wwid = |serial: &str| format!("naa.5000c500{serial}\n");
    Sys::new()
        .with(SDB, "devices/a/block/sdb", &[("device/wwid", &wwid(sdb))])
        .with(SDC, "devices/b/block/sdc", &[("device/wwid", &wwid(sdc))])
}

#[test]
fn two_disks_that_change_places_at_a_boot_are_told_apart() {
    let before = boot("aa", "bb");
    let (one, two) = (before.identity(SDB).kept(), before.identity(SDC).kept());
    assert!(one != two && !one.is_none());
    let after = boot("bb", "aa");
    assert!(!after.identity(SDB).may_be(one) && !after.identity(SDC).may_be(two));
    assert!(after.identity(SDC).may_be(one) && after.identity(SDB).may_be(two));
    assert_eq!(after.words(SDB), "wwid naa.5000c500bb");
}

#[test]
fn every_kind_of_disk_says_what_it_is() {
    let sys = Sys::new()
        .with(
            numbers(259, 0),
            "devices/nvme/nvme0n1",
            &[
                ("wwid", "eui.0025385b71b0\n"),
                ("nsid", "1\n"),
                ("device/serial", "S5G \n"),
            ],
        )
        .with(
            numbers(254, 16),
            "devices/virtio/block/vdb",
            &[("serial", "data-1\n")],
        )
        .with(
            numbers(253, 3),
            "devices/virtual/block/dm-3",
            &[("dm/uuid", "LVM-abc\n")],
        )
        .with(
            numbers(9, 0),
            "devices/virtual/block/md0",
            &[("md/uuid", "1-2-3\n")],
        )
        .with(
            numbers(179, 0),
            "devices/mmc/block/mmcblk0",
            &[("device/cid", "1501\n"), ("device/serial", "0x1\n")],
        )
        .with(
            numbers(8, 0),
            "devices/s/block/sda",
            &[("device/vpd_pg80", "\0\u{1}\0\u{6} AB 12\0")],
        );
    let words = |major, minor| sys.words(numbers(major, minor));
    assert_eq!(words(259, 0), "wwid eui.0025385b71b0");
    assert_eq!(words(254, 16), "serial data-1");
    assert_eq!(words(253, 3), "dm uuid LVM-abc");
    assert_eq!(words(9, 0), "md uuid 1-2-3");
    assert_eq!(words(179, 0), "card 1501");
    assert_eq!(words(8, 0), "unit serial AB 12");
}

#[test]
fn namespaces_of_a_drive_and_partitions_of_a_disk_are_told_apart() {
    let place = "devices/v/block/vdb";
    let namespace = |number| [("device/serial", "S5G"), ("nsid", number)];
    let sys = Sys::new()
        .with(numbers(259, 1), "devices/n/nvme0n1", &namespace("1"))
        .with(numbers(259, 2), "devices/n/nvme0n2", &namespace("2"))
        .with(numbers(254, 16), place, &[("serial", "x1")])
        .with(
            numbers(254, 17),
            &format!("{place}/vdb1"),
            &[("partition", "1\n")],
        )
        .with(
            numbers(254, 18),
            &format!("{place}/vdb2"),
            &[("partition", "2\n")],
        );
    assert_eq!(
        sys.words(numbers(254, 17)),
        "partition 1 of serial x1",
        "a partition has its disk's number"
    );
    let all = [(259, 1), (259, 2), (254, 16), (254, 17), (254, 18)];
    let all = all.map(|(major, minor)| sys.identity(numbers(major, minor)));
    for (index, one) in all.iter().enumerate() {
        for (other, two) in all.iter().enumerate() {
            assert_eq!(two.may_be(one.kept()), index == other, "{one:?} {two:?}");
        }
    }
}

#[test]
fn what_a_later_kernel_tells_as_well_changes_nothing() {
    let place = "devices/v/block/vdb/vdb1";
    let partition = ("partition", "1");
    let uuid = ("uevent", "MAJOR=254\nPARTN=1\nPARTUUID=0f-1\n");
    let early = Sys::new().with(SDB, place, &[partition, uuid]);
    assert_eq!(early.words(SDB), "partuuid 0f-1");
    let later = Sys::new().with(
        SDB,
        place,
        &[
            partition,
            uuid,
            ("../serial", "data-1"),
            ("../wwid", "t10.x"),
        ],
    );
    assert_eq!(later.words(SDB), "partition 1 of wwid t10.x");
    assert!(later.identity(SDB).may_be(early.identity(SDB).kept()));
    assert!(!early.identity(SDB).may_be(later.identity(SDB).kept()));
}

#[test]
fn where_nothing_is_known_nothing_is_refused() {
    let known = boot("aa", "bb").identity(SDB);
    let none = [
        ("loop/backing_file", "/var/disk.img"),
        ("serial", "would be the file's name"),
    ];
    let sys = Sys::new()
        .with(numbers(7, 0), "devices/virtual/block/loop0", &none)
        .with(numbers(254, 0), "devices/v/block/vda", &[("serial", "\n")])
        .with(
            numbers(254, 16),
            "devices/v/block/vdb",
            &[("serial", "0000-0000\n"), ("device/wwid", "None\n")],
        );
    for number in [
        numbers(7, 0),
        numbers(254, 0),
        numbers(254, 16),
        numbers(1, 1),
    ] {
        let identity = sys.identity(number);
        assert_eq!(identity, Identity::default());
        assert!(identity.kept().is_none() && identity.may_be(known.kept()));
        assert_eq!(identity.words(), "nothing");
    }
    assert!(known.may_be(BackingId::NONE));
}

//! A volume that is not active here cannot be used here, by accident or by somebody who held it open.

use std::time::Duration;

use anyhow::ensure;

use crate::machine::Machine;
use crate::progress::say;
use crate::scenario::{Context, Scenario};
use crate::volume::{DEVICE, Pair};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "fenced-unusable",
        about: "mkfs, mount and dd on a fenced volume and on its backing device fail at once with a clear error",
        run: fenced_unusable,
    },
    Scenario {
        name: "stale-mount",
        about: "a mount left on a volume that was taken away stays dead after the next activations",
        run: stale_mount,
    },
    Scenario {
        name: "bad-metadata",
        about: "damaged superblocks, wrong disks and small disks are refused with what to do; one bad copy is repaired",
        run: bad_metadata,
    },
];

/// "At once".
const LIMIT: Duration = Duration::from_secs(15);

/// Every command must fail, quickly, and say something.
fn all_fail(node: &Machine, commands: &[String]) -> anyhow::Result<()> {
    for command in commands {
        let output = node.exec(command, LIMIT)?;
        ensure!(
            !output.ok() && !output.timed_out,
            "`{command}` on {} should fail at once: {output:?}",
            node.name()
        );
        ensure!(!output.stderr.trim().is_empty(), "`{command}` says nothing");
        say(format!(
            "{}: {command}: {}",
            node.name(),
            output.stderr.trim().lines().last().unwrap_or_default()
        ));
    }
    Ok(())
}

fn misuse(device: &str) -> Vec<String> {
    vec![
        format!("mkfs.ext4 -F -q {device}"),
        format!("mkdir -p /mnt && mount {device} /mnt"),
        format!("dd if=/dev/zero of={device} bs=4k count=1 status=none"),
        format!("dd if=/dev/zero of={device} bs=4k count=1 oflag=direct status=none"),
    ]
}

fn fenced_unusable(context: &Context) -> anyhow::Result<()> {
    let pair = Pair::boot(context)?;
    let (one, two) = (pair.one(), pair.two());
    one.exec_ok(&format!("mkfs.ext4 -q {DEVICE} && sync"))?;
    // The standby: its device, its backing disk and its metadata disk.
    let mut commands = misuse(DEVICE);
    commands.push(format!(
        "dd if={DEVICE} of=/dev/null bs=4k count=1 status=none"
    ));
    commands.extend(misuse(&two.disk_path("data")));
    commands.extend(misuse(&two.disk_path("meta")));
    all_fail(two, &commands)?;
    // The active node: the disks under the volume.
    all_fail(one, &misuse(&one.disk_path("data")))?;
    pair.assert_equal_copies()?;
    // Fenced after having been active.
    pair.lockstep(one, "deactivate")?;
    all_fail(one, &misuse(DEVICE))?;
    pair.assert_equal_copies()
}

fn stale_mount(context: &Context) -> anyhow::Result<()> {
    let pair = Pair::boot(context)?;
    let (one, two) = (pair.one(), pair.two());
    one.exec_ok(&format!("mkfs.ext4 -q {DEVICE} && mkdir -p /mnt && mount {DEVICE} /mnt && echo old >/mnt/file && sync"))?;
    pair.refused(one, "deactivate", "LS1008")?;
    pair.lockstep(one, "deactivate --force")?;
    let write = "echo stale >/mnt/file && sync -f /mnt/file";
    let dead = |when: &str| -> anyhow::Result<()> {
        let output = one.exec(write, LIMIT)?;
        ensure!(
            !output.ok() && !output.timed_out,
            "{when}: a stale mount took a write: {output:?}"
        );
        Ok(())
    };
    dead("after the forced deactivation")?;
    // The other node serves it, and changes it.
    pair.lockstep(two, "activate")?;
    two.exec_ok(&format!(
        "mkdir -p /mnt && mount {DEVICE} /mnt && echo new >/mnt/file && umount /mnt"
    ))?;
    dead("while the other node serves")?;
    pair.lockstep(two, "deactivate")?;
    // This node serves it again: the old mount must not come to life.
    pair.lockstep(one, "activate")?;
    dead("after the next activation here")?;
    one.exec_ok(&format!("mkdir -p /new && mount {DEVICE} /new"))?;
    let read = one.exec_ok("cat /new/file")?;
    ensure!(read == "new", "{read}");
    dead("with the new mount beside it")?;
    one.exec_ok("umount /new && umount -l /mnt")?;
    pair.lockstep(one, "deactivate")?;
    pair.assert_equal_copies()
}

fn bad_metadata(context: &Context) -> anyhow::Result<()> {
    let pair = Pair::boot(context)?;
    let (one, two) = (pair.one(), pair.two());
    // One superblock of the standby is damaged on the disk: repaired with a warning.
    pair.lockstep(two, "stop")?;
    let meta = two.disk("meta")?;
    meta.write_at(0, &[0x5a; 4096])?;
    pair.start(two)?;
    pair.wait_in_sync()?;
    let log = two.exec_ok("cat /var/log/lockstep/data.log")?;
    ensure!(log.contains("LS3010"), "{log}");
    let mut repaired = [0; 512];
    meta.read_at(0, &mut repaired)?;
    ensure!(
        repaired.starts_with(b"LOCKSTEP"),
        "slot 0 was not rewritten"
    );
    // Both: refused, nothing is written.
    pair.lockstep(two, "stop")?;
    meta.write_at(512, &[0x5a; 512])?;
    meta.write_at(64 * 1024 + 512, &[0x5a; 512])?;
    refused_start(two, "LS3011")?;
    let mut untouched = [0; 512];
    meta.read_at(512, &mut untouched)?;
    ensure!(
        untouched == [0x5a; 512],
        "a refused start wrote to the metadata"
    );
    // A disk that carries something is not overwritten by create.
    let used = two.exec("mkfs.ext4 -q /dev/disk/by-id/virtio-node2-data", LIMIT)?;
    say(format!("mkfs on the released disk: exit {}", used.code));
    two.exec_ok("rm -f /etc/lockstep/volumes/data.toml")?;
    let create = pair.create_command(two, one, "--join");
    let output = two.exec(&create, LIMIT)?;
    ensure!(
        output.code == 1 && output.stderr.contains("LS4"),
        "{output:?}"
    );
    two.exec_ok(&pair.create_command(two, one, "--join --force"))?;
    pair.start(two)?;
    pair.wait_in_sync()?;
    pair.assert_equal_copies()
}

fn refused_start(node: &Machine, code: &str) -> anyhow::Result<()> {
    let output = node.exec("lockstep volume start data", Duration::from_secs(60))?;
    let said = format!("{}{}", output.stdout, output.stderr);
    ensure!(
        output.code == 1 && said.contains(code),
        "start should be refused with {code}: {output:?}"
    );
    Ok(())
}

//! Keys, configurations, directories, room.

use super::{error, good, unseen, warning};
use crate::doctor::facts::{Facts, FileMode, Keeps, Need, Room, Seen};
use crate::doctor::{Area, Check, Outcome};
use crate::size;

/// Bits of a mode that would let others read a secret, as the daemons refuse it.
const FOREIGN_MODE: u32 = 0o077;
/// Bits that let others put files of their own there.
const FOREIGN_WRITE_MODE: u32 = 0o022;
/// Less than this is left to others where blocks are kept; what the control plane writes is some MiB at most.
const ROOM_BYTES_MIN: u64 = 64 << 20;
/// The record of the configuration and the wishes no longer fit surely.
const ROOM_BYTES_NEEDED: u64 = 16 << 20;

pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    let mut checks = Vec::new();
    for file in &facts.secrets {
        if let Some(outcome) = secret(file) {
            let path = file.path.display().to_string();
            checks.push(Check::new(Area::Files, "key", outcome).at(path));
        }
    }
    if checks.is_empty() {
        let why = "there are none, and nothing needs one yet";
        checks.push(super::nothing(Area::Files, "key", why));
    }
    let mut some = false;
    for file in &facts.files {
        let path = file.path.display().to_string();
        let outcome = match &file.mode {
            Ok(None) => continue,
            Ok(Some(found)) => mode(&path, file.what, *found),
            Err(why) => unseen(why),
        };
        some = true;
        checks.push(Check::new(Area::Files, "file", outcome).at(path));
    }
    if !some {
        checks.push(super::nothing(Area::Files, "file", "there are none yet"));
    }
    for directory in &facts.directories {
        let path = directory.path.display().to_string();
        let outcome = match &directory.mode {
            Ok(None) => {
                Outcome::Nothing(format!("{}; it is made when it is needed", directory.what))
            }
            Ok(Some(found)) => mode(&path, directory.what, *found),
            Err(why) => unseen(why),
        };
        checks.push(Check::new(Area::Files, "directory", outcome).at(path.clone()));
        let room = room(&directory.room, directory.keeps);
        checks.push(Check::new(Area::Files, "room", room).at(path));
    }
    checks
}

/// `None`: it is not there and need not be.
fn secret(file: &FileMode) -> Option<Outcome> {
    let path = file.path.display();
    Some(match (&file.mode, file.need) {
        (Err(why), _) => unseen(why),
        (Ok(None), Need::Optional) => return None,
        (Ok(None), Need::Wanted { why, advice }) => error(
            "LS6156",
            format!("{}, is not there", file.what),
            why,
            advice,
        ),
        (Ok(Some((mode, _))), _) if mode & FOREIGN_MODE != 0 => error(
            "LS6156",
            format!("{}, can be read by others (mode {mode:04o})", file.what),
            "who can read it can take part in the cluster; the daemons refuse it",
            format!("chmod 600 {path}; if others could log in here, make a new one"),
        ),
        (Ok(Some((_, owner))), _) if *owner != 0 => warning(
            "LS6156",
            format!("{}, belongs to the user {owner}", file.what),
            "who owns it can read it, and so take part in the cluster",
            format!("chown root:root {path} && chmod 600 {path}"),
        ),
        (Ok(Some((mode, _))), _) => good(format!("{}, mode {mode:04o}", file.what)),
    })
}

/// Of what others may read. The bit of /tmp excuses nobody: a new file of one's own is enough.
fn mode(path: &str, what: &str, (mode, owner): (u32, u32)) -> Outcome {
    const WHY: &str = "who can write there can say what root starts";
    if mode & FOREIGN_WRITE_MODE != 0 {
        return warning(
            "LS6156",
            format!("others can write to it (mode {mode:04o})"),
            WHY,
            format!("chmod go-w {path}"),
        );
    }
    if owner != 0 {
        return warning(
            "LS6156",
            format!("it belongs to the user {owner}"),
            WHY,
            format!("chown root:root {path}"),
        );
    }
    good(format!("{what}, mode {mode:04o}"))
}

fn room(room: &Seen<Room>, keeps: Keeps) -> Outcome {
    const WHY: &str = "wishes, the configuration and grants are flushed there before anything follows them; what cannot be written \
                       is refused (LS6087, LS6109)";
    let room = match room {
        Ok(room) => room,
        Err(why) => return unseen(why),
    };
    let free = size::bytes(room.free_bytes);
    if !room.writable {
        let advice = "mount it for writing; if it became so by itself, see the kernel's log";
        return error("LS6157", "its file system is read-only", WHY, advice);
    }
    if keeps == Keeps::Sockets {
        return good("it can be written to; sockets need no room");
    }
    match room.free_bytes {
        0..ROOM_BYTES_NEEDED => error("LS6157", format!("{free} are free"), WHY, "make room"),
        ROOM_BYTES_NEEDED..ROOM_BYTES_MIN => warning(
            "LS6157",
            format!(
                "{free} are free, {} are recommended",
                size::bytes(ROOM_BYTES_MIN)
            ),
            WHY,
            "make room",
        ),
        ROOM_BYTES_MIN.. => good(format!("{free} free")),
    }
}

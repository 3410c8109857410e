//! What is mounted, and who uses it, by `/proc`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::cage::all_processes;

/// Users of a mount that are named in an error.
const NAMED_MAX: usize = 8;

/// One line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The device's numbers; those of btrfs are made up.
    pub device: String,
    /// Where.
    pub mount_point: PathBuf,
    /// The file system's type.
    pub kind: String,
    /// What was mounted.
    pub source: String,
}

/// All mounts, in the order in which they were made.
///
/// # Errors
/// If `/proc` cannot be read.
pub fn read() -> io::Result<Vec<Mount>> {
    Ok(of_text(&fs::read_to_string("/proc/self/mountinfo")?))
}

/// From the text of such a file. Lines that are none are left out.
pub fn of_text(text: &str) -> Vec<Mount> {
    text.lines().filter_map(parse).collect()
}

fn parse(line: &str) -> Option<Mount> {
    let (head, tail) = line.split_once(" - ")?;
    let mut head = head.split(' ').skip(2);
    let mut tail = tail.split(' ');
    Some(Mount {
        device: head.next()?.to_string(),
        mount_point: PathBuf::from(unescape(head.nth(1)?)),
        kind: tail.next()?.to_string(),
        source: unescape(tail.next()?),
    })
}

/// Spaces, tabs, line ends and backslashes are written as octal numbers.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_string();
    for part in parts {
        let number = part
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match number {
            Some(byte) => {
                plain.push(char::from(byte));
                plain.push_str(&part[3..]);
            }
            None => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    plain
}

/// Who keeps a mount busy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The process.
    pub pid: i32,
    /// Its name.
    pub name: String,
    /// What it uses.
    pub what: String,
}

/// Processes that work below this path, have files open there or run from there. Nothing below the path is touched: the
/// file system may hang.
pub fn users(mount_point: &Path) -> Vec<User> {
    all_processes()
        .into_iter()
        .filter_map(|pid| user(pid, mount_point))
        .collect()
}

fn user(pid: i32, mount_point: &Path) -> Option<User> {
    let place = PathBuf::from(format!("/proc/{pid}"));
    let below = |path: &Path| path.starts_with(mount_point);
    let single = ["cwd", "root", "exe"].map(|link| (link, fs::read_link(place.join(link))));
    let linked = single.into_iter().find_map(|(link, path)| {
        let path = path.ok().filter(|path| below(path))?;
        Some(format!("{link} {}", path.display()))
    });
    let open = || {
        let entries = fs::read_dir(place.join("fd")).ok()?;
        let paths = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        let path = paths.into_iter().find(|path| below(path))?;
        Some(format!("file {}", path.display()))
    };
    let mapped = || {
        let maps = fs::read_to_string(place.join("maps")).ok()?;
        let path = |line: &str| line.find('/').map(|at| PathBuf::from(&line[at..]));
        let path = maps.lines().filter_map(path).find(|path| below(path))?;
        Some(format!("mapped {}", path.display()))
    };
    let what = linked.or_else(open).or_else(mapped)?;
    let name = fs::read_to_string(place.join("comm")).unwrap_or_default();
    Some(User {
        pid,
        name: name.trim_end().to_string(),
        what,
    })
}

/// For people: who uses a mount, and what is mounted below it.
pub fn name_users(mount_point: &Path) -> String {
    let users = users(mount_point);
    let mut names: Vec<String> = users
        .iter()
        .take(NAMED_MAX)
        .map(|user| format!("{} ({}, {})", user.pid, user.name, user.what))
        .collect();
    if users.len() > NAMED_MAX {
        names.push(format!("and {} more", users.len() - NAMED_MAX));
    }
    for mount in read().unwrap_or_default() {
        let below = mount.mount_point.starts_with(mount_point);
        if below && mount.mount_point != mount_point {
            names.push(format!("a mount on {}", mount.mount_point.display()));
        }
    }
    if names.is_empty() {
        return "no process of this machine is seen using it: a swap file, a loop device or the NFS server?"
            .to_string();
    }
    names.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_taken_apart() {
        let line =
            r"36 35 98:0 / /mnt/a\040b rw,noatime master:1 - ext4 /dev/ublkb0 rw,errors=continue";
        let mount = parse(line).expect("a line");
        assert_eq!(mount.mount_point, PathBuf::from("/mnt/a b"));
        assert_eq!(
            (mount.kind.as_str(), mount.source.as_str()),
            ("ext4", "/dev/ublkb0")
        );
        assert_eq!(parse("36 35 98:0 /"), None);
        assert_eq!(unescape(r"a\134b\x\0"), r"a\b\x\0");
    }

    #[test]
    fn who_uses_a_directory_is_found_with_what_it_uses() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().canonicalize().expect("a path");
        let file = fs::File::create(path.join("held")).expect("a file");
        let found = users(&path);
        let own = i32::try_from(std::process::id()).expect("a number");
        let user = found
            .iter()
            .find(|user| user.pid == own)
            .expect("this test");
        assert!(user.what.ends_with("held"), "{user:?}");
        drop(file);
        assert!(users(&path).iter().all(|user| user.pid != own));
    }
}

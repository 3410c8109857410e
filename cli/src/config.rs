//! `/etc/lockstep/volumes/NAME.toml`: what a daemon is started with.

use std::env;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use controlplane_api::paths::volume_name_is_legal;
use mirror_core::paths::PATHS_MAX;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// Names the configuration directory instead of [`CONFIG_DIRECTORY`].
const CONFIG_DIRECTORY_VARIABLE: &str = "LOCKSTEP_CONFIG_DIR";
const CONFIG_DIRECTORY: &str = "/etc/lockstep";
/// The format of the file.
const CONFIG_VERSION: u32 = 1;
/// The port of the mirror link, if none is given.
pub(crate) const MIRROR_PORT: u16 = 7420;
/// Bytes of a cluster key.
const KEY_BYTES: usize = 32;

/// A node and its addresses on the mirror link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeAddress {
    pub(crate) name: String,
    /// One for each path; a single one stands alone in the file.
    #[serde(rename = "address", with = "one_or_several")]
    pub(crate) addresses: Vec<SocketAddr>,
}

/// A list of one is written without brackets.
mod one_or_several {
    use std::net::SocketAddr;

    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Addresses {
        One(SocketAddr),
        Several(Vec<SocketAddr>),
    }

    pub(super) fn serialize<S: Serializer>(
        addresses: &[SocketAddr],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match addresses {
            [one] => one.serialize(serializer),
            several => several.serialize(serializer),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<SocketAddr>, D::Error> {
        Ok(match Addresses::deserialize(deserializer)? {
            Addresses::One(one) => vec![one],
            Addresses::Several(several) => several,
        })
    }
}

impl NodeAddress {
    /// As the command line takes it.
    pub(crate) fn to_argument(&self) -> String {
        let addresses: Vec<String> = self.addresses.iter().map(SocketAddr::to_string).collect();
        format!("{}={}", self.name, addresses.join(","))
    }
}

impl FromStr for NodeAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, address) = text.split_once('=').ok_or_else(|| {
            format!("`{text}` has no `=`; write NAME=IP:PORT, such as node1=10.77.3.1:7420")
        })?;
        if !volume_name_is_legal(name) {
            return Err(format!(
                "`{name}` is no node name; use a-z, 0-9, `-`, `_` and `.`"
            ));
        }
        let addresses: Vec<SocketAddr> = address
            .split(',')
            .map(address_of)
            .collect::<Result<_, _>>()?;
        if addresses.len() > PATHS_MAX {
            let count = addresses.len();
            return Err(format!(
                "`{text}` has {count} addresses; the mirror link has at most {PATHS_MAX} paths"
            ));
        }
        for (place, address) in addresses.iter().enumerate() {
            if addresses[..place].contains(address) {
                return Err(format!("`{text}` has the address {address} twice"));
            }
        }
        Ok(Self {
            name: name.to_string(),
            addresses,
        })
    }
}

fn address_of(text: &str) -> Result<SocketAddr, String> {
    let with_port = text.parse::<SocketAddr>().ok();
    let without = || {
        text.parse::<IpAddr>()
            .ok()
            .map(|ip| SocketAddr::new(ip, MIRROR_PORT))
    };
    let address = with_port.or_else(without).ok_or_else(|| {
        format!("`{text}` is no IP address with a port; host names are not looked up, so that a name server cannot stop the mirror")
    })?;
    if address.port() == 0 || address.ip().is_unspecified() {
        return Err(format!(
            "`{address}` is not an address that the other node can reach"
        ));
    }
    Ok(address)
}

/// The file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VolumeConfig {
    pub(crate) version: u32,
    pub(crate) volume: String,
    pub(crate) backing: PathBuf,
    /// `internal`, or a device.
    pub(crate) metadata: String,
    pub(crate) key_file: PathBuf,
    pub(crate) node: NodeAddress,
    pub(crate) peer: NodeAddress,
    /// Times; what they may be is the daemon's to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tuning: Option<toml::Table>,
}

impl VolumeConfig {
    pub(crate) fn new(
        volume: &str,
        backing: PathBuf,
        metadata: Option<&Path>,
        key_file: PathBuf,
        node: NodeAddress,
        peer: NodeAddress,
    ) -> Self {
        let metadata =
            metadata.map_or_else(|| "internal".to_string(), |path| path.display().to_string());
        Self {
            version: CONFIG_VERSION,
            volume: volume.to_string(),
            backing,
            metadata,
            key_file,
            node,
            peer,
            tuning: None,
        }
    }

    /// Writes a file that is not there yet; it appears whole.
    pub(crate) fn write_new(&self, path: &Path) -> Result<(), Failure> {
        let text = toml::to_string(self).map_err(|error| {
            Failure::new(
                "LS4010",
                format!("the configuration cannot be written: {error}"),
                "report it",
            )
        })?;
        make_directory(path)?;
        let text = format!(
            "# A volume of Lockstep on this node; made by `lockstep volume create`.\n{text}"
        );
        match write_new(path, text.as_bytes(), 0o644) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Failure::new(
                "LS4006",
                format!(
                    "a volume of this name exists on this node already ({})",
                    path.display()
                ),
                "choose another name; or, to make its copy anew, stop its daemon and remove this file first",
            )),
            Err(error) => Err(Failure::file(path, "write", &error)),
        }
    }
}

/// Makes sure that there is a key. Whether one was made.
pub(crate) fn make_key_if_missing(path: &Path) -> Result<bool, Failure> {
    let mut key = [0; KEY_BYTES];
    let random = Path::new("/dev/urandom");
    fs::File::open(random)
        .and_then(|mut file| io::Read::read_exact(&mut file, &mut key))
        .map_err(|error| Failure::file(random, "read", &error))?;
    make_directory(path)?;
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    match write_new(path, format!("{hex}\n").as_bytes(), 0o600) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(Failure::file(path, "write", &error)),
    }
}

fn make_directory(path: &Path) -> Result<(), Failure> {
    let Some(directory) = path.parent() else {
        return Ok(());
    };
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(directory);
    made.map_err(|error| Failure::file(directory, "make", &error))
}

/// Writes beside the place and links it there: never half a file, never over another one.
fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut draft = path.as_os_str().to_os_string();
    draft.push(format!(".{}.new", std::process::id()));
    let draft = PathBuf::from(draft);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&draft)?;
    let written = file
        .write_all(bytes)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::hard_link(&draft, path));
    let removed = fs::remove_file(&draft);
    written.and(removed)?;
    match path.parent() {
        Some(directory) => fs::File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// The directory of keys and configurations.
pub(crate) fn directory() -> PathBuf {
    env::var_os(CONFIG_DIRECTORY_VARIABLE)
        .map_or_else(|| PathBuf::from(CONFIG_DIRECTORY), PathBuf::from)
}

/// The file of a volume, whether or not it is there.
///
/// # Errors
/// The name cannot be one.
pub(crate) fn path_of(volume: &str) -> Result<PathBuf, Failure> {
    if !volume_name_is_legal(volume) {
        let advice = "use up to 63 of a-z, 0-9, `-`, `_` and `.`, with a letter or digit first";
        return Err(Failure::new(
            "LS4005",
            format!("`{volume}` cannot be a volume's name"),
            advice,
        ));
    }
    Ok(directory().join("volumes").join(format!("{volume}.toml")))
}

/// The file of a volume that exists.
///
/// # Errors
/// There is none.
pub(crate) fn existing_path_of(volume: &str) -> Result<PathBuf, Failure> {
    let path = path_of(volume)?;
    if path.exists() {
        return Ok(path);
    }
    let known = volumes().join(", ");
    let advice = if known.is_empty() {
        "no volume was created on this node yet: `lockstep volume create --help`".to_string()
    } else {
        format!("volumes of this node: {known}")
    };
    Err(Failure::new(
        "LS4005",
        format!("this node has no volume `{volume}` ({})", path.display()),
        advice,
    ))
}

/// The volumes of this node, sorted; none if they cannot be listed.
pub(crate) fn volumes() -> Vec<String> {
    list().unwrap_or_default()
}

/// The volumes of this node, sorted; none if there is no directory of them.
///
/// # Errors
/// The directory cannot be read.
pub(crate) fn list() -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory().join("volumes")) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names: Vec<String> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            entry
                .file_name()
                .to_str()?
                .strip_suffix(".toml")
                .map(str::to_string)
        })
        .filter(|name| volume_name_is_legal(name))
        .collect();
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> VolumeConfig {
        VolumeConfig::new(
            "data",
            PathBuf::from("/dev/vdb"),
            None,
            PathBuf::from("/etc/lockstep/cluster.key"),
            "node1=10.77.3.1:7420".parse().unwrap(),
            "node2=10.77.3.2:7420".parse().unwrap(),
        )
    }

    #[test]
    fn a_node_is_a_name_and_an_ip_address() {
        let node: NodeAddress = "node1=10.77.3.1:7420".parse().unwrap();
        assert_eq!(
            (node.name.as_str(), node.addresses[0].port()),
            ("node1", 7420)
        );
        assert_eq!(
            "a=10.0.0.1".parse::<NodeAddress>().unwrap().addresses[0].port(),
            MIRROR_PORT
        );
        assert_eq!(
            "a=[fd00::1]:99".parse::<NodeAddress>().unwrap().addresses[0].to_string(),
            "[fd00::1]:99"
        );
        for wrong in [
            "node1",
            "=10.0.0.1:1",
            "a=b:7420",
            "a=10.0.0.1:0",
            "a=0.0.0.0:7420",
            "a b=10.0.0.1:1",
            "a=",
            "a=10.0.0.1,",
            "a=10.0.0.1,10.0.0.1",
            "a=10.0.0.1,10.0.1.1,10.0.2.1",
        ] {
            assert!(wrong.parse::<NodeAddress>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn two_addresses_are_a_list_in_the_file() {
        let node: NodeAddress = "node1=10.77.3.1,10.77.4.1:99".parse().unwrap();
        let text = "name = \"node1\"\naddress = [\"10.77.3.1:7420\", \"10.77.4.1:99\"]\n";
        assert_eq!(toml::to_string(&node).unwrap(), text);
        assert_eq!(toml::from_str::<NodeAddress>(text).unwrap(), node);
        assert_eq!(node.to_argument(), "node1=10.77.3.1:7420,10.77.4.1:99");
    }

    #[test]
    fn the_file_is_this_text() {
        let expected = r#"version = 1
volume = "data"
backing = "/dev/vdb"
metadata = "internal"
key_file = "/etc/lockstep/cluster.key"

[node]
name = "node1"
address = "10.77.3.1:7420"

[peer]
name = "node2"
address = "10.77.3.2:7420"
"#;
        assert_eq!(toml::to_string(&example()).unwrap(), expected);
        assert_eq!(toml::from_str::<VolumeConfig>(expected).unwrap(), example());
    }

    #[test]
    fn files_are_never_overwritten_and_keys_are_private() {
        use std::os::unix::fs::PermissionsExt;
        let directory = env::temp_dir().join(format!("lockstep-cli-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        let file = directory.join("volumes/data.toml");
        example().write_new(&file).unwrap();
        let failure = example().write_new(&file).unwrap_err();
        assert_eq!(failure.problem.code, "LS4006");

        let key = directory.join("cluster.key");
        assert!(make_key_if_missing(&key).unwrap());
        let text = fs::read_to_string(&key).unwrap();
        assert_eq!((text.len(), text.trim().len()), (65, 64));
        assert_eq!(
            fs::metadata(&key).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(!make_key_if_missing(&key).unwrap());
        assert_eq!(fs::read_to_string(&key).unwrap(), text);
        let left: Vec<_> = fs::read_dir(&directory).unwrap().collect();
        assert_eq!(left.len(), 2, "no drafts are left: {left:?}");
        fs::remove_dir_all(&directory).unwrap();
    }
}

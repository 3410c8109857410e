//! TCP ports that volumes of this node need for their mirror links: the door between the nodes never takes one.
//!
//! A daemon of a volume that cannot listen does not start, and then its data is on one node alone; without the door only
//! pushes wait. So the door gives way, whoever was there first.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use serde::Deserialize;

/// Of a volume's file all that counts here. What else is wrong with it, its daemon says.
#[derive(Deserialize)]
struct VolumeFile {
    node: NodeTable,
}

#[derive(Deserialize)]
struct NodeTable {
    address: Addresses,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Addresses {
    One(SocketAddr),
    Several(Vec<SocketAddr>),
}

/// Which volume, by a file `NAME.toml` in `volumes`, has its mirror link's port where somebody else would listen on
/// `address`. A file that cannot be read needs none: its daemon cannot read it either.
pub(super) fn needed_by(volumes: &Path, address: SocketAddr) -> Option<String> {
    let entries = fs::read_dir(volumes).into_iter().flatten();
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let files = paths.filter(|path| path.extension().is_some_and(|it| it == "toml"));
    let mut needing = files.filter_map(|path| {
        let text = fs::read_to_string(&path).ok()?;
        let file: VolumeFile = toml::from_str(&text).ok()?;
        let addresses = match file.node.address {
            Addresses::One(one) => vec![one],
            Addresses::Several(several) => several,
        };
        let name = path.file_stem()?.to_string_lossy().into_owned();
        addresses
            .into_iter()
            .any(|own| clash(own, address))
            .then_some(name)
    });
    needing.next()
}

/// Whether two sockets cannot listen on both: who listens on every address of the machine has each.
fn clash(one: SocketAddr, other: SocketAddr) -> bool {
    let is_any = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && (is_any || one.ip() == other.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_port_that_a_volume_listens_on_is_its_own() {
        let directory = tempfile::tempdir().expect("a directory");
        let volumes = directory.path().join("volumes");
        assert_eq!(needed_by(&volumes, address("10.0.0.1:7421")), None);
        fs::create_dir(&volumes).expect("a directory");
        let files = [
            ("broken.toml", "node = 3"),
            (
                "data.toml",
                "version = 1\n[node]\nname = \"a\"\naddress = \"10.0.0.1:7420\"\n[peer]\nname = \"b\"\naddress = \"10.0.0.2:7420\"\n",
            ),
            (
                "logs.toml",
                "[node]\nname = \"a\"\naddress = [\"10.0.0.1:7421\", \"10.1.0.1:7421\"]\n",
            ),
            ("old.toml.away", "[node]\naddress = \"10.2.0.1:7421\"\n"),
        ];
        for (name, text) in files {
            fs::write(volumes.join(name), text).expect("written");
        }
        let needed = |text: &str| needed_by(&volumes, address(text));
        assert_eq!(needed("10.0.0.1:7420").as_deref(), Some("data"));
        assert_eq!(needed("10.1.0.1:7421").as_deref(), Some("logs"));
        // The other node's is no concern of this one.
        assert_eq!(needed("10.0.0.2:7420"), None);
        assert_eq!(needed("10.2.0.1:7421"), None);
        assert_eq!(needed("0.0.0.0:7421").as_deref(), Some("logs"));
    }
}

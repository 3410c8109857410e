//! Both ends of a volume's mirror link: as they were typed, or as `cluster.toml` has the nodes.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use controlplane::config::Config;
use mirror_core::paths::PATHS_MAX;
use nix::unistd::gethostname;

use crate::args::Create;
use crate::config::{self, MIRROR_PORT, NodeAddress};
use crate::failure::Failure;

/// This node and the other one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) node: NodeAddress,
    pub(super) peer: NodeAddress,
}

/// The ends of a new volume.
pub(super) fn ends(create: &Create) -> Result<Ends, Failure> {
    let ends = wanted(create)?;
    refuse_interconnects(&ends, &config::directory().join("cluster.toml"))?;
    Ok(ends)
}

fn wanted(create: &Create) -> Result<Ends, Failure> {
    if let (Some(node), Some(peer)) = (&create.node, &create.peer) {
        return Ok(Ends {
            node: node.clone(),
            peer: peer.clone(),
        });
    }
    let host = gethostname().unwrap_or_default();
    let directory = config::directory();
    let ends = of_cluster(&directory.join("cluster.toml"), &host.to_string_lossy())?;
    refuse_taken(&create.name, &ends.node, &directory.join("volumes"))?;
    println!(
        "mirror link, as cluster.toml has the nodes: {} and {}",
        ends.node.to_argument(),
        ends.peer.to_argument()
    );
    Ok(ends)
}

/// The mirror link beside the heartbeats: a path on each of the first two interconnects.
fn of_cluster(file: &Path, node: &str) -> Result<Ends, Failure> {
    let config = Config::read(file, node).map_err(|error| {
        Failure::new(
            "LS1082",
            format!("the nodes' addresses were not typed, and the cluster's configuration does not tell them\n{error}"),
            "give --node and --peer; or see `lockstep config check`",
        )
    })?;
    let mut pairs: Vec<(SocketAddr, SocketAddr)> = Vec::new();
    for path in &config.interconnects {
        let at = |address: SocketAddr| SocketAddr::new(address.ip(), MIRROR_PORT);
        let (local, peer) = (at(path.local), at(path.peer));
        let known = pairs.iter().any(|pair| pair.0 == local || pair.1 == peer);
        if !known && pairs.len() < PATHS_MAX {
            pairs.push((local, peer));
        }
    }
    let (locals, peers) = pairs.into_iter().unzip();
    let end = |name: String, addresses: Vec<SocketAddr>| NodeAddress { name, addresses };
    Ok(Ends {
        node: end(config.name, locals),
        peer: end(config.peer_name, peers),
    })
}

/// Each volume needs sockets of its own, and both nodes the same ones: that is not guessed.
fn refuse_taken(name: &str, node: &NodeAddress, volumes: &Path) -> Result<(), Failure> {
    // One that was begun already is named for what it is when it is to be written.
    for volume in config::volumes().into_iter().filter(|it| it != name) {
        let path = volumes.join(format!("{volume}.toml"));
        let text =
            fs::read_to_string(&path).map_err(|error| Failure::file(&path, "read", &error))?;
        let taken = addresses(&text);
        if let Some(address) = node
            .addresses
            .iter()
            .find(|address| taken.contains(address))
        {
            return Err(Failure::new(
                "LS1083",
                format!("{address} is the address of the volume {volume} on this node already"),
                "give --node and --peer with another port, the same on both nodes",
            ));
        }
    }
    Ok(())
}

/// `lockstepd` listens on the interconnects for the other node. A `cluster.toml` that is not there or is not finished names none.
fn refuse_interconnects(ends: &Ends, file: &Path) -> Result<(), Failure> {
    let node = &ends.node;
    let Ok(config) = Config::read(file, &node.name) else {
        return Ok(());
    };
    let is_taken = |own: &&SocketAddr| {
        let mut paths = config.interconnects.iter();
        paths.any(|path| path.local == **own)
    };
    let Some(address) = node.addresses.iter().find(is_taken) else {
        return Ok(());
    };
    Err(Failure::new(
        "LS1083",
        format!("{address} is an interconnect in cluster.toml"),
        "give --node and --peer with another port, the same on both nodes",
    ))
}

/// This node's addresses in a volume's configuration.
fn addresses(text: &str) -> Vec<SocketAddr> {
    let table: toml::Table = text.parse().unwrap_or_default();
    let address = table.get("node").and_then(|node| node.get("address"));
    let words = match address {
        Some(toml::Value::Array(several)) => several.iter().collect(),
        Some(one) => vec![one],
        None => Vec::new(),
    };
    let words = words.into_iter().filter_map(toml::Value::as_str);
    words.filter_map(|word| word.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: &str = "version = 1\narbiter = \"manual\"\n\
        [nodes.node1]\ninterconnects = [\"10.0.0.1:7421\", \"10.0.0.1:7431\", \"10.1.0.1:7421\", \"10.2.0.1:7421\"]\n\
        [nodes.node2]\ninterconnects = [\"10.0.0.2:7421\", \"10.0.0.2:7431\", \"10.1.0.2:7421\", \"10.2.0.2:7421\"]\n\
        [groups.pg]\nvolumes = [\"data\"]\n";

    #[test]
    fn both_nodes_take_the_same_paths_out_of_the_same_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("cluster.toml");
        fs::write(&file, CLUSTER).unwrap();
        let one = of_cluster(&file, "node1").unwrap();
        assert_eq!(one.node.to_argument(), "node1=10.0.0.1:7420,10.1.0.1:7420");
        assert_eq!(one.peer.to_argument(), "node2=10.0.0.2:7420,10.1.0.2:7420");
        let two = of_cluster(&file, "node2").unwrap();
        assert_eq!((two.node, two.peer), (one.peer, one.node));
    }

    #[test]
    fn the_port_of_an_interconnect_is_no_volumes() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("cluster.toml");
        let end = |text: &str| text.parse::<NodeAddress>().unwrap();
        let ends = |port: u16| Ends {
            node: end(&format!("node1=10.1.0.1:{port}")),
            peer: end(&format!("node2=10.1.0.2:{port}")),
        };
        assert!(refuse_interconnects(&ends(7421), &file).is_ok());
        fs::write(&file, CLUSTER).unwrap();
        assert!(refuse_interconnects(&ends(7430), &file).is_ok());
        let taken = refuse_interconnects(&ends(7421), &file).unwrap_err();
        assert_eq!(taken.problem.code, "LS1083");
    }

    #[test]
    fn what_the_file_does_not_tell_is_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("cluster.toml");
        assert_eq!(
            of_cluster(&file, "node1").unwrap_err().problem.code,
            "LS1082"
        );
        fs::write(&file, CLUSTER).unwrap();
        let stranger = of_cluster(&file, "node3").unwrap_err().problem;
        assert_eq!(stranger.code, "LS1082");
        assert!(stranger.message.contains("node3"), "{}", stranger.message);
    }

    #[test]
    fn addresses_of_other_volumes_are_found_in_either_form() {
        let one = "[node]\nname = \"a\"\naddress = \"10.0.0.1:7420\"\n[tuning]\n";
        assert_eq!(addresses(one), ["10.0.0.1:7420".parse().unwrap()]);
        let two = "[node]\naddress = [\"10.0.0.1:7420\", \"[fd00::1]:7420\"]\n";
        assert_eq!(addresses(two).len(), 2);
        assert_eq!(addresses("no toml"), []);
    }
}

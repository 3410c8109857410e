//! `lockstep volume create`: configuration, key and metadata of this node's copy.

use std::fs;
use std::path::Path;

use controlplane::daemons::stopped;

use super::ends::{Ends, ends};
use crate::args::Create;
use crate::config::{self, VolumeConfig};
use crate::failure::Failure;
use crate::programs;

pub(crate) fn run(create: Create) -> Result<u8, Failure> {
    let path = config::path_of(&create.name)?;
    let ends = ends(&create)?;
    check_nodes(&ends)?;
    let key_file = create
        .key_file
        .clone()
        .unwrap_or_else(|| config::directory().join("cluster.key"));
    let key_made = prepare_key(&create, &ends, &key_file)?;
    let config = VolumeConfig::new(
        &create.name,
        create.backing.clone(),
        create.metadata.as_deref(),
        key_file.clone(),
        ends.node.clone(),
        ends.peer.clone(),
    );
    // A configuration without metadata yet is nothing that `lockstepd` may start a daemon with.
    let places = programs::places(&create.name);
    let _turn = programs::turn(&places)?;
    config.write_new(&path)?;
    // What was said about an earlier copy of this name does not hold for a new one; if there is a copy, it holds.
    let forgotten = stopped::clear(&places).map_err(Failure::from);
    if let Err(failure) = forgotten.and_then(|()| format_device(&create, &path)) {
        // Without metadata the configuration would only stand in the way of the next try.
        fs::remove_file(&path).map_err(|error| Failure::file(&path, "remove", &error))?;
        return Err(failure);
    }
    print!("{}", next_steps(&create, &ends, &key_file, key_made));
    Ok(0)
}

fn check_nodes(ends: &Ends) -> Result<(), Failure> {
    let advice = "give each node a name and an address of its own";
    let Ends { node, peer } = ends;
    if node.name == peer.name {
        return Err(Failure::new(
            "LS4005",
            format!("both nodes are called {}", node.name),
            advice,
        ));
    }
    if let Some(address) = node.addresses.iter().find(|a| peer.addresses.contains(a)) {
        return Err(Failure::new(
            "LS4005",
            format!("both nodes have the address {address}"),
            advice,
        ));
    }
    let (ours, theirs) = (node.addresses.len(), peer.addresses.len());
    if ours != theirs {
        return Err(Failure::new(
            "LS4005",
            format!(
                "{} has {ours} addresses and {} has {theirs}",
                node.name, peer.name
            ),
            "give both nodes as many addresses: the first of one is connected with the first of the other, \
             the second with the second",
        ));
    }
    Ok(())
}

/// The first node makes a key; the second must have got it.
fn prepare_key(create: &Create, ends: &Ends, key_file: &Path) -> Result<bool, Failure> {
    if create.join && !key_file.exists() {
        let (peer, file) = (&ends.peer.name, key_file.display());
        return Err(Failure::new(
            "LS4009",
            format!("the cluster key {file} is not there"),
            format!("both nodes need the same key; from {peer}:\n  scp -p {peer}:{file} {file}"),
        ));
    }
    config::make_key_if_missing(key_file)
}

fn format_device(create: &Create, config: &Path) -> Result<(), Failure> {
    let mut command = programs::mirror();
    command.arg("format").arg("--config").arg(config);
    command.args(format_options(create));
    programs::with_run_directory(&mut command);
    let status = command
        .status()
        .map_err(|error| programs::not_found(&error))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(
        "LS4007",
        format!(
            "the metadata of {} could not be made ({status})",
            create.backing.display()
        ),
        "the lines above say why; no configuration was left behind",
    ))
}

fn format_options(create: &Create) -> Vec<String> {
    let mut options: Vec<String> = Vec::new();
    for (wanted, option) in [(create.join, "--join"), (create.force, "--force")] {
        options.extend(wanted.then(|| option.to_owned()));
    }
    for name in &create.confirm {
        options.extend(["--confirm".to_owned(), name.clone()]);
    }
    for (option, bytes) in [
        ("--size", create.size),
        ("--grow-to", create.grow_to),
        ("--bitmap-block", create.bitmap_block),
    ] {
        if let Some(bytes) = bytes {
            options.extend([option.to_owned(), bytes.to_string()]);
        }
    }
    options
}

fn next_steps(create: &Create, ends: &Ends, key_file: &Path, key_made: bool) -> String {
    let Create { name, .. } = create;
    let Ends { node, peer } = ends;
    if create.join {
        return format!(
            "{name}: the copy on {} is made; {} will fill it.\n\
             next, here, if no lockstepd with {name} in a group runs (it starts it):\n\
             \x20      lockstep volume start {name}\n",
            node.name, peer.name
        );
    }
    let key = key_file.display();
    let made = if key_made {
        format!(" (made now: {key}, keep it secret)")
    } else {
        String::new()
    };
    let metadata = create.metadata.as_ref().map_or_else(String::new, |path| {
        format!(" --metadata {}", path.display())
    });
    let key_option = create.key_file.as_ref().map_or_else(String::new, |path| {
        format!(" --key-file {}", path.display())
    });
    let size = create
        .size
        .map_or_else(String::new, |size| format!(" --size {size}"));
    let grow = create
        .grow_to
        .map_or_else(String::new, |size| format!(" --grow-to {size}"));
    let bitmap = create
        .bitmap_block
        .map_or_else(String::new, |size| format!(" --bitmap-block {size}"));
    let directory = key_file.parent().unwrap_or(Path::new("/")).display();
    format!(
        "{name}: the first copy is made on {node}.\n\
         next, the other copy:\n\
         \x20 1. copy the key to {peer}{made}, if it did not join the cluster:\n\
         \x20      ssh {peer} mkdir -p {directory} && scp -p {key} {peer}:{key}\n\
         \x20 2. on {peer}, with its own device (what is on it is lost):\n\
         \x20      lockstep volume create {name} --join --backing {backing}{metadata}{key_option}{size}{grow}{bitmap} \
         --node {peer_argument} --peer {node_argument}\n\
         a lockstepd with {name} in a group does the rest; without it:\n\
         \x20 3. on both nodes:\n\
         \x20      lockstep volume start {name}\n\
         \x20 4. here, when both are connected:\n\
         \x20      lockstep volume activate {name}\n",
        backing = create.backing.display(),
        node = node.name,
        peer = peer.name,
        node_argument = node.to_argument(),
        peer_argument = peer.to_argument(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn of(node: &str, peer: &str) -> Ends {
        Ends {
            node: node.parse().unwrap(),
            peer: peer.parse().unwrap(),
        }
    }

    fn example() -> Create {
        Create {
            name: "data".to_string(),
            backing: PathBuf::from("/dev/vdb"),
            metadata: None,
            node: None,
            peer: None,
            key_file: None,
            join: false,
            force: false,
            confirm: Vec::new(),
            size: Some(1 << 30),
            grow_to: None,
            bitmap_block: None,
        }
    }

    #[test]
    fn addresses_that_make_no_pairs_are_refused() {
        let why = |node: &str, peer: &str| {
            let failure = check_nodes(&of(node, peer)).unwrap_err();
            assert_eq!(failure.problem.code, "LS4005");
            failure.problem.message
        };
        let two = "node1=10.77.3.1,10.77.4.1";
        assert!(check_nodes(&of(two, "node2=10.77.3.2,10.77.4.2")).is_ok());
        assert_eq!(
            why(two, "node2=10.77.3.2"),
            "node1 has 2 addresses and node2 has 1"
        );
        assert_eq!(
            why(two, "node2=10.77.3.2,10.77.3.1"),
            "both nodes have the address 10.77.3.1:7420"
        );
    }

    #[test]
    fn the_command_for_the_other_node_can_be_copied() {
        let ends = of("node1=10.77.3.1:7420", "node2=10.77.3.2:7420,10.77.4.2");
        let key = Path::new("/etc/lockstep/cluster.key");
        let text = next_steps(&example(), &ends, key, true);
        let command = "lockstep volume create data --join --backing /dev/vdb --size 1073741824 \
                       --node node2=10.77.3.2:7420,10.77.4.2:7420 --peer node1=10.77.3.1:7420\n";
        assert!(text.contains(command), "{text}");
        assert!(
            text.contains("scp -p /etc/lockstep/cluster.key node2:/etc/lockstep/cluster.key"),
            "{text}"
        );
        let larger = Create {
            bitmap_block: Some(65536),
            ..example()
        };
        let text = next_steps(&larger, &ends, key, true);
        assert!(
            text.contains("--size 1073741824 --bitmap-block 65536 --node"),
            "{text}"
        );
    }

    #[test]
    fn what_was_asked_for_is_asked_of_the_data_plane() {
        assert_eq!(format_options(&example()).join(" "), "--size 1073741824");
        let over_two = Create {
            join: true,
            force: true,
            confirm: vec!["old".into(), "older".into()],
            bitmap_block: Some(65536),
            ..example()
        };
        assert_eq!(
            format_options(&over_two).join(" "),
            "--join --force --confirm old --confirm older --size 1073741824 --bitmap-block 65536"
        );
    }
}

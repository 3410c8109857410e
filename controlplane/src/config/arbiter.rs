//! Who decides where the nodes cannot: `arbiter`, `[witness]`, `[etcd]`, `[ping]`; and `[clients]`.

use std::net::IpAddr;
use std::path::PathBuf;

use controlplane_core::keeper::ArbiterKind;

use super::findings::{CONFLICT, Finding, MISSING};
use super::format::listed;
use super::nodes::Node;
use super::reader::Reader;
use super::spot::Spot;
use crate::etcd::Endpoint;

/// Where an arbiter's registers are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegisterKeeper {
    /// A witness listens there.
    Witness(String),
    /// etcd.
    Etcd {
        /// Its members.
        endpoints: Vec<Endpoint>,
        /// With what it is trusted; absent if it is on this machine only.
        files: Option<EtcdFiles>,
        /// The name in its certificates, if it is not the endpoint's.
        server_name: Option<String>,
    },
}

/// Files of the trust between a node and etcd, PEM each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdFiles {
    /// The authority that signed etcd's certificates.
    pub authority: PathBuf,
    /// This node's certificate for etcd, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Tables of arbiters, and the key without which nobody knows where it is.
const TABLES: [(&str, &str); 3] = [
    ("witness", "address"),
    ("etcd", "endpoints"),
    ("ping", "targets"),
];

pub(super) fn arbiter(
    reader: &mut Reader,
    root: &Spot<'_>,
) -> Option<(ArbiterKind, Option<RegisterKeeper>)> {
    // Looked at also where it is not used: it would be as wrong on the day on which it is.
    let etcd = root.get("etcd").map(|table| etcd_of(reader, &table));
    let named = root.get("arbiter");
    let there: Vec<&str> = TABLES
        .map(|(table, _)| table)
        .into_iter()
        .filter(|table| root.get(table).is_some())
        .collect();
    let name = match (&named, there.as_slice()) {
        (Some(named), _) => named.text()?,
        (None, []) => "manual",
        (None, [one]) => one,
        (None, [.., last]) => {
            let tables: Vec<String> = there.iter().map(|table| format!("[{table}]")).collect();
            let all = if tables.len() == 2 { "both " } else { "" };
            let what = format!(
                "{all}{} are there, and `arbiter` is not",
                tables.join(" and ")
            );
            let at = root.get(last).map(|table| table.name_at)?;
            let finding = Finding::error(CONFLICT, *last, at, what)
                .why("two arbiters could decide differently, and both nodes would serve")
                .advice(format!(
                    "remove one of them, or add arbiter = {} at the top of the file",
                    listed(&there, "or")
                ));
            reader.add(finding);
            return None;
        }
    };
    match (name, etcd) {
        ("witness", _) if root.get("witness").is_some() => {
            let address = root.get("witness")?.get("address")?.text()?.to_string();
            let keeper = RegisterKeeper::Witness(address);
            Some((ArbiterKind::Register, Some(keeper)))
        }
        ("etcd", Some(keeper)) => Some((ArbiterKind::Register, Some(keeper?))),
        ("ping", _) if root.get("ping").is_some() => Some((ArbiterKind::Ping, None)),
        ("manual", _) => Some((ArbiterKind::Manual, None)),
        ("none", _) => Some((ArbiterKind::Nobody, None)),
        (name, _) => {
            // What is none of these was told by its form.
            let (table, key) = TABLES.iter().find(|(table, _)| *table == name)?;
            let named = named?;
            let what = format!("the arbiter is {table:?}, and there is no table [{table}]");
            let finding = Finding::error(MISSING, named.key, named.at, what)
                .why("nobody knows where it is")
                .advice(format!("add a table [{table}] with `{key}`"));
            reader.add(finding);
            None
        }
    }
}

/// The targets in `[ping]` or `[clients]`: none is a node, for a node always reaches itself.
pub(super) fn targets(
    reader: &mut Reader,
    root: &Spot<'_>,
    table: &str,
    nodes: Option<&[Node; 2]>,
) -> Vec<IpAddr> {
    let list = root.get(table).and_then(|table| table.get("targets"));
    let mut targets: Vec<IpAddr> = Vec::new();
    for item in list.into_iter().flat_map(|list| list.items()) {
        let Some(target) = item.text().and_then(|text| text.parse().ok()) else {
            continue;
        };
        let own = |node: &&Node| node.interconnects.iter().any(|own| own.ip() == target);
        if let Some(node) = nodes.into_iter().flatten().find(own) {
            let what = format!("{target} is an address of {}", node.name);
            let finding = Finding::error(CONFLICT, item.key, item.at, what)
                .why("a node always reaches itself, so this target would tell it nothing")
                .advice("name a host that is none of the nodes, such as the gateway");
            reader.add(finding);
        } else if targets.contains(&target) {
            let what = format!("{target} is there twice");
            let finding = Finding::error(CONFLICT, item.key, item.at, what)
                .why("the same host answers both times")
                .advice("remove one of them");
            reader.add(finding);
        } else {
            targets.push(target);
        }
    }
    targets
}

fn etcd_of(reader: &mut Reader, table: &Spot<'_>) -> Option<RegisterKeeper> {
    let text = |name: &str| table.get(name).and_then(|spot| spot.text());
    let authority = text("authority");
    let items = table.get("endpoints").map(|list| list.items());
    let mut endpoints = Vec::new();
    for item in items.into_iter().flatten() {
        let Some(endpoint) = item.text().and_then(|text| text.parse::<Endpoint>().ok()) else {
            continue;
        };
        if !endpoint.is_loopback() && authority.is_none() {
            let what = format!("{endpoint} would be asked without TLS");
            let finding = Finding::error(MISSING, item.key, item.at, what)
                .why("whoever is on the way could answer in etcd's name; only a loopback address may do without")
                .advice("add authority = \"FILE\" to [etcd]: who signed etcd's certificates");
            reader.add(finding);
        }
        endpoints.push(endpoint);
    }
    for (have, need) in [("certificate", "key"), ("key", "certificate")] {
        if let (Some(have_at), None) = (table.get(have), table.get(need)) {
            let what = format!("`{have}` without `{need}`");
            let finding = Finding::error(MISSING, have_at.key, have_at.at, what)
                .why("a node proves who it is with both")
                .advice(format!("add {need} = \"FILE\", or remove `{have}`"));
            reader.add(finding);
        }
    }
    let identity = text("certificate").zip(text("key"));
    let files = authority.map(|authority| EtcdFiles {
        authority: authority.into(),
        identity: identity.map(|(certificate, key)| (certificate.into(), key.into())),
    });
    (!endpoints.is_empty()).then(|| RegisterKeeper::Etcd {
        endpoints,
        files,
        server_name: text("server_name").map(str::to_string),
    })
}

//! Who decides where the nodes cannot: `arbiter`, `[witness]`, `[etcd]`.

use std::path::PathBuf;

use controlplane_core::keeper::ArbiterKind;

use super::findings::{CONFLICT, Finding, MISSING};
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

pub(super) fn arbiter(
    reader: &mut Reader,
    root: &Spot<'_>,
) -> Option<(ArbiterKind, Option<RegisterKeeper>)> {
    let (witness, etcd) = (root.get("witness"), root.get("etcd"));
    // Looked at also where it is not used: it would be as wrong on the day on which it is.
    let etcd_keeper = etcd.as_ref().map(|table| etcd_of(reader, table));
    let named = root.get("arbiter");
    let name = match (&named, &witness, &etcd) {
        (Some(named), ..) => named.text()?,
        (None, Some(_), Some(etcd)) => {
            let what = "both [witness] and [etcd] are there, and `arbiter` is not";
            let finding = Finding::error(CONFLICT, "etcd", etcd.name_at.clone(), what)
                .why("two arbiters could decide differently, and both nodes would serve")
                .advice("remove one of them, or add arbiter = \"witness\" or \"etcd\" at the top of the file");
            reader.add(finding);
            return None;
        }
        (None, Some(_), None) => "witness",
        (None, None, Some(_)) => "etcd",
        (None, None, None) => "manual",
    };
    match (name, witness, etcd_keeper) {
        ("witness", Some(table), _) => {
            let address = table.get("address")?.text()?.to_string();
            let keeper = RegisterKeeper::Witness(address);
            Some((ArbiterKind::Register, Some(keeper)))
        }
        ("etcd", _, Some(keeper)) => Some((ArbiterKind::Register, Some(keeper?))),
        ("manual", ..) => Some((ArbiterKind::Manual, None)),
        ("none", ..) => Some((ArbiterKind::Nobody, None)),
        (missing @ ("witness" | "etcd"), ..) => {
            let named = named?;
            let what = format!("the arbiter is {missing:?}, and there is no table [{missing}]");
            let key = if missing == "etcd" {
                "endpoints"
            } else {
                "address"
            };
            let finding = Finding::error(MISSING, named.key, named.at, what)
                .why("nobody knows where it is")
                .advice(format!("add a table [{missing}] with `{key}`"));
            reader.add(finding);
            None
        }
        // Told by its form.
        _ => None,
    }
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

//! Who decides where the nodes cannot: `arbiter`, `[witness]`, `[etcd]`.

use std::path::PathBuf;

use controlplane_core::keeper::ArbiterKind;
use serde::Deserialize;
use toml::Spanned;

use super::{ConfigError, Place};
use crate::etcd::Endpoint;

const ENDPOINTS_MAX: usize = 9;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WitnessTable {
    address: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EtcdTable {
    endpoints: Spanned<Vec<Spanned<String>>>,
    authority: Option<PathBuf>,
    certificate: Option<Spanned<PathBuf>>,
    key: Option<Spanned<PathBuf>>,
    server_name: Option<Spanned<String>>,
}

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
    place: &Place<'_>,
    named: Option<&Spanned<String>>,
    witness: Option<WitnessTable>,
    etcd: Option<EtcdTable>,
) -> Result<(ArbiterKind, Option<RegisterKeeper>), ConfigError> {
    let name = match (named, &witness, &etcd) {
        (Some(named), ..) => named.get_ref().as_str(),
        (None, Some(_), Some(table)) => {
            let both = "with [witness] as well, arbiter = \"witness\" or \"etcd\" says which one";
            return Err(place.value_of(&table.endpoints, "etcd", String::new(), both.to_string()));
        }
        (None, Some(_), None) => "witness",
        (None, None, Some(_)) => "etcd",
        (None, None, None) => "manual",
    };
    let refuse = |allowed: &str| {
        let named = named.ok_or_else(|| ConfigError::Syntax {
            path: place.path.to_path_buf(),
            line: 1,
            message: allowed.to_string(),
        })?;
        Err(place.value(named, "arbiter", allowed.to_string()))
    };
    match (name, witness, etcd) {
        ("witness", Some(table), _) => {
            let keeper = RegisterKeeper::Witness(table.address);
            Ok((ArbiterKind::Register, Some(keeper)))
        }
        ("etcd", _, Some(table)) => Ok((ArbiterKind::Register, Some(etcd_of(place, table)?))),
        ("manual", ..) => Ok((ArbiterKind::Manual, None)),
        ("none", ..) => Ok((ArbiterKind::Nobody, None)),
        ("witness", None, _) => refuse("with a table [witness]"),
        ("etcd", _, None) => refuse("with a table [etcd]"),
        _ => refuse("\"witness\", \"etcd\", \"manual\" or \"none\""),
    }
}

fn etcd_of(place: &Place<'_>, table: EtcdTable) -> Result<RegisterKeeper, ConfigError> {
    let listed = table.endpoints.get_ref();
    if listed.is_empty() || listed.len() > ENDPOINTS_MAX {
        let value = format!("{} of them", listed.len());
        let allowed = format!("1 to {ENDPOINTS_MAX} addresses, HOST:PORT");
        return Err(place.value_of(&table.endpoints, "endpoints", value, allowed));
    }
    let mut endpoints = Vec::new();
    for text in listed {
        let endpoint: Endpoint = text
            .get_ref()
            .parse()
            .map_err(|why| place.value(text, "endpoints", format!("{why}")))?;
        if !endpoint.is_loopback() && table.authority.is_none() {
            let allowed =
                "with authority = \"FILE\", who signed etcd's certificates; only a loopback address may do without"
                    .to_string();
            return Err(place.value(text, "endpoints", allowed));
        }
        endpoints.push(endpoint);
    }
    let identity = match (table.certificate, table.key) {
        (Some(certificate), Some(key)) => Some((certificate.into_inner(), key.into_inner())),
        (None, None) => None,
        (Some(path), None) => return Err(lonely(place, &path, "certificate", "key")),
        (None, Some(path)) => return Err(lonely(place, &path, "key", "certificate")),
    };
    if let Some(name) = &table.server_name
        && rustls::pki_types::ServerName::try_from(name.get_ref().as_str()).is_err()
    {
        return Err(place.value(name, "server_name", "the name in a certificate".to_string()));
    }
    let files = table.authority.map(|authority| EtcdFiles {
        authority,
        identity,
    });
    Ok(RegisterKeeper::Etcd {
        endpoints,
        files,
        server_name: table.server_name.map(Spanned::into_inner),
    })
}

fn lonely(
    place: &Place<'_>,
    path: &Spanned<PathBuf>,
    key: &'static str,
    missing: &str,
) -> ConfigError {
    let value = path.get_ref().display().to_string();
    place.value_of(path, key, value, format!("with {missing} = \"FILE\""))
}

//! Monitors of groups in the configuration.

use std::net::IpAddr;

use controlplane_core::monitor::{OnError, Policy};

use super::findings::{CONFLICT, Finding, MISSING, NO_SUCH_NAME};
use super::reader::Reader;
use super::resources::{count, names_once, time};
use super::spot::{Spot, join};
use crate::monitors::{Ip, Kind, Mirror, Nic, Script};

/// A monitor of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Monitor {
    /// Its name, within the group.
    pub name: String,
    /// What it looks at.
    pub kind: Kind,
    /// When, and what follows.
    pub policy: Policy,
}

/// `resources` are the group's. `None`: something is wrong with one, and was told.
pub(super) fn monitors(
    reader: &mut Reader,
    group: &Spot<'_>,
    resources: &[Spot<'_>],
) -> Option<Vec<Monitor>> {
    let Some(list) = group.get("monitors") else {
        return Some(Vec::new());
    };
    let items = list.items();
    names_once(reader, &items, "monitor");
    if resources.is_empty() && !items.is_empty() {
        let what = format!("the group {:?} has monitors and no resources", group.name);
        let finding = Finding::error(CONFLICT, list.key, list.at, what)
            .why("monitors look while everything of the group runs, and nothing of it ever does")
            .advice("give the group a resource, or remove its monitors");
        reader.add(finding);
    }
    let read = items
        .iter()
        .map(|item| monitor(reader, item, group, resources));
    let read: Vec<Option<Monitor>> = read.collect();
    read.into_iter().collect()
}

fn monitor(
    reader: &mut Reader,
    item: &Spot<'_>,
    group: &Spot<'_>,
    resources: &[Spot<'_>],
) -> Option<Monitor> {
    // Before anything returns: what follows is looked at in any case.
    let on_error = on_error(reader, item, resources);
    let default = Policy::default();
    let interval = time(item, "interval_ms").unwrap_or(default.interval);
    let policy = Policy {
        delay: time(item, "delay_ms").unwrap_or(interval),
        interval,
        timeout: time(item, "timeout_ms").unwrap_or(default.timeout),
        retries: count(item, "retries").unwrap_or(default.retries),
        on_error: on_error?,
    };
    Some(Monitor {
        name: item.get("name")?.text()?.to_string(),
        kind: kind(item, group)?,
        policy,
    })
}

fn kind(item: &Spot<'_>, group: &Spot<'_>) -> Option<Kind> {
    let kind = match item.get("kind")?.text()? {
        "script" => Kind::Script(Script {
            command: item.get("command")?.texts()?,
        }),
        "nic" => Kind::Nic(Nic {
            interface: item.get("interface")?.text()?.to_string(),
        }),
        "ip" => {
            let targets = item.get("targets")?.texts()?;
            let targets = targets.iter().map(|text| text.parse::<IpAddr>().ok());
            Kind::Ip(Ip {
                targets: targets.collect::<Option<_>>()?,
            })
        }
        "mirror" => Kind::Mirror(Mirror {
            volumes: group.get("volumes")?.texts()?,
        }),
        _ => return None,
    };
    Some(kind)
}

fn on_error(reader: &mut Reader, item: &Spot<'_>, resources: &[Spot<'_>]) -> Option<OnError> {
    let said = item.get("on_error").and_then(|spot| spot.text());
    let named = item.get("resource");
    match (said, named) {
        (Some("restart"), None) => {
            let what = "on_error = \"restart\" without `resource`";
            let key = join(&item.key, "resource");
            let finding = Finding::error(MISSING, key, item.at.clone(), what)
                .why("one resource of the group is stopped and started again, with all that started after it")
                .advice(match names(resources).as_slice() {
                    [] => "add resource = \"NAME\"".to_string(),
                    names => format!("add resource = \"NAME\", one of {}", names.join(", ")),
                });
            reader.add(finding);
            None
        }
        (Some("restart"), Some(spot)) => {
            let name = spot.text()?;
            let place = |own: &Spot<'_>| own.get("name").and_then(|own| own.text()) == Some(name);
            if let Some(resource) = resources.iter().position(place) {
                return Some(OnError::Restart { resource });
            }
            let names = names(resources);
            let finding = Finding::error(
                NO_SUCH_NAME,
                spot.key,
                spot.at,
                format!("the group has no resource {name:?}"),
            )
            .why("a monitor restarts a resource of its own group")
            .advice(match names.as_slice() {
                [] => "give the group that resource".to_string(),
                names => format!("name one of {}", names.join(", ")),
            })
            .meant(name, names.iter().copied());
            reader.add(finding);
            None
        }
        (_, Some(spot)) => {
            let what = "`resource` without on_error = \"restart\"";
            let finding = Finding::error(CONFLICT, spot.key, spot.at, what)
                .why("nothing is done with the resource otherwise")
                .advice("add on_error = \"restart\", or remove the key");
            reader.add(finding);
            None
        }
        (Some("failover"), None) => Some(OnError::Failover),
        (Some(_) | None, None) => Some(OnError::Warn),
    }
}

fn names<'a>(resources: &[Spot<'a>]) -> Vec<&'a str> {
    let name = |own: &Spot<'a>| own.get("name").and_then(|name| name.text());
    resources.iter().filter_map(name).collect()
}

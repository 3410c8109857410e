//! What a text in the file has to look like.

use std::net::{IpAddr, SocketAddr};
use std::path::{Component, Path, PathBuf};

use controlplane_api::paths::volume_name_is_legal;
use rustls::pki_types::ServerName;

use crate::etcd::Endpoint;

pub(super) const LEGAL_NAME: &str =
    "up to 63 of a-z, 0-9, '-', '_' and '.', beginning with a letter or a digit";
/// The port of heartbeats in all examples.
const INTERCONNECT_PORT: u16 = 7421;

/// Instead of a device.
pub(super) const NO_DEVICE: &str = "none";

/// A text's form.
#[derive(Clone, Copy, Debug)]
pub(super) enum Format {
    Any,
    /// Of what.
    Name(&'static str),
    Choice {
        of: &'static [&'static str],
        what: &'static str,
        /// Why there are no others.
        why: &'static str,
    },
    /// `IP:PORT`, as the other node reaches it.
    Interconnect,
    /// `HOST:PORT`.
    HostPort,
    /// An address, without a port.
    Address,
    ServerName,
    MountPoint,
    /// An address with the length of its network.
    Prefix,
    /// A unit of systemd.
    Unit,
    /// The path of a device.
    Device,
    /// The same, or "none".
    DeviceOrNone,
}

/// Why a text is refused.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) what: String,
    pub(super) why: String,
    pub(super) advice: String,
    /// One of these may have been meant.
    pub(super) names: &'static [&'static str],
}

fn wrong(
    what: impl Into<String>,
    why: impl Into<String>,
    advice: impl Into<String>,
) -> Result<(), Wrong> {
    Err(Wrong {
        what: what.into(),
        why: why.into(),
        advice: advice.into(),
        names: &[],
    })
}

impl Format {
    /// Whether a text has this form.
    pub(super) fn judge(self, text: &str) -> Result<(), Wrong> {
        match self {
            Self::Any => Ok(()),
            Self::Name(_) if volume_name_is_legal(text) => Ok(()),
            Self::Name(of) => wrong(
                format!("{text:?} cannot be the name of a {of}"),
                "it becomes a part of paths and commands",
                format!("use {LEGAL_NAME}"),
            ),
            Self::Choice { of, what, why } => choice(text, of, what, why),
            Self::Interconnect => interconnect(text),
            Self::HostPort => host_port(text),
            Self::Address => address(text),
            Self::ServerName if ServerName::try_from(text).is_ok() => Ok(()),
            Self::ServerName => wrong(
                format!("{text:?} cannot be a name in a certificate"),
                "etcd's certificate is compared with it",
                "write the DNS name or address that the certificate has, or leave the key out",
            ),
            Self::MountPoint => judge_mount_point(text),
            Self::Prefix => prefix(text).map(|_| ()),
            Self::Unit if unit_is_legal(text) => Ok(()),
            Self::Unit => wrong(
                format!("{text:?} cannot be the name of a unit of systemd"),
                "systemctl is asked for exactly this name",
                format!(
                    "write it with its suffix, such as \"NAME.service\"; suffixes: {}",
                    UNITS.join(", ")
                ),
            ),
            Self::DeviceOrNone if text == NO_DEVICE => Ok(()),
            Self::Device | Self::DeviceOrNone => device(text),
        }
    }
}

/// What a unit's name may end with.
const UNITS: [&str; 7] = [
    "service", "target", "socket", "mount", "timer", "scope", "slice",
];
/// systemd's own bound.
const UNIT_BYTES_MAX: usize = 255;

/// Whether `systemctl` takes it for one unit, and for no option or pattern.
pub(super) fn unit_is_legal(text: &str) -> bool {
    let known =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '_' | '.' | '\\' | '@' | '-');
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    let suffix = text.rsplit_once('.').map(|(_, suffix)| suffix);
    let ends = suffix.is_some_and(|suffix| UNITS.contains(&suffix));
    begins && ends && text.len() <= UNIT_BYTES_MAX && text.chars().all(known)
}

/// `"a", "b" or "c"`.
pub(super) fn listed(names: &[&str], word: &str) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    match quoted.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} {word} {last}", first.join(", ")),
    }
}

fn choice(text: &str, of: &'static [&'static str], what: &str, why: &str) -> Result<(), Wrong> {
    if of.contains(&text) {
        return Ok(());
    }
    let article = if what.starts_with(['a', 'e', 'i', 'o']) {
        "an"
    } else {
        "a"
    };
    Err(Wrong {
        what: format!("{text:?} is not {article} {what} that Lockstep knows"),
        why: why.to_string(),
        advice: format!("write {}", listed(of, "or")),
        names: of,
    })
}

fn device(text: &str) -> Result<(), Wrong> {
    if text.starts_with('/') && !text.contains('\0') {
        return Ok(());
    }
    wrong(
        format!("{text:?} is no path of a device"),
        "it is opened when services start, wherever lockstepd was started",
        "write an absolute path, such as \"/dev/watchdog\"",
    )
}

fn interconnect(text: &str) -> Result<(), Wrong> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        let advice = format!(
            "add it, such as \"{}\"",
            SocketAddr::new(ip, INTERCONNECT_PORT)
        );
        return wrong(
            format!("{text:?} has no port"),
            "both nodes have to agree on one",
            advice,
        );
    }
    let Ok(address) = text.parse::<SocketAddr>() else {
        return wrong(
            format!("{text:?} is no IP address with a port"),
            "host names are not looked up, so that a name server cannot stop the heartbeats",
            format!(
                "write IP:PORT, such as \"10.0.0.1:{INTERCONNECT_PORT}\" or \"[fd00::1]:{INTERCONNECT_PORT}\""
            ),
        );
    };
    if address.port() == 0 {
        return wrong(
            format!("{text:?} has port 0"),
            "port 0 stands for any free port, and the other node would not know which",
            format!("name one, such as {INTERCONNECT_PORT}"),
        );
    }
    if address.ip().is_unspecified() || address.ip().is_multicast() {
        return wrong(
            format!("{text:?} is no address of one machine"),
            "the other node sends its heartbeats there",
            "write the address that this node has in the interconnect's network",
        );
    }
    Ok(())
}

fn address(text: &str) -> Result<(), Wrong> {
    let advice = "write an IP address, such as \"10.0.0.254\"";
    let Ok(address) = text.parse::<IpAddr>() else {
        return wrong(
            format!("{text:?} is no IP address"),
            "host names are not looked up, so that a name server cannot decide; a ping has no port",
            advice,
        );
    };
    if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
        let why = "a target has to be another machine, and one of them";
        return wrong(
            format!("{text:?} is no address of one other machine"),
            why,
            advice,
        );
    }
    Ok(())
}

fn host_port(text: &str) -> Result<(), Wrong> {
    let advice = "write HOST:PORT, a name or an address, without https";
    if text.contains("://") {
        let why = "the connection is always TLS; there is no choice to write here";
        return wrong(format!("{text:?} is a URL"), why, advice);
    }
    if text.parse::<Endpoint>().is_err() {
        let ported = text
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let (what, why) = if ported {
            (
                "has no name of a host before its port",
                "names have letters, digits, hyphens and dots",
            )
        } else {
            (
                "has no port",
                "it depends on how it was started there, so it is not guessed",
            )
        };
        return wrong(format!("{text:?} {what}"), why, advice);
    }
    if text.ends_with(":0") {
        let why = "nothing listens on port 0";
        return wrong(format!("{text:?} has port 0"), why, advice);
    }
    Ok(())
}

/// The path of a mount, without double or trailing slashes: it is compared with what the kernel says.
pub(super) fn mount_point(text: &str) -> Option<PathBuf> {
    let path: PathBuf = Path::new(text).components().collect();
    let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    let whole = path.is_absolute() && path.parent().is_some() && path.components().all(plain);
    whole.then_some(path)
}

fn judge_mount_point(text: &str) -> Result<(), Wrong> {
    if mount_point(text).is_some() {
        return Ok(());
    }
    let (what, why) = if !text.starts_with('/') {
        (
            "is not absolute",
            "it would depend on where lockstepd was started",
        )
    } else if Path::new(text).parent().is_none() {
        ("is the root", "the machine's own file system is there")
    } else {
        (
            "has \"..\" in it",
            "it is compared with what the kernel says, which has none",
        )
    };
    wrong(
        format!("{text:?} {what}"),
        why,
        "write an absolute path other than /, without \"..\"",
    )
}

/// The address and the length of its network.
pub(super) fn prefix(text: &str) -> Result<(IpAddr, u8), Wrong> {
    let refused = |what: String, why: &str| {
        let advice = "write an address and its network's length, such as \"10.0.0.20/24\" or \"fd00::20/64\"";
        Wrong {
            what,
            why: why.to_string(),
            advice: advice.to_string(),
            names: &[],
        }
    };
    let Some((address, length)) = text.split_once('/') else {
        let why = "without it the machine would not know which hosts are near";
        return Err(refused(
            format!("{text:?} has no length of its network"),
            why,
        ));
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        let why = "the address itself is given to an interface; names are not looked up";
        return Err(refused(
            format!("{text:?} does not begin with an IP address"),
            why,
        ));
    };
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let length = length
        .parse::<u8>()
        .ok()
        .filter(|length| (1..=bits).contains(length));
    let Some(length) = length else {
        let why = format!("the length is 1 to {bits} bits here");
        return Err(refused(format!("{text:?} has an impossible length"), &why));
    };
    if address.is_loopback() || address.is_multicast() || address.is_unspecified() {
        let why = "clients on other machines have to reach it";
        let mut wrong = refused(format!("{text:?} is no address of one machine"), why);
        wrong.advice = "write the address that clients use".to_string();
        return Err(wrong);
    }
    Ok((address, length))
}

//! The carrier of an interface, as the kernel tells it.

use std::fs;
use std::io;
use std::path::Path;

use super::Ill;

/// States of an interface that can be used; those without a link layer of their own say that they do not know.
const GOOD: [&str; 2] = ["up", "unknown"];

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// Its name.
    pub interface: String,
}

impl Nic {
    pub(super) fn look(&self, interfaces: &Path) -> Result<(), Ill> {
        let read = |name: &str| -> io::Result<String> {
            let text = fs::read_to_string(interfaces.join(&self.interface).join(name))?;
            Ok(text.trim().to_string())
        };
        let failed = |source| Ill::Interface {
            interface: self.interface.clone(),
            source,
        };
        let state = read("operstate").map_err(failed)?;
        // An interface that is down has none that could be read.
        let carrier = read("carrier").unwrap_or_default();
        if carrier == "1" && GOOD.contains(&state.as_str()) {
            return Ok(());
        }
        Err(Ill::NoCarrier {
            interface: self.interface.clone(),
            state,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(carrier: Option<&str>, state: &str) -> Result<(), Ill> {
        let directory = tempfile::tempdir().expect("a directory");
        let own = directory.path().join("eth0");
        fs::create_dir(&own).expect("a directory");
        fs::write(own.join("operstate"), format!("{state}\n")).expect("a state");
        if let Some(carrier) = carrier {
            fs::write(own.join("carrier"), format!("{carrier}\n")).expect("a carrier");
        }
        let nic = Nic {
            interface: "eth0".to_string(),
        };
        nic.look(directory.path())
    }

    #[test]
    fn an_interface_is_well_with_a_carrier_and_up() {
        told(Some("1"), "up").expect("well");
        told(Some("1"), "unknown").expect("a tunnel");
        for (carrier, state) in [
            (Some("0"), "down"),
            (Some("0"), "up"),
            (Some("1"), "dormant"),
            (Some("1"), "lowerlayerdown"),
            (None, "down"),
        ] {
            let ill = told(carrier, state).expect_err(state);
            assert!(matches!(ill, Ill::NoCarrier { .. }), "{ill}");
        }
    }

    #[test]
    fn an_interface_that_is_gone_is_not_well_and_the_real_loopback_is() {
        let interfaces = Path::new(super::super::INTERFACES);
        let nic = |interface: &str| Nic {
            interface: interface.to_string(),
        };
        let ill = nic("nothing0").look(interfaces).expect_err("gone");
        assert!(matches!(ill, Ill::Interface { .. }), "{ill}");
        if fs::read_to_string(interfaces.join("lo/carrier")).is_ok() {
            nic("lo").look(interfaces).expect("well");
        }
    }
}

//! Where Debian packages come from: the mirrors that this machine itself uses.

use std::fs;
use std::path::Path;

use anyhow::bail;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The mirrors of this machine.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mirrors {
    /// The main archive.
    pub(crate) main: String,
    /// The security archive.
    pub(crate) security: Option<String>,
}

impl Mirrors {
    /// Reads them from the machine's apt configuration.
    pub(crate) fn of_this_machine() -> anyhow::Result<Self> {
        let mut entries = Vec::new();
        let mut files = vec![Path::new("/etc/apt/sources.list").to_owned()];
        if let Ok(directory) = fs::read_dir("/etc/apt/sources.list.d") {
            files.extend(directory.flatten().map(|entry| entry.path()));
        }
        files.sort();
        for file in files {
            let text = fs::read_to_string(&file).unwrap_or_default();
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("sources") => entries.extend(stanzas(&text)),
                Some("list") => entries.extend(lines(&text)),
                Some(_) | None => {}
            }
        }
        Self::choose(&entries)
    }

    /// Debian's own archives are those whose suites carry Debian's names.
    fn choose(entries: &[(String, String)]) -> anyhow::Result<Self> {
        const RELEASES: [&str; 6] = ["bookworm", "trixie", "forky", "stable", "oldstable", "sid"];
        let of = |security: bool| {
            entries
                .iter()
                .find(|(_, suite)| {
                    let name = suite.split(['-', '/']).next().unwrap_or_default();
                    RELEASES.contains(&name) && suite.contains("security") == security
                })
                .map(|(uri, _)| uri.clone())
        };
        let Some(main) = of(false) else {
            bail!(
                "no Debian mirror in /etc/apt/sources.list*: the machines are built from Debian packages"
            )
        };
        Ok(Self {
            main,
            security: of(true),
        })
    }

    /// Lines of a `sources.list` for a guest's root.
    pub(crate) fn root_lines(&self, release: &str) -> String {
        let mut text = line(&self.main, release);
        if let Some(security) = &self.security {
            text += &line(security, &format!("{release}-security"));
        }
        text
    }

    /// Lines of a `sources.list` with every suite that may have the kernel, the older release's first.
    pub(crate) fn kernel_suites(&self) -> Vec<String> {
        let mut suites = Vec::new();
        for release in ["bookworm", "trixie"] {
            if let Some(security) = &self.security {
                suites.push(line(security, &format!("{release}-security")));
            }
            if release == "bookworm" {
                suites.push(line(&self.main, "bookworm-backports"));
            } else {
                suites.push(line(&self.main, release));
            }
        }
        suites
    }
}

fn line(uri: &str, suite: &str) -> String {
    format!("deb [signed-by={KEYRING}] {uri} {suite} main\n")
}

/// (URI, suite) pairs of a one-line-style file.
fn lines(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let Some(mut rest) = line.trim().strip_prefix("deb ").map(str::trim) else {
            continue;
        };
        if rest.starts_with('[') {
            rest = rest.split_once(']').map_or("", |(_, after)| after).trim();
        }
        let mut words = rest.split_whitespace();
        if let (Some(uri), Some(suite)) = (words.next(), words.next()) {
            found.push((uri.to_owned(), suite.to_owned()));
        }
    }
    found
}

/// (URI, suite) pairs of a deb822 file.
fn stanzas(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for stanza in text.split("\n\n") {
        let field = |name: &str| {
            let words = stanza.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.trim()
                    .eq_ignore_ascii_case(name)
                    .then(|| value.trim().to_owned())
            });
            words.unwrap_or_default()
        };
        if field("Enabled") == "no" || !field("Types").split_whitespace().any(|kind| kind == "deb")
        {
            continue;
        }
        for uri in field("URIs").split_whitespace() {
            found.extend(
                field("Suites")
                    .split_whitespace()
                    .map(|suite| (uri.to_owned(), suite.to_owned())),
            );
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_styles_of_sources_are_read() {
        let stanza = "Types: deb\n# note\nURIs: http://a.example/debian\nSuites: bookworm bookworm-updates\n\nTypes: deb\nURIs: http://a.example/sec\nSuites: bookworm-security\n";
        let expected = Mirrors {
            main: "http://a.example/debian".into(),
            security: Some("http://a.example/sec".into()),
        };
        assert_eq!(Mirrors::choose(&stanzas(stanza)).unwrap(), expected);
        let list = "deb http://other.example/x nodistro main\ndeb [arch=amd64] http://a.example/debian bookworm main # x\ndeb http://a.example/sec bookworm-security main\n";
        assert_eq!(Mirrors::choose(&lines(list)).unwrap(), expected);
    }

    #[test]
    fn a_machine_without_debian_mirrors_is_told_so() {
        assert!(Mirrors::choose(&[("http://a.example".into(), "jammy".into())]).is_err());
    }
}

//! Writes initramfs archives ("newc" cpio); the kernel unpacks several of them one after another.

use std::collections::BTreeSet;

/// An archive being written.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    directories: BTreeSet<String>,
    inode: u32,
}

const MODE_DIRECTORY: u32 = 0o040_755;
const MODE_FILE: u32 = 0o100_000;
const ALIGNMENT: usize = 4;

impl Archive {
    /// Adds a file; its directories come before it.
    ///
    /// # Errors
    /// If the file is larger than the format allows (4 GiB).
    pub fn file(&mut self, path: &str, permissions: u32, data: &[u8]) -> anyhow::Result<()> {
        let path = path.trim_start_matches('/');
        for (at, _) in path.match_indices('/') {
            self.directory(&path[..at])?;
        }
        self.entry(path, MODE_FILE | permissions, data)
    }

    /// Adds an empty directory.
    ///
    /// # Errors
    /// Never for a sane name.
    pub fn directory(&mut self, path: &str) -> anyhow::Result<()> {
        if self.directories.insert(path.to_owned()) {
            self.entry(path, MODE_DIRECTORY, &[])
        } else {
            Ok(())
        }
    }

    /// The finished archive.
    ///
    /// # Errors
    /// Never.
    pub fn finish(mut self) -> anyhow::Result<Vec<u8>> {
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.bytes)
    }

    fn entry(&mut self, name: &str, mode: u32, data: &[u8]) -> anyhow::Result<()> {
        self.inode += 1;
        let size = u32::try_from(data.len())?;
        let name_size = u32::try_from(name.len() + 1)?;
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes
            .resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
    }
}

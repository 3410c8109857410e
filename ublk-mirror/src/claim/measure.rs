//! How large a claimed device is by now. An operator may have enlarged it; then all of it is used.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::thread;

use super::{Claim, SECTOR_BYTES};
use crate::dm::{Linear, Mapper};
use crate::inbox::{Inbox, Message};
use crate::sys;

const STACK_BYTES: usize = 128 * 1024;

/// What is needed to measure a device without its claim.
struct Measure {
    file: File,
    is_block_device: bool,
    /// The mapping that protects the device, and the real device below.
    mapped: Option<(String, File)>,
}

impl Claim {
    /// Measures in a thread of its own, because the owner thread goes on serving and may not command the
    /// device mapper. The answer comes as [`Message::Backing`].
    ///
    /// # Errors
    /// No thread or descriptor could be had.
    pub fn measure(&self, id: u64, inbox: Arc<Inbox>) -> io::Result<()> {
        let mapped = self.protection.as_ref().map(|protection| {
            let below = protection.below.try_clone();
            below.map(|below| (protection.mapping.clone(), below))
        });
        let measure = Measure {
            file: self.file.try_clone()?,
            is_block_device: self.is_block_device(),
            mapped: mapped.transpose()?,
        };
        let run = move || {
            let sectors = measure.sectors();
            if let Err(error) = &sectors {
                tracing::warn!(code = "LS1054", %error, "cannot measure the backing device");
            }
            let sectors = sectors.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO));
            // A grow waits for this.
            inbox.put_when_there_is_room(Message::Backing { id, sectors });
        };
        thread::Builder::new()
            .name("measure".into())
            .stack_size(STACK_BYTES)
            .spawn(run)
            .map(drop)
    }
}

impl Measure {
    fn sectors(&self) -> io::Result<u64> {
        if let Some((mapping, below)) = &self.mapped {
            // This thread began with the owner thread's capabilities.
            sys::restore_sys_admin_of_this_thread()?;
            stretch(mapping, below)?;
        }
        let bytes = if self.is_block_device {
            sys::block_device_bytes(&self.file)?
        } else {
            self.file.metadata()?.len()
        };
        Ok(bytes / SECTOR_BYTES)
    }
}

/// Lets the mapping reach to the end of the device below, if that has grown. I/O in flight ends first, in
/// the kernel; what comes meanwhile waits there.
fn stretch(mapping: &str, below: &File) -> io::Result<()> {
    let mapper = Mapper::open()?;
    let found = mapper.find(mapping)?;
    let Some(table) = found.and_then(|found| found.table) else {
        return Err(io::Error::other("the device mapping is gone"));
    };
    let sectors = sys::block_device_bytes(below)? / SECTOR_BYTES;
    if sectors <= table.sectors {
        return Ok(());
    }
    let larger = Linear { sectors, ..table };
    mapper.load(mapping, larger)
}

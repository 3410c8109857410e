//! `ublk-mirror adopt-disk`: an operator says that the backing device is the volume's although it is not the disk that the
//! metadata know. Nothing but that is written, and what is on the disk is not looked at.

use std::path::{Path, PathBuf};

use mirror_core::disk::Superblock;
use thiserror::Error;

use crate::claim::{Claim, ClaimError, Part};
use crate::config::Config;
use crate::explain::Explain;
use crate::identity::{Identity, SYSFS};
use crate::metadata::{self, Devices, MetadataError};
use crate::startup::{LockError, VolumeLock, claim_advice};

#[derive(Clone, Debug)]
pub struct AdoptRequest {
    /// The volume's name once more.
    pub confirm: String,
    pub runtime_dir: PathBuf,
}

/// Why nothing was adopted.
#[derive(Debug, Error)]
pub enum AdoptError {
    #[error("the name {confirm:?} is not the volume's, {volume:?}")]
    Confirm { confirm: String, volume: String },
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("cannot claim a device")]
    Claim(#[from] ClaimError),
    #[error(transparent)]
    Metadata(#[from] MetadataError),
}

impl Explain for AdoptError {
    fn code(&self) -> &'static str {
        match self {
            Self::Confirm { .. } => "LS4015",
            Self::Lock(error) => error.code(),
            Self::Claim(_) => "LS3036",
            Self::Metadata(error) => error.code(),
        }
    }

    fn advice(&self) -> String {
        match self {
            Self::Confirm { volume, .. } => {
                format!("see that {volume} is the volume that you mean, then `--confirm {volume}`")
            }
            Self::Lock(error) => error.advice(),
            Self::Claim(error) => claim_advice(error).into(),
            Self::Metadata(error) => error.advice(),
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Adopted {
    /// It is the one that the metadata know, or it or they say nothing: nothing was written.
    Already,
    /// From now on this one is the volume's, in words.
    Now(String),
}

/// Makes the backing device the one that the metadata know. The copies' history, marks and sizes stay as they are.
///
/// # Errors
/// [`AdoptError`]; then the metadata say what they said before, or what was asked for.
pub fn adopt(config: &Config, request: &AdoptRequest) -> Result<Adopted, AdoptError> {
    if request.confirm != config.volume {
        return Err(AdoptError::Confirm {
            confirm: request.confirm.clone(),
            volume: config.volume.clone(),
        });
    }
    let _lock = VolumeLock::take(&request.runtime_dir, &config.volume)?;
    let data = Claim::open(&config.backing, &config.volume, Part::Data)?;
    let separate = config.metadata.as_deref();
    let separate = separate.map(|path| Claim::open(path, &config.volume, Part::Metadata));
    let (separate, done) = match separate.transpose() {
        Ok(separate) => {
            let done = write(config, &data, separate.as_ref());
            (separate, done.map_err(AdoptError::from))
        }
        Err(error) => (None, Err(error.into())),
    };
    for claim in std::iter::once(data).chain(separate) {
        claim.release()?;
    }
    done
}

fn write(
    config: &Config,
    data: &Claim,
    separate: Option<&Claim>,
) -> Result<Adopted, MetadataError> {
    let holds_metadata = separate.unwrap_or(data);
    let found = metadata::read(holds_metadata.file(), config)?.superblock;
    let devices = Devices {
        size_bytes: data.size_bytes(),
        logical_block_bytes: data.logical_block_bytes(),
        metadata_size_bytes: holds_metadata.size_bytes(),
        // Everything else has to be right.
        identity: Identity::default(),
    };
    metadata::check(&found, config, &devices)?;
    let identity = data.identity(Path::new(SYSFS));
    let Some(superblock) = adopted(found, &identity) else {
        return Ok(Adopted::Already);
    };
    for slot in 0..2 {
        metadata::write_slot(holds_metadata.file(), config, &superblock, slot)?;
    }
    Ok(Adopted::Now(identity.words().to_owned()))
}

/// The superblock that knows this disk; `None` if the one that there is has nothing against it.
fn adopted(mut found: Superblock, identity: &Identity) -> Option<Superblock> {
    if identity.may_be(found.backing) {
        return None;
    }
    found.sequence += 1;
    found.backing = identity.kept();
    Some(found)
}

#[cfg(test)]
mod tests;

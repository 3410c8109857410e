//! What a daemon that was killed has left: a live device waits for its successor, anything else
//! is taken away.

use std::thread;
use std::time::{Duration, Instant};

use mirror_core::disk::Superblock;
use mirror_core::types::BootId;

use crate::device::{
    Answer, DeviceError, DeviceHelper, DeviceInfo, DeviceKind, DeviceState, HelperFailure, Request,
    existing_ids, published_id, retract_name_or_warn,
};
use crate::device_control::isolated::isolated_name;
use crate::device_control::state_file::{DeviceRecord, StateFile};

/// The kernel lets a device come to rest once the dead daemon's I/O has ended.
const REST_MAX: Duration = Duration::from_secs(30);
const REST_RETRY: Duration = Duration::from_millis(20);
const RECOVERY_TIMEOUT_MS: u64 = 60_000;

/// The device that goes on, its recovery begun.
pub(super) fn recover_or_remove(
    helper: &mut DeviceHelper,
    name: &str,
    owner_tag: u64,
    state_file: &StateFile,
    superblock: &Superblock,
    boot: BootId,
) -> Result<Option<u32>, DeviceError> {
    let wanted = state_file
        .read()
        .filter(|record| goes_on(record, superblock, boot));
    let mut recovered = None;
    let ids = existing_ids().map_err(|source| DeviceError::Name {
        action: "list the ublk devices in",
        path: "/sys/class/ublk-char".into(),
        source,
    })?;
    for dev_id in ids {
        let Some(info) = info(helper, dev_id)?.filter(|info| info.owner_tag == owner_tag) else {
            continue;
        };
        let is_wanted = wanted
            .as_ref()
            .is_some_and(|record| record.dev_id == dev_id)
            && info.kind == DeviceKind::Active;
        if is_wanted && recover(helper, dev_id)? {
            recovered = Some(dev_id);
        } else {
            remove(helper, name, dev_id)?;
        }
    }
    if recovered.is_none() {
        state_file.remove();
    }
    // A name that outlived its device: the id may be another volume's by now.
    if let Ok(Some(dev_id)) = published_id(name)
        && recovered != Some(dev_id)
    {
        retract_name_or_warn(name, dev_id);
    }
    // A read-only device never goes on: what it showed may have changed since.
    let isolated = isolated_name(name);
    if let Ok(Some(dev_id)) = published_id(&isolated) {
        retract_name_or_warn(&isolated, dev_id);
    }
    Ok(recovered)
}

/// Only a device of this boot, of a service that has not ended, holds what its users believe.
fn goes_on(record: &DeviceRecord, superblock: &Superblock, boot: BootId) -> bool {
    let active = superblock.view.active == Some(superblock.node);
    record.boot == boot.to_string() && superblock.own_boot == boot && superblock.serving && active
}

fn recover(helper: &mut DeviceHelper, dev_id: u32) -> Result<bool, DeviceError> {
    let deadline = Instant::now() + REST_MAX;
    loop {
        match info(helper, dev_id)?.map(|info| info.state) {
            Some(DeviceState::Quiesced) => break,
            Some(DeviceState::Live) if Instant::now() < deadline => thread::sleep(REST_RETRY),
            state => {
                tracing::warn!(
                    code = "LS3027",
                    dev_id,
                    ?state,
                    "the device of the previous run cannot go on; its users get errors"
                );
                return Ok(false);
            }
        }
    }
    match helper.call(Request::StartRecovery {
        dev_id,
        timeout_ms: RECOVERY_TIMEOUT_MS,
    }) {
        Ok(_) => Ok(true),
        Err(DeviceError::Refused(failure)) => {
            tracing::warn!(code = "LS3027", dev_id, %failure, "the device of the previous run cannot go on; its users get errors");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn remove(helper: &mut DeviceHelper, name: &str, dev_id: u32) -> Result<(), DeviceError> {
    retract_name_or_warn(name, dev_id);
    for request in [Request::Stop { dev_id }, Request::Delete { dev_id }] {
        match helper.call(request) {
            Ok(_) => {}
            // Another helper, of the daemon before, may be at it too.
            Err(DeviceError::Refused(failure)) => {
                tracing::info!(dev_id, %failure, "leftover of a previous run")
            }
            Err(error) => return Err(error),
        }
    }
    tracing::info!(dev_id, "removed a device of a previous run");
    Ok(())
}

fn info(helper: &mut DeviceHelper, dev_id: u32) -> Result<Option<DeviceInfo>, DeviceError> {
    match helper.call(Request::Info { dev_id }) {
        Ok(Answer::Info(info)) => Ok(Some(info)),
        Ok(Answer::Done | Answer::Added { .. })
        | Err(DeviceError::Refused(HelperFailure::Command { .. })) => Ok(None),
        Err(error) => Err(error),
    }
}

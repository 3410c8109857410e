//! A linear device-mapper device over a whole block device, by the kernel's own
//! ioctl interface: no library, no tool, no udev needed.

use std::fs::File;
use std::io;

use crate::sys::{DM_MESSAGE_BYTES_MAX, DmMessage, dm_ioctl};

const CONTROL_PATH: &str = "/dev/mapper/control";

const DEV_CREATE: u8 = 3;
const DEV_REMOVE: u8 = 4;
const DEV_SUSPEND: u8 = 6;
const DEV_STATUS: u8 = 7;
const TABLE_LOAD: u8 = 9;
const TABLE_STATUS: u8 = 12;

const FLAG_STATUS_TABLE: u32 = 1 << 4;
/// udev: make no links, run no rules that look into or mount the device.
const UDEV_HANDS_OFF: u32 = (0x0002 | 0x0004 | 0x0008) << 16;

/// The header of every message, see <linux/dm-ioctl.h>.
mod offset {
    pub(super) const VERSION: usize = 0;
    pub(super) const DATA_START: usize = 16;
    pub(super) const TARGET_COUNT: usize = 20;
    pub(super) const FLAGS: usize = 28;
    pub(super) const EVENT: usize = 32;
    pub(super) const DEVICE: usize = 40;
    pub(super) const NAME: usize = 48;
    pub(super) const UUID: usize = 176;
    /// Where our data follow, and one target's fields within them.
    pub(super) const DATA: usize = 312;
    pub(super) const TARGET_LENGTH: usize = 8;
    pub(super) const TARGET_TYPE: usize = 24;
    pub(super) const TARGET_PARAMETERS: usize = 40;
}
const NAME_BYTES_MAX: usize = 127;
const UUID_BYTES_MAX: usize = 128;
const TYPE_BYTES_MAX: usize = 16;

/// Number of a block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceNumber {
    pub major: u32,
    pub minor: u32,
}

/// The one table we use: sectors `0..sectors` of the device below, unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Linear {
    pub below: DeviceNumber,
    pub sectors: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    pub number: DeviceNumber,
    pub uuid: String,
    /// None: no table, or one that we would not have made.
    pub table: Option<Linear>,
}

/// The control device of the device mapper.
#[derive(Debug)]
pub struct Mapper {
    control: File,
}

impl Mapper {
    pub fn open() -> io::Result<Mapper> {
        let control = File::options().read(true).write(true).open(CONTROL_PATH)?;
        Ok(Mapper { control })
    }

    pub fn find(&self, name: &str) -> io::Result<Option<Mapping>> {
        let mut message = message(name)?;
        match self.run(DEV_STATUS, &mut message) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => return Ok(None),
            Err(error) => return Err(error),
        }
        let number = device_number(&message);
        let uuid = text(&message, offset::UUID, UUID_BYTES_MAX);
        let table = self.table(name)?;
        Ok(Some(Mapping {
            number,
            uuid,
            table,
        }))
    }

    fn table(&self, name: &str) -> io::Result<Option<Linear>> {
        let mut message = message(name)?;
        put_u32(&mut message, offset::FLAGS, FLAG_STATUS_TABLE);
        self.run(TABLE_STATUS, &mut message)?;
        if get_u32(&message, offset::TARGET_COUNT) != 1 {
            return Ok(None);
        }
        let data = get_u32(&message, offset::DATA_START) as usize;
        if data + offset::TARGET_PARAMETERS >= DM_MESSAGE_BYTES_MAX
            || text(&message, data + offset::TARGET_TYPE, TYPE_BYTES_MAX) != "linear"
        {
            return Ok(None);
        }
        let parameters_at = data + offset::TARGET_PARAMETERS;
        let room = DM_MESSAGE_BYTES_MAX - parameters_at;
        let parameters = text(&message, parameters_at, room);
        Ok(parse_linear(&parameters).map(|below| Linear {
            below,
            sectors: get_u64(&message, data + offset::TARGET_LENGTH),
        }))
    }

    /// Makes the device and lets it live. What was made so far is removed if a
    /// later step fails.
    pub fn create(&self, name: &str, uuid: &str, table: Linear) -> io::Result<DeviceNumber> {
        let mut create = message(name)?;
        put_text(&mut create, offset::UUID, UUID_BYTES_MAX, uuid)?;
        self.run(DEV_CREATE, &mut create)?;
        let result = self.load(name, table);
        if let Err(error) = result {
            self.remove(name)?;
            return Err(error);
        }
        Ok(device_number(&create))
    }

    /// Gives an existing device a new table, atomically.
    pub fn load(&self, name: &str, table: Linear) -> io::Result<()> {
        let Linear { below, sectors } = table;
        let mut load = message(name)?;
        put_u32(&mut load, offset::TARGET_COUNT, 1);
        put_u64(&mut load, offset::DATA + offset::TARGET_LENGTH, sectors);
        let kind_at = offset::DATA + offset::TARGET_TYPE;
        put_text(&mut load, kind_at, TYPE_BYTES_MAX - 1, "linear")?;
        let parameters = format!("{}:{} 0", below.major, below.minor);
        let parameters_at = offset::DATA + offset::TARGET_PARAMETERS;
        put_text(&mut load, parameters_at, 64, &parameters)?;
        self.run(TABLE_LOAD, &mut load)?;
        // Without the suspend flag this command resumes, which swaps the tables.
        let mut resume = message(name)?;
        put_u32(&mut resume, offset::EVENT, UDEV_HANDS_OFF);
        self.run(DEV_SUSPEND, &mut resume)
    }

    pub fn remove(&self, name: &str) -> io::Result<()> {
        let mut message = message(name)?;
        put_u32(&mut message, offset::EVENT, UDEV_HANDS_OFF);
        self.run(DEV_REMOVE, &mut message)
    }

    fn run(&self, command: u8, message: &mut DmMessage) -> io::Result<()> {
        dm_ioctl(&self.control, command, message)
    }
}

fn message(name: &str) -> io::Result<DmMessage> {
    let mut message = DmMessage {
        bytes: [0; DM_MESSAGE_BYTES_MAX],
    };
    put_u32(&mut message, offset::VERSION, 4);
    let data = u32::try_from(offset::DATA).map_err(io::Error::other)?;
    put_u32(&mut message, offset::DATA_START, data);
    put_text(&mut message, offset::NAME, NAME_BYTES_MAX, name)?;
    Ok(message)
}

fn put_u32(message: &mut DmMessage, at: usize, value: u32) {
    message.bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
}

fn put_u64(message: &mut DmMessage, at: usize, value: u64) {
    message.bytes[at..at + 8].copy_from_slice(&value.to_ne_bytes());
}

fn put_text(message: &mut DmMessage, at: usize, max: usize, text: &str) -> io::Result<()> {
    if text.len() > max || text.contains('\0') {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    message.bytes[at..at + text.len()].copy_from_slice(text.as_bytes());
    message.bytes[at + text.len()] = 0;
    Ok(())
}

fn get_u32(message: &DmMessage, at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&message.bytes[at..at + 4]);
    u32::from_ne_bytes(bytes)
}

fn get_u64(message: &DmMessage, at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&message.bytes[at..at + 8]);
    u64::from_ne_bytes(bytes)
}

fn text(message: &DmMessage, at: usize, max: usize) -> String {
    let bytes = &message.bytes[at..at + max];
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(max);
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn device_number(message: &DmMessage) -> DeviceNumber {
    let number = get_u64(message, offset::DEVICE);
    DeviceNumber {
        major: libc::major(number),
        minor: libc::minor(number),
    }
}

/// "MAJOR:MINOR 0"; any other start sector is not ours.
fn parse_linear(parameters: &str) -> Option<DeviceNumber> {
    let (device, start) = parameters.trim().split_once(' ')?;
    let (major, minor) = device.split_once(':')?;
    (start == "0").then_some(DeviceNumber {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_table_is_not_taken_for_ours() {
        let number = DeviceNumber {
            major: 254,
            minor: 16,
        };
        assert_eq!(parse_linear("254:16 0"), Some(number));
        assert_eq!(parse_linear("254:16 2048"), None);
        assert_eq!(parse_linear("254:16"), None);
    }

    #[test]
    fn a_name_that_does_not_fit_is_refused() {
        assert!(message(&"x".repeat(128)).is_err());
        assert!(message("a\0b").is_err());
    }
}

//! Frames of the command channel: `length u32, id u32, kind u8, payload`, little endian.
//!
//! One virtio-serial port carries every command of a machine; `id` tells the commands apart, so any
//! number of them (up to the agent's limit) run at the same time.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

/// Longest payload of a frame.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// Bytes of data in one frame of a file transfer.
pub const CHUNK_BYTES: usize = 256 << 10;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// Guest: the agent is there. JSON [`Hello`].
    Hello = 1,
    /// Host: run a command. JSON [`ExecRequest`].
    Exec = 2,
    /// Host: more standard input for a command; an empty payload ends it.
    Stdin = 3,
    /// Host: kill a command with everything it started.
    Kill = 4,
    /// Host: write a piece of a file. JSON [`PutRequest`], a zero byte, data.
    Put = 5,
    /// Host: read a piece of a file or a device. JSON [`GetRequest`].
    Get = 6,
    /// Guest: output of a command.
    Stdout = 7,
    /// Guest: error output of a command.
    Stderr = 8,
    /// Guest: the command ended. JSON [`ExitReport`].
    Exit = 9,
    /// Guest: the data asked for by `Get`.
    Data = 10,
    /// Guest: a request failed; the payload says why.
    Failed = 11,
    /// Guest: a `Put` was done.
    Done = 12,
}

impl FrameKind {
    fn from_byte(byte: u8) -> Option<Self> {
        const ALL: [FrameKind; 12] = [
            FrameKind::Hello,
            FrameKind::Exec,
            FrameKind::Stdin,
            FrameKind::Kill,
            FrameKind::Put,
            FrameKind::Get,
            FrameKind::Stdout,
            FrameKind::Stderr,
            FrameKind::Exit,
            FrameKind::Data,
            FrameKind::Failed,
            FrameKind::Done,
        ];
        ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// The agent's first word.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The kernel's boot id: a real reboot changes it.
    pub boot_id: String,
    /// Kernel release.
    pub kernel: String,
}

/// Run a command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExecRequest {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The agent kills the command after this time.
    pub limit_ms: u64,
    /// Standard input follows in `Stdin` frames (otherwise it is empty).
    pub stdin: bool,
}

/// How a command ended.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ExitReport {
    /// Exit code, or 128 + signal.
    pub code: i32,
    /// The time limit was reached.
    pub timed_out: bool,
}

/// Write a piece of a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PutRequest {
    /// Absolute path; directories are made.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Where the data go; 0 also truncates the file.
    pub offset: u64,
}

/// Read a piece of a file or a device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GetRequest {
    /// Absolute path.
    pub path: String,
    /// First byte.
    pub offset: u64,
    /// At most [`CHUNK_BYTES`]; a shorter answer is the end of the file.
    pub length: usize,
}

/// One frame.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Which request it belongs to.
    pub id: u32,
    /// What it is.
    pub kind: FrameKind,
    /// Its content.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A frame with a JSON payload.
    ///
    /// # Errors
    /// If the value cannot be written as JSON.
    pub fn json<T: Serialize>(id: u32, kind: FrameKind, value: &T) -> io::Result<Self> {
        Ok(Self {
            id,
            kind,
            payload: serde_json::to_vec(value)?,
        })
    }

    /// Reads the payload as JSON.
    ///
    /// # Errors
    /// If it is not what is expected.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> io::Result<T> {
        Ok(serde_json::from_slice(&self.payload)?)
    }

    /// Writes the frame with one `write`.
    ///
    /// # Errors
    /// If the channel fails or the payload is too long.
    pub fn write_to(&self, mut channel: impl Write) -> io::Result<()> {
        if self.payload.len() > PAYLOAD_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "frame too long",
            ));
        }
        let length = u32::try_from(self.payload.len()).map_err(io::Error::other)?;
        let mut bytes = Vec::with_capacity(self.payload.len() + 9);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&self.id.to_le_bytes());
        bytes.push(self.kind as u8);
        bytes.extend_from_slice(&self.payload);
        channel.write_all(&bytes)
    }

    /// Reads the next frame.
    ///
    /// # Errors
    /// If the channel ends or carries something else.
    pub fn read_from(mut channel: impl Read) -> io::Result<Self> {
        let mut header = [0; 9];
        channel.read_exact(&mut header)?;
        let length = crate::pattern::u32_at(&header, 0) as usize;
        let kind = FrameKind::from_byte(header[8]);
        let (Some(kind), true) = (kind, length <= PAYLOAD_BYTES_MAX) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a frame"));
        };
        let mut payload = vec![0; length];
        channel.read_exact(&mut payload)?;
        Ok(Self {
            id: crate::pattern::u32_at(&header, 4),
            kind,
            payload,
        })
    }
}

//! Between the words of the core, of the queue and of the helper.

use mirror_core::event::{Request, RequestKind};
use mirror_core::types::{Errno, SectorRange, Tag};
use nix::errno::Errno as KernelErrno;

use crate::device::HelperFailure;
use crate::queue;
use crate::ring::{Kind, Token};

pub(super) fn token_of(place: usize, generation: u32, tag: u16) -> Token {
    Token {
        kind: Kind::Ublk,
        place: u8::try_from(place).expect("two places"),
        index: tag,
        generation,
    }
}

pub(super) fn core_request(tag: u16, request: queue::IoRequest) -> Request {
    let kind = match request.operation {
        queue::Operation::Read => RequestKind::Read,
        queue::Operation::Write => RequestKind::Write,
        queue::Operation::Flush => RequestKind::Flush,
        queue::Operation::Discard => RequestKind::Discard,
        queue::Operation::WriteZeroes => RequestKind::WriteZeroes,
    };
    let range = match request.operation {
        queue::Operation::Flush => SectorRange::new(0, 0),
        queue::Operation::Read
        | queue::Operation::Write
        | queue::Operation::Discard
        | queue::Operation::WriteZeroes => SectorRange::new(request.start_sector, request.sectors),
    };
    Request {
        tag: Tag(tag),
        kind,
        range,
        fua: request.fua,
    }
}

pub(super) fn kernel_errno(errno: Errno) -> KernelErrno {
    let known = KernelErrno::from_raw(errno.0);
    if known == KernelErrno::UnknownErrno {
        KernelErrno::EIO
    } else {
        known
    }
}

pub(super) fn errno_of(failure: &HelperFailure) -> Errno {
    match failure {
        HelperFailure::Command { errno, .. } | HelperFailure::NoUblk { errno } => Errno(*errno),
        HelperFailure::FlagsMasked { .. } | HelperFailure::NoResize => Errno(libc::EOPNOTSUPP),
        HelperFailure::BlockSize { .. } => Errno::EINVAL,
        HelperFailure::StillBusy { .. } => Errno(libc::EBUSY),
        HelperFailure::TooMany { .. } | HelperFailure::BadRequest => Errno::EIO,
    }
}

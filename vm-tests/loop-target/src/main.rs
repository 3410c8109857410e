//! A ublk device that hands every request to one disk and does nothing else: the floor under any mirror whose device is
//! ublk. It uses libublk as its authors mean it to be used, so that none of Lockstep's own code is in the figure.
//!
//! Prints the path of the device once it is there, and serves until it is ended.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::rc::Rc;

use anyhow::{Context as _, anyhow};
use clap::Parser;
use io_uring::{opcode, squeue, types};
use libublk::ctrl::{UblkCtrl, UblkCtrlBuilder};
use libublk::io::{BufDescList, UblkDev, UblkIOCtx, UblkQueue};
use libublk::{BufDesc, UblkFlags, UblkIORes, sys};

/// As many as the mirror has.
const DEPTH: u16 = 64;
const REQUEST_BYTES_MAX: u32 = 512 * 1024;
const SECTOR_SHIFT: u32 = 9;
/// libublk's own file is the first of the ring.
const DISK: types::Fixed = types::Fixed(1);

#[derive(Parser)]
#[command(about)]
struct Arguments {
    /// The disk behind the device.
    disk: PathBuf,
    /// Logical block size of the disk, bytes.
    #[arg(long, default_value_t = 512)]
    block_bytes: u32,
    /// Size of the disk, bytes.
    #[arg(long)]
    size_bytes: u64,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let disk = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(&arguments.disk)
        .with_context(|| format!("cannot open {}", arguments.disk.display()))?;
    let control = UblkCtrlBuilder::default()
        .name("loop")
        .nr_queues(1)
        .depth(DEPTH)
        .io_buf_bytes(REQUEST_BYTES_MAX)
        .dev_flags(UblkFlags::UBLK_DEV_F_ADD_DEV)
        .build()
        .map_err(|error| anyhow!("cannot add a ublk device: {error}"))?;
    let describe = |device: &mut UblkDev| {
        describe(device, &disk, &arguments);
        Ok(())
    };
    control
        .run_target(
            describe,
            |queue, device: &UblkDev| serve(queue, device),
            told,
        )
        .map_err(|error| anyhow!("the device ended: {error}"))
        .map(drop)
}

fn describe(device: &mut UblkDev, disk: &File, arguments: &Arguments) {
    let shift = u8::try_from(arguments.block_bytes.ilog2()).expect("below 32");
    let request_sectors = device.dev_info.max_io_buf_bytes >> SECTOR_SHIFT;
    let target = &mut device.tgt;
    target.fds[1] = disk.as_raw_fd();
    target.nr_fds = 2;
    target.dev_size = arguments.size_bytes;
    target.params = sys::ublk_params {
        types: sys::UBLK_PARAM_TYPE_BASIC,
        basic: sys::ublk_param_basic {
            attrs: sys::UBLK_ATTR_VOLATILE_CACHE | sys::UBLK_ATTR_FUA,
            logical_bs_shift: shift,
            physical_bs_shift: shift.max(12),
            io_opt_shift: 12,
            io_min_shift: shift,
            max_sectors: request_sectors,
            dev_sectors: arguments.size_bytes >> SECTOR_SHIFT,
            ..Default::default()
        },
        ..Default::default()
    };
}

/// Says where the device is.
fn told(control: &UblkCtrl) {
    let mut out = std::io::stdout();
    let told = writeln!(out, "/dev/ublkb{}", control.dev_info().dev_id).and_then(|()| out.flush());
    if let Err(error) = told {
        eprintln!("cannot say where the device is: {error}");
    }
}

/// The one queue, in a thread of its own, until the device goes.
fn serve(id: u16, device: &UblkDev) {
    let buffers = Rc::new(device.alloc_queue_io_bufs());
    let queue = UblkQueue::new(id, device)
        .and_then(|queue| queue.submit_fetch_commands_unified(BufDescList::Slices(Some(&buffers))));
    let queue = match queue {
        Ok(queue) => queue,
        Err(error) => return eprintln!("the queue cannot be served: {error}"),
    };
    queue.wait_and_handle_io(|queue: &UblkQueue, tag: u16, io: &UblkIOCtx| {
        let buffer = buffers[usize::from(tag)].as_slice();
        let done = if io.is_tgt_io() {
            Some(io.result())
        } else {
            begin(queue, tag, buffer)
        };
        if let Some(result) = done
            && let Err(error) = queue.complete_io_cmd_unified(
                tag,
                BufDesc::Slice(buffer),
                Ok(UblkIORes::Result(result)),
            )
        {
            eprintln!("request {tag} cannot be answered: {error}");
        }
    });
}

/// Hands a request to the disk; or its result, if there is nothing to hand over.
fn begin(queue: &UblkQueue, tag: u16, buffer: &[u8]) -> Option<i32> {
    let request = queue.get_iod(tag);
    let operation = request.op_flags & 0xff;
    let offset = request.start_sector << SECTOR_SHIFT;
    let bytes = request.nr_sectors << SECTOR_SHIFT;
    let sync = if request.op_flags & sys::UBLK_IO_F_FUA == 0 {
        0
    } else {
        libc::RWF_DSYNC
    };
    let entry: squeue::Entry = match operation {
        sys::UBLK_IO_OP_READ => opcode::Read::new(DISK, buffer.as_ptr().cast_mut(), bytes)
            .offset(offset)
            .build(),
        sys::UBLK_IO_OP_WRITE => opcode::Write::new(DISK, buffer.as_ptr(), bytes)
            .offset(offset)
            .rw_flags(sync)
            .build(),
        sys::UBLK_IO_OP_FLUSH => opcode::Fsync::new(DISK)
            .flags(types::FsyncFlags::DATASYNC)
            .build(),
        _ => return Some(-libc::EOPNOTSUPP),
    };
    let own = UblkIOCtx::build_user_data(tag, operation, 0, true);
    let entry = entry.flags(squeue::Flags::FIXED_FILE).user_data(own);
    match queue.ublk_submit_sqe_sync(entry) {
        Ok(()) => None,
        Err(error) => {
            eprintln!("request {tag} cannot be handed to the disk: {error}");
            Some(-libc::EIO)
        }
    }
}

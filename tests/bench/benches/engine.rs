//! The parts of a write, each alone and in memory: `cargo bench-engine engine`.

// Helpers of a benchmark are no product.
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lockstep_bench::engine::{CorePair, EXTENT_SECTORS, metadata};
use mirror_core::admin::CopyCause;
use mirror_core::blocks::{BlockSet, Geometry};
use mirror_core::effect::{Effect, Effects};
use mirror_core::intent::Intent;
use mirror_core::resync::{Arrived, Likeness, Resync};
use mirror_core::types::{Epoch, NodeId, SectorRange};
use mirror_core::wire::{Frame, FrameKind, decode_header, encode_header, payload_crc};

/// Blocks of 4 KiB of a volume of 64 GiB.
const BLOCKS: u64 = 1 << 24;
const SIZE_SECTORS: u64 = BLOCKS * 8;

/// Events of both cores: an element is one of them, a write is several.
fn engine(c: &mut Criterion) {
    let mut group = c.benchmark_group("engine");
    for depth in [1, 16] {
        let mut pair = CorePair::new();
        pair.writes(1000, depth);
        let before = pair.events;
        pair.writes(16_000, depth);
        let events = (pair.events - before) / 1000;
        group.throughput(Throughput::Elements(events));
        group.bench_function(format!("16 writes, depth {depth}, {events} events"), |b| {
            b.iter(|| pair.writes(16, depth));
        });
    }
    group.finish();
}

fn wire(c: &mut Criterion) {
    let mut group = c.benchmark_group("wire");
    for (name, bytes) in [("4 KiB", 4096_u32), ("512 KiB", 512 << 10)] {
        let payload: Vec<u8> = (0..bytes).map(|at| at.to_le_bytes()[0] ^ 0x5a).collect();
        let mut frame = Frame::new(FrameKind::Write, Epoch(5), 77);
        frame.length_bytes = bytes;
        frame.range = SectorRange::new(4096, bytes / 512);
        group.throughput(Throughput::Bytes(bytes.into()));
        group.bench_function(format!("encode {name}"), |b| {
            b.iter(|| encode_header(black_box(&frame), payload_crc(black_box(&payload))));
        });
        let header = encode_header(&frame, payload_crc(&payload));
        group.bench_function(format!("decode {name}"), |b| {
            b.iter(|| {
                let (frame, crc) = decode_header(black_box(&header)).unwrap();
                assert_eq!(payload_crc(black_box(&payload)), crc);
                frame
            });
        });
    }
    group.finish();
}

/// Has the extents of a range in the log, by as many metadata writes as it takes.
fn activate(intent: &mut Intent, range: SectorRange, effects: &mut Effects) -> u32 {
    let mut writes = 0;
    while !intent.covers(range) {
        intent.nothing_wanted();
        intent.want(range);
        intent.steps(false, effects);
        for effect in effects.drain(..) {
            if let Effect::WriteBlock { id, .. } = effect {
                writes += 1;
                intent.written(id);
            }
        }
    }
    writes
}

fn activity_log(c: &mut Criterion) {
    let mut group = c.benchmark_group("activity log");
    let me = NodeId::new(0).unwrap();
    let write = |extent: u64| SectorRange::new(extent * u64::from(EXTENT_SECTORS), 8);
    let mut effects = Effects::with_capacity(16);
    let mut intent = Intent::new(&metadata(me, SIZE_SECTORS), 64);
    activate(&mut intent, write(3), &mut effects);
    group.bench_function("hit", |b| {
        b.iter(|| {
            let range = black_box(write(3));
            assert!(intent.covers(range));
            intent.begin(range, false);
            intent.end(range);
        });
    });
    let mut intent = Intent::new(&metadata(me, SIZE_SECTORS), 64);
    let mut extent = 0;
    group.bench_function("miss, with an eviction and its block", |b| {
        b.iter(|| {
            extent = (extent + 1) % 4096;
            let range = write(extent);
            let writes = activate(&mut intent, range, &mut effects);
            assert!(writes > 0);
            intent.begin(range, false);
            intent.end(range);
        });
    });
    group.finish();
}

fn bitmap(c: &mut Criterion) {
    let mut group = c.benchmark_group("bitmap, 64 GiB");
    let mut set = BlockSet::new(BLOCKS);
    let mut at = 0;
    group.bench_function("set and clear a block", |b| {
        b.iter(|| {
            at = (at + 7919) % BLOCKS;
            set.insert(black_box(at..at + 1));
            set.remove(black_box(at..at + 1));
        });
    });
    group.bench_function("set and clear 128 blocks", |b| {
        b.iter(|| {
            at = (at + 7919) % (BLOCKS - 128);
            set.insert(black_box(at..at + 128));
            set.remove(black_box(at..at + 128));
        });
    });
    let scattered = scattered(4096);
    group.bench_function("scan for 4096 marks", |b| {
        b.iter(|| {
            let (mut from, mut found) = (0, 0);
            while let Some(block) = scattered.first_from(from) {
                (from, found) = (block + 1, found + 1);
            }
            assert_eq!(found, 4096);
        });
    });
    group.bench_function("scan of an empty one", |b| {
        b.iter(|| black_box(&set).first_from(0));
    });
    group.finish();
}

/// So many single blocks, as far apart as they can be.
fn scattered(count: u64) -> BlockSet {
    let mut set = BlockSet::new(BLOCKS);
    for at in 0..count {
        let block = at * (BLOCKS / count);
        set.insert(block..block + 1);
    }
    set
}

fn resync(c: &mut Criterion) {
    let mut group = c.benchmark_group("resync");
    let geometry = Geometry::new(SIZE_SECTORS, 4096, EXTENT_SECTORS);
    let marks = scattered(4096);
    group.throughput(Throughput::Elements(marks.count()));
    group.bench_function("plan 4096 scattered runs in 64 GiB", |b| {
        b.iter(|| {
            let cause = CopyCause::FirstCopy;
            let likeness = Likeness::Different;
            let mut resync = Resync::new(cause, geometry, &marks, 0, likeness);
            let mut runs = 0;
            while let Some((slot, _)) = resync.begin(8, false, |_| true, |_| true) {
                resync.finish(slot, Arrived::Yes);
                runs += 1;
            }
            runs
        });
    });
    group.finish();
}

criterion_group!(benches, engine, wire, activity_log, bitmap, resync);
criterion_main!(benches);

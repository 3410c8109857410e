//! S7: wherever the copies differ, a durable mark says so.

use std::collections::BTreeSet;
use std::ops::Range;

use mirror_core::disk::{ActivityFound, CopyRole, Metadata, PAGE_BITS};
use mirror_core::rejoin::{Extent, Side, Verdict, decide};
use mirror_core::types::{BootId, CopyId, SECTOR_BYTES};
use mirror_core::wire::{State, StateFlags};

use super::disk::Value;
use super::node::{Node, id};
use super::world::World;

/// The grain in which it is remembered where anything was ever written.
const PIECE_SECTORS: usize = 64;

/// Where anything was ever written.
#[derive(Debug, Default)]
pub(super) struct Touched(BTreeSet<usize>);

impl Touched {
    /// Something may be written there from now on.
    pub(super) fn add(&mut self, start: u64, count: u32) {
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        let last = start + (count as usize).saturating_sub(1);
        self.0.extend(start / PIECE_SECTORS..=last / PIECE_SECTORS);
    }

    /// All sectors of a volume of `length` that may have been written.
    pub(super) fn sectors(&self, length: usize) -> impl Iterator<Item = usize> {
        let pieces = self.0.iter().map(move |piece| {
            let start = (piece * PIECE_SECTORS).min(length);
            start..(start + PIECE_SECTORS).min(length)
        });
        pieces.flatten()
    }

    /// Sectors whose content differs.
    fn differences<'a>(
        &'a self,
        one: &'a [Value],
        other: &'a [Value],
    ) -> impl Iterator<Item = usize> + 'a {
        let length = one.len().min(other.len());
        let pieces = self.0.iter().map(move |piece| {
            let start = (piece * PIECE_SECTORS).min(length);
            start..(start + PIECE_SECTORS).min(length)
        });
        pieces
            .filter(|piece| one[piece.clone()] != other[piece.clone()])
            .flatten()
            .filter(|sector| one[*sector] != other[*sector])
    }
}

/// What a daemon that starts now on this node would say of itself.
fn state(metadata: &Metadata, boot: BootId) -> State {
    let superblock = &metadata.superblock;
    let target = superblock.copy.filter(|copy| copy.role == CopyRole::Target);
    State {
        volume_id: superblock.volume_id,
        size_sectors: superblock.size_sectors,
        logical_block_bytes: superblock.logical_block_bytes,
        sealed: superblock.sealed,
        view: superblock.view,
        history: superblock.history,
        flags: StateFlags {
            serving: false,
            unclean: superblock.serving,
            drained: superblock.drained,
            copy_target: target.is_some(),
            failed: superblock.failed,
            peer_failed: superblock.peer_failed,
            invalidated: superblock.invalidated,
            // As if it was attached: what it misses must be marked all the time.
            isolated: false,
        },
        copy_id: target.map_or(CopyId::NONE, |copy| copy.id),
        lineage: superblock.lineage,
        base: superblock.base,
        boot,
        known_peer_boot: superblock.member_boots[superblock.peer.index()],
        incarnation: superblock.incarnation,
        read_lease_ms: 0,
        prepared_sectors: superblock.prepared_sectors,
    }
}

/// Whether the marks have nothing to say when these two meet: everything is copied, or nothing is.
fn marks_do_not_count(one: &Metadata, other: &Metadata, boots: [BootId; 2]) -> bool {
    let states = [state(one, boots[0]), state(other, boots[1])];
    let sides = [0, 1].map(|node| Side {
        node: id(node),
        state: &states[node],
    });
    let source = match decide(sides[0], sides[1]) {
        Verdict::Refuse(_) | Verdict::Apart { .. } => return true,
        Verdict::Equal { .. } => return false,
        Verdict::Copy {
            extent: Extent::Full,
            ..
        } => return true,
        Verdict::Copy { source, .. } => source,
    };
    let source = if source == id(0) { one } else { other };
    source.superblock.copy.is_some_and(|copy| copy.full)
}

/// What the metadata of a node says of one sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Marks {
    active: bool,
    bit: bool,
}

fn marks(metadata: &Metadata, sector: usize) -> Marks {
    let superblock = &metadata.superblock;
    let sector = sector as u64;
    let extent = sector / u64::from(superblock.chunk_sectors);
    let active = match &metadata.activity {
        ActivityFound::Known(record) => record
            .extents
            .iter()
            .any(|active| u64::from(*active) == extent),
        ActivityFound::Lost { .. } => true,
    };
    let block = sector * SECTOR_BYTES / u64::from(superblock.layout.bitmap_block_bytes);
    let page = usize::try_from(block / PAGE_BITS).unwrap_or(usize::MAX);
    let bit = match metadata.bitmap.get(page) {
        Some(Ok(page)) => {
            let bit = block % PAGE_BITS;
            let word = usize::try_from(bit / 64).unwrap_or(0);
            page.words[word] & (1 << (bit % 64)) != 0
        }
        // A damaged page counts as full of marks, a missing one says nothing.
        Some(Err(_)) => true,
        None => false,
    };
    Marks { active, bit }
}

/// What of a disk is looked at.
#[derive(Clone, Copy, Debug)]
enum Held {
    /// What a read finds.
    Now,
    /// What a read finds if the power goes, and the disk forgets what was not flushed.
    Durably,
}

impl World {
    /// S7, at a moment at which a node may have lost what it knew.
    pub(super) fn check_cover(&mut self, when: &str) {
        let contents = self.held([Held::Now; 2]);
        let damaged = &self.care.damaged;
        let touched = &self.model.touched;
        let different: Vec<usize> = touched
            .differences(contents[0], contents[1])
            .filter(|sector| !damaged.iter().any(|damaged| damaged.contains(sector)))
            .collect();
        self.are_named(&different, [Held::Now; 2], when, "S7");
    }

    /// I5: a node does not name these sectors any more. They are equal on both disks, also if one of them loses what it
    /// did not flush; or the other node names them.
    pub(super) fn check_what_is_named_no_more(&mut self, node: usize, cleared: &[Range<u64>]) {
        if cleared.is_empty() {
            return;
        }
        self.count("cover: marks went");
        for held in [
            [Held::Now, Held::Now],
            [Held::Durably, Held::Now],
            [Held::Now, Held::Durably],
        ] {
            let [one, other] = self.held(held);
            let damaged = &self.care.damaged;
            let differs = |sector: &usize| one[*sector] != other[*sector];
            let different: Vec<usize> = cleared
                .iter()
                .map(|range| sectors(range, one.len()))
                .filter(|range| one[range.clone()] != other[range.clone()])
                .flatten()
                .filter(differs)
                .filter(|sector| !damaged.iter().any(|damaged| damaged.contains(sector)))
                .collect();
            self.are_named(&different, held, &format!("marks of {node} went"), "I5 S7");
        }
    }

    fn held(&self, held: [Held; 2]) -> [&[Value]; 2] {
        let size = self.largest_size();
        [0, 1].map(|node| {
            let data = &self.nodes[node].data;
            match held[node] {
                Held::Now => &data.content[..size],
                Held::Durably => &data.media()[..size],
            }
        })
    }

    /// Each of these sectors, in which the copies differ, is named durably, or everything is copied anyway.
    fn are_named(&mut self, different: &[usize], held: [Held; 2], when: &str, rule: &str) {
        let places = [&self.nodes[0], &self.nodes[1]];
        // A bit names a block, an entry of the log an extent: one answer for all sectors of the smaller of them.
        let grain = |place: &Node| {
            let superblock = place.meta.peek();
            let bits = u64::from(superblock.layout.bitmap_block_bytes) / SECTOR_BYTES;
            bits.min(superblock.chunk_sectors.into())
        };
        let grain = places.map(grain).into_iter().min().unwrap_or(1);
        let block = |sector: &usize| *sector as u64 / grain;
        let mut known = None;
        let named = |sector: &usize| {
            let again = known.replace(block(sector)) == Some(block(sector));
            let mut metas = places.iter().map(|place| &place.meta);
            again || metas.any(|meta| meta.names(*sector as u64))
        };
        if different.iter().all(named) {
            return;
        }
        let known = places.map(|place| place.meta.read());
        let boots = places.map(|place| place.boot);
        if marks_do_not_count(&known[0], &known[1], boots) {
            self.count("cover: a full copy follows");
            return;
        }
        let unnamed = different.iter().find(|sector| {
            let both = known.each_ref().map(|metadata| marks(metadata, **sector));
            !both.iter().any(|marks| marks.active || marks.bit)
        });
        let Some(sector) = unnamed else {
            self.count("cover: all differences are marked");
            return;
        };
        let values = self.held(held).map(|content| content[*sector]);
        let records = known.map(|metadata| {
            let superblock = metadata.superblock;
            let (copy, base) = (superblock.copy, superblock.base);
            (metadata.activity, copy, base, superblock.lineage)
        });
        let history = self.model.explain(*sector as u64);
        self.fail(format!(
            "{when}: sector {sector} is {:#x} and {:#x} ({held:?}), and nothing says so ({rule}): {records:?}{history}",
            values[0], values[1]
        ));
    }
}

fn sectors(range: &Range<u64>, size: usize) -> Range<usize> {
    let place = |sector: u64| usize::try_from(sector).unwrap_or(size).min(size);
    place(range.start)..place(range.end)
}

#[cfg(test)]
mod tests {
    use super::super::metadata::MetaDisk;
    use super::super::node::{format, id};
    use super::super::rng::Rng;
    use super::super::world::{Plan, World};
    use mirror_core::disk::{ActivityRecord, BitmapPage, PAGE_WORDS};
    use mirror_core::types::{BootId, Epoch, NodeSet, ViewId, VolumeId};
    use mirror_core::view::View;

    /// A pair of members that differs in sector 1000.
    fn different() -> World {
        let mut world = World::new(1, Plan::quiet(6000));
        let (mut rng, volume) = (Rng::new(1), Some(VolumeId([1; 16])));
        for node in 0..2 {
            let boot = BootId([2; 16]);
            let mut superblock = format(&mut rng, node, &world.plan, volume, boot);
            superblock.view = View {
                epoch: Epoch(3),
                id: ViewId([3; 16]),
                active: None,
                insync: NodeSet::only(id(0)).with(id(1)),
            };
            world.nodes[node].meta = MetaDisk::new(&superblock);
        }
        world.model.touched.add(1000, 1);
        world.nodes[0].data.content[1000] = 0x100;
        world
    }

    #[test]
    fn difference_without_a_mark_is_a_failure() {
        let mut world = different();
        world.check_cover("test");
        assert!(
            world
                .failure
                .is_some_and(|failure| failure.contains("sector 1000"))
        );
    }

    #[test]
    fn bit_of_either_node_covers() {
        for node in 0..2 {
            let mut world = different();
            let layout = world.nodes[node].meta.peek().layout;
            let mut words = [0; PAGE_WORDS];
            words[1] = 1 << (125 - 64);
            let (me, peer) = (id(node), id(1 - node));
            let page = BitmapPage {
                peer,
                page: 0,
                words,
            };
            let offset = BitmapPage::offset_bytes(&layout, me, peer, 0);
            world.nodes[node]
                .meta
                .write(1, offset, Box::new(page.encode()));
            world.nodes[node].meta.step();
            world.check_cover("test");
            assert_eq!(world.failure, None);
        }
    }

    #[test]
    fn active_extent_covers_and_its_neighbour_does_not() {
        for (extent, covers) in [(3, true), (4, false)] {
            let mut world = different();
            let layout = world.nodes[1].meta.peek().layout;
            let record = ActivityRecord {
                sequence: 7,
                extents: vec![extent],
            };
            let block = Box::new(record.encode(&layout));
            world.nodes[1]
                .meta
                .write(1, record.offset_bytes(&layout), block);
            world.nodes[1].meta.step();
            world.check_cover("test");
            assert_eq!(world.failure.is_none(), covers);
        }
    }
}

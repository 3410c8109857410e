//! Good values that inputs change.

use mirror_core::auth::cluster_id;
use mirror_core::disk::{CopyRecord, CopyRole, Isolation, Layout, Record, Superblock};
use mirror_core::types::{
    BackingId, BootId, CopyId, Epoch, Incarnation, NodeId, NodeSet, ViewId, VolumeId,
};
use mirror_core::view::{View, ViewHistory};
use mirror_core::wire::{Evidence, State, StateFlags};

/// The cluster's key.
pub const KEY: [u8; 32] = [7; 32];
/// Size of the sample volume.
pub const SIZE_SECTORS: u64 = 4096;
/// Read leases of both sides.
pub const LEASE_MS: u64 = 2000;
/// How many [`superblock`]s there are.
pub const KINDS: u8 = 8;
/// Their last epoch.
pub const EPOCH: u64 = 5;

/// A node's number.
pub fn node(number: u8) -> NodeId {
    NodeId::new(number % 8).unwrap_or_else(|| unreachable!("below 8"))
}

/// The volume's name.
pub fn name() -> [u8; 64] {
    let mut name = [0; 64];
    name[..4].copy_from_slice(b"data");
    name
}

/// The boot of a node.
pub fn boot(node: NodeId) -> BootId {
    BootId([0x70 + node.number(); 16])
}

/// A view with a number.
pub fn view(epoch: u64, active: Option<NodeId>, insync: NodeSet) -> View {
    View {
        epoch: Epoch(epoch),
        id: ViewId([u8::try_from(epoch).unwrap_or(0xee); 16]),
        active,
        insync,
    }
}

fn history(both: NodeSet) -> ViewHistory {
    let mut history = ViewHistory::default();
    for epoch in 1..EPOCH {
        history.push(view(epoch, None, both).mark());
    }
    history
}

/// A superblock of one of [`KINDS`] on node `me` of 0 and 1.
pub fn superblock(kind: u8, me: NodeId) -> Superblock {
    let peer = node(1 - me.number() % 2);
    let both = NodeSet::only(me).with(peer);
    let (active, insync) = match kind % KINDS {
        0 => (None, both),
        1 => (None, NodeSet::only(me)),
        2 => (None, NodeSet::EMPTY),
        3 => (Some(peer), NodeSet::only(peer)),
        4 => (Some(me), both),
        5 => (Some(me), NodeSet::only(me)),
        6 => (Some(peer), both),
        _ => (None, NodeSet::only(peer)),
    };
    let blank = kind % KINDS == 2;
    let mut layout =
        Layout::for_growth_to(2 * SIZE_SECTORS, 4096).unwrap_or_else(|error| panic!("{error}"));
    layout.activity_log_bytes = 5 * 4096;
    let copy = (insync == NodeSet::only(peer)).then_some(CopyRecord {
        id: CopyId([0x66; 16]),
        role: CopyRole::Target,
        full: false,
    });
    let mut member_boots = [BootId::NONE; 8];
    for node in [me, peer] {
        member_boots[node.index()] = boot(node);
    }
    Superblock {
        sequence: 9,
        cluster_id: cluster_id(&KEY),
        volume_id: if blank {
            VolumeId::NONE
        } else {
            VolumeId([0x55; 16])
        },
        volume_name: name(),
        node: me,
        peer,
        size_sectors: SIZE_SECTORS,
        data_start_sectors: 0,
        chunk_sectors: 64,
        logical_block_bytes: 512,
        layout,
        view: if blank {
            view(0, None, insync)
        } else {
            view(EPOCH, active, insync)
        },
        history: if blank {
            ViewHistory::default()
        } else {
            history(both)
        },
        sealed: Epoch(0),
        serving: active == Some(me),
        drained: false,
        failed: false,
        peer_failed: false,
        invalidated: false,
        isolation: Isolation::default(),
        copy,
        lineage: copy.map_or(CopyId::NONE, |copy| copy.id),
        base: view(EPOCH - 1, None, both).mark(),
        member_boots,
        own_boot: boot(me),
        incarnation: Incarnation(1),
        prepared_sectors: 0,
        backing: BackingId::NONE,
        record: Record::default(),
    }
}

/// What the node that wrote a superblock says of itself.
pub fn state(superblock: &Superblock) -> State {
    let target = superblock.copy.filter(|copy| copy.role == CopyRole::Target);
    State {
        volume_id: superblock.volume_id,
        size_sectors: superblock.size_sectors,
        logical_block_bytes: superblock.logical_block_bytes,
        sealed: superblock.sealed,
        view: superblock.view,
        history: superblock.history,
        flags: StateFlags {
            serving: superblock.view.active == Some(superblock.node),
            copy_target: target.is_some(),
            ..StateFlags::default()
        },
        copy_id: target.map_or(CopyId::NONE, |copy| copy.id),
        lineage: superblock.lineage,
        base: superblock.base,
        boot: boot(superblock.node),
        known_peer_boot: boot(superblock.peer),
        incarnation: Incarnation(2),
        read_lease_ms: LEASE_MS,
        prepared_sectors: superblock.prepared_sectors,
    }
}

/// What two nodes say of themselves: the same view, or one kind each.
pub fn states(choice: u8) -> (State, State) {
    let (one, other) = (choice % KINDS, choice / KINDS % KINDS);
    (
        state(&superblock(one, node(0))),
        state(&superblock(other, node(1))),
    )
}

/// The kind of superblock that the peer of a node with `kind` has.
pub fn counterpart(kind: u8) -> u8 {
    [0, 3, 1, 5, 6, 3, 4, 1][usize::from(kind % KINDS)]
}

/// What a node tells of its history.
pub fn evidence(superblock: &Superblock) -> Evidence {
    Evidence {
        view: superblock.view,
        common: superblock.base,
        last_write_s: 1_800_000_000,
        unique_bytes: 1 << 30,
        serving: true,
        unclean: false,
        forced: true,
    }
}

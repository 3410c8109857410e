//! What an operator sees.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::admin::{
    CopyCause, CopyProgress, CopyState, Frozen, LinkState, LinkStatus, OperationStatus, Role,
    SCHEMA, Status, ViewName, ViewStatus,
};
use crate::disk::CopyRole;
use crate::engine::Peer;
use crate::notice::{DiskNotice, Notice, Refusal, UpkeepNotice};
use crate::types::{Epoch, Instant, NodeId, SECTOR_BYTES};

use super::Volume;

impl Volume {
    /// The state in words and numbers, with what operators did.
    pub fn status(&self, now: Instant) -> Status {
        let operations = self.durable.record.operations.iter();
        Status {
            operations: operations.map(OperationStatus::of).collect(),
            ..self.standing(now)
        }
    }

    /// Whether this node serves the volume.
    pub const fn role(&self) -> Role {
        self.role
    }

    /// The status without the operations: for who looks often.
    pub fn standing(&self, now: Instant) -> Status {
        let mut problems = Vec::new();
        if let Some(errno) = self.failed {
            let failed = if self.metadata_only {
                Notice::MetadataFailed { errno }
            } else {
                Notice::DiskFailed { errno }
            };
            problems.push(failed.problem());
        }
        problems.extend(self.diskless_problem());
        if self.is_carried() {
            problems.push(Notice::Disk(DiskNotice::Carried).problem());
        }
        if self.peer_copy() == CopyState::Failed {
            problems.push(Notice::Disk(DiskNotice::PeerFailed).problem());
        }
        if self.is_forced() {
            let at_s = self.forced_at_s();
            problems.push(Notice::Forced { at_s }.problem());
        }
        if self.engine.is_frozen() {
            problems.push(Notice::Frozen.problem());
        }
        if self.up_session().is_none() {
            problems.push(
                self.last_refusal
                    .clone()
                    .unwrap_or_else(|| Notice::LinkLost.problem()),
            );
        }
        if self.durable.invalidated {
            problems.push(Notice::Upkeep(UpkeepNotice::Invalidated).problem());
        }
        let unreadable = self.engine.copy_unreadable();
        problems.extend(unreadable.map(|notice| notice.problem()));
        let size_bytes = self.durable.size_sectors * SECTOR_BYTES;
        let mut counters = self.engine.counters();
        counters.peer_writes = self.peer_ops.writes_done();
        Status {
            schema: SCHEMA.to_string(),
            volume: self.volume_name(),
            volume_id: self.durable.volume_id.to_string(),
            node: self.settings.node_name.clone(),
            peer: self.peer_name(),
            role: self.role,
            frozen: self.frozen(),
            copy: self.own_copy(),
            peer_copy: self.peer_copy(),
            link: self.link_status(now),
            view: self.view_status(),
            size_bytes,
            device_size_bytes: None,
            growing: self.grow_progress(),
            progress: self.progress(),
            out_of_sync_bytes: self.out_of_sync_bytes(),
            resync_paused_ms: self.resync_paused_ms(now),
            verify: self.verify_status(now),
            isolated: self.isolated_status(),
            inflight: self.engine.inflight() as u64,
            counters,
            device: None,
            problems,
            split: self.split_status(now),
            keeping: None,
            operations: Vec::new(),
        }
    }

    pub(super) fn volume_name(&self) -> String {
        let name = &self.settings.volume_name;
        let end = name
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(name.len());
        String::from_utf8_lossy(&name[..end]).to_string()
    }

    fn frozen(&self) -> Option<Frozen> {
        if self.role != Role::Active {
            None
        } else if self.engine.is_frozen() {
            Some(Frozen::PeerLost)
        } else if self.engine.is_held() {
            Some(Frozen::ViewChange)
        } else {
            None
        }
    }

    /// What this node's copy is worth.
    pub(super) fn own_copy(&self) -> CopyState {
        let target = self
            .durable
            .copy
            .is_some_and(|copy| copy.role == CopyRole::Target);
        if self.failed.is_some() || self.durable.failed {
            CopyState::Failed
        } else if self.is_blank() {
            CopyState::Blank
        } else if self.is_isolated() {
            CopyState::Isolated
        } else if self.is_member() {
            CopyState::InSync
        } else if target {
            CopyState::Copying
        } else if self.durable.view.insync.is_empty() {
            CopyState::Discarded
        } else {
            CopyState::Outdated
        }
    }

    fn peer_copy(&self) -> CopyState {
        if self.is_blank() {
            CopyState::Unknown
        } else if self.peer_counts() {
            CopyState::InSync
        } else if self.durable.isolation.peer.is_some() {
            CopyState::Isolated
        } else if matches!(self.engine.peer(), Peer::Target(_) | Peer::Joining(_)) {
            CopyState::Copying
        } else if self.durable.peer_failed {
            CopyState::Failed
        } else {
            CopyState::Outdated
        }
    }

    fn link_status(&self, now: Instant) -> LinkStatus {
        let state = if self.up_session().is_some() {
            LinkState::Up
        } else if self.current.is_some() {
            LinkState::Handshake
        } else if self.last_refusal.is_some() {
            LinkState::Refused
        } else {
            LinkState::Down
        };
        let ago = |at: Instant| u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX);
        LinkStatus {
            state,
            last_heard_ms: self.last_heard.map(ago),
            answered_ms: self.last_answered.map(ago),
            refusal: self.last_refusal.clone(),
            paths: Vec::new(),
        }
    }

    fn view_status(&self) -> ViewStatus {
        let view = self.durable.view;
        let members = [self.me(), self.settings.peer]
            .into_iter()
            .filter(|node| view.insync.contains(*node));
        let remembered = self.durable.history.0.iter();
        let remembered = remembered.filter(|mark| mark.epoch != Epoch(0));
        ViewStatus {
            epoch: view.epoch.0,
            id: view.id.to_string(),
            active: view.active.map(|node| self.name_of(node)),
            insync: members.map(|node| self.name_of(node)).collect(),
            sealed_epoch: self.durable.sealed.0,
            history: remembered.map(|mark| ViewName::from(*mark)).collect(),
            next_epoch: self.next_epoch().0,
            changing: self.obstacle() == Some(Refusal::Busy),
            booted: !self.is_of_this_boot(),
        }
    }

    fn name_of(&self, node: NodeId) -> String {
        if node == self.me() {
            self.settings.node_name.clone()
        } else {
            self.peer_name()
        }
    }

    /// What the peer lacks, while its copy does not count.
    fn out_of_sync_bytes(&self) -> u64 {
        if self.peer_counts() || self.is_blank() {
            return 0;
        }
        let intent = &self.engine.intent;
        let block_bytes = intent.geometry().block_sectors * SECTOR_BYTES;
        (intent.marks().count() * block_bytes).min(self.staged.size_sectors * SECTOR_BYTES)
    }

    fn progress(&self) -> Option<CopyProgress> {
        if let Some(progress) = self.engine.progress() {
            return Some(progress);
        }
        let target = self
            .durable
            .copy
            .is_some_and(|copy| copy.role == CopyRole::Target);
        let told = self.told.filter(|_| target)?;
        let left_bytes = told.left_sectors * SECTOR_BYTES;
        let total_bytes = told.most_sectors * SECTOR_BYTES;
        Some(CopyProgress {
            cause: self.copy_cause.unwrap_or(CopyCause::FirstCopy),
            source: false,
            copied_bytes: total_bytes.saturating_sub(left_bytes),
            total_bytes,
            rate_bytes_per_s: told.rate_bytes_per_s,
            eta_s: left_bytes.checked_div(told.rate_bytes_per_s),
            beside: None,
        })
    }
}

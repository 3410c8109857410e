//! Starts, kills, power.

use mirror_core::keys::Keys;
use mirror_core::limits::VOLUME_NAME_BYTES_MAX;
use mirror_core::paths::Paths;
use mirror_core::types::{BootId, Incarnation, NodeSet, Tag};
use mirror_core::volume::{DeviceAtStart, Settings, Volume};

use super::kernel::DEPTH;
use super::node::{KEY, MS, Process, id, name};
use super::world::{Happening, Mutant, World};
use core::time::Duration;

impl World {
    /// Starts the daemon as soon as the disks are quiet.
    pub fn start(&mut self, node: usize) {
        let place = &self.nodes[node];
        if !place.power || place.process.is_some() {
            return;
        }
        if self.is_held_by_the_dead(node) {
            self.at(MS, Happening::Start { node });
            return;
        }
        if !self.reads_its_metadata(node) {
            self.at(50 * MS, Happening::Start { node });
            return;
        }
        let place = &mut self.nodes[node];
        let mut metadata = place.meta.load();
        let superblock = &mut metadata.superblock;
        if self.plan.mutant == Some(Mutant::ForgetPeer) && superblock.view.insync.contains(id(node))
        {
            superblock.view.insync = NodeSet::only(id(node));
        }
        let stopping = place.device.as_ref().is_some_and(|device| device.stopping);
        let recovers =
            place.device.is_some() && superblock.serving && !(stopping && self.rng.percent(50));
        if !recovers {
            self.device_vanishes(node);
        }
        self.processes += 1;
        self.model.daemon_started(node);
        let number = self.processes;
        if let Some(device) = self.nodes[node].device.as_mut() {
            device.stopping = false;
        }
        let volume_name = metadata.superblock.volume_name;
        let settings = self.settings(node, volume_name);
        let device = if recovers {
            DeviceAtStart::Recovered
        } else {
            DeviceAtStart::None
        };
        let place = &mut self.nodes[node];
        let clock = place.clock(self.now);
        let volume = Volume::new(settings, metadata, device, clock);
        let dials = volume.dials();
        let paths = Paths::new(
            self.plan.paths,
            dials,
            Duration::from_secs(1),
            self.path_clock(node),
        );
        self.disturb();
        self.nodes[node].process = Some(Process::new(number, volume, paths));
        self.note(|| format!("{node} starts as process {number}, device {device:?}"));
        self.count(if recovers {
            "device recovered"
        } else {
            "daemon starts"
        });
        self.read_the_wall_clock(node);
        let process = number;
        self.at(MS, Happening::Paths { node, process });
        if recovers {
            self.reissue(node, number);
        }
    }

    fn settings(&mut self, node: usize, volume_name: [u8; VOLUME_NAME_BYTES_MAX]) -> Settings {
        let haste = self.plan.haste;
        Settings {
            volume_name,
            node: id(node),
            peer: id(1 - node),
            node_name: name(node).to_string(),
            peer_name: name(1 - node).to_string(),
            keys: Keys::first(&KEY),
            boot: self.nodes[node].boot,
            incarnation: Incarnation(self.rng.bits()),
            seed: self.rng.bytes32(),
            keepalive_interval: Duration::from_millis(500 / haste),
            link_timeout: Duration::from_millis(2000 / haste),
            read_lease: Duration::from_millis(1500 / haste),
            disk_timeout: super::stuck::LIMIT,
            copy_retry: Duration::from_millis(self.plan.copy_retry_ms),
            hot_extents_max: self.plan.hot_extents_max,
        }
    }

    fn reissue(&mut self, node: usize, process: u64) {
        for tag in 0..DEPTH {
            let held = self.nodes[node]
                .device
                .as_ref()
                .is_some_and(|device| device.slots[tag].is_some());
            if held {
                self.count("requests reissued");
                let longest_us = (self.plan.habits.late_hands_ms * 1000).max(2000);
                let after = self.micros(1, longest_us);
                let tag = Tag(u16::try_from(tag).unwrap_or(0));
                self.at(after, Happening::Hand { node, process, tag });
            }
        }
    }

    fn device_vanishes(&mut self, node: usize) {
        if let Some(device) = self.nodes[node].device.take() {
            for outstanding in device.slots.into_iter().flatten() {
                self.model.reading.remove(&outstanding.submitted);
                if let Some(write) = outstanding.write {
                    self.model.fail(write);
                }
            }
        }
    }

    /// kill -9.
    pub fn kill(&mut self, node: usize) {
        let Some(process) = self.nodes[node].process.take() else {
            return;
        };
        self.note(|| format!("{node} kill -9"));
        self.disturb();
        self.count("kill -9");
        self.drop_connections(node, process.number, true);
        let before = self.nodes[node].meta.peek().view;
        self.nodes[node].meta.kill(&mut self.rng);
        let after = self.nodes[node].meta.peek().view;
        if before != after {
            self.view_is_durable(node, &before, &after);
        }
        self.isolated_device_dies(node);
        self.check_cover("kill -9");
    }

    /// The daemon ended by itself.
    pub(super) fn exit(&mut self, node: usize) {
        let Some(process) = self.nodes[node].process.take() else {
            return;
        };
        if self.nodes[node].device.is_some() || self.has_isolated_device(node) {
            self.fail(format!("{node}: the daemon ended with a live device"));
        }
        if self.nodes[node].meta.persists() {
            self.fail(format!(
                "{node}: the daemon ended while a superblock is being written"
            ));
        }
        // The log and the bitmap are right at any moment: what is under way may land or not.
        self.nodes[node].meta.kill(&mut self.rng);
        self.drop_connections(node, process.number, true);
        if self.chaos {
            let after = self.micros(100_000, 4_000_000) / self.plan.haste;
            self.at(after, Happening::Start { node });
        }
    }

    /// The power goes.
    pub fn power_cut(&mut self, node: usize) {
        if !self.nodes[node].power {
            return;
        }
        self.note(|| format!("{node} power cut"));
        self.count("power cuts");
        self.control_ends(node);
        if let Some(process) = self.nodes[node].process.take() {
            self.drop_connections(node, process.number, false);
        }
        self.device_vanishes(node);
        let before = self.nodes[node].meta.peek().view;
        let place = &mut self.nodes[node];
        place.power = false;
        place.paused_until = 0;
        place.data.power_cut(&mut self.rng);
        place.meta.power_cut(&mut self.rng);
        if self.rng.percent(3) && self.nodes[node].meta.lose_the_log() {
            self.count("activity log lost");
        }
        let after = self.nodes[node].meta.peek().view;
        if before != after {
            self.view_is_durable(node, &before, &after);
        }
        self.isolated_device_dies(node);
        self.model.power_cut(node);
        self.check_cover("power cut");
        self.keep_disks(node);
    }

    /// The power comes back; the daemon starts a little later.
    pub fn power_on(&mut self, node: usize) {
        if self.nodes[node].power {
            return;
        }
        if self.nodes[node].held_off {
            self.at(500 * MS / self.plan.haste, Happening::PowerOn { node });
            return;
        }
        self.note(|| format!("{node} power on"));
        self.other_disks_come(node);
        let boot = BootId(self.rng.bytes16());
        let place = &mut self.nodes[node];
        place.power = true;
        place.boots += 1;
        if self.plan.mutant != Some(Mutant::SameBoot) {
            place.boot = boot;
        }
        place.booted_at = self.now;
        place.hidden = 0;
        place.view_flush = 0;
        place.view_flushed = 0;
        // What was not flushed is gone anyway, and both nodes know that of a boot (S11).
        place.data.went_back = false;
        self.forget_marks(node);
        self.reset_old_connections(node);
        let after = self.micros(1000, 300_000) / self.plan.haste;
        self.at(after, Happening::Start { node });
        self.control_starts_later(node);
    }

    /// A virtual machine stands still; its clock may not see it.
    pub fn pause(&mut self, node: usize, millis: u64, seen: bool) {
        self.note(|| format!("{node} pauses for {millis} ms, seen {seen}"));
        let place = &mut self.nodes[node];
        if place.paused_until > self.now {
            return;
        }
        place.paused_until = self.now + millis * MS;
        self.disturbed = self.disturbed.max(place.paused_until);
        if !seen {
            // By its own clock, which stands still meanwhile and goes on from where it stood.
            place.hidden += millis * (MS / 1000) * place.ppm / 1000;
        }
        self.count(if seen {
            "pauses"
        } else {
            "pauses that no clock saw"
        });
    }
}

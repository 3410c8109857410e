//! The memory of requests, as the driver keeps it: each tag has a buffer and a spare one. A disk operation that was
//! given up keeps the buffer that it was started with, and the tag goes on with the spare: for a read at once, for
//! a write when the tag is answered. What the kernel is given comes from the buffer that the tag has then.

use mirror_core::effect::DiskOperation;
use mirror_core::event::{IoOwner, RequestKind};
use mirror_core::types::Tag;

use super::disk::{Running, Value};
use super::world::{Mutant, World};

/// What a spare buffer holds that nothing was copied to.
const NOTHING: Value = 0;

impl World {
    /// A read was given up, and may fill its buffer at any time.
    pub(super) fn read_put_aside(&mut self, node: usize, owner: IoOwner) {
        let late = self.nodes[node].data.late.last();
        let reads = late.is_some_and(|running| running.operation == DiskOperation::Read);
        let forgets = self.plan.mutant == Some(Mutant::QuarantineForgotten);
        if let (IoOwner::Application(tag), true, false) = (owner, reads, forgets) {
            self.put_aside(node, tag, false);
        }
    }

    /// A tag is answered: a buffer that a write which was given up still uses stays with that write.
    pub(super) fn leave_to_the_disk(&mut self, node: usize, tag: Tag) {
        let place = &mut self.nodes[node];
        let Some(process) = place.process.as_ref() else {
            return;
        };
        let memory = process.memory[usize::from(tag.0)];
        let owner = IoOwner::Application(tag);
        let mut late = place.data.late.iter_mut();
        let Some(running) = late.find(|late| late.owner == owner && late.memory == memory) else {
            return;
        };
        running.release = true;
        match self.plan.mutant {
            Some(Mutant::QuarantineForgotten) => {}
            mutant => self.put_aside(node, tag, mutant != Some(Mutant::SpareWithoutData)),
        }
    }

    /// From now on the tag has its spare buffer.
    fn put_aside(&mut self, node: usize, tag: Tag, copies: bool) {
        let place = &mut self.nodes[node];
        let slot = usize::from(tag.0);
        if let Some(process) = place.process.as_mut() {
            process.memory[slot] += 1;
        }
        let device = place.device.as_mut();
        let Some(outstanding) = device.and_then(|device| device.slots[slot].as_mut()) else {
            return;
        };
        let healed = outstanding.request.kind == RequestKind::Read && copies;
        if !copies {
            outstanding.data = vec![NOTHING; outstanding.request.range.count as usize];
        }
        if healed {
            self.count("read answered from a spare buffer");
        }
    }

    /// A write that was given up has ended: until now it could take its data from its buffer.
    pub(super) fn late_write_from(&mut self, node: usize, running: &Running) {
        if let (IoOwner::Application(Tag(tag)), true, true, Some(process)) = (
            running.owner,
            running.changes(),
            running.release,
            self.nodes[node].process.as_ref(),
        ) && process.memory[usize::from(tag)] == running.memory
        {
            self.fail(format!(
                "{node}: a write that was given up is from the memory of tag {tag}, which is in use again (I15)"
            ));
        }
    }
}

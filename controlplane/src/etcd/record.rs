//! What stands in etcd: all registers of a cluster, and how far their enrolment is.

use std::collections::BTreeMap;
use std::io;

use controlplane_api::arbiter::{Hex16, Mark};
use controlplane_core::register::{Enrolment, Registers};
use mirror_core::types::{NodeId, NodeSet, VolumeId};
use serde::{Deserialize, Serialize};

use crate::clerk::{RegisterLines, lines_of, registers_of};

const SCHEMA: &str = "lockstep.registers/1";

#[derive(Serialize, Deserialize)]
struct Text {
    schema: String,
    /// How often it was written.
    number: u64,
    /// As etcd names itself.
    etcd_cluster: String,
    members: u8,
    registers: RegisterLines,
    #[serde(default)]
    enrolling: BTreeMap<String, EnrolmentLine>,
}

#[derive(Serialize, Deserialize)]
struct EnrolmentLine {
    reported: u8,
    sole: Mark,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    holder: Option<NodeId>,
}

/// The value of the key.
#[derive(Clone, Debug)]
pub(super) struct Record {
    /// One more with every write.
    pub(super) number: u64,
    /// Into which etcd it was written: a copy in another one is not believed.
    pub(super) etcd_cluster: String,
    pub(super) registers: Registers,
}

impl Record {
    /// Nothing is known: both members have to report.
    pub(super) fn new(members: NodeSet, etcd_cluster: &str, number: u64) -> Self {
        Self {
            number,
            etcd_cluster: etcd_cluster.to_string(),
            registers: Registers::new(members, BTreeMap::new()),
        }
    }

    pub(super) fn encode(&self) -> io::Result<Vec<u8>> {
        let enrolling = self
            .registers
            .enrolling()
            .iter()
            .map(|(volume, enrolment)| {
                let line = EnrolmentLine {
                    reported: enrolment.reported.bits(),
                    sole: enrolment.sole.into(),
                    holder: enrolment.holder,
                };
                (Hex16(volume.0).to_string(), line)
            });
        let text = Text {
            schema: SCHEMA.to_string(),
            number: self.number,
            etcd_cluster: self.etcd_cluster.clone(),
            members: self.registers.members().bits(),
            registers: lines_of(&self.registers),
            enrolling: enrolling.collect(),
        };
        serde_json::to_vec(&text).map_err(io::Error::other)
    }

    /// What cannot be understood is never taken for nothing.
    pub(super) fn decode(value: &[u8], members: NodeSet) -> io::Result<Self> {
        let strange = |why: String| io::Error::other(format!("the registers in etcd: {why}"));
        let text: Text =
            serde_json::from_slice(value).map_err(|error| strange(error.to_string()))?;
        if text.schema != SCHEMA {
            return Err(strange(format!("schema {:?} is not known", text.schema)));
        }
        if text.members != members.bits() {
            return Err(strange("they are of other nodes".to_string()));
        }
        let known = registers_of(text.registers).map_err(&strange)?;
        let mut enrolling = BTreeMap::new();
        for (volume, line) in text.enrolling {
            let volume: Hex16 = volume.parse().map_err(&strange)?;
            let enrolment = Enrolment {
                reported: NodeSet::from_bits(line.reported),
                sole: line.sole.into(),
                holder: line.holder,
            };
            enrolling.insert(VolumeId(volume.0), enrolment);
        }
        let registers = Registers::new(members, known).with_enrolling(enrolling);
        Ok(Self {
            number: text.number,
            etcd_cluster: text.etcd_cluster,
            registers,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mirror_core::types::{Epoch, ViewId};
    use mirror_core::view::View;

    fn members() -> NodeSet {
        NodeSet::from_bits(3)
    }

    #[test]
    fn registers_and_reports_come_back_as_they_were() {
        let mut record = Record::new(members(), "17", 4);
        let view = View {
            epoch: Epoch(5),
            id: ViewId([1; 16]),
            active: None,
            insync: members(),
        };
        let node = |number| NodeId::new(number).expect("a node");
        record.registers.report(node(0), VolumeId([7; 16]), &view);
        record.registers.report(node(0), VolumeId([8; 16]), &view);
        record.registers.report(node(1), VolumeId([8; 16]), &view);
        let value = record.encode().expect("text");
        let again = Record::decode(&value, members()).expect("a record");
        assert_eq!(again.number, 4);
        assert_eq!(again.registers.durable(), record.registers.durable());
        assert_eq!(again.registers.enrolling(), record.registers.enrolling());
        assert_eq!(again.registers.enrolling().len(), 1);
    }

    #[test]
    fn what_is_not_understood_is_an_error_and_not_an_empty_record() {
        let record = Record::new(members(), "17", 4);
        let value = String::from_utf8(record.encode().expect("text")).expect("text");
        for wrong in [
            String::new(),
            value.replace("registers/1", "registers/2"),
            value.replace("\"members\":3", "\"members\":1"),
            value[..value.len() - 1].to_string(),
        ] {
            assert!(
                Record::decode(wrong.as_bytes(), members()).is_err(),
                "{wrong}"
            );
        }
    }
}

//! Timeouts that are raised for a while, between the same two `lockstepd`.

use controlplane_api::cluster::{ClusterStatus, Timeouts, TimeoutsStage};

use super::beds::{Bed, eventually};

const SCALE: &str = "/v1/timeouts/scale";
const HALF_MORE: &str = r#"{"factor_tenths":15,"for_s":600}"#;

fn timeouts(bed: &Bed, node: usize) -> Timeouts {
    let status: ClusterStatus =
        serde_json::from_str(&bed.get(node, "/v1/status")).expect("a status");
    status.timeouts.expect("of this release")
}

fn both_are(bed: &Bed, stage: TimeoutsStage, tenths: u8) {
    for node in 0..2 {
        eventually("both nodes follow", || {
            let timeouts = timeouts(bed, node);
            let peer = timeouts
                .peer
                .map(|peer| (peer.waits_tenths, peer.lease_tenths));
            timeouts.stage == stage
                && timeouts.waits_tenths == tenths
                && peer == Some((tenths, tenths))
        });
    }
}

#[test]
fn raised_timeouts_outlive_a_crash_and_end_on_both_nodes() {
    let mut bed = Bed::new();
    bed.start(0);
    let problem = bed.post(0, SCALE, HALF_MORE).expect_err("nobody is heard");
    assert_eq!(problem.code, "LS6192");
    bed.start_both_again();
    both_are(&bed, TimeoutsStage::AsConfigured, 10);
    for (tenths, seconds) in [(10, 600), (201, 600), (300, 600), (15, 59), (15, 86_401)] {
        let body = format!(r#"{{"factor_tenths":{tenths},"for_s":{seconds}}}"#);
        let problem = bed.post(1, SCALE, &body).expect_err("out of range");
        assert_eq!(problem.code, "LS6190");
    }
    bed.post(1, SCALE, HALF_MORE).expect("said");
    both_are(&bed, TimeoutsStage::Raised, 15);
    let wanted = timeouts(&bed, 0).wanted.expect("it is followed");
    assert_eq!((wanted.number, wanted.by.as_str()), (1, "node2"));
    // The promise is on its disk; the word counts on in this boot.
    bed.kill(0);
    bed.start(0);
    assert_eq!(timeouts(&bed, 0).waits_tenths, 15);
    both_are(&bed, TimeoutsStage::Raised, 15);
    let again = timeouts(&bed, 0).wanted.expect("it is followed");
    assert!(again.left_ms <= wanted.left_ms, "it did not begin anew");
    bed.post(0, "/v1/timeouts/reset", "{}").expect("said");
    both_are(&bed, TimeoutsStage::AsConfigured, 10);
    for node in 0..2 {
        assert_eq!(timeouts(&bed, node).wanted, None);
        bed.says(node, "LS6197");
    }
    bed.says(1, "LS6196");
}

/// Nobody can tell what was promised: the node begins, keeps the most for a while, and learns what is wanted from the other one.
#[test]
fn a_node_that_lost_what_it_promised_keeps_the_most() {
    let mut bed = Bed::new();
    bed.start_both();
    both_are(&bed, TimeoutsStage::AsConfigured, 10);
    bed.post(0, SCALE, HALF_MORE).expect("said");
    both_are(&bed, TimeoutsStage::Raised, 15);
    bed.kill(1);
    std::fs::write(bed.file(1, "state").join("timeouts.json"), "{").expect("damaged");
    bed.start(1);
    bed.says(1, "LS6195");
    assert_eq!(timeouts(&bed, 1).waits_tenths, 200);
    eventually("it follows again", || {
        timeouts(&bed, 1)
            .wanted
            .is_some_and(|wanted| wanted.factor_tenths == 15)
    });
}

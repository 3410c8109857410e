//! What only a witness has: certificates, and a file of its own.

use controlplane::arbiter::Heard;
use controlplane::trust::{Authority, Identity, witness_identity};
use controlplane_api::arbiter::Hex16;

use crate::beds::*;
use crate::talk::*;

async fn is_lost(mut node: Node) {
    let heard = node.hears(|_| true).await;
    assert!(matches!(heard, Heard::Lost { .. }), "{heard:?}");
}

#[tokio::test]
async fn strangers_are_not_heard() {
    let bed = WitnessBed::new().await;
    // The same names, signed by somebody else; and a cluster that this witness does not serve.
    for cluster in [CLUSTER, Hex16([8; 16])] {
        let (forger, _) = Authority::create(cluster).expect("an authority");
        let forged: Identity = forger.issue(node(0)).expect("a certificate");
        is_lost(bed.asks(&forged)).await;
    }
}

#[tokio::test]
async fn a_witness_with_another_certificate_is_not_believed() {
    let mut bed = WitnessBed::new().await;
    bed.identity = witness_identity().expect("an identity");
    is_lost(bed.member(0).await).await;
}

#[tokio::test]
async fn a_witness_that_cannot_write_is_no_contact() {
    let bed = WitnessBed::new().await;
    std::fs::remove_dir_all(bed.directory.path()).expect("its disk is gone");
    is_lost(bed.member(0).await).await;
}

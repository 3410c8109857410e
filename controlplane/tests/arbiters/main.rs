//! The same questions to a witness and to a real etcd, on loopback: the answers are the same.

mod beds;
mod etcd;
mod talk;
mod witness;

use controlplane::arbiter::Heard;
use controlplane_core::register::{Answer, Refusal};
use mirror_core::types::NodeSet;

use beds::*;
use talk::*;

/// Of two nodes one is granted, also after a restart of the arbiter.
async fn one_of_two_is_granted(bed: &mut impl Bed) {
    let (mut one, mut two) = (bed.member(0).await, bed.member(1).await);
    one.reports().await;
    two.reports().await;
    let basis = mark(5, 5);
    assert_eq!(one.claims(basis, mark(6, 1)).await, granted(mark(6, 1)));
    bed.restart().await;
    let (mut one, mut two) = (bed.member(0).await, bed.member(1).await);
    let expected = superseded(6, Some(node(0)));
    assert_eq!(two.claims(basis, mark(8, 2)).await, expected);
    assert_eq!(one.claims(basis, mark(7, 3)).await, granted(mark(6, 1)));
    // Given back, it is free for both: here the other one is first.
    one.gives_back(basis).await;
    assert_eq!(two.claims(basis, mark(9, 4)).await, granted(mark(9, 4)));
    assert_eq!(
        one.claims(basis, mark(10, 5)).await,
        superseded(9, Some(node(1)))
    );
}

/// One node's word is not enough for an arbiter that knows nothing.
async fn one_report_is_not_enough(bed: &mut impl Bed) {
    let mut one = bed.member(0).await;
    one.reports().await;
    let missing = NodeSet::only(node(1));
    one.hears(
        |heard| matches!(heard, Heard::Enrolled { missing: of, volumes: 1 } if *of == missing),
    )
    .await;
    let expected = refused(Refusal::NotEnrolled { missing });
    assert_eq!(one.claims(mark(5, 5), mark(6, 1)).await, expected);
    let _two = bed.member(1).await;
    let missing = NodeSet::default();
    one.hears(
        |heard| matches!(heard, Heard::Enrolled { missing: of, volumes: 1 } if *of == missing),
    )
    .await;
}

/// Many claims of both at once: one view is granted.
async fn a_race_has_one_winner(bed: &mut impl Bed) {
    let (mut one, mut two) = (bed.member(0).await, bed.member(1).await);
    one.reports().await;
    two.reports().await;
    for round in 0..20u8 {
        let basis = mark(5, 5);
        let epoch = 6 + u64::from(round);
        let (first, second) = tokio::join!(
            one.claims(basis, mark(epoch, 2 * round + 1)),
            two.claims(basis, mark(epoch, 2 * round + 2)),
        );
        let wins = |answer: &Answer| matches!(answer, Answer::Granted(_));
        assert!(wins(&first) != wins(&second), "{first:?} {second:?}");
        match wins(&first) {
            true => one.gives_back(basis).await,
            false => two.gives_back(basis).await,
        }
    }
}

/// How an arbiter loses what it knew.
#[derive(Clone, Copy, Debug)]
enum Loss {
    /// All of it.
    All,
    /// What it learned since the backup.
    Since,
}

/// An arbiter that lost its data, or got old ones back, hears both nodes before it grants anything, and the past is not
/// granted.
async fn the_past_is_not_granted(bed: &mut impl Bed, loss: Loss) {
    let (mut one, mut two) = (bed.member(0).await, bed.member(1).await);
    one.reports().await;
    two.reports().await;
    bed.turn_back().await;
    let basis = mark(5, 5);
    assert_eq!(one.claims(basis, mark(6, 6)).await, granted(mark(6, 6)));
    two.reports().await;
    // Node 0 went on alone, and cannot say so.
    drop(one);
    match loss {
        Loss::All => bed.forget().await,
        Loss::Since => bed.turn_back().await,
    }
    two.reports().await;
    let missing = NodeSet::only(node(0));
    let expected = refused(Refusal::NotEnrolled { missing });
    assert_eq!(two.claims(basis, mark(6, 2)).await, expected);
    let mut one = bed.member(0).await;
    one.reports.send_replace(held(6, NodeSet::only(node(0))));
    one.reports().await;
    let expected = superseded(6, Some(node(0)));
    assert_eq!(two.claims(basis, mark(6, 2)).await, expected);
}

async fn conforms<B: Bed>(bed: impl AsyncFn() -> B) {
    one_of_two_is_granted(&mut bed().await).await;
    one_report_is_not_enough(&mut bed().await).await;
    a_race_has_one_winner(&mut bed().await).await;
    for loss in [Loss::All, Loss::Since] {
        the_past_is_not_granted(&mut bed().await, loss).await;
    }
}

#[tokio::test]
async fn a_witness_conforms() {
    conforms(WitnessBed::new).await;
}

#[tokio::test]
#[ignore = "needs LOCKSTEP_ETCD: `cargo verify etcd` has one"]
async fn etcd_conforms() {
    conforms(EtcdBed::new).await;
}

#[tokio::test]
#[ignore = "needs LOCKSTEP_ETCD: `cargo verify etcd` has one"]
async fn etcd_of_three_members_conforms() {
    conforms(async || EtcdBed::of(3).await).await;
}

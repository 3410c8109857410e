//! What only etcd has: several members, answers that are lost on the way, a key that others can write.

use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use controlplane::arbiter::Heard;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::beds::*;
use crate::talk::*;

/// Between a node and etcd: passes everything on, or keeps what would be written for later.
struct Proxy {
    port: u16,
    keeps: Arc<AtomicBool>,
    kept: Arc<AtomicUsize>,
    let_go: watch::Sender<bool>,
}

impl Proxy {
    async fn to(target: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (keeps, kept) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (let_go, wait) = watch::channel(false);
        let proxy = Proxy {
            port,
            keeps: Arc::clone(&keeps),
            kept: Arc::clone(&kept),
            let_go,
        };
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(("127.0.0.1", target)).await;
                let far = far.expect("etcd listens");
                let (keeps, kept, wait) = (Arc::clone(&keeps), Arc::clone(&kept), wait.clone());
                tokio::spawn(pass(near, far, keeps, kept, wait));
            }
        });
        proxy
    }
}

/// A request comes in one piece or two on loopback; its head names what it is.
async fn pass(
    near: TcpStream,
    far: TcpStream,
    keeps: Arc<AtomicBool>,
    kept: Arc<AtomicUsize>,
    mut let_go: watch::Receiver<bool>,
) {
    let (mut from_near, mut to_near) = near.into_split();
    let (mut from_far, mut to_far) = far.into_split();
    tokio::spawn(async move { tokio::io::copy(&mut from_far, &mut to_near).await });
    let mut bytes = [0; 16 * 1024];
    while let Ok(count @ 1..) = from_near.read(&mut bytes).await {
        let piece = &bytes[..count];
        let writes = piece.windows(8).any(|word| word == b"/kv/txn ");
        if writes && keeps.load(Ordering::SeqCst) {
            kept.fetch_add(1, Ordering::SeqCst);
            let gone = let_go.wait_for(|go| *go).await;
            assert!(gone.is_ok(), "the test ended");
        }
        if to_far.write_all(piece).await.is_err() {
            return;
        }
    }
    // etcd drops the questions of whoever hangs up; a network that is slow does not tell it.
    std::future::pending::<()>().await;
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LIMIT, holds).await.expect(what);
}

/// A release that hangs on its way does not undo what its node, started again, was granted meanwhile.
#[tokio::test]
#[ignore = "needs LOCKSTEP_ETCD: `cargo verify etcd` has one"]
async fn a_late_release_does_not_undo_a_grant_of_now() {
    let bed = EtcdBed::new().await;
    let (mut one, mut two) = (bed.member(0).await, bed.member(1).await);
    one.reports().await;
    two.reports().await;
    let basis = mark(5, 5);
    assert_eq!(one.claims(basis, mark(6, 1)).await, granted(mark(6, 1)));
    drop(one);
    let proxy = Proxy::to(bed.ports()[0]).await;
    let mut old = bed.asks(0, &[proxy.port]);
    old.reports().await;
    proxy.keeps.store(true, Ordering::SeqCst);
    old.questions.send(release(1, basis)).await.expect("asked");
    until("the release is on its way", || {
        proxy.kept.load(Ordering::SeqCst) > 0
    })
    .await;
    drop(old);
    let mut again = bed.member(0).await;
    assert_eq!(again.claims(basis, mark(7, 3)).await, granted(mark(6, 1)));
    proxy.let_go.send_replace(true);
    two.reports().await;
    two.reports().await;
    let expected = superseded(6, Some(node(0)));
    assert_eq!(two.claims(basis, mark(8, 2)).await, expected);
}

/// Of several members one that hangs, or is not there, costs less than a lease.
#[tokio::test]
#[ignore = "needs LOCKSTEP_ETCD: `cargo verify etcd` has one"]
async fn a_member_that_hangs_costs_no_lease() {
    let bed = EtcdBed::new().await;
    let silent = StdListener::bind("127.0.0.1:0").expect("a port");
    let silent_port = silent.local_addr().expect("an address").port();
    let ports = [silent_port, bed.ports()[0], 1];
    for number in 0..2 {
        let begin = tokio::time::Instant::now();
        let mut node = bed.asks(number, &ports);
        let heard = node.hears(|_| true).await;
        assert!(matches!(heard, Heard::Contact { .. }), "{heard:?}");
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
}

/// An etcd that reads and does not write counts as lost, before anybody claims.
#[tokio::test]
#[ignore = "needs LOCKSTEP_ETCD: `cargo verify etcd` has one"]
async fn an_etcd_that_does_not_write_is_lost() {
    let bed = EtcdBed::new().await;
    let (mut one, mut two) = (bed.member(0).await, bed.member(1).await);
    one.reports().await;
    two.reports().await;
    drop(one);
    let proxy = Proxy::to(bed.ports()[0]).await;
    proxy.keeps.store(true, Ordering::SeqCst);
    let mut one = bed.asks(0, &[proxy.port]);
    for _ in 0..3 {
        let heard = one.hears(|_| true).await;
        assert!(matches!(heard, Heard::Lost { .. }), "{heard:?}");
    }
}

/// What stands under the key and is not understood is left alone, and nobody is granted anything.
#[tokio::test]
#[ignore = "needs LOCKSTEP_ETCD: `cargo verify etcd` has one"]
async fn strange_registers_in_etcd_are_not_replaced() {
    let bed = EtcdBed::new().await;
    let body = serde_json::json!({ "key": EtcdBed::key(), "value": STANDARD.encode("{}") });
    bed.call("/v3/kv/put", body).await;
    let mut one = bed.member(0).await;
    let heard = one.hears(|_| true).await;
    assert!(matches!(heard, Heard::Lost { .. }), "{heard:?}");
    let body = serde_json::json!({ "key": EtcdBed::key() });
    let answer = bed.call("/v3/kv/range", body).await;
    assert_eq!(answer["kvs"][0]["value"], STANDARD.encode("{}").as_str());
}

/// Of three members one may fail, also the one that leads: the other two answer, and know what was granted. Of two lost ones
/// nobody makes an arbiter: nothing is granted, nothing is refused, and it counts as lost.
#[tokio::test]
#[ignore = "needs LOCKSTEP_ETCD: `cargo verify etcd` has one"]
async fn two_of_three_members_are_an_arbiter_and_one_is_none() {
    let mut bed = EtcdBed::of(3).await;
    let (mut one, mut two) = (bed.member(0).await, bed.member(1).await);
    one.reports().await;
    two.reports().await;
    let basis = mark(5, 5);
    assert_eq!(one.claims(basis, mark(6, 1)).await, granted(mark(6, 1)));
    let first = bed.leader().await;
    bed.kill(first);
    let expected = superseded(6, Some(node(0)));
    assert_eq!(two.claims(basis, mark(8, 2)).await, expected);
    one.gives_back(basis).await;
    assert_eq!(two.claims(basis, mark(9, 4)).await, granted(mark(9, 4)));

    let second = (first + 1) % 3;
    bed.kill(second);
    drop(one);
    let mut one = bed.member(0).await;
    let question = claim(1000, basis, mark(10, 5));
    one.questions.send(question).await.expect("asked");
    for _ in 0..3 {
        let heard = one.hears(|_| true).await;
        assert!(matches!(heard, Heard::Lost { .. }), "{heard:?}");
    }
    // The first one comes back with what it knew when it was killed, which the last grant is not in.
    bed.start(first);
    bed.answers(first).await;
    one.reports().await;
    let expected = superseded(9, Some(node(1)));
    assert_eq!(one.claims(basis, mark(11, 6)).await, expected);
}

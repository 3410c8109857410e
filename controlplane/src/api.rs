//! The control plane's door on its own node: HTTP and JSON on a unix socket that root alone can open. The lines are
//! [`controlplane_api::cluster`], [`controlplane_api::verbs`], [`controlplane_api::together`], [`controlplane_api::config`], [`controlplane_api::events`], [`controlplane_api::keys`] and [`controlplane_api::why`].
//! docs/controlplane.md lists what can be asked for.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use controlplane_api::cluster::ClusterStatus;
use controlplane_api::config::PushAsk;
use controlplane_api::events::{Events, Query};
use controlplane_api::keys::RotateAsk;
use controlplane_api::paths::node_socket;
use controlplane_api::together::{AskedTogether, ClusterVerb};
use controlplane_api::trust::TrustWish;
use controlplane_api::verbs::{Asked, GroupVerb, NodeVerb, Refused, ScaleAsked};
use controlplane_api::why::Why;
use mirror_core::admin::Problem;
use serde::Serialize;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

use crate::events::Log;
use crate::node::{Answer, AnswerTogether, Verb};
use crate::notify;
use crate::push;

/// An answer has no more of what happened here than that, before JSON makes it longer: twice as long at most.
const EVENTS_BYTES_MAX: usize = 1024 * 1024;

/// A question, and where the answer goes.
#[derive(Debug)]
pub enum Ask {
    /// How everything is.
    Status(oneshot::Sender<ClusterStatus>),
    /// Why it is so.
    Why(oneshot::Sender<Why>),
    /// An operator wants something done.
    Do(Verb, Answer),
    /// The same with the whole cluster.
    Together((ClusterVerb, bool), AnswerTogether),
}

/// Opens the door and answers for ever. There is one daemon on a node: an older socket is nobody's.
///
/// # Errors
/// If the socket cannot be made.
pub async fn serve(asks: mpsc::Sender<Ask>, pusher: push::Handle, log: Log) -> io::Result<()> {
    let path = node_socket();
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
        std::fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&path)?;
    notify::ready();
    let router = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/why", get(why))
        .route("/v1/groups/{group}/{verb}", post(group_verb))
        .route("/v1/nodes/{node}/{verb}", post(node_verb))
        .route("/v1/timeouts/scale", post(timeouts_scale))
        .route("/v1/timeouts/reset", post(timeouts_reset))
        .route("/v1/cluster/{verb}", post(cluster_verb))
        .with_state((asks, pusher.clone()));
    let config = Router::new()
        .route("/v1/config", get(config_show))
        .route("/v1/config/text", get(config_text))
        .route("/v1/config/push", post(config_push))
        .route("/v1/config/abandon", post(config_abandon))
        .route("/v1/keys", get(keys_show))
        .route("/v1/keys/rotate", post(keys_rotate))
        .route("/v1/trust", get(trust))
        .route("/v1/trust/rotate", post(trust_rotate))
        .route("/v1/trust/renew", post(trust_renew))
        .with_state(pusher.clone());
    let happened = Router::new()
        .route("/v1/events", get(events))
        .with_state((log, pusher));
    let router = router.merge(config).merge(happened);
    axum::serve(listener, router).await
}

/// Where questions about the cluster go, and those about its configuration.
type Doors = (mpsc::Sender<Ask>, push::Handle);

async fn status(State((asks, pusher)): State<Doors>) -> Result<Json<ClusterStatus>, StatusCode> {
    let (sender, answer) = oneshot::channel();
    let gone = |_| StatusCode::SERVICE_UNAVAILABLE;
    asks.send(Ask::Status(sender))
        .await
        .map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    let status = answer.await.map_err(gone)?;
    let (config, keys, trust) = (pusher.note(), pusher.keys_note(), pusher.trust_note());
    Ok(Json(ClusterStatus {
        config,
        keys,
        trust,
        ..status
    }))
}

async fn why(State((asks, _)): State<Doors>) -> Result<Json<Why>, StatusCode> {
    let (sender, answer) = oneshot::channel();
    let gone = StatusCode::SERVICE_UNAVAILABLE;
    asks.send(Ask::Why(sender)).await.map_err(|_| gone)?;
    Ok(Json(answer.await.map_err(|_| gone)?))
}

/// What happened. Read and written as JSON beside this thread, which is the one that decides.
async fn events(
    State((log, pusher)): State<(Log, push::Handle)>,
    RawQuery(query): RawQuery,
) -> Result<Response, StatusCode> {
    let query = Query::parse(&query.unwrap_or_default()).ok_or(StatusCode::BAD_REQUEST)?;
    if let Some(after) = query.after {
        let limit = Duration::from_millis(query.wait_ms);
        log.wait(after, limit).await;
    }
    let peer = if query.peer {
        let asked = Query {
            after: query.peer_after,
            ..query.clone()
        };
        Some((pusher.peer_name(), pusher.peer_events(asked).await))
    } else {
        None
    };
    let answer = move || {
        let own = log.page(&query, EVENTS_BYTES_MAX);
        serde_json::to_vec(&Events::of(own, peer, query.count))
    };
    let answer = tokio::task::spawn_blocking(answer).await;
    let json = [(header::CONTENT_TYPE, "application/json")];
    match answer {
        Ok(Ok(text)) => Ok((json, text).into_response()),
        Ok(Err(_)) | Err(_) => Err(StatusCode::SERVICE_UNAVAILABLE),
    }
}

async fn config_show(State(pusher): State<push::Handle>) -> Response {
    Json(pusher.show().await).into_response()
}

async fn config_text(State(pusher): State<push::Handle>) -> Response {
    match pusher.text().await {
        Ok(text) => text.into_response(),
        Err(problem) => (StatusCode::CONFLICT, Json(Refused::new(problem))).into_response(),
    }
}

async fn config_push(State(pusher): State<push::Handle>, Json(asked): Json<PushAsk>) -> Response {
    answer_of(pusher.push(asked).await)
}

async fn config_abandon(
    State(pusher): State<push::Handle>,
    Json(Asked { .. }): Json<Asked>,
) -> Response {
    answer_of(pusher.abandon().await)
}

async fn keys_show(State(pusher): State<push::Handle>) -> Response {
    answer_of(pusher.keys().await)
}

async fn trust(State(pusher): State<push::Handle>) -> Response {
    answer_of(pusher.trust().await)
}

async fn trust_rotate(State(pusher): State<push::Handle>, Json(wish): Json<TrustWish>) -> Response {
    answer_of(pusher.rotate_authority(wish).await)
}

async fn trust_renew(State(pusher): State<push::Handle>, Json(wish): Json<TrustWish>) -> Response {
    answer_of(pusher.renew_certificates(wish).await)
}

async fn keys_rotate(State(pusher): State<push::Handle>, Json(asked): Json<RotateAsk>) -> Response {
    answer_of(pusher.rotate(asked).await)
}

fn answer_of(outcome: Result<impl Serialize, Problem>) -> Response {
    match outcome {
        Ok(said) => Json(said).into_response(),
        Err(problem) => (StatusCode::CONFLICT, Json(Refused::new(problem))).into_response(),
    }
}

async fn group_verb(
    State((asks, _)): State<Doors>,
    Path((group, verb)): Path<(String, GroupVerb)>,
    Json(asked): Json<Asked>,
) -> Result<Response, StatusCode> {
    let node = asked.node;
    tell(&asks, Verb::Group { group, verb, node }).await
}

async fn node_verb(
    State((asks, _)): State<Doors>,
    Path((node, verb)): Path<(String, NodeVerb)>,
    Json(Asked { .. }): Json<Asked>,
) -> Result<Response, StatusCode> {
    tell(&asks, Verb::Node { node, verb }).await
}

async fn timeouts_scale(
    State((asks, _)): State<Doors>,
    Json(asked): Json<ScaleAsked>,
) -> Result<Response, StatusCode> {
    let wanted = (asked.factor_tenths, asked.for_s);
    tell(&asks, Verb::Timeouts(Some(wanted))).await
}

async fn timeouts_reset(
    State((asks, _)): State<Doors>,
    Json(Asked { .. }): Json<Asked>,
) -> Result<Response, StatusCode> {
    tell(&asks, Verb::Timeouts(None)).await
}

async fn cluster_verb(
    State((asks, _)): State<Doors>,
    Path(verb): Path<ClusterVerb>,
    Json(AskedTogether { dry_run }): Json<AskedTogether>,
) -> Result<Response, StatusCode> {
    let (sender, answer) = oneshot::channel();
    let gone = StatusCode::SERVICE_UNAVAILABLE;
    let ask = Ask::Together((verb, dry_run), sender);
    asks.send(ask).await.map_err(|_| gone)?;
    Ok(answer_of(answer.await.map_err(|_| gone)?))
}

async fn tell(asks: &mpsc::Sender<Ask>, verb: Verb) -> Result<Response, StatusCode> {
    let (sender, answer) = oneshot::channel();
    asks.send(Ask::Do(verb, sender))
        .await
        .map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    Ok(match answer.await {
        Ok(Ok(said)) => Json(said).into_response(),
        Ok(Err(problem)) => (StatusCode::CONFLICT, Json(Refused::new(problem))).into_response(),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    })
}

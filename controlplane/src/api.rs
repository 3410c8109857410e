//! The control plane's door on its own node: HTTP and JSON on a unix socket that root alone can open.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use controlplane_api::cluster::ClusterStatus;
use controlplane_api::paths::node_socket;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

/// A question, and where the answer goes.
#[derive(Debug)]
pub enum Ask {
    /// How everything is.
    Status(oneshot::Sender<ClusterStatus>),
}

/// Opens the door and answers for ever. There is one daemon on a node: an older socket is nobody's.
///
/// # Errors
/// If the socket cannot be made.
pub async fn serve(asks: mpsc::Sender<Ask>) -> io::Result<()> {
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
    let router = Router::new()
        .route("/v1/status", get(status))
        .with_state(asks);
    axum::serve(listener, router).await
}

async fn status(State(asks): State<mpsc::Sender<Ask>>) -> Result<Json<ClusterStatus>, StatusCode> {
    let (sender, answer) = oneshot::channel();
    let gone = |_| StatusCode::SERVICE_UNAVAILABLE;
    asks.send(Ask::Status(sender))
        .await
        .map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    answer.await.map(Json).map_err(gone)
}

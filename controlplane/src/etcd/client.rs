//! The two calls of etcd's JSON gateway (`/v3/kv/range`, `/v3/kv/txn`; etcd 3.4 and later) that an arbiter needs.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use serde_json::json;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Longest answer that is read: a value of 256 registers, in base64.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// `HOST:PORT`: a member of etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    host: String,
    port: u16,
}

/// It is no endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("HOST:PORT, a name or an address, without https")]
pub struct EndpointError;

impl Endpoint {
    /// Whether it is on this machine whatever a name server says.
    pub fn is_loopback(&self) -> bool {
        let address: Option<IpAddr> = self.host.parse().ok();
        address.is_some_and(|address| address.is_loopback())
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let (host, port) = text.rsplit_once(':').ok_or(EndpointError)?;
        let port = port.parse().map_err(|_| EndpointError)?;
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        ServerName::try_from(host).map_err(|_| EndpointError)?;
        Ok(Self {
            host: host.to_string(),
            port,
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What a key holds, as a majority confirmed it.
#[derive(Debug)]
pub(super) struct Found {
    /// etcd's own name for its cluster.
    pub(super) cluster: String,
    /// `None`: there is no such key.
    pub(super) value: Option<Vec<u8>>,
    /// When the key was written last; 0 if there is none.
    pub(super) value_revision: u64,
}

/// A connection to one member.
pub(super) struct Client {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("host", &self.host).finish()
    }
}

#[derive(Deserialize)]
struct RangeAnswer {
    header: Header,
    #[serde(default)]
    kvs: Vec<KeyValue>,
}

#[derive(Deserialize)]
struct TxnAnswer {
    #[serde(default)]
    succeeded: bool,
}

#[derive(Deserialize)]
struct Header {
    cluster_id: String,
}

#[derive(Deserialize)]
struct KeyValue {
    mod_revision: String,
    #[serde(default)]
    value: String,
}

impl Client {
    pub(super) async fn connect(
        endpoint: &Endpoint,
        tls: Option<&Arc<ClientConfig>>,
        server_name: Option<&str>,
    ) -> io::Result<Self> {
        let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
        stream.set_nodelay(true)?;
        let sender = if let Some(tls) = tls {
            let name = server_name.unwrap_or(&endpoint.host).to_string();
            let name = ServerName::try_from(name).map_err(io::Error::other)?;
            let stream = TlsConnector::from(Arc::clone(tls))
                .connect(name, stream)
                .await?;
            shake_hands(stream).await?
        } else {
            shake_hands(stream).await?
        };
        Ok(Self {
            sender,
            host: endpoint.to_string(),
        })
    }

    /// Linearizable: it is what the key holds at some moment after the call.
    pub(super) async fn read(&mut self, key: &str) -> io::Result<Found> {
        let question = json!({ "key": STANDARD.encode(key) });
        let answer: RangeAnswer = self.call("/v3/kv/range", &question).await?;
        let Some(found) = answer.kvs.into_iter().next() else {
            return Ok(Found {
                cluster: answer.header.cluster_id,
                value: None,
                value_revision: 0,
            });
        };
        let value = STANDARD.decode(found.value).map_err(io::Error::other)?;
        Ok(Found {
            cluster: answer.header.cluster_id,
            value: Some(value),
            value_revision: found.mod_revision.parse().map_err(io::Error::other)?,
        })
    }

    /// Writes if the key was not written since that revision. Returns whether it was written; after an error it may be
    /// written still.
    pub(super) async fn swap(&mut self, key: &str, since: u64, value: &[u8]) -> io::Result<bool> {
        let key = STANDARD.encode(key);
        let question = json!({
            "compare": [{
                "key": key,
                "target": "MOD",
                "result": "EQUAL",
                "mod_revision": since.to_string(),
            }],
            "success": [{ "requestPut": { "key": key, "value": STANDARD.encode(value) } }],
        });
        let answer: TxnAnswer = self.call("/v3/kv/txn", &question).await?;
        Ok(answer.succeeded)
    }

    async fn call<T: for<'de> Deserialize<'de>>(
        &mut self,
        path: &str,
        question: &serde_json::Value,
    ) -> io::Result<T> {
        let body = serde_json::to_vec(question).map_err(io::Error::other)?;
        let request = Request::post(path)
            .header(hyper::header::HOST, &self.host)
            .header(hyper::header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(io::Error::other)?;
        self.sender.ready().await.map_err(io::Error::other)?;
        let answer = self.sender.send_request(request).await;
        let answer = answer.map_err(io::Error::other)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        if status != StatusCode::OK {
            let text = String::from_utf8_lossy(&body);
            let text: String = text.chars().take(200).collect();
            return Err(io::Error::other(format!("etcd answers {status}: {text}")));
        }
        serde_json::from_slice(&body).map_err(io::Error::other)
    }
}

async fn shake_hands<S>(stream: S) -> io::Result<SendRequest<Full<Bytes>>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    // It ends with the sender, or with the connection; whoever asks next is told.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_host_and_a_port() {
        let parse = |text: &str| text.parse::<Endpoint>();
        for (good, loopback) in [
            ("10.0.0.5:2379", false),
            ("etcd1.example:2379", false),
            ("localhost:2379", false),
            ("[fd00::5]:2379", false),
            ("127.0.0.1:2379", true),
            ("[::1]:2379", true),
        ] {
            let endpoint = parse(good).expect(good);
            assert_eq!(
                (endpoint.to_string().as_str(), endpoint.is_loopback()),
                (good, loopback)
            );
        }
        let scheme = format!("https:{}10.0.0.5:2379", "//");
        for wrong in [&scheme, "10.0.0.5", ":2379", "a:70000", "a b:2379", "a:"] {
            assert_eq!(parse(wrong), Err(EndpointError), "{wrong}");
        }
    }
}

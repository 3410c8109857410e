//! etcd as the arbiter: every node carries out the registers' rules itself, by compare-and-swap on one key.
//!
//! The key holds all registers of the cluster. A node reads it (through the leader: a read that a majority confirmed),
//! applies its question to what it read, and writes the result on the condition that nobody wrote meanwhile. So the
//! questions have one order, as at a witness, and the rules are the same (`controlplane-core`'s `register`). Nothing
//! rests on leases or clocks of etcd.
//!
//! A write whose answer was lost may still arrive later: its condition is the revision that it had read. So whatever a node
//! relies on is written anew, also where it changes nothing: a grant, which an older release must not undo, and a release,
//! which no older claim must follow.

mod client;
mod record;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use controlplane_api::arbiter::{Ask, Hex16, Reply};
use mirror_core::types::{NodeId, NodeSet};
use rustls::ClientConfig;
use tokio::time::timeout;

use crate::arbiter::Arbiter;
use crate::clerk;
use client::{Client, Found};
pub use client::{Endpoint, EndpointError};
use record::Record;

/// The record is written that often even if nothing changed: an etcd that reads and does not write (no space, say) is told
/// before it matters.
const TOUCH_INTERVAL: Duration = Duration::from_secs(10);
/// Two nodes write; more than a few repetitions mean that somebody else does, too.
const TRIES_MAX: u32 = 16;

/// Where etcd is, and who asks.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its members, tried in turn.
    pub endpoints: Vec<Endpoint>,
    /// Required unless they are on this machine.
    pub tls: Option<Arc<ClientConfig>>,
    /// The name in their certificates, if it is not the endpoint's.
    pub server_name: Option<String>,
    /// Whose registers.
    pub cluster: Hex16,
    /// Its nodes.
    pub members: NodeSet,
    /// This node.
    pub me: NodeId,
    /// One of several members is waited for so long, then the next one is asked: well below the lease, which ends when
    /// none has answered.
    pub patience: Duration,
}

impl Settings {
    fn key(&self) -> String {
        format!("/lockstep/{}/registers", self.cluster)
    }
}

/// etcd, as one node sees it.
#[derive(Debug)]
pub struct Etcd {
    settings: Settings,
    client: Option<Client>,
    /// The next endpoint to be tried.
    turn: usize,
    /// The highest number of a record that this run has seen: a lower one is the past.
    seen: u64,
    /// When it last wrote; `None`: not in this run, or the last try failed.
    wrote: Option<Instant>,
}

impl Etcd {
    /// Connects to nobody yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            client: None,
            // Not both nodes hang when one member does.
            turn: settings.me.index(),
            settings,
            seen: 0,
            wrote: None,
        }
    }

    /// The record that is there, and what a node may believe of it.
    fn believe(&self, found: &Found) -> io::Result<(Record, bool)> {
        let fresh = |number| Record::new(self.settings.members, &found.cluster, number);
        let Some(value) = &found.value else {
            if self.seen > 0 {
                self.begins_anew("is gone");
            }
            return Ok((fresh(self.seen), true));
        };
        let record = Record::decode(value, self.settings.members)?;
        if record.number < self.seen {
            self.begins_anew("is older than what it was");
            return Ok((fresh(self.seen), true));
        }
        if record.etcd_cluster != found.cluster {
            self.begins_anew("was copied from another etcd cluster");
            return Ok((fresh(record.number), true));
        }
        Ok((record, false))
    }

    fn begins_anew(&self, what: &str) {
        tracing::warn!(
            code = "LS6003",
            key = self.settings.key(),
            "what etcd holds {what}: both nodes have to report before it arbitrates"
        );
    }

    async fn carry_out(&mut self, ask: &Ask) -> io::Result<Reply> {
        let key = self.settings.key();
        for _ in 0..TRIES_MAX {
            let client = self.client.as_mut().ok_or(io::ErrorKind::NotConnected)?;
            let found = client.read(&key).await?;
            let (mut record, anew) = self.believe(&found)?;
            let before = record.encode()?;
            let reply = clerk::carry_out(&mut record.registers, self.settings.me, ask.clone());
            let relied_on = matches!(reply, Reply::Granted { .. } | Reply::Released);
            let due = matches!(ask, Ask::Report { .. })
                && self.wrote.is_none_or(|at| at.elapsed() >= TOUCH_INTERVAL);
            if !anew && !relied_on && !due && record.encode()? == before {
                self.seen = record.number;
                return Ok(reply);
            }
            record.number += 1;
            let value = record.encode()?;
            self.wrote = None;
            let client = self.client.as_mut().ok_or(io::ErrorKind::NotConnected)?;
            if client.swap(&key, found.value_revision, &value).await? {
                self.seen = record.number;
                self.wrote = Some(Instant::now());
                return Ok(reply);
            }
        }
        Err(io::Error::other(format!(
            "{key} in etcd was changed by others {TRIES_MAX} times in a row"
        )))
    }

    async fn reach(&mut self) -> io::Result<()> {
        if self.client.is_some() {
            return Ok(());
        }
        let settings = &self.settings;
        let endpoint = &settings.endpoints[self.turn % settings.endpoints.len()];
        let name = settings.server_name.as_deref();
        let client = Client::connect(endpoint, settings.tls.as_ref(), name).await;
        let client = client.map_err(|error| io::Error::other(format!("{endpoint}: {error}")))?;
        self.client = Some(client);
        Ok(())
    }

    async fn try_once(&mut self, ask: &Ask) -> io::Result<Reply> {
        self.reach().await?;
        self.carry_out(ask).await
    }
}

impl Arbiter for Etcd {
    async fn connect(&mut self) -> io::Result<()> {
        self.client = None;
        Ok(())
    }

    async fn ask(&mut self, _number: u64, ask: Ask) -> io::Result<Reply> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for _ in 0..self.settings.endpoints.len() {
            let tried = match self.settings.endpoints.len() {
                // Whoever asks has a limit of its own.
                1 => Ok(self.try_once(&ask).await),
                _ => timeout(self.settings.patience, self.try_once(&ask)).await,
            };
            match tried {
                Ok(Ok(reply)) => return Ok(reply),
                Ok(Err(error)) => last = error,
                Err(_) => last = io::Error::other("a member of etcd does not answer in time"),
            }
            // Whatever is on its way on this connection is not waited for.
            self.client = None;
            self.turn = self.turn.wrapping_add(1);
        }
        Err(last)
    }
}

//! The cluster's secret on this node, and its steps to the next one: the shell of [`controlplane_core::rotation`].
//!
//! All of it blocks: files are flushed, and the daemons of the volumes are asked.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use controlplane_api::keys::{NodeKeys, Stage};
use controlplane_core::rotation::{Effect, Event, Part, Rotation, Why};
use controlplane_core::wire::HeartbeatKeys;
use mirror_core::admin::Problem;
use mirror_core::disk::keys_bytes;
use mirror_core::keys::{Keys, Place, Prints, Secret};
use mirror_core::types::NodeId;

use crate::durable::{replace, sync};
use crate::heartbeat::Shared;
use crate::key;

mod told;
mod volumes;

pub(crate) use told::{differ, unlike};

/// The heartbeats take new secrets within one beat.
const HEARTBEATS_TIMEOUT: Duration = Duration::from_secs(2);
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
const KEY_MODE: u32 = 0o600;

/// What a node's part needs to know.
pub struct Settings {
    /// This node.
    pub me: NodeId,
    /// Its name.
    pub name: String,
    /// The other one's.
    pub peer_name: String,
    /// The key file.
    pub path: PathBuf,
    /// The directory of the volumes' files.
    pub volumes: PathBuf,
    /// The directory of their daemons' sockets and locks.
    pub run: PathBuf,
    /// Takes the secrets after each step.
    pub heartbeats: SyncSender<HeartbeatKeys>,
    /// What the heartbeats go by.
    pub shared: Arc<Shared>,
}

/// A node's part in rotations.
pub struct Keyring {
    settings: Settings,
    inner: Mutex<Inner>,
    /// What the status says of it.
    note: Mutex<Option<Problem>>,
    /// Replaces the file: [`replace`].
    replace: fn(&Path, &[u8], u32) -> io::Result<()>,
}

struct Inner {
    rotation: Rotation,
    to_adopt: Option<Keys>,
    /// What the file may hold for good since it could not be replaced: another step than the durable one.
    unsure: Option<Keys>,
    /// Why it does not get on.
    stuck: Option<Problem>,
}

impl Keyring {
    /// A run begins, with what it loaded.
    ///
    /// # Errors
    /// If it cannot be made durable: what an earlier run wrote may not be. Not in a cluster that never rotated: its file was
    /// there before.
    pub fn begin(settings: Settings, keys: Keys) -> io::Result<Self> {
        if let Err(error) = sync(&settings.path) {
            if keys.place() > Place::default() {
                return Err(error);
            }
            let problem = told::not_saved(&settings.name, &settings.path, &error);
            tracing::warn!(code = problem.code, "{}", problem.message);
        }
        let mut effects = Vec::new();
        let rotation = Rotation::new(Part::of(settings.me), keys, &mut effects);
        let mut inner = Inner {
            rotation,
            to_adopt: None,
            unsure: None,
            stuck: None,
        };
        for effect in effects {
            if let Effect::Adopt(keys) = effect {
                inner.to_adopt = Some(keys);
            }
        }
        Ok(Self {
            settings,
            inner: Mutex::new(inner),
            note: Mutex::new(None),
            replace,
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What an operator should know.
    pub fn note(&self) -> Option<Problem> {
        let note = self.note.lock().unwrap_or_else(PoisonError::into_inner);
        note.clone()
    }

    /// What is told the other node.
    pub fn says(&self) -> Option<(Prints, Option<Secret>)> {
        self.inner().rotation.says()
    }

    /// How far this node is, durably.
    pub fn place(&self) -> Place {
        self.inner().rotation.keys().place()
    }

    /// Whether the other node is known to be as far, and nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.inner().rotation.is_idle()
    }

    /// Whether something is to be done when the other node can be asked: a rotation, or a first step that may have been made.
    pub fn goes_on(&self) -> bool {
        let inner = self.inner();
        let begun = inner.rotation.keys().place() > Place::default() || inner.rotation.is_unsure();
        begun && !inner.rotation.is_idle()
    }

    /// For people.
    pub fn line(&self) -> NodeKeys {
        let inner = self.inner();
        let keys = inner.rotation.keys();
        NodeKeys {
            node: self.settings.name.clone(),
            generation: keys.generation(),
            stage: stage(keys.place()),
            adopted: inner.rotation.says().is_some(),
            problem: inner.stuck.clone(),
        }
    }

    /// What does not go by what is durable yet is told.
    pub fn settle(&self) {
        let mut inner = self.inner();
        self.adopt(&mut inner);
        self.look(&inner);
    }

    /// The other node stands there.
    ///
    /// # Errors
    /// LS6253: the nodes have different secrets.
    pub fn hear(&self, prints: Prints, new: Option<Secret>) -> Result<(), Problem> {
        let mut inner = self.inner();
        let heard = self.act(&mut inner, Event::Heard(prints, new));
        let heard = heard.map_err(|why| match why {
            Why::Differ => differ(&self.settings.name, &self.settings.peer_name),
            Why::OutOfTurn | Why::Follows | Why::UnderWay | Why::Unfit => told::fault(why),
        });
        match &heard {
            Ok(()) => {}
            Err(problem) => {
                if inner.stuck.as_ref() != Some(problem) {
                    tracing::error!(code = problem.code, "{}", problem.message);
                }
                inner.stuck = Some(problem.clone());
            }
        }
        self.look(&inner);
        heard
    }

    /// The other node cannot be asked, while a rotation is under way.
    pub fn unheard(&self, problem: Problem) {
        let mut inner = self.inner();
        if inner.rotation.keys().place() > Place::default() && !inner.rotation.is_idle() {
            inner.stuck = Some(problem);
        }
        self.look(&inner);
    }

    /// Another secret, of 32 bytes that nobody else knows. The generation that both nodes come to.
    ///
    /// # Errors
    /// Why it does not begin; nothing is changed then, or it may have begun: LS6259.
    pub fn rotate(&self, secret: Secret) -> Result<u64, Problem> {
        let mut inner = self.inner();
        let before = inner.rotation.keys().generation();
        let begun = self.act(&mut inner, Event::Begin(secret));
        let begun = begun.map_err(|why| match why {
            Why::Differ => differ(&self.settings.name, &self.settings.peer_name),
            Why::OutOfTurn | Why::Follows | Why::UnderWay | Why::Unfit => told::fault(why),
        });
        self.look(&inner);
        begun?;
        if inner.rotation.keys().place().is_settled() {
            // LS6259 if it may have begun.
            let stuck = inner.stuck.clone();
            return Err(stuck.unwrap_or_else(|| told::fault(Why::Unfit)));
        }
        Ok(before + 1)
    }

    /// Whether a rotation can begin as far as this node is concerned.
    ///
    /// # Errors
    /// LS6255 the file, LS6256 and LS6257 the volumes.
    pub fn ready(&self) -> Result<(), Problem> {
        self.settle();
        let (name, path) = (&self.settings.name, &self.settings.path);
        // Nobody replaces the file meanwhile: both write beside it under one name.
        let inner = self.inner();
        let keys = *inner.rotation.keys();
        crate::push::prove(path).map_err(|why| told::not_replaceable(name, &why))?;
        self.unchanged(&Vec::from_iter([keys].into_iter().chain(inner.unsure)))?;
        drop(inner);
        volumes::ready(&self.settings, keys.place())
    }

    /// One event, and all that follows here.
    fn act(&self, inner: &mut Inner, event: Event) -> Result<(), Why> {
        let mut effects = Vec::new();
        inner.rotation.handle(event, &mut effects)?;
        if inner.to_adopt.is_none() {
            inner.stuck = None;
        }
        while let Some(effect) = effects.pop() {
            match effect {
                Effect::Save(keys) => {
                    let report = self.save(inner, keys);
                    inner.rotation.handle(report, &mut effects)?;
                }
                Effect::Adopt(keys) => {
                    inner.to_adopt = Some(keys);
                    self.adopt(inner);
                }
            }
        }
        Ok(())
    }

    fn save(&self, inner: &mut Inner, keys: Keys) -> Event {
        let name = &self.settings.name;
        if let Err(problem) = self.write(inner, keys) {
            tracing::error!(code = problem.code, "{}", problem.message);
            inner.stuck = Some(problem);
            return Event::NotSaved;
        }
        inner.unsure = None;
        if keys == *inner.rotation.keys() {
            return Event::Saved;
        }
        let generation = keys.generation();
        match stage(keys.place()) {
            Stage::AcceptsNext => {
                tracing::info!(code = "LS6250", generation, node = %name, "the next generation of the cluster's key is accepted");
            }
            Stage::AcceptsLast => {
                tracing::info!(code = "LS6250", generation, node = %name, "the new generation of the cluster's key is sent");
            }
            Stage::Settled => {
                tracing::info!(code = "LS6250", generation, node = %name, "the last generation of the cluster's key is accepted no more");
            }
        }
        Event::Saved
    }

    /// # Errors
    /// LS6255: the file was not replaced, or it was with what this node goes on to. LS6259: with what may not have begun.
    fn write(&self, inner: &mut Inner, keys: Keys) -> Result<(), Problem> {
        let (name, path) = (&self.settings.name, &self.settings.path);
        let before = *inner.rotation.keys();
        let known: Vec<Keys> = [before, keys].into_iter().chain(inner.unsure).collect();
        let there = self.unchanged(&known)?;
        let written = if there == before && keys == before && inner.unsure.is_none() {
            // It was never replaced: in a cluster that never rotated it stays as it was made.
            sync(path)
        } else {
            (self.replace)(path, &keys_bytes(&keys), KEY_MODE)
        };
        let Err(error) = written else {
            return Ok(());
        };
        if keys != before && key::read(path).ok() != Some(before) {
            inner.unsure = Some(keys);
        }
        let begins = inner.rotation.part() == Part::Leads && before.place().is_settled();
        match inner.unsure {
            Some(_) if begins => Err(told::unsure(name, path, &error)),
            Some(_) | None => Err(told::not_saved(name, path, &error)),
        }
    }

    /// What the file holds, if it is one of these: nobody put another one in place.
    fn unchanged(&self, known: &[Keys]) -> Result<Keys, Problem> {
        let (name, path) = (&self.settings.name, &self.settings.path);
        let there =
            key::read(path).map_err(|error| told::not_replaceable(name, &error.to_string()))?;
        if known.contains(&there) {
            return Ok(there);
        }
        Err(told::edited(name, path))
    }

    fn adopt(&self, inner: &mut Inner) {
        let Some(keys) = inner.to_adopt else {
            return;
        };
        let adopted = self
            .heartbeats(&keys)
            .and_then(|()| volumes::adopt(&self.settings, keys.place()));
        match adopted {
            Ok(()) => {
                (inner.to_adopt, inner.stuck) = (None, None);
                if let Err(why) = inner.rotation.handle(Event::Adopted, &mut Vec::new()) {
                    inner.stuck = Some(told::fault(why));
                }
            }
            Err(problem) => inner.stuck = Some(problem),
        }
    }

    /// Until the heartbeats go by them.
    fn heartbeats(&self, keys: &Keys) -> Result<(), Problem> {
        let place = keys.place().0;
        let goes_by = || self.settings.shared.keys_place.load(Ordering::Acquire) == place;
        if goes_by() {
            return Ok(());
        }
        // If there is no room, it has them already, or older ones: looked at again.
        let _ = self.settings.heartbeats.try_send(HeartbeatKeys::new(keys));
        let until = Instant::now() + HEARTBEATS_TIMEOUT;
        while !goes_by() {
            if Instant::now() >= until {
                return Err(told::heartbeats(&self.settings.name));
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        Ok(())
    }

    /// What the status should say is worked out anew.
    fn look(&self, inner: &Inner) {
        let place = inner.rotation.keys().place();
        let note = match &inner.stuck {
            // A cluster that never rotated needs nothing of all this, so far; but other keys are other keys.
            Some(stuck)
                if place.0 > 0 || inner.rotation.is_unsure() || stuck.code == told::DIFFER =>
            {
                Some(stuck.clone())
            }
            None if !place.is_settled() => Some(told::under_way(place)),
            Some(_) | None => None,
        };
        *self.note.lock().unwrap_or_else(PoisonError::into_inner) = note;
    }
}

/// As operators are told.
pub(crate) fn stage(place: Place) -> Stage {
    match place.0 % 3 {
        0 => Stage::Settled,
        1 => Stage::AcceptsNext,
        _ => Stage::AcceptsLast,
    }
}

#[cfg(test)]
mod tests;

//! A deterministic simulator: two nodes run the real [`mirror_core::volume::Volume`] from a seed, on
//! simulated disks, network, clocks and kernels; one thread, virtual time.
//!
//! [`world::World`] is the agenda; `shell` executes the core's effects, `link` moves frames, `life`
//! starts and kills, `checks` judges, `operator` and `faults` act, `ambush` waits for its moment, `theme`
//! says what a run is about. What must hold is in `checks` and [`model`]; a broken rule ends the run with
//! the seed and the last steps.

mod ambush;
mod arbiter;
mod aside;
mod bereaved;
mod bereft;
mod checks;
mod control;
mod cover;
pub mod coverage;
mod damage;
mod device;
mod disk;
mod failover;
pub mod faults;
mod faulty;
pub mod fleet;
mod grow;
mod habits;
mod happening;
mod interconnect;
mod isolate;
mod kernel;
mod life;
mod link;
mod memory;
mod metadata;
mod model;
pub mod mutants;
mod network;
pub mod node;
mod operator;
mod outage;
mod paths;
mod progress;
mod resolve;
mod rng;
mod run;
mod services;
mod shelf;
mod shell;
pub mod shrink;
mod spin;
mod step;
mod stuck;
mod theme;
pub mod told;
mod unreadable;
mod upkeep;
pub mod whole;
mod wishes;
mod witness;
mod words;
pub mod world;

pub use run::{Report, Run, keep_panics_quiet};

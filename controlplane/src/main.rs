//! `lockstepd`: the daemon of a node, and the witness.

fn main() {}

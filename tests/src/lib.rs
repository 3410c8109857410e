//! What proves the cores: golden files, tidy, simulator.

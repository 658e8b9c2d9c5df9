//! WHEN a fleet is rotated. What decides is pure; the heartbeat only says that a second has passed. This room must
//! never act on a cloud, nor read the config file: what it needs to know is handed to it.

pub mod due;
pub mod heartbeat;

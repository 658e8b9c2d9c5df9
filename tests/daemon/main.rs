//! The real daemon as its operator meets it: processes, signals, sockets, files, the journal's database, simulated clouds
//! on real ports. Nothing here looks inside.

#![allow(clippy::unwrap_used)]

mod away;
mod damage;
mod house;
mod life;
mod orders;
mod pages;
mod reload;
mod sandbox;
mod schedule;
mod service;
#[path = "../stage/mod.rs"]
mod stage;

//! The ECS face.
pub mod error;
mod params;
pub mod sign;

//! The ECS face.
pub mod error;
pub mod sign;

//! The BCC face.
pub mod error;
mod route;
pub mod sign;

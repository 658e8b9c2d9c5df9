//! The BCC face.
pub mod error;
pub mod sign;

//! rekeyd replaces the SSH key pairs of cloud VM fleets on a schedule, and never locks anybody out.

pub mod clock;
pub mod custody;
pub mod model;
pub mod provider;
pub mod sim;

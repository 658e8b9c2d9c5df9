//! What all clouds share of HTTP: the door to the network, repetition, request rates, redaction.
//! Nothing in here knows a cloud.

pub mod transport;

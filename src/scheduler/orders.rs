//! Orders of people that the scheduler carries out on journals: the hold of a fleet. It must never undo what a person has
//! ordered since.

use crate::engine::operate::{OrderError, operate};
use crate::engine::{EngineError, Tools};
use crate::model::JournalId;
use crate::rotation::Order;
use crate::store::{Request, StoreError};

use super::book::Book;

/// Holds all open journals of a fleet. Whoever asked wrote the entries as well, unless it was killed in between or a rotation
/// had just begun.
pub(super) async fn hold_all(tools: &Tools, book: &Book, request: &Request, note: &str) -> Result<(), EngineError> {
    let open: Vec<JournalId> =
        book.of_fleet(&request.fleet).iter().filter(|head| head.ended.is_none()).map(|head| head.id).collect();
    for id in open {
        let order = Order::Hold { note: note.to_string() };
        match operate(tools.journal.as_ref(), tools.clock.as_ref(), id, &order, &request.by).await {
            Ok(_) | Err(OrderError::Refused(_)) => {}
            // Not done, and not answered: the next turn tries again.
            Err(OrderError::Engine(error @ EngineError::Store(StoreError::Database(_)))) => return Err(error),
            // One that cannot be read holds its fleet anyway.
            Err(OrderError::Engine(error)) => tracing::error!(journal = %id, %error, "not held"),
        }
    }
    Ok(())
}

//! Reading on and appending. Appends that meet an operator's entry take it in and are repeated; one that meets another
//! engine's entry stops this engine. Nothing is appended that the fold would not take.

use crate::rotation::{Author, Event};
use crate::store::StoreError;

use super::case::Case;
use super::{EngineError, Tools};

/// What came of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Appended {
    /// It stands right behind what this engine knew.
    Clean,
    /// An operator's entry came between: what was decided before it must be decided anew.
    AfterOperator,
}

/// Takes in what others have appended.
pub(super) async fn catch_up(tools: &Tools, case: &mut Case) -> Result<Appended, EngineError> {
    let entries = tools.journal.read(case.id, case.course.seq()).await?;
    let mut seen = Appended::Clean;
    for entry in &entries {
        if let Author::Engine(_) = entry.by {
            return Err(EngineError::AnotherEngine { journal: case.id, other: entry.by.clone() });
        }
        seen = Appended::AfterOperator;
        case.course.apply(entry).map_err(|source| EngineError::Illegal { journal: case.id, source })?;
        for observer in &tools.observers {
            observer.recorded(case.id, &case.plan, entry);
        }
    }
    Ok(seen)
}

/// Appends events, whatever operators appended meanwhile.
pub(super) async fn append(tools: &Tools, case: &mut Case, events: &[Event]) -> Result<Appended, EngineError> {
    let mut appended = Appended::Clean;
    loop {
        let after = case.course.seq();
        match tools.journal.append(case.id, after, events, &tools.author, tools.clock.now()).await {
            Ok(entries) => {
                for entry in &entries {
                    case.course.apply(entry).map_err(|source| EngineError::Illegal { journal: case.id, source })?;
                    for observer in &tools.observers {
                        observer.recorded(case.id, &case.plan, entry);
                    }
                }
                case.look_now();
                return Ok(appended);
            }
            Err(StoreError::Conflict { .. }) => {
                if catch_up(tools, case).await? == Appended::AfterOperator {
                    appended = Appended::AfterOperator;
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

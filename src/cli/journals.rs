//! Reading the journals beside whoever drives: no lock, no secret, nothing made. What the read verbs share.

use std::collections::BTreeMap;

use anyhow::Context;

use crate::config::Config;
use crate::custody::Keeper;
use crate::model::{FleetName, JournalId, KeyPairName};
use crate::rotation::{Entry, Plan, PlannedInstance, Retirement, Rotation};
use crate::store::{Agenda as _, DueTime, Head, Heads, Journal, LateLook, Request, Sqlite};

/// The journals of a store; none where there is no database yet.
pub(super) struct Journals {
    store: Option<Sqlite>,
    custody: Keeper,
}

/// What is asked of fleets and not answered yet, which are held, when they are due, what was refused last, and who came late.
#[derive(Default)]
pub(super) struct Agenda {
    pub(super) asked: Vec<Request>,
    pub(super) paused: BTreeMap<FleetName, Request>,
    pub(super) due: BTreeMap<FleetName, DueTime>,
    pub(super) refused: BTreeMap<FleetName, Request>,
    pub(super) late: BTreeMap<FleetName, LateLook>,
}

/// A journal, folded.
pub(super) enum Folded {
    Rotation(Box<Rotation>, Vec<PlannedInstance>),
    Retirement(Box<Retirement>),
}

impl Journals {
    /// Opens the store of a config file for reading.
    pub(super) async fn open(config: &Config) -> anyhow::Result<Self> {
        let store = match config.store.try_exists().with_context(|| config.store.display().to_string())? {
            true => Some(Sqlite::open_to_read(&config.store).await.context("the store cannot be read")?),
            false => None,
        };
        Ok(Self { store, custody: config.custody.keeper.clone() })
    }

    /// Whether there is a database at all.
    pub(super) fn exist(&self) -> bool {
        self.store.is_some()
    }

    /// The heads of all journals.
    pub(super) async fn heads(&self) -> anyhow::Result<Heads> {
        match &self.store {
            Some(store) => Ok(store.heads().await?),
            None => Ok(Heads::default()),
        }
    }

    /// What is asked, held and due.
    pub(super) async fn agenda(&self) -> anyhow::Result<Agenda> {
        let Some(store) = &self.store else { return Ok(Agenda::default()) };
        let (asked, paused) = (store.asked().await?, store.paused().await?);
        let (due, refused, late) = (store.due_times().await?, store.refused().await?, store.late_looks().await?);
        Ok(Agenda { asked, paused, due, refused, late })
    }

    /// The readable heads of one fleet's journals, oldest first.
    pub(super) async fn heads_of(&self, fleet: &FleetName) -> anyhow::Result<Vec<Head>> {
        Ok(self.heads().await?.readable.into_iter().filter(|head| head.plan.fleet() == fleet).collect())
    }

    /// All entries of a journal.
    pub(super) async fn entries(&self, id: JournalId) -> anyhow::Result<Vec<Entry>> {
        Ok(self.store()?.read(id, 0).await?)
    }

    /// The instances of a rotation's plan.
    pub(super) async fn instances(&self, id: JournalId) -> anyhow::Result<Vec<PlannedInstance>> {
        Ok(self.store()?.instances(id).await?)
    }

    /// Checks a journal whole: chain, plan, and what it begins from.
    pub(super) async fn verify(&self, id: JournalId) -> anyhow::Result<()> {
        Ok(self.store()?.verify(id).await?)
    }

    /// A journal's state.
    pub(super) async fn fold(&self, head: &Head) -> anyhow::Result<Folded> {
        let entries = self.entries(head.id).await?;
        let of = || format!("journal {}", head.id);
        Ok(match &head.plan {
            Plan::Rotate(plan) => {
                let instances = self.instances(head.id).await?;
                let rotation = Rotation::fold(head.id, plan.clone(), &instances, &entries).with_context(of)?;
                Folded::Rotation(Box::new(rotation), instances)
            }
            Plan::Retire(plan) => {
                let retirement = Retirement::fold(head.id, plan.clone(), &entries).with_context(of)?;
                Folded::Retirement(Box::new(retirement))
            }
        })
    }

    /// Where custody keeps the private half of this name.
    pub(super) fn whereabouts(&self, name: &KeyPairName) -> String {
        self.custody.whereabouts(name)
    }

    /// How to get in with it, where `ssh -i` does not simply take the file.
    pub(super) fn way_in(&self, name: &KeyPairName) -> Option<String> {
        self.custody.way_in(name)
    }

    /// Whether the private half of this name is there; `None` if this account may not look, or it is in no directory: who
    /// reads journals asks nobody else.
    pub(super) fn has_key(&self, name: &KeyPairName) -> Option<bool> {
        self.custody.directory()?.join(name.as_str()).try_exists().ok()
    }

    fn store(&self) -> anyhow::Result<&Sqlite> {
        self.store.as_ref().context("there is no database yet: nothing was rotated from here")
    }
}

//! A fuse in every call that leaves the engine and the scheduler: to a cloud, to custody, to the journal, to the agenda. It
//! counts them, asks the promise after each, and blows before or after those it is told: whoever made that call never runs
//! again. Somebody else's hand may act just before a call.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use rekeyd::custody::{Custodian, CustodyError};
use rekeyd::model::{FleetName, JournalId, KeyPairName, Mark, PrivateKey, RequestId, Timestamp};
use rekeyd::net::{Request, Response, Transport, TransportError};
use rekeyd::rotation::{Author, Entry, Event, Plan, PlannedInstance};
use rekeyd::store::{
    Agenda, Answer, Ask as Asked, DueTime, Head, Heads, Journal, LateLook, Request as Wish, StoreError,
};
use tokio::sync::Notify;

/// On which side of a call the fuse blows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Before,
    After,
}

pub type Ask = dyn Fn() -> Vec<String> + Send + Sync;
/// What somebody else does meanwhile.
pub type Hand = Pin<Box<dyn Future<Output = ()> + Send>>;

pub struct Fuse {
    calls: Mutex<Vec<String>>,
    blows: Mutex<BTreeMap<usize, Side>>,
    hands: Mutex<BTreeMap<usize, Hand>>,
    blown: AtomicUsize,
    notify: Notify,
    ask: Mutex<Option<Arc<Ask>>>,
    broken: Mutex<Vec<String>>,
    yields: AtomicBool,
    custody_away: AtomicBool,
    custody_failed: AtomicUsize,
    custody_takes: Mutex<Option<Box<dyn Fn() + Send>>>,
    other_account: AtomicBool,
    elsewhere: AtomicUsize,
}

impl Fuse {
    /// A fuse that blows at these calls, on these sides.
    pub fn new(blows: impl IntoIterator<Item = (usize, Side)>) -> Arc<Self> {
        Arc::new(Self {
            calls: Mutex::default(),
            blows: Mutex::new(blows.into_iter().collect()),
            hands: Mutex::default(),
            blown: AtomicUsize::new(0),
            notify: Notify::new(),
            ask: Mutex::default(),
            broken: Mutex::default(),
            yields: AtomicBool::new(false),
            custody_away: AtomicBool::new(false),
            custody_failed: AtomicUsize::new(0),
            custody_takes: Mutex::default(),
            other_account: AtomicBool::new(false),
            elsewhere: AtomicUsize::new(0),
        })
    }
    /// Time passes like this whenever custody is asked.
    pub fn custody_takes(&self, pass: impl Fn() + Send + 'static) {
        *self.custody_takes.lock().unwrap() = Some(Box::new(pass));
    }
    pub fn asks(&self, ask: Arc<Ask>) {
        *self.ask.lock().unwrap() = Some(ask);
    }
    /// This is done just before that call, and before the fuse blows there.
    pub fn lend(&self, number: usize, hand: Hand) {
        self.hands.lock().unwrap().insert(number, hand);
    }
    /// How many hands have not acted yet.
    pub fn hands_left(&self) -> usize {
        self.hands.lock().unwrap().len()
    }
    /// Returns when the fuse blows.
    pub async fn blown(&self) {
        self.notify.notified().await;
    }
    /// How often it has blown.
    pub fn times(&self) -> usize {
        self.blown.load(Ordering::SeqCst)
    }
    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }
    /// What the promise's checker found, with the call after which it did.
    pub fn broken(&self) -> Vec<String> {
        self.broken.lock().unwrap().clone()
    }

    /// From now on others get their turn before each call: for engines that run at the same time.
    pub fn yields(&self) {
        self.yields.store(true, Ordering::SeqCst);
    }

    /// From now on the credentials are those of another account, or our own again.
    pub fn other_account(&self, other: bool) {
        self.other_account.store(other, Ordering::SeqCst);
    }

    /// How many requests another account answered.
    pub fn elsewhere(&self) -> usize {
        self.elsewhere.load(Ordering::SeqCst)
    }

    /// From now on custody does not answer, or does again.
    pub fn custody_is_away(&self, away: bool) {
        self.custody_away.store(away, Ordering::SeqCst);
    }

    /// How often custody did not answer.
    pub fn custody_failed(&self) -> usize {
        self.custody_failed.load(Ordering::SeqCst)
    }

    fn custody(&self) -> Result<(), CustodyError> {
        if let Some(pass) = self.custody_takes.lock().unwrap().as_ref() {
            pass();
        }
        if !self.custody_away.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.custody_failed.fetch_add(1, Ordering::SeqCst);
        Err(CustodyError::Failed { place: "custody".to_string(), problem: "it is away".to_string() })
    }

    pub async fn around<T>(&self, name: String, call: impl Future<Output = T>) -> T {
        if self.yields.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        let number = {
            let mut calls = self.calls.lock().unwrap();
            calls.push(name.clone());
            calls.len() - 1
        };
        let hand = self.hands.lock().unwrap().remove(&number);
        if let Some(hand) = hand {
            hand.await;
        }
        self.blow(number, Side::Before).await;
        let out = call.await;
        let ask = self.ask.lock().unwrap().clone();
        if let Some(ask) = ask {
            let found = ask().into_iter().map(|broken| format!("after call {number} ({name}): {broken}"));
            self.broken.lock().unwrap().extend(found);
        }
        self.blow(number, Side::After).await;
        out
    }

    async fn blow(&self, number: usize, side: Side) {
        let blows = {
            let mut blows = self.blows.lock().unwrap();
            let here = blows.get(&number) == Some(&side);
            here && blows.remove(&number).is_some()
        };
        if blows {
            self.blown.fetch_add(1, Ordering::SeqCst);
            self.notify.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

/// A room behind the fuse.
pub struct Fused<T: ?Sized> {
    pub fuse: Arc<Fuse>,
    pub inner: Arc<T>,
}

#[async_trait]
impl Transport for Fused<dyn Transport> {
    async fn send(&self, request: &Request) -> Result<Response, TransportError> {
        let header = |name: &str| request.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let action = header("x-tc-action").or_else(|| header("x-acs-action"));
        let rest = || format!("{} {}?{}", request.method, request.path, request.query);
        let action = action.or_else(|| legacy_action(request));
        self.fuse.around(action.unwrap_or_else(rest), self.inner.send(request)).await
    }
}

/// The way to our account, and to another one with nothing in it.
pub struct Doors {
    pub fuse: Arc<Fuse>,
    pub own: Arc<dyn Transport>,
    pub other: Arc<dyn Transport>,
}

#[async_trait]
impl Transport for Doors {
    async fn send(&self, request: &Request) -> Result<Response, TransportError> {
        if !self.fuse.other_account.load(Ordering::SeqCst) {
            return self.own.send(request).await;
        }
        self.fuse.elsewhere.fetch_add(1, Ordering::SeqCst);
        self.other.send(request).await
    }
}

/// The action of a request to CVM's legacy endpoint: one of its parameters.
fn legacy_action(request: &Request) -> Option<String> {
    let form = if request.method == "GET" { request.query.as_bytes() } else { &request.body };
    let text = std::str::from_utf8(form).ok().filter(|_| request.path == "/v2/index.php")?;
    text.split('&').find_map(|pair| pair.strip_prefix("Action=")).map(|action| format!("legacy {action}"))
}

#[async_trait]
impl Custodian for Fused<dyn Custodian> {
    async fn put(&self, name: &KeyPairName, key: &PrivateKey) -> Result<(), CustodyError> {
        let put = async {
            self.fuse.custody()?;
            self.inner.put(name, key).await
        };
        self.fuse.around("custody put".into(), put).await
    }
    async fn get(&self, name: &KeyPairName) -> Result<PrivateKey, CustodyError> {
        self.fuse.custody()?;
        self.inner.get(name).await
    }
    async fn complete(&self, name: &KeyPairName) -> Result<PrivateKey, CustodyError> {
        let complete = async {
            self.fuse.custody()?;
            self.inner.complete(name).await
        };
        self.fuse.around("custody complete".into(), complete).await
    }
    async fn list(&self) -> Result<Vec<KeyPairName>, CustodyError> {
        self.inner.list().await
    }
    async fn destroy(&self, name: &KeyPairName) -> Result<(), CustodyError> {
        let destroy = async {
            self.fuse.custody()?;
            self.inner.destroy(name).await
        };
        self.fuse.around("custody destroy".into(), destroy).await
    }
    async fn mark(&self, fresh: Mark) -> Result<Mark, CustodyError> {
        self.inner.mark(fresh).await
    }
    async fn kept_mark(&self) -> Result<Option<Mark>, CustodyError> {
        self.inner.kept_mark().await
    }
}

#[async_trait]
impl Journal for Fused<dyn Journal> {
    async fn begin(
        &self,
        id: JournalId,
        plan: &Plan,
        instances: &[PlannedInstance],
        by: &Author,
        at: Timestamp,
    ) -> Result<Head, StoreError> {
        self.fuse.around("journal begin".into(), self.inner.begin(id, plan, instances, by, at)).await
    }
    async fn head(&self, id: JournalId) -> Result<Head, StoreError> {
        self.inner.head(id).await
    }
    async fn heads(&self) -> Result<Heads, StoreError> {
        if self.fuse.yields.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        self.inner.heads().await
    }
    async fn instances(&self, id: JournalId) -> Result<Vec<PlannedInstance>, StoreError> {
        self.inner.instances(id).await
    }
    async fn read(&self, id: JournalId, after: u64) -> Result<Vec<Entry>, StoreError> {
        self.inner.read(id, after).await
    }
    async fn append(
        &self,
        id: JournalId,
        after: u64,
        events: &[Event],
        by: &Author,
        at: Timestamp,
    ) -> Result<Vec<Entry>, StoreError> {
        let names: Vec<&str> = events.iter().map(Event::name).collect();
        self.fuse.around(format!("journal {}", names.join(" ")), self.inner.append(id, after, events, by, at)).await
    }
}

#[async_trait]
impl Agenda for Fused<dyn Agenda> {
    async fn ask(&self, fleet: &FleetName, ask: &Asked, by: &Author, at: Timestamp) -> Result<RequestId, StoreError> {
        self.fuse.around("agenda ask".into(), self.inner.ask(fleet, ask, by, at)).await
    }
    async fn asked(&self) -> Result<Vec<Wish>, StoreError> {
        self.fuse.around("agenda asked".into(), self.inner.asked()).await
    }
    async fn request(&self, id: RequestId) -> Result<Wish, StoreError> {
        self.fuse.around("agenda request".into(), self.inner.request(id)).await
    }
    async fn answer(&self, id: RequestId, answer: &Answer, at: Timestamp) -> Result<bool, StoreError> {
        let fresh = self.fuse.around("agenda answer".into(), self.inner.answer(id, answer, at)).await?;
        if !fresh {
            self.fuse.broken.lock().unwrap().push(format!("request {id} was answered before, and now with {answer:?}"));
        }
        Ok(fresh)
    }
    async fn note_refused(&self, fleet: &FleetName, why: &str, by: &Author, at: Timestamp) -> Result<(), StoreError> {
        self.fuse.around("agenda note_refused".into(), self.inner.note_refused(fleet, why, by, at)).await
    }
    async fn refused(&self) -> Result<BTreeMap<FleetName, Wish>, StoreError> {
        self.fuse.around("agenda refused".into(), self.inner.refused()).await
    }
    async fn paused(&self) -> Result<BTreeMap<FleetName, Wish>, StoreError> {
        self.fuse.around("agenda paused".into(), self.inner.paused()).await
    }
    async fn due_times(&self) -> Result<BTreeMap<FleetName, DueTime>, StoreError> {
        self.fuse.around("agenda due_times".into(), self.inner.due_times()).await
    }
    async fn set_due(&self, fleet: &FleetName, due: Option<&DueTime>) -> Result<(), StoreError> {
        self.fuse.around("agenda set_due".into(), self.inner.set_due(fleet, due)).await
    }
    async fn late_looks(&self) -> Result<BTreeMap<FleetName, LateLook>, StoreError> {
        self.fuse.around("agenda late_looks".into(), self.inner.late_looks()).await
    }
    async fn set_late(&self, fleet: &FleetName, look: &LateLook) -> Result<(), StoreError> {
        self.fuse.around("agenda set_late".into(), self.inner.set_late(fleet, look)).await
    }
    async fn touched(&self, after: u64) -> Result<(u64, Vec<JournalId>), StoreError> {
        self.fuse.around("agenda touched".into(), self.inner.touched(after)).await
    }
}

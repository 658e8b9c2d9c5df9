//! The traps of tokio-cron-scheduler, each shown not to catch the heartbeat. In real time: the scheduler goes by it.
//! Those that are not about beats are in `due_tests.rs`: clock changes, ticks missed while nobody was there, many
//! fleets at one second.

use std::sync::Mutex;
use std::time::Instant;

use async_trait::async_trait;
use tokio::time::{sleep, timeout};

use super::*;
use crate::clock::SystemClock;

async fn start() -> Heartbeat {
    Heartbeat::start(Arc::new(SystemClock)).await.unwrap()
}

/// How long it takes to the next beat.
async fn next(heartbeat: &mut Heartbeat) -> Duration {
    let begin = Instant::now();
    heartbeat.beat().await;
    begin.elapsed()
}

/// Waits until patience has run out once, and then for beats that come by themselves.
async fn beats_again(heartbeat: &mut Heartbeat) {
    // One may have been on its way.
    let silence = next(heartbeat).await.max(next(heartbeat).await);
    assert!(silence >= PATIENCE - Duration::from_millis(100), "{silence:?}");
    for _ in 0..2 {
        heartbeat.beat().await;
        assert!(!heartbeat.said, "no beat, but patience again");
    }
}

/// The only job's id.
async fn job(heartbeat: &Heartbeat) -> uuid::Uuid {
    let context = heartbeat.source.scheduler.context();
    let ticks = context.metadata_storage.write().await.list_next_ticks().await.unwrap();
    assert_eq!(ticks.len(), 1, "one job, however many fleets");
    ticks[0].id.as_ref().unwrap().into()
}

#[tokio::test]
async fn it_beats_each_second() {
    let mut heartbeat = start().await;
    job(&heartbeat).await;
    heartbeat.beat().await;
    let begin = Instant::now();
    for _ in 0..3 {
        heartbeat.beat().await;
    }
    let elapsed = begin.elapsed().as_millis();
    assert!((1500..6000).contains(&elapsed), "three beats in {elapsed} ms");
    assert!(*heartbeat.beats.borrow() >= 4);
    heartbeat.stop().await;
}

#[tokio::test]
async fn a_loop_that_is_slow_gets_one_beat_and_not_all_that_it_missed() {
    let mut heartbeat = start().await;
    heartbeat.beat().await;
    let before = *heartbeat.beats.borrow();
    sleep(Duration::from_millis(4200)).await;
    assert!(*heartbeat.beats.borrow() - before >= 2, "beats came meanwhile");
    let one = next(&mut heartbeat).await;
    assert!(one < Duration::from_millis(500), "it is there: {one:?}");
    assert!(!heartbeat.beats.has_changed().unwrap(), "and no other waits behind it");
    heartbeat.stop().await;
}

#[tokio::test]
async fn a_loop_that_blocks_its_thread_does_not_hold_up_the_beats() {
    let mut heartbeat = start().await;
    heartbeat.beat().await;
    let before = *heartbeat.beats.borrow();
    std::thread::sleep(Duration::from_millis(3500));
    assert!(*heartbeat.beats.borrow() - before >= 2);
    heartbeat.stop().await;
}

#[tokio::test]
async fn after_stop_no_beat_comes() {
    let mut heartbeat = start().await;
    heartbeat.beat().await;
    let mut beats = heartbeat.beats.clone();
    heartbeat.stop().await;
    let last = *beats.borrow_and_update();
    assert!(beats.changed().await.is_err(), "nobody is there to count");
    sleep(Duration::from_millis(2200)).await;
    assert_eq!(*beats.borrow(), last);
}

#[tokio::test]
async fn a_heartbeat_that_is_dropped_takes_its_thread_along() {
    let heartbeat = start().await;
    let context = Arc::downgrade(&heartbeat.source.scheduler.context());
    drop(heartbeat);
    let gone = async {
        while context.strong_count() > 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(5), gone).await.unwrap();
}

#[tokio::test]
async fn a_job_that_is_lost_for_ever_is_made_anew() {
    // As after a panic in a job's closure: the scheduler would never run it again.
    let mut heartbeat = start().await;
    heartbeat.beat().await;
    heartbeat.source.scheduler.remove(&job(&heartbeat).await).await.unwrap();
    beats_again(&mut heartbeat).await;
    job(&heartbeat).await;
    heartbeat.stop().await;
}

#[tokio::test]
async fn a_scheduler_that_has_stopped_is_made_anew() {
    // As repeated jobs can after drift.
    let mut heartbeat = start().await;
    heartbeat.beat().await;
    heartbeat.source.scheduler.shutdown().await.unwrap();
    beats_again(&mut heartbeat).await;
    heartbeat.stop().await;
}

#[tokio::test]
async fn a_clock_that_was_set_back_silences_it_for_three_seconds_only() {
    // What the scheduler remembers after its clock was set back by an hour: its next tick is an hour away.
    let mut heartbeat = start().await;
    heartbeat.beat().await;
    let (id, context) = (job(&heartbeat).await, heartbeat.source.scheduler.context());
    let mut store = context.metadata_storage.write().await;
    let mut data = store.get(id).await.unwrap().unwrap();
    (data.next_tick, data.last_tick) = (data.next_tick + 3600, Some(data.next_tick + 3599));
    store.add_or_update(data).await.unwrap();
    drop(store);
    beats_again(&mut heartbeat).await;
    heartbeat.stop().await;
}

#[tokio::test]
async fn patience_runs_out_for_a_loop_that_is_busy_with_other_things_too() {
    let mut heartbeat = start().await;
    heartbeat.source.scheduler.shutdown().await.unwrap();
    // Other events interrupt the waiting, ten times a second. A beat may come after the shutdown still: then the next wait
    // is the long one.
    let mut longest = 0;
    for _ in 0..2 {
        let mut interrupted = 0;
        while timeout(Duration::from_millis(100), heartbeat.beat()).await.is_err() {
            interrupted += 1;
            assert!(interrupted < 100, "patience begins anew each time");
        }
        longest = longest.max(interrupted);
    }
    assert!(longest > 5);
}

/// A clock on which three seconds pass in thirty milliseconds, so that every beat is overdue.
struct Hasty;

#[async_trait]
impl Clock for Hasty {
    fn now(&self) -> Timestamp {
        SystemClock.now()
    }
    async fn sleep_until(&self, until: Timestamp) {
        sleep(Duration::try_from(until.duration_since(self.now())).unwrap_or_default() / 100).await;
    }
}

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn silence_is_logged_once_and_the_loop_goes_on() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let mut heartbeat = Heartbeat::start(Arc::new(Hasty)).await.unwrap();
    for _ in 0..5 {
        heartbeat.beat().await;
    }
    heartbeat.stop().await;
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert_eq!(text.matches("no beat of the scheduler for 3 s").count(), 1, "{text}");
}

//! The guests' addresses: where they are, who listens on them, and what is carried between a client and its sshd. A lane is
//! one machine's address. It must never listen anywhere but in 127.0.0.0/8, and must ask the world again for each
//! connection: a lane may be a moment behind.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::sshd::{Guest, Room, Sshd};
use super::{Down, GuestError, MOST, address, answers, claim};
use crate::clock::{Clock, SystemClock};
use crate::sim::world::{World, later};

/// The blocks of addresses that are tried. Lower ones are used by systems (127.0.0.53, 127.0.1.1).
const BLOCKS: std::ops::Range<u8> = 64..254;
/// How long a world that nobody calls is left alone. Who asks a cloud sees the guests as they are at once.
const TICK: Duration = Duration::from_millis(20);

/// All guests of a served world.
pub(in crate::sim) struct Guests {
    lanes: Mutex<Lanes>,
    port: u16,
    user: String,
}

/// What each connection needs.
struct Shared {
    world: Arc<Mutex<World>>,
    sshd: Sshd,
    delay: Duration,
}

/// A machine's place in the world.
#[derive(Clone, Copy)]
struct Place {
    cloud: usize,
    machine: usize,
}

/// The block of addresses that is ours, and a lane for each machine.
struct Lanes {
    shared: Arc<Shared>,
    down: Down,
    block: u8,
    port: u16,
    by_place: Vec<Vec<Lane>>,
    _claim: std::net::TcpListener,
}

/// One machine's address.
#[derive(Default)]
enum Lane {
    /// Nobody listens: the system refuses.
    #[default]
    Shut,
    /// A full queue that nobody empties: the system answers nothing.
    Silent { _queue: TcpListener, _full: std::net::TcpStream },
    /// Its sshd answers.
    Open(Open),
}

struct Open {
    /// The socket once more, to end the listening at once.
    listening: Option<OwnedFd>,
    accepting: AbortHandle,
    /// How often the machine had booted. A change, or the end, cuts the connections.
    boots: watch::Sender<u32>,
}

impl Drop for Open {
    fn drop(&mut self) {
        // The task lets its socket go in its own time; from this call on the system refuses, and the address is free.
        let listening = self.listening.take().map(std::net::TcpStream::from);
        let _ = listening.map(|socket| socket.shutdown(Shutdown::Both));
        self.accepting.abort();
    }
}

impl Guests {
    /// Finds a free block of addresses, gives each machine its own, and listens for those that run. The room holds every
    /// file, and is removed when it is dropped.
    pub(in crate::sim) fn open(
        settings: &super::Sshd,
        seed: u64,
        world: &Arc<Mutex<World>>,
    ) -> Result<(Arc<Self>, Room), GuestError> {
        let room = Room::make(&settings.above)?;
        let (sshd, user) = Sshd::prepare(&room, settings.user.as_deref(), seed)?;
        let shared = Arc::new(Shared { world: Arc::clone(world), sshd, delay: settings.delay });
        let mut world = lock(world);
        let most = world.clouds().iter().map(|cloud| cloud.machines().len()).max().unwrap_or_default();
        if most > MOST {
            return Err(GuestError::TooMany(most));
        }
        for block in BLOCKS {
            let lanes = Lanes::claim(Arc::clone(&shared), settings, block).and_then(|mut lanes| {
                lanes.tend(&mut world)?;
                Ok(lanes)
            });
            match lanes {
                Ok(lanes) => {
                    let port = lanes.port;
                    return Ok((Arc::new(Self { lanes: Mutex::new(lanes), port, user }), room));
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(GuestError::Listen(error)),
            }
        }
        Err(GuestError::Taken(settings.port))
    }

    /// The port of all guests.
    pub(in crate::sim) fn port(&self) -> u16 {
        self.port
    }

    /// Who may log in.
    pub(in crate::sim) fn user(&self) -> &str {
        &self.user
    }

    /// Makes the guests what the world says they are. Called under the world's lock, so that nobody hears of a machine
    /// that runs before it answers.
    pub(in crate::sim) fn tend(&self, world: &mut World) {
        // A lane that cannot be opened now is tried again at the next tick.
        let _ = lock(&self.lanes).tend(world);
    }

    /// Tends the guests for ever.
    pub(in crate::sim) async fn watch(self: Arc<Self>, world: Arc<Mutex<World>>) {
        loop {
            {
                let mut world = lock(&world);
                world.advance(SystemClock.now());
                self.tend(&mut world);
            }
            SystemClock.sleep_until(later(SystemClock.now(), TICK)).await;
        }
    }
}

impl Lanes {
    /// Takes a block, unless another simulator has it at this port.
    fn claim(shared: Arc<Shared>, settings: &super::Sshd, block: u8) -> io::Result<Self> {
        let claim = std::net::TcpListener::bind((claim(block), settings.port))?;
        let port = claim.local_addr()?.port();
        Ok(Self { shared, down: settings.down, block, port, by_place: Vec::new(), _claim: claim })
    }

    /// Opens and shuts what is not as it should be, and answers the first error.
    fn tend(&mut self, world: &mut World) -> io::Result<()> {
        let now = world.now();
        let mut outcome = Ok(());
        self.by_place.resize_with(world.clouds().len(), Vec::new);
        for cloud in 0..world.clouds().len() {
            let known = self.by_place[cloud].len();
            let count = world.cloud(cloud).machines().len();
            self.by_place[cloud].resize_with(count, Lane::default);
            for machine in 0..count {
                let Some(address) = address(self.block, cloud, machine) else { continue };
                let place = Place { cloud, machine };
                let machine = world.clouds[cloud].machine_at(machine);
                if place.machine >= known {
                    machine.private_address = address.to_string();
                }
                if machine.public_address != machine.private_address {
                    machine.public_address.clone_from(&machine.private_address);
                }
                let (up, boots) = (answers(machine, now, self.shared.delay), machine.boots);
                outcome = outcome.and(self.set(place, address, up, boots));
            }
        }
        outcome
    }

    /// Brings one lane into its state.
    fn set(&mut self, place: Place, address: Ipv4Addr, up: bool, boots: u32) -> io::Result<()> {
        let lane = &mut self.by_place[place.cloud][place.machine];
        match lane {
            Lane::Open(open) if up => {
                open.boots.send_if_modified(|known| std::mem::replace(known, boots) != boots);
                return Ok(());
            }
            Lane::Shut if !up && self.down == Down::Refused => return Ok(()),
            Lane::Silent { .. } if !up => return Ok(()),
            _ => {}
        }
        *lane = Lane::Shut;
        let address = SocketAddrV4::new(address, self.port);
        *lane = match (up, self.down) {
            (true, _) => {
                let listener = std::net::TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                let listening = Some(OwnedFd::from(listener.try_clone()?));
                let (boots, seen) = watch::channel(boots);
                let listener = TcpListener::from_std(listener)?;
                let accepting = tokio::spawn(accept(Arc::clone(&self.shared), place, listener, seen)).abort_handle();
                Lane::Open(Open { listening, accepting, boots })
            }
            (false, Down::Refused) => Lane::Shut,
            (false, Down::Silent) => {
                let socket = TcpSocket::new_v4()?;
                socket.set_reuseaddr(true)?;
                socket.bind(address.into())?;
                // A queue of 0 holds one connection: ours. The system drops the attempts of all others.
                let queue = socket.listen(0)?;
                let full = std::net::TcpStream::connect(address)?;
                Lane::Silent { _queue: queue, _full: full }
            }
        };
        Ok(())
    }
}

/// Takes connections to one machine for as long as its lane is open.
async fn accept(shared: Arc<Shared>, place: Place, listener: TcpListener, boots: watch::Receiver<u32>) {
    let mut served = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(served.spawn(attend(Arc::clone(&shared), place, stream, boots.clone()))),
                // Too many open files, or the lane has just been shut.
                Err(_) => SystemClock.sleep_until(later(SystemClock.now(), TICK)).await,
            },
            Some(_) = served.join_next() => {}
        }
    }
}

/// Serves one connection, until it ends or the machine goes down.
async fn attend(shared: Arc<Shared>, place: Place, stream: TcpStream, mut boots: watch::Receiver<u32>) {
    boots.mark_unchanged();
    tokio::select! {
        _ = boots.changed() => {}
        served = serve(&shared, place, stream) => drop(served),
    }
}

async fn serve(shared: &Shared, place: Place, stream: TcpStream) -> io::Result<()> {
    let Some((_, slow)) = shared.ask(place) else { return stream.set_zero_linger() };
    if !slow.is_zero() {
        SystemClock.sleep_until(later(SystemClock.now(), slow)).await;
    }
    // What it accepts is asked when its sshd comes to it.
    let Some((guest, _)) = shared.ask(place) else { return stream.set_zero_linger() };
    let mut session = shared.sshd.start(&guest)?;
    carry(stream, UnixStream::from_std(session.line)?).await;
    let _ = session.child.wait().await;
    Ok(())
}

/// Carries bytes both ways until sshd has said its last.
async fn carry(mut client: TcpStream, mut sshd: UnixStream) {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_sshd, mut to_sshd) = sshd.split();
    let inward = async {
        let _ = copy(&mut from_client, &mut to_sshd).await;
        let _ = to_sshd.shutdown().await;
        std::future::pending::<()>().await
    };
    tokio::select! {
        () = inward => {}
        _ = copy(&mut from_sshd, &mut to_client) => {}
    }
    let _ = to_client.shutdown().await;
    // Whatever sshd still waits for, it waits in vain.
    let _ = to_sshd.shutdown().await;
}

impl Shared {
    /// The guest as it is now, and how slow it is to answer; `None` if it does not.
    fn ask(&self, place: Place) -> Option<(Guest, Duration)> {
        let mut world = lock(&self.world);
        world.advance(SystemClock.now());
        let machine = world.cloud(place.cloud).machines().get(place.machine)?;
        let guest =
            Guest { instance: machine.id.clone(), image: machine.guest.image, accepts: machine.accepts.clone() };
        answers(machine, world.now(), self.delay).then_some((guest, machine.guest.slow))
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

//! A bad line to a real server, for tests: between a custodian and it stands somebody who loses answers to changes that were
//! made, and keeps changes back until they land. It must never change a byte of a request but to ask that the server hang up.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::custody::conformance::Mischief;

/// What is to go wrong with the next change.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trick {
    Lose,
    Delay,
}

#[derive(Default)]
struct State {
    trick: Option<Trick>,
    late: Vec<Vec<u8>>,
    away: bool,
    closed: bool,
}

/// The line.
pub(crate) struct Lossy {
    address: SocketAddr,
    server: String,
    state: Arc<Mutex<State>>,
    carrier: Option<JoinHandle<()>>,
}

impl Lossy {
    /// A line to this server (host and port).
    pub(crate) fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, state) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(State::default())));
        let (of, to) = (state.clone(), server.to_string());
        let carrier = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if of.lock().unwrap().closed {
                    return;
                }
                // Whoever hangs up in the midst of it is let go.
                let (of, to) = (of.clone(), to.clone());
                std::thread::spawn(move || drop(carry(stream, &to, &of)));
            }
        });
        Self { address, server: server.to_string(), state, carrier: Some(carrier) }
    }

    /// Where it begins.
    pub(crate) fn address(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// One request, there and back, or not.
fn carry(mut stream: TcpStream, server: &str, state: &Mutex<State>) -> std::io::Result<()> {
    let request = read_request(&mut stream)?;
    let trick = {
        let mut state = state.lock().unwrap();
        if state.away {
            return Ok(());
        }
        let trick = if request.starts_with(b"GET ") { None } else { state.trick.take() };
        if trick == Some(Trick::Delay) {
            state.late.push(request);
            return Ok(());
        }
        trick
    };
    let answer = ask(server, &request)?;
    if trick == Some(Trick::Lose) { Ok(()) } else { stream.write_all(&answer) }
}

/// A request as it came, and the wish that the connection end with its answer.
fn read_request(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    const WISH: &[u8] = b"connection: close\r\n";
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut chunk)?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&chunk[..read]);
        let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
        assert!(!text.contains("transfer-encoding"), "a body of unknown length: {text}");
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
        if bytes.len() >= head + 4 + length {
            let first = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
            bytes.splice(first..first, WISH.iter().copied());
            return Ok(bytes);
        }
    }
}

fn ask(server: &str, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(request)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

impl Mischief for Arc<Lossy> {
    fn lose(&self) {
        self.state.lock().unwrap().trick = Some(Trick::Lose);
    }

    fn delay(&self) {
        self.state.lock().unwrap().trick = Some(Trick::Delay);
    }

    fn land(&self) {
        let late = std::mem::take(&mut self.state.lock().unwrap().late);
        assert!(!late.is_empty(), "nothing was delayed");
        for request in late {
            let answer = ask(&self.server, &request).unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 "), "{}", String::from_utf8_lossy(&answer));
        }
    }

    fn away(&self, away: bool) {
        self.state.lock().unwrap().away = away;
    }
}

impl Drop for Lossy {
    fn drop(&mut self) {
        self.state.lock().unwrap().closed = true;
        // It waits for somebody to call.
        let _ = TcpStream::connect(self.address);
        self.carrier.take().map(JoinHandle::join);
    }
}

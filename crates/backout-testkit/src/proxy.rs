//! A network that fails: a TCP port in front of a private PostgreSQL server, whose connections a test cuts, and whose
//! questions it counts.
//!
//! New connections are always let through. Never looks into what passes.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use backout_servers::postgres::{Database, SUPERUSER, Server};

/// Runs until the process ends.
pub struct Proxy {
    port: u16,
    links: Arc<Mutex<Vec<Arc<Link>>>>,
    trips: Arc<AtomicU64>,
}

/// One connection through it.
struct Link {
    client: TcpStream,
    server: UnixStream,
    /// The next answer is not passed on: the connection ends instead.
    swallow: AtomicBool,
    /// The server hears nothing more, not even that the client went.
    severed: AtomicBool,
    /// The server spoke last: what the client says next is another question.
    answered: AtomicBool,
    trips: Arc<AtomicU64>,
}

impl Proxy {
    pub fn before(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let socket = server.socket().join(format!(".s.PGSQL.{}", server.port()));
        let links = Arc::default();
        let trips = Arc::default();
        let (shared, counter) = (Arc::clone(&links), Arc::clone(&trips));
        std::thread::spawn(move || accept(&listener, &socket, &shared, &counter));
        Self { port, links, trips }
    }

    /// How often a client has asked and waited for the answer, on all connections together.
    pub fn round_trips(&self) -> u64 {
        self.trips.load(Ordering::SeqCst)
    }

    /// The URL that leads through it.
    pub fn url(&self, database: &Database<'_>) -> String {
        format!("postgresql://{SUPERUSER}@127.0.0.1:{}/{}?sslmode=disable", self.port, database.name)
    }

    /// Ends all connections; both sides notice.
    pub fn cut(&self) {
        self.links.lock().unwrap().drain(..).for_each(|link| link.end());
    }

    /// Ends all connections for the clients; the server goes on waiting for what they may have to say.
    pub fn sever(&self) {
        // Kept, so that nothing is closed: the server is left alone with it.
        for link in self.links.lock().unwrap().iter() {
            link.severed.store(true, Ordering::SeqCst);
            or_gone(link.client.shutdown(Shutdown::Both));
        }
    }

    /// Ends each connection as soon as the server has carried out what it was asked next: nobody hears the answer.
    pub fn swallow_answers(&self) {
        self.links.lock().unwrap().iter().for_each(|link| link.swallow.store(true, Ordering::SeqCst));
    }
}

impl Link {
    fn end(&self) {
        or_gone(self.client.shutdown(Shutdown::Both));
        or_gone(self.server.shutdown(Shutdown::Both));
    }

    /// Passes on what the client says.
    fn forth(&self) {
        let mut from = &self.client;
        let mut buffer = [0; 1 << 14];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            if self.answered.swap(false, Ordering::SeqCst) {
                self.trips.fetch_add(1, Ordering::SeqCst);
            }
            if (&self.server).write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        if !self.severed.load(Ordering::SeqCst) {
            self.end();
        }
    }

    /// Passes on what the server answers.
    fn back(&self) {
        let mut from = &self.server;
        let mut buffer = [0; 1 << 14];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let severed = self.severed.load(Ordering::SeqCst);
            self.answered.store(true, Ordering::SeqCst);
            if self.swallow.load(Ordering::SeqCst) || !severed && (&self.client).write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        self.end();
    }
}

fn accept(listener: &TcpListener, socket: &PathBuf, links: &Mutex<Vec<Arc<Link>>>, trips: &Arc<AtomicU64>) {
    for client in listener.incoming() {
        let client = client.unwrap();
        // While the server is down, whoever comes is turned away.
        let Ok(server) = UnixStream::connect(socket) else { continue };
        client.set_nodelay(true).unwrap();
        let link = Arc::new(Link {
            client,
            server,
            swallow: AtomicBool::new(false),
            severed: AtomicBool::new(false),
            answered: AtomicBool::new(true),
            trips: Arc::clone(trips),
        });
        links.lock().unwrap().push(Arc::clone(&link));
        let other = Arc::clone(&link);
        std::thread::spawn(move || link.forth());
        std::thread::spawn(move || other.back());
    }
}

/// The other side may have gone by itself.
fn or_gone(done: std::io::Result<()>) {
    if let Err(error) = done {
        assert_eq!(error.kind(), std::io::ErrorKind::NotConnected, "{error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_cut_in_three_ways() {
        let server = Server::shared();
        let database = server.database();
        let proxy = Proxy::before(server);
        let connect = || {
            let url = proxy.url(&database);
            postgres::Client::connect(&url, postgres::NoTls).unwrap()
        };
        let mut client = connect();
        let before = proxy.round_trips();
        client.batch_execute("CREATE TABLE t (a int)").unwrap();
        assert_eq!(proxy.round_trips(), before + 1);
        proxy.cut();
        assert!(client.batch_execute("INSERT INTO t VALUES (1)").is_err());
        let mut client = connect();
        proxy.swallow_answers();
        assert!(client.batch_execute("INSERT INTO t VALUES (2)").is_err());
        assert_eq!(database.psql("SELECT a FROM t"), "2\n");
        let mut client = connect();
        client.batch_execute("BEGIN; INSERT INTO t VALUES (3)").unwrap();
        proxy.sever();
        assert!(client.batch_execute("COMMIT").is_err());
        drop(client);
        let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND xact_start < now()";
        assert_eq!(database.psql(open), "1\n", "the server knows nothing of it");
    }
}

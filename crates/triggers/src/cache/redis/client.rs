//! Finding the server that has the answer: the one there is, the node of a cluster, the master of the sentinels.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use redis::{Cmd, Value};
use tidemark_trigger::{Door, ErrorKind, Secret, SourceError};
use tokio::time::{sleep, timeout};

use super::address::{Address, NotAnAddress};
use super::failure::{Failure, most_telling};
use super::link::{Link, Node};
use super::parameters::Tls;

/// How often a cluster may send a command elsewhere. As in KEDA.
const REDIRECTS: usize = 3;
/// How long the servers before it are waited for until one more is tried.
const STAGGER: Duration = Duration::from_millis(500);
/// How long sentinels may take to say that the master is another one by now.
const SENTINEL_PATIENCE: Duration = Duration::from_secs(1);

/// How servers belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// One server.
    Single,
    /// A Redis Cluster: each key is on one of several nodes, which send a command on to the right one.
    Cluster,
    /// A master that sentinels know.
    Sentinel,
}

/// As whom to connect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Login {
    pub user: Option<Secret>,
    pub password: Option<Secret>,
}

impl Login {
    /// A login. A user without a password is none.
    pub fn of(user: Option<&Secret>, password: Option<&Secret>) -> Self {
        Self { user: user.filter(|_| password.is_some()).cloned(), password: password.cloned() }
    }
}

/// Where and how to connect.
#[derive(Clone, Debug)]
pub struct Target {
    pub topology: Topology,
    /// Never empty.
    pub addresses: Box<[Result<Address, NotAnAddress>]>,
    pub login: Login,
    /// The login at the sentinels.
    pub sentinel_login: Login,
    /// The name by which the sentinels know the master; empty when not given.
    pub master: String,
    pub database: i64,
    pub tls: Option<Tls>,
}

impl Target {
    /// The first address.
    pub fn endpoint(&self) -> Option<String> {
        let scheme = if self.tls.is_some() { "rediss" } else { "redis" };
        let address = self.addresses.first()?.as_ref().ok()?;
        Some(tidemark_trigger::endpoint(scheme, &address.host, address.port))
    }

    fn node<'a>(&'a self, address: &'a Address) -> Node<'a> {
        Node { address, login: &self.login, database: self.database, tls: self.tls.as_ref() }
    }

    fn sentinel<'a>(&'a self, address: &'a Address) -> Node<'a> {
        Node { address, login: &self.sentinel_login, database: 0, tls: self.tls.as_ref() }
    }
}

/// One trigger's hold on the connections that it shares.
#[derive(Debug)]
pub struct Client {
    target: Arc<Target>,
    addresses: Box<[Address]>,
    held: Mutex<Option<Arc<Place>>>,
    /// The connection to the sentinel that answered last, so that it stays open.
    sentinel: Mutex<Option<Arc<Link>>>,
}

/// A server and the connection to it.
#[derive(Debug)]
struct Place {
    address: Address,
    key: String,
    link: Arc<Link>,
}

impl Client {
    /// Connects, or takes a share of the connection that others have opened.
    ///
    /// # Errors
    /// What kept the connection from coming about.
    pub async fn connect(target: Arc<Target>, door: &Door) -> Result<Self, SourceError> {
        let configuration = |message: String| SourceError::new(ErrorKind::Configuration, message);
        let addresses = target.addresses.iter().enumerate().map(|(i, address)| {
            let number = i + 1;
            address.clone().map_err(|error| configuration(format!("address: number {number} {error}")))
        });
        let addresses = addresses.collect::<Result<_, _>>()?;
        if target.topology == Topology::Sentinel && target.master.is_empty() {
            return Err(configuration("sentinelMaster is missing: the name of the master".to_owned()));
        }
        let client = Self { target, addresses, held: Mutex::default(), sentinel: Mutex::default() };
        client.place(door).await?;
        Ok(client)
    }

    /// The reply to a command about one key, wherever that is. A connection that broke since the last command is replaced
    /// first.
    ///
    /// # Errors
    /// The server's refusal, or why no server could be asked.
    pub async fn ask(&self, door: &Door, command: &Cmd) -> Result<Reply, Failure> {
        let mut place = self.place(door).await?;
        let mut asking = false;
        for _ in 0..=REDIRECTS {
            let outcome = place.link.ask(command, asking).await;
            match outcome {
                Err(Failure::Server { code, detail, .. }) if self.redirects(&code) => {
                    let address = redirected(&detail, &place.address)?;
                    asking = code == "ASK";
                    place = Arc::new(self.open(door, &address).await?);
                    if !asking {
                        self.hold(Some(Arc::clone(&place)));
                    }
                }
                Err(Failure::Source(error)) => {
                    door.forget(&place.key, &place.link);
                    self.hold(None);
                    return Err(error.into());
                }
                Err(refusal) => return Err(refusal),
                Ok(value) => return Ok(Reply { value, endpoint: place.link.endpoint().to_owned() }),
            }
        }
        let message = format!("the cluster sent the command on more than {REDIRECTS} times, last to {}", place.address);
        Err(SourceError::new(ErrorKind::BadReply, message).into())
    }

    fn redirects(&self, code: &str) -> bool {
        self.target.topology == Topology::Cluster && matches!(code, "MOVED" | "ASK")
    }

    /// A working connection to where the last command went, or to where the first may go.
    async fn place(&self, door: &Door) -> Result<Arc<Place>, SourceError> {
        if let Some(held) = self.held() {
            if !held.link.works() {
                door.forget(&held.key, &held.link);
            } else if self.is_current(door, &held.address).await {
                return Ok(held);
            }
        }
        let place = match self.target.topology {
            Topology::Single | Topology::Cluster => {
                let attempts = self.addresses.iter().map(|address| self.open(door, address));
                first_of(attempts).await?
            }
            Topology::Sentinel => {
                let master = self.find_master(door).await?;
                self.open(door, &master).await?
            }
        };
        let place = Arc::new(place);
        self.hold(Some(Arc::clone(&place)));
        Ok(place)
    }

    async fn open(&self, door: &Door, address: &Address) -> Result<Place, SourceError> {
        let (key, link) = shared(door, self.target.node(address)).await?;
        Ok(Place { address: address.clone(), key, link })
    }

    /// Whether a server is still the one to ask. A master that lost its rank and does not know of it, being cut off from
    /// the others, goes on answering. Sentinels that say nothing are no reason to doubt it.
    async fn is_current(&self, door: &Door, address: &Address) -> bool {
        if self.target.topology != Topology::Sentinel {
            return true;
        }
        match timeout(SENTINEL_PATIENCE, self.find_master(door)).await {
            Ok(Ok(master)) => master == *address,
            Ok(Err(_)) | Err(_) => true,
        }
    }

    /// The address of the master, from the first sentinel that answers.
    async fn find_master(&self, door: &Door) -> Result<Address, SourceError> {
        let (master, sentinel) = first_of(self.addresses.iter().map(|address| self.master(door, address))).await?;
        *self.sentinel.lock().unwrap_or_else(PoisonError::into_inner) = Some(sentinel);
        Ok(master)
    }

    /// The address of the master, from one sentinel, and the connection to that.
    async fn master(&self, door: &Door, sentinel: &Address) -> Result<(Address, Arc<Link>), SourceError> {
        let (key, link) = shared(door, self.target.sentinel(sentinel)).await?;
        let master = self.target.master.as_str();
        let mut command = redis::cmd("SENTINEL");
        command.arg("get-master-addr-by-name").arg(master);
        let reply = link.ask(&command, false).await.map_err(|failure| {
            if matches!(failure, Failure::Source(_)) {
                door.forget(&key, &link);
            }
            failure.into_error(&format!("the address of the master `{master}`"))
        })?;
        match reply {
            Value::Nil => {
                let message = format!("the sentinel {sentinel} knows no master `{master}`");
                Err(SourceError::new(ErrorKind::MissingResource, message))
            }
            reply => match address_of(&reply) {
                Some(address) => Ok((address, link)),
                None => {
                    let message = format!("the sentinel {sentinel} gave no address for the master `{master}`");
                    Err(SourceError::new(ErrorKind::BadReply, message))
                }
            },
        }
    }

    fn held(&self) -> Option<Arc<Place>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn hold(&self, place: Option<Arc<Place>>) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = place;
    }
}

/// What a server answered, and which one.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    pub value: Value,
    pub endpoint: String,
}

impl Reply {
    /// The error for a reply of the wrong form.
    pub fn bad(&self, asked: &str) -> SourceError {
        let message = format!("{} answered in an unknown form when asked for {asked}", self.endpoint);
        SourceError::new(ErrorKind::BadReply, message)
    }
}

/// The shared connection to a node, and its key.
async fn shared(door: &Door, node: Node<'_>) -> Result<(String, Arc<Link>), SourceError> {
    let key = node.fingerprint();
    let mut link = door.shared(&key, Link::open(node, door)).await?;
    if !link.works() {
        // Broken, and others who hold it have not asked since.
        door.forget(&key, &link);
        link = door.shared(&key, Link::open(node, door)).await?;
    }
    Ok((key, link))
}

/// The first success. Each attempt starts a little after the one before it, so that a server that says nothing does not
/// keep the others from being tried.
async fn first_of<T>(
    attempts: impl Iterator<Item = impl Future<Output = Result<T, SourceError>>>,
) -> Result<T, SourceError> {
    let attempts = attempts.enumerate().map(|(i, attempt)| async move {
        sleep(STAGGER * u32::try_from(i).unwrap_or(u32::MAX)).await;
        (i, attempt.await)
    });
    let mut attempts: FuturesUnordered<_> = attempts.collect();
    let mut failures = Vec::new();
    while let Some((i, outcome)) = attempts.next().await {
        match outcome {
            Ok(value) => return Ok(value),
            Err(error) => failures.push((i, error)),
        }
    }
    Err(most_telling(failures).unwrap_or_else(|| SourceError::new(ErrorKind::Configuration, "there is no address")))
}

/// Where `SLOT HOST:PORT` sends a command. Without a host it is that of the node that says so.
fn redirected(detail: &str, from: &Address) -> Result<Address, SourceError> {
    let bad = || SourceError::new(ErrorKind::BadReply, format!("{from} sent the command on to no address"));
    let (host, port) = detail.split_whitespace().nth(1).and_then(|text| text.rsplit_once(':')).ok_or_else(bad)?;
    let port = port.parse().map_err(|_| bad())?;
    let host = if matches!(host, "" | "?") { from.host.as_str() } else { host };
    Ok(Address { host: host.trim_matches(['[', ']']).to_owned(), port })
}

/// Host and port as a sentinel gives them.
fn address_of(reply: &Value) -> Option<Address> {
    let Value::Array(parts) = reply else { return None };
    let [Value::BulkString(host), Value::BulkString(port)] = parts.as_slice() else { return None };
    let (host, port) = (std::str::from_utf8(host).ok()?, std::str::from_utf8(port).ok()?);
    (!host.is_empty()).then_some(())?;
    Some(Address { host: host.to_owned(), port: port.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_sends_on_to_an_address_or_to_another_port_of_the_same_host() {
        let from = Address { host: "10.0.0.1".to_owned(), port: 7000 };
        let to = |detail: &str| redirected(detail, &from).map(|address| address.to_string()).ok();
        assert_eq!(to("866 10.0.0.2:7001").as_deref(), Some("10.0.0.2:7001"));
        assert_eq!(to("866 :7001").as_deref(), Some("10.0.0.1:7001"));
        assert_eq!(to("866 ?:7001").as_deref(), Some("10.0.0.1:7001"));
        assert_eq!(to("866 fe80::1:7001").as_deref(), Some("[fe80::1]:7001"));
        assert_eq!(to("866"), None);
        assert_eq!(to("866 host:port"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_says_nothing_does_not_keep_the_next_from_being_tried() {
        let attempt =
            |i: usize| async move { if i == 0 { std::future::pending().await } else { Ok::<_, SourceError>(i) } };
        let start = tokio::time::Instant::now();
        assert_eq!(first_of([0, 1, 2].into_iter().map(attempt)).await, Ok(1));
        assert_eq!(start.elapsed(), STAGGER);
    }

    #[tokio::test(start_paused = true)]
    async fn of_several_failures_the_one_that_tells_most_is_given() {
        let kinds = [ErrorKind::Unreachable, ErrorKind::MissingResource, ErrorKind::Authentication];
        let attempts = kinds.into_iter().map(|kind| async move { Err::<(), _>(SourceError::new(kind, kind.as_str())) });
        let error = first_of(attempts).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Authentication);
        assert_eq!(error.message, "authentication; none of 3 addresses can be used");
    }

    #[test]
    fn a_user_without_a_password_is_no_login() {
        let user = Secret::from("user");
        assert_eq!(Login::of(Some(&user), None), Login::default());
    }
}

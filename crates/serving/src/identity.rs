//! Who a process is to the others: a certificate, its key, and the CAs that it trusts, in files that may be replaced
//! while it runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use rustls::{ClientConfig, ServerConfig};
use tidemark_clock::Clock;
use tokio::sync::watch;

use crate::certificates::{Error, Pair};
use crate::tls::{self, Clients, Policy};

mod flaws;

/// Between two looks at the files.
const INTERVAL: Duration = Duration::from_secs(10);
/// Between two looks at the dates of files that stay the same.
const DATES: Duration = Duration::from_secs(3600);
/// After this long without the files it is said that they are waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// A certificate with its key, and the CAs of the other processes.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// `tls.crt` and `tls.key`.
    pub pair: Pair,
    /// `ca.crt`: a PEM bundle.
    pub ca: String,
}

impl Identity {
    /// The TLS settings of a server for these; clients must show certificates if `mutual`.
    ///
    /// # Errors
    /// See [`tls::server_config`].
    pub fn server(&self, mutual: bool, policy: &Policy) -> Result<ServerConfig, Error> {
        let clients = if mutual { Clients::Required(&self.ca) } else { Clients::None };
        tls::server_config(&self.pair, clients, policy)
    }

    /// The TLS settings of a client with these.
    ///
    /// # Errors
    /// See [`tls::client_config`].
    pub fn client(&self, policy: &Policy) -> Result<ClientConfig, Error> {
        tls::client_config(Some(&self.pair), &self.ca, policy)
    }

    fn read(files: &Files) -> Result<Self, String> {
        let read = |path: &Path| {
            std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
        };
        let ca = match &files.ca {
            None => String::new(),
            Some((ca, needed)) => match read(ca) {
                Err(_) if !needed => String::new(),
                read => read?,
            },
        };
        Ok(Self { pair: Pair { certificate: read(&files.certificate)?, key: read(&files.key)? }, ca })
    }

    /// Whether all can be used: half-replaced files do not fit each other.
    fn check(&self) -> Result<(), Error> {
        let policy = Policy::default();
        self.server(!self.ca.is_empty(), &policy).map(drop)
    }
}

/// Where an identity is.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    /// And whether it must be there.
    ca: Option<(PathBuf, bool)>,
}

impl Files {
    fn of(folder: &Path, needs_ca: bool) -> Self {
        Self {
            certificate: folder.join("tls.crt"),
            key: folder.join("tls.key"),
            ca: Some((folder.join("ca.crt"), needs_ca)),
        }
    }
}

/// Reads the files `tls.crt`, `tls.key` and `ca.crt` of a folder, and reads them again when they change.
///
/// The first of the futures gives the channel when all are there and fit; the second follows them and does not end.
/// Files that cannot be used, as in the moment when one has been replaced and another has not, leave what was there; the
/// log says why. It also warns of certificates that are in use though others will not trust them.
///
/// Runs on the machine's time: not under a paused clock.
pub async fn follow(folder: PathBuf, needs_ca: bool) -> (watch::Receiver<Arc<Identity>>, BoxFuture<'static, ()>) {
    follow_all(Files::of(&folder, needs_ca), Clock::system()).await
}

/// As [`follow`], of a certificate and a key that are named one by one.
pub async fn follow_files(
    certificate: PathBuf,
    key: PathBuf,
) -> (watch::Receiver<Arc<Identity>>, BoxFuture<'static, ()>) {
    follow_all(Files { certificate, key, ca: None }, Clock::system()).await
}

async fn follow_all(files: Files, clock: Clock) -> (watch::Receiver<Arc<Identity>>, BoxFuture<'static, ()>) {
    let mut waited = Duration::ZERO;
    let first = loop {
        match read(&files) {
            Ok(identity) => break identity,
            Err(message) => {
                if waited.is_zero() || waited.as_secs().is_multiple_of(60) {
                    tracing::warn!("waiting for certificates: {message}");
                }
            }
        }
        tokio::time::sleep(PATIENCE).await;
        waited += PATIENCE;
    };
    let mut warned = Warned::default();
    warned.look(&files, &first, clock);
    let sender = watch::Sender::new(Arc::new(first));
    let receiver = sender.subscribe();
    let following = async move {
        let mut failing = false;
        let mut looked = Duration::ZERO;
        loop {
            tokio::time::sleep(INTERVAL).await;
            looked += INTERVAL;
            match read(&files) {
                Ok(identity) => {
                    failing = false;
                    let changed = sender.send_if_modified(|old| {
                        let changed = **old != identity;
                        if changed {
                            *old = Arc::new(identity);
                        }
                        changed
                    });
                    if changed {
                        tracing::info!(file = %files.certificate.display(), "new certificates are in use");
                    }
                    if changed || looked >= DATES {
                        looked = Duration::ZERO;
                        warned.look(&files, &sender.borrow(), clock);
                    }
                }
                Err(message) if !failing => {
                    failing = true;
                    tracing::warn!("the certificates in use stay as they are: {message}");
                }
                Err(_) => {}
            }
        }
    };
    (receiver, Box::pin(following))
}

fn read(files: &Files) -> Result<Identity, String> {
    let identity = Identity::read(files)?;
    identity.check().map_err(|error| format!("{}: {error}", files.certificate.display()))?;
    Ok(identity)
}

/// What has been warned of.
#[derive(Default)]
struct Warned(Vec<String>);

impl Warned {
    /// Warns of what is wrong now and was not before.
    fn look(&mut self, files: &Files, identity: &Identity, clock: Clock) {
        let flaws = identity.flaws(clock.now());
        for flaw in flaws.iter().filter(|flaw| !self.0.contains(flaw)) {
            tracing::warn!("{}: {flaw}", files.certificate.display());
        }
        self.0 = flaws;
    }
}

/// A channel of what is made of each value of another one; values of which nothing can be made are left out.
///
/// # Errors
/// Nothing can be made of the present value.
pub fn derive<T: Send + Sync + 'static>(
    mut from: watch::Receiver<Arc<Identity>>,
    make: impl Fn(&Identity) -> Result<T, Error> + Send + 'static,
) -> Result<watch::Receiver<Arc<T>>, Error> {
    let first = make(&from.borrow_and_update())?;
    let (sender, receiver) = watch::channel(Arc::new(first));
    tokio::spawn(async move {
        loop {
            tokio::select! {
                biased;
                () = sender.closed() => return,
                changed = from.changed() => if changed.is_err() {
                    // Nobody renews it any more; it serves on.
                    return sender.closed().await;
                },
            }
            let made = make(&from.borrow_and_update());
            match made {
                Ok(made) => drop(sender.send_replace(Arc::new(made))),
                Err(error) => tracing::warn!("new certificates cannot be used: {error}"),
            }
        }
    });
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::Authority;

    fn write(folder: &Path, authority: &Authority) -> Pair {
        let pair = authority.server(&["localhost"]).unwrap();
        std::fs::write(folder.join("tls.crt"), &pair.certificate).unwrap();
        std::fs::write(folder.join("tls.key"), &pair.key).unwrap();
        std::fs::write(folder.join("ca.crt"), authority.certificate()).unwrap();
        pair
    }

    #[tokio::test(start_paused = true)]
    async fn files_are_waited_for_and_followed_and_halves_are_not_used() {
        let folder = std::env::temp_dir().join(format!("tidemark-identity-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let authority = Authority::new("test", "2026-01-01T00:00:00Z".parse().unwrap()).unwrap();
        let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
        let files = Files::of(&folder, true);
        assert!(read(&files).err().unwrap().contains("ca.crt: No such file"), "it says which one is missing");
        let waiting = tokio::spawn(follow_all(Files::of(&folder, true), clock));
        tokio::time::sleep(PATIENCE).await;
        assert!(!waiting.is_finished());
        let first = write(&folder, &authority);
        let (mut identity, following) = waiting.await.unwrap();
        assert!(identity.borrow_and_update().pair == first);
        let following = tokio::spawn(following);
        let second = authority.server(&["localhost"]).unwrap();
        std::fs::write(folder.join("tls.crt"), &second.certificate).unwrap();
        tokio::time::sleep(INTERVAL * 2).await;
        assert!(!identity.has_changed().unwrap(), "the key is another one's");
        assert!(read(&files).err().unwrap().ends_with("tls.crt: the private key is not that of the certificate"));
        std::fs::write(folder.join("tls.key"), &second.key).unwrap();
        identity.changed().await.unwrap();
        assert!(identity.borrow().pair == second);
        following.abort();
        std::fs::remove_dir_all(folder).unwrap();
    }
}

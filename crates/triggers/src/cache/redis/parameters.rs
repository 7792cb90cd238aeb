//! How to reach a Redis server: the parameters that all trigger types of Redis share.

use serde_json::{Map, Value as Json};
use tidemark_trigger::parameters::{Shown, Text, Value as _};
use tidemark_trigger::{HttpProfile, Parameters, ParseError, Secret, ShowSecret, SourceError, TriggerInput};

use super::address::{Address, join};
use super::client::{Login, Target, Topology};
use crate::private_key::decrypted;

/// The parameters of the connection.
#[derive(Clone, Debug, Parameters)]
#[parameters(check = Server::check)]
pub struct Server {
    /// Number of the database. A cluster has only number 0.
    #[param(from = "metadata", default = 0)]
    database_index: i64,
    /// Whether to connect with TLS. Not together with `tls`.
    #[param(name = "enableTLS", from = "metadata")]
    enable_tls: Option<String>,
    /// `enable`: connect with TLS. `disable`, the default: do not. Not together with `enableTLS`.
    #[param(from = "auth", plain)]
    tls: Option<String>,
    /// Addresses `host:port`, separated by commas: of the server (the first one counts), of some nodes of the cluster, or
    /// of the sentinels.
    #[param(name = "address", alias = "addresses", from = "metadata auth env", optional, plain)]
    addresses: Vec<String>,
    /// Hosts, separated by commas. Together with `ports`.
    #[param(name = "host", alias = "hosts", from = "metadata env auth", optional, plain)]
    hosts: Vec<String>,
    /// As many ports, separated by commas.
    #[param(name = "port", alias = "ports", from = "metadata env auth", optional, plain)]
    ports: Vec<String>,
    /// User. Together with `password`.
    #[param(from = "metadata env auth")]
    username: Option<Secret>,
    /// Password of `username`, or of the default user.
    #[param(from = "metadata env auth")]
    password: Option<Secret>,
    /// User at the sentinels. Together with `sentinelPassword`. Sentinel types only.
    #[param(from = "metadata auth env")]
    sentinel_username: Option<Secret>,
    /// Password at the sentinels. Sentinel types only.
    #[param(from = "metadata auth env")]
    sentinel_password: Option<Secret>,
    /// Name of the master that the sentinels watch. Sentinel types only, and needed there.
    #[param(from = "metadata auth env", plain)]
    sentinel_master: Option<String>,
    /// Accept any certificate.
    #[param(from = "metadata", default = false)]
    unsafe_ssl: bool,
    /// PEM text of certificates to trust besides those of the system.
    #[param(from = "auth")]
    ca: Option<Secret>,
    /// PEM text of the client's certificate. Together with `key`.
    #[param(alias = "Cert", from = "auth")]
    cert: Option<Secret>,
    /// PEM text of the private key of `cert`.
    #[param(from = "auth")]
    key: Option<Secret>,
    /// Password of an encrypted PKCS#8 `key`.
    #[param(from = "auth")]
    key_password: Option<Secret>,
}

impl Server {
    fn check(&self, _: &TriggerInput) -> Vec<ParseError> {
        let mut errors = Vec::new();
        if !self.hosts.is_empty() && !self.ports.is_empty() && self.hosts.len() != self.ports.len() {
            let message = "not enough hosts or ports given. number of hosts should be equal to the number of ports";
            errors.push(ParseError::new("host", message));
        }
        if errors.is_empty() && self.all_addresses().first().is_none_or(String::is_empty) {
            let message = "no addresses or hosts given. address should be a comma separated list of host:port or set the \
                           host/port values";
            errors.push(ParseError::new("address", message));
        }
        errors.extend(self.wants_tls().err());
        errors
    }

    /// The addresses as given, then the pairs of hosts and ports.
    fn all_addresses(&self) -> Vec<String> {
        let pairs = self.hosts.iter().zip(&self.ports).map(|(host, port)| join(host, port));
        self.addresses.iter().cloned().chain(pairs).collect()
    }

    fn wants_tls(&self) -> Result<bool, ParseError> {
        match (self.enable_tls.as_deref(), self.tls.as_deref()) {
            (Some(_), Some(_)) => {
                let message = "unable to set `tls` in both ScaledObject and TriggerAuthentication together";
                Err(ParseError::new("enableTLS", message))
            }
            (Some(text), None) => bool::parse(Text { text, hidden: false, separator: ',' })
                .map_err(|cause| ParseError::new("enableTLS", format!("EnableTLS parsing error {cause}"))),
            (None, None | Some("disable")) => Ok(false),
            (None, Some("enable")) => Ok(true),
            // It comes from authentication, so it is not shown.
            (None, Some(_)) => {
                Err(ParseError::new("tls", "error incorrect TLS value given, it must be `enable` or `disable`"))
            }
        }
    }

    /// What a client needs to know.
    ///
    /// # Errors
    /// TLS is asked for in a way that cannot be understood.
    pub fn target(&self, topology: Topology) -> Result<Target, ParseError> {
        let mut addresses = self.all_addresses();
        if topology == Topology::Single {
            addresses.truncate(1);
        }
        let tls = self.wants_tls()?.then(|| Tls {
            unsafe_ssl: self.unsafe_ssl,
            ca: self.ca.clone(),
            cert_and_key: self.cert.clone().zip(self.key.clone()),
            key_password: self.key_password.clone(),
        });
        Ok(Target {
            topology,
            addresses: addresses.iter().map(|address| Address::parse(address)).collect(),
            login: Login::of(self.username.as_ref(), self.password.as_ref()),
            sentinel_login: Login::of(self.sentinel_username.as_ref(), self.sentinel_password.as_ref()),
            master: self.sentinel_master.clone().unwrap_or_default(),
            database: if topology == Topology::Cluster { 0 } else { self.database_index },
            tls,
        })
    }

    /// Notes on what is no error here but will not do what its author expects.
    pub fn notes(&self, target: &Target) -> Vec<String> {
        let mut notes = Vec::new();
        let mut note = |applies: bool, text: &str| {
            if applies {
                notes.push(text.to_owned());
            }
        };
        let all = self.all_addresses().len();
        let single = target.topology == Topology::Single;
        note(single && all > 1, "only the first address is used; a cluster has types of its own");
        let cluster = target.topology == Topology::Cluster;
        note(cluster && self.database_index != 0, "databaseIndex has no effect: a cluster has only the database 0");
        note(target.addresses.iter().any(Result::is_err), "address: not host:port, the trigger cannot connect");
        let sentinel = target.topology == Topology::Sentinel;
        note(sentinel && target.master.is_empty(), "sentinelMaster is missing; the trigger cannot connect");
        note(self.username.is_some() && self.password.is_none(), "username has no effect without password");
        let halves = target.tls.is_some() && self.cert.is_some() != self.key.is_some();
        note(halves, "cert and key have no effect without each other");
        let unused = [&self.ca, &self.cert, &self.key].iter().any(|pem| pem.is_some()) || self.unsafe_ssl;
        note(target.tls.is_none() && unused, "ca, cert, key and unsafeSsl have no effect without TLS");
        notes
    }
}

/// The declared parameters, with the list of addresses as it came out.
pub fn show<P: Parameters>(declared: &P, server: &Server, secret: ShowSecret) -> Map<String, Json> {
    let mut shown = Shown::new(secret);
    declared.show(&mut shown);
    let mut shown = shown.into_map();
    for (name, plural) in [("host", "hosts"), ("port", "ports")] {
        if let Some(list) = shown.remove(name) {
            shown.insert(plural.to_owned(), list);
        }
    }
    shown.remove("address");
    shown.insert("addresses".to_owned(), server.all_addresses().into());
    shown
}

/// What a trigger says about TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Accept any certificate.
    pub unsafe_ssl: bool,
    /// PEM texts.
    pub ca: Option<Secret>,
    pub cert_and_key: Option<(Secret, Secret)>,
    /// Of an encrypted PKCS#8 key.
    pub key_password: Option<Secret>,
}

impl Tls {
    /// What the door needs to know.
    ///
    /// # Errors
    /// Of kind configuration: a key that cannot be decrypted.
    pub fn profile(&self) -> Result<HttpProfile, SourceError> {
        let client_cert = match &self.cert_and_key {
            None => None,
            Some((cert, key)) => Some((cert.clone(), decrypted(key, self.key_password.as_ref())?)),
        };
        Ok(HttpProfile { unsafe_ssl: self.unsafe_ssl, ca: self.ca.clone(), client_cert })
    }

    /// Every text, in a fixed order.
    pub fn parts(&self) -> [Option<&Secret>; 4] {
        let pair = self.cert_and_key.as_ref();
        [self.ca.as_ref(), pair.map(|(cert, _)| cert), pair.map(|(_, key)| key), self.key_password.as_ref()]
    }
}

//! Proving a password: SCRAM-SHA-256 (RFC 5802, RFC 7677), and PostgreSQL's older MD5 form.

use std::num::NonZeroU32;

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use icu_normalizer::ComposingNormalizerBorrowed;
use md5::{Digest as _, Md5};
use tidemark_trigger::Secret;

/// The name of the mechanism.
pub(super) const MECHANISM: &str = "SCRAM-SHA-256";
/// What is wrong with a server that does not show its own proof.
pub(super) const UNPROVEN: &str = "it did not prove that it knows the password";
/// "No channel binding", and its base64 form.
const GS2: &str = "n,,";
const GS2_BASE64: &str = "biws";
/// The most rounds that a server may ask for: about half a second of work.
const MAX_ITERATIONS: u32 = 1_000_000;
const HASH: usize = 32;

/// The server's part of the exchange makes no sense, or it does not know the password.
pub(super) struct Mistrust(pub &'static str);

/// One exchange.
pub(super) struct Exchange {
    password: Vec<u8>,
    nonce: String,
}

/// The last message, and the signature with which the server must answer it.
pub(super) struct Proof {
    pub message: String,
    signature: hmac::Tag,
}

impl Exchange {
    /// Starts with a random nonce.
    pub fn new(password: &Secret) -> Result<Self, Mistrust> {
        let mut nonce = [0; 18];
        rand::fill(&mut nonce).map_err(|_| Mistrust("the system gives no random numbers"))?;
        Ok(Self { password: prepared(password.expose()).into_bytes(), nonce: BASE64.encode(nonce) })
    }

    /// The first message. The user is named by the connection itself.
    pub fn first(&self) -> String {
        format!("{GS2}{}", self.bare())
    }

    fn bare(&self) -> String {
        format!("n=,r={}", self.nonce)
    }

    /// The answer to the server's first message. Takes as long as the server asks for: tens of milliseconds or more.
    pub fn prove(self, server_first: &str) -> Result<Proof, Mistrust> {
        const NONSENSE: Mistrust = Mistrust("its SCRAM challenge makes no sense");
        let mut fields = server_first.split(',');
        let mut field = |name: &str| fields.next().and_then(|field| field.strip_prefix(name)).ok_or(NONSENSE);
        let (nonce, salt, iterations) = (field("r=")?, field("s=")?, field("i=")?);
        if nonce.len() <= self.nonce.len() || !nonce.starts_with(&self.nonce) {
            return Err(NONSENSE);
        }
        let salt = BASE64.decode(salt).map_err(|_| NONSENSE)?;
        let iterations = iterations.parse().ok().and_then(NonZeroU32::new).ok_or(NONSENSE)?;
        if iterations.get() > MAX_ITERATIONS {
            return Err(Mistrust("it asks for more than a million rounds of SCRAM"));
        }
        let mut salted = [0; HASH];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, &self.password, &mut salted);
        let key = hmac::Key::new(hmac::HMAC_SHA256, &salted);
        let client_key = hmac::sign(&key, b"Client Key");
        let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
        let unproven = format!("c={GS2_BASE64},r={nonce}");
        let message = format!("{},{server_first},{unproven}", self.bare());
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, stored_key.as_ref()), message.as_bytes());
        let proof: Vec<u8> = client_key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        let server_key = hmac::sign(&key, b"Server Key");
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, server_key.as_ref()), message.as_bytes());
        Ok(Proof { message: format!("{unproven},p={}", BASE64.encode(proof)), signature })
    }
}

impl Proof {
    /// Whether the server's last message shows that it knows the password as well.
    pub fn verify(&self, server_final: &str) -> Result<(), Mistrust> {
        let field = server_final.split(',').next().and_then(|field| field.strip_prefix("v="));
        let given = field.and_then(|text| BASE64.decode(text).ok()).unwrap_or_default();
        constant_time::verify_slices_are_equal(&given, self.signature.as_ref()).map_err(|_| Mistrust(UNPROVEN))
    }
}

/// The older form: `md5` and the hash of the salted hash of password and user.
pub(super) fn md5(user: &Secret, password: &Secret, salt: &[u8]) -> String {
    let inner = hex(&Md5::new().chain_update(password.expose()).chain_update(user.expose()).finalize());
    format!("md5{}", hex(&Md5::new().chain_update(inner).chain_update(salt).finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SASLprep (RFC 4013) as PostgreSQL applies it: a password that it forbids is taken as it is.
fn prepared(password: &str) -> String {
    if password.is_ascii() {
        return password.to_owned();
    }
    let mapped: String =
        password.chars().filter(|c| !vanishes(*c)).map(|c| if is_space(c) { ' ' } else { c }).collect();
    let normal = ComposingNormalizerBorrowed::new_nfkc().normalize(&mapped).into_owned();
    if normal.is_empty() || normal.chars().any(prohibited) { password.to_owned() } else { normal }
}

/// RFC 3454, table C.1.2.
fn is_space(c: char) -> bool {
    matches!(c, '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200b}' | '\u{202f}' | '\u{205f}' | '\u{3000}')
}

/// RFC 3454, table B.1, less what is a space.
fn vanishes(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{34f}' | '\u{1806}' | '\u{180b}'..='\u{180d}' | '\u{200c}' | '\u{200d}' | '\u{2060}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
    )
}

/// RFC 3454, tables C.2.1, C.2.2, C.3, C.4 and C.6 to C.9.
fn prohibited(c: char) -> bool {
    c.is_control()
        || u32::from(c) & 0xfffe == 0xfffe
        || matches!(
            c,
            '\u{340}' | '\u{341}' | '\u{6dd}' | '\u{70f}' | '\u{180e}' | '\u{200c}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2063}' | '\u{206a}'..='\u{206f}'
                | '\u{2ff0}'..='\u{2ffb}' | '\u{e000}'..='\u{f8ff}' | '\u{fdd0}'..='\u{fdef}' | '\u{feff}'
                | '\u{fff9}'..='\u{fffd}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0001}' | '\u{e0020}'..='\u{e007f}'
                | '\u{f0000}'..='\u{10ffff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER_FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    fn exchange(password: &str) -> Exchange {
        Exchange { password: prepared(password).into_bytes(), nonce: "rOprNGfwEbeRWgbNEkqO".to_owned() }
    }

    /// The standard's example but for the user, whom PostgreSQL leaves out; reckoned by another implementation.
    #[test]
    fn the_proof_is_that_of_the_standard() {
        let proof = exchange("pencil").prove(SERVER_FIRST).ok().unwrap();
        assert_eq!(
            proof.message,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=qvT2SWdEH5Q06albL+hjSYuUhCG7VndFyzIb7CK4n9k="
        );
        assert!(proof.verify("v=3HO6Qt1M4MKJrmlKaoOqLAI0/0TV0HZe7J9H3MBtSOg=").is_ok());
        for other in ["v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=", "e=other-error", "v=", ""] {
            assert!(proof.verify(other).is_err(), "{other}");
        }
    }

    #[test]
    fn a_challenge_that_makes_no_sense_is_refused() {
        for challenge in [
            "",
            "r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "r=other,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "r=rOprNGfwEbeRWgbNEkqOx,s=?,i=4096",
            "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=0",
            "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4000000000",
        ] {
            assert!(exchange("pencil").prove(challenge).is_err(), "{challenge}");
        }
    }

    #[test]
    fn md5_is_that_of_postgresql() {
        let (user, password) = (Secret::from("ann"), Secret::from("secret"));
        assert_eq!(md5(&user, &password, b"salt"), "md5b8f5ba9f485dba302ec0963f7ee9ba8f");
    }

    #[test]
    fn passwords_are_prepared_as_sasl_wants() {
        for (given, expected) in [
            ("I\u{ad}X", "IX"),
            ("user", "user"),
            ("\u{aa}", "a"),
            ("\u{2168}", "IX"),
            ("a\u{a0}b", "a b"),
            ("caf\u{65}\u{301}", "caf\u{e9}"),
            // What is forbidden, or vanishes altogether, stays as it is.
            ("\u{e9}\u{7}", "\u{e9}\u{7}"),
            ("\u{ad}", "\u{ad}"),
            ("a b ", "a b "),
        ] {
            assert_eq!(prepared(given), expected, "{given:?}");
        }
    }
}

//! A provider of tokens, as an OAuth 2.0 server is one: its key set is a file, and `openssl` signs for it.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64_URL};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What a token is for, in a gateway that takes this provider's.
pub const AUDIENCE: &str = "seeway";

const ISSUER: &str = "https://provider.example";

/// A provider with one RSA key.
pub struct Provider {
    folder: TempDir,
}

impl Provider {
    /// A new one.
    pub fn new() -> Self {
        let provider = Self { folder: TempDir::new().expect("a folder") };
        let bits = ["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072", "-out"];
        openssl(&[&bits[..], &[path(&provider.key())]].concat(), b"");
        let modulus = openssl(&["rsa", "-in", path(&provider.key()), "-noout", "-modulus"], b"");
        let modulus = String::from_utf8(modulus).expect("text");
        let modulus = modulus.trim().strip_prefix("Modulus=").expect("what openssl prints");
        let bytes: Vec<u8> = (0..modulus.len() / 2)
            .map(|index| u8::from_str_radix(&modulus[index * 2..][..2], 16).expect("hexadecimal"))
            .collect();
        let key = json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "one", "e": "AQAB", "n": BASE64_URL.encode(bytes)});
        fs::write(provider.jwks(), json!({"keys": [key]}).to_string()).expect("written");
        provider
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    fn jwks(&self) -> PathBuf {
        self.folder.path().join("jwks.json")
    }

    /// What `[token]` says of it.
    pub fn section(&self) -> String {
        format!("jwks = \"{}\"\nissuer = {ISSUER:?}\naudience = {AUDIENCE:?}\nleeway = \"0s\"", self.jwks().display())
    }

    /// The file of a token for somebody, that is good for so long and says this besides.
    pub fn token(&self, name: &str, lasts: Duration, further: Value) -> PathBuf {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let mut claims =
            json!({"iss": ISSUER, "aud": AUDIENCE, "sub": name, "iat": now.as_secs(), "exp": (now + lasts).as_secs()});
        if let (Some(claims), Value::Object(further)) = (claims.as_object_mut(), further) {
            claims.extend(further);
        }
        let header = json!({"alg": "RS256", "typ": "JWT", "kid": "one"});
        let encoded = |value: &Value| BASE64_URL.encode(value.to_string());
        let signed = format!("{}.{}", encoded(&header), encoded(&claims));
        let signature = openssl(&["dgst", "-sha256", "-sign", path(&self.key())], signed.as_bytes());
        let number = fs::read_dir(self.folder.path()).expect("there").count();
        let file = self.folder.path().join(format!("token-{number}"));
        fs::write(&file, format!("{signed}.{}\n", BASE64_URL.encode(signature))).expect("written");
        file
    }
}

impl Default for Provider {
    fn default() -> Self {
        Self::new()
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a plain name")
}

fn openssl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new("openssl");
    let started = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = started.unwrap_or_else(|error| panic!("openssl: {error}"));
    child.stdin.take().expect("piped").write_all(input).expect("it reads");
    let output = child.wait_with_output().expect("it runs");
    assert!(output.status.success(), "openssl {arguments:?}");
    output.stdout
}

//! The command line. The daemon splits its setting at blanks, so no argument can hold one.

use std::path::PathBuf;

/// For wrong command lines.
pub(crate) const USAGE: &str = "\
Usage: ctdb_mutex_etcd_helper ENDPOINT[,ENDPOINT...] KEY [OPTION=VALUE...]
  ENDPOINT   http://HOST:PORT or https://HOST:PORT of an etcd server
  KEY        of the lock; one per CTDB cluster
  ttl=SECONDS        life of the lease without refresh (9; at least 3)
  ca=FILE            certificate authority of https servers
  cert=FILE key=FILE certificate and key of this client
  user=NAME password-file=FILE";

/// Shortest lease, in seconds: refreshed three times within it.
const TTL_MIN_S: i64 = 3;
/// Longest: a dead leader's cluster waits that long for another.
const TTL_MAX_S: i64 = 600;
/// As C's etcd helper has it.
const TTL_S: i64 = 9;

/// A valid command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// Servers of one etcd cluster.
    pub(crate) endpoints: Vec<String>,
    /// The lock.
    pub(crate) key: String,
    /// Of the lease, in seconds.
    pub(crate) ttl_s: i64,
    /// Certificate authority.
    pub(crate) ca: Option<PathBuf>,
    /// Client certificate and its key.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
    /// User and the file with the password.
    pub(crate) user: Option<(String, PathBuf)>,
}

impl Arguments {
    /// Reads the words after the program's name.
    ///
    /// # Errors
    /// Which word is wrong.
    pub(crate) fn parse(words: &[String]) -> Result<Self, String> {
        let [endpoints, key, options @ ..] = words else {
            return Err("ENDPOINT and KEY are missing".into());
        };
        let endpoints: Vec<String> = endpoints.split(',').map(str::to_owned).collect();
        for endpoint in &endpoints {
            if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
                return Err(format!("'{endpoint}' begins with neither http:// nor https://"));
            }
        }
        if key.is_empty() {
            return Err("KEY is empty".into());
        }
        let mut found = Options::default();
        for option in options {
            let (name, value) =
                option.split_once('=').ok_or(format!("'{option}' is not OPTION=VALUE"))?;
            found.set(name, value)?;
        }
        Ok(Self {
            endpoints,
            key: key.clone(),
            ttl_s: found.ttl_s.unwrap_or(TTL_S),
            ca: found.ca,
            identity: both(found.cert, found.key, "cert= and key=")?,
            user: both(found.user, found.password_file, "user= and password-file=")?,
        })
    }
}

#[derive(Default)]
struct Options {
    ttl_s: Option<i64>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    user: Option<String>,
    password_file: Option<PathBuf>,
}

impl Options {
    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "ttl" => {
                let seconds = value.parse().ok();
                let seconds = seconds.filter(|ttl| (TTL_MIN_S..=TTL_MAX_S).contains(ttl));
                let limits = format!("{TTL_MIN_S} to {TTL_MAX_S}");
                self.ttl_s = Some(seconds.ok_or(format!("ttl={value}: not {limits} seconds"))?);
            }
            "ca" => self.ca = Some(value.into()),
            "cert" => self.cert = Some(value.into()),
            "key" => self.key = Some(value.into()),
            "user" => self.user = Some(value.into()),
            "password-file" => self.password_file = Some(value.into()),
            _ => return Err(format!("there is no option '{name}'")),
        }
        Ok(())
    }
}

fn both<A, B>(one: Option<A>, other: Option<B>, what: &str) -> Result<Option<(A, B)>, String> {
    match (one, other) {
        (Some(one), Some(other)) => Ok(Some((one, other))),
        (None, None) => Ok(None),
        _ => Err(format!("{what} belong together")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Arguments::parse(&words)
    }

    #[test]
    fn servers_and_key_are_enough() {
        let arguments = parse("http://a:2379,https://b:2379 /ctdb/one").unwrap();
        assert_eq!(arguments.endpoints, ["http://a:2379", "https://b:2379"]);
        assert_eq!((&*arguments.key, arguments.ttl_s), ("/ctdb/one", 9));
        assert_eq!(parse("http://a:1 k ttl=30").unwrap().ttl_s, 30);
    }

    #[test]
    fn a_wrong_word_is_named() {
        for (line, named) in [
            ("http://a:1", "KEY"),
            ("a:2379 k", "'a:2379'"),
            ("http://a:1 k ttl=2", "ttl=2"),
            ("http://a:1 k ttl=x", "ttl=x"),
            ("http://a:1 k verbose", "'verbose'"),
            ("http://a:1 k colour=red", "'colour'"),
            ("http://a:1 k cert=/c", "cert= and key="),
            ("http://a:1 k user=u", "password-file="),
        ] {
            let reason = parse(line).unwrap_err();
            assert!(reason.contains(named), "{line}: {reason}");
        }
    }
}

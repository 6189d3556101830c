//! The server's settings with their defaults, once. `docs/configuration.md` says the same, and a
//! test compares them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use joblog_protocol::limits;
use serde::Deserialize;

use crate::log::Durability;

/// The settings of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where its data is.
    pub data: PathBuf,
    /// When an answer may leave.
    pub durability: Durability,
    /// How many logs a new data directory gets; nothing for as many as it has, or 1.
    pub logs: Option<u16>,
    /// Whether ENQUEUE creates missing queues.
    pub auto_create: bool,
    /// Whether it may listen where others can reach it, without authentication.
    pub insecure: bool,
    /// Silence in milliseconds after which a session is ended.
    pub session_silence_ms: u64,
    /// Longest time in milliseconds that a job may run under a session lease.
    pub session_run_ms_max: u64,
    /// Bytes of the largest job.
    pub job_bytes_max: usize,
    /// Bytes of a segment of the log.
    pub segment_bytes: u32,
    /// Bytes of log after which a checkpoint of the state is made.
    pub checkpoint_bytes: u64,
    /// Connections at most.
    pub connections_max: usize,
    /// I/O threads.
    pub io_threads: usize,
}

impl Config {
    /// The defaults.
    pub fn defaults() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7411)),
            data: PathBuf::from("joblog-data"),
            durability: Durability::Fsync,
            logs: None,
            auto_create: true,
            insecure: false,
            session_silence_ms: 10_000,
            session_run_ms_max: 3_600_000,
            job_bytes_max: limits::JOB_BYTES_MAX,
            segment_bytes: 64 * 1024 * 1024,
            checkpoint_bytes: 64 * 1024 * 1024,
            connections_max: 10_000,
            io_threads: std::thread::available_parallelism()
                .map_or(1, |cores| cores.get() / 2)
                .max(1),
        }
    }
}

/// Settings from one source; what is missing is left as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overrides {
    /// See [`Config::listen`].
    pub listen: Option<String>,
    /// See [`Config::data`].
    pub data: Option<PathBuf>,
    /// See [`Config::durability`].
    pub durability: Option<String>,
    /// See [`Config::logs`].
    pub logs: Option<u64>,
    /// See [`Config::auto_create`].
    pub auto_create: Option<bool>,
    /// See [`Config::insecure`].
    pub insecure: Option<bool>,
    /// See [`Config::session_silence_ms`].
    pub session_silence_ms: Option<u64>,
    /// See [`Config::session_run_ms_max`].
    pub session_run_ms_max: Option<u64>,
    /// See [`Config::job_bytes_max`].
    pub job_bytes_max: Option<u64>,
    /// See [`Config::segment_bytes`].
    pub segment_bytes: Option<u64>,
    /// See [`Config::checkpoint_bytes`].
    pub checkpoint_bytes: Option<u64>,
    /// See [`Config::connections_max`].
    pub connections_max: Option<u64>,
    /// See [`Config::io_threads`].
    pub io_threads: Option<u64>,
}

/// Why settings can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file can't be read.
    #[error("the configuration file {} can't be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not TOML, or has an unknown or mistyped key.
    #[error("the configuration file {} is wrong: {source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// A value is outside what is allowed.
    #[error("{key} is {value:?}; allowed is {allowed}")]
    Value {
        /// The setting.
        key: &'static str,
        /// What was given.
        value: String,
        /// What may be given.
        allowed: String,
    },
}

impl Overrides {
    /// Reads a TOML file.
    ///
    /// # Errors
    /// [`ConfigError`], which names the file, and the key that is unknown or mistyped.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let read = std::fs::read_to_string(path);
        let text = read.map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        toml::from_str(&text).map_err(|source| ConfigError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        })
    }

    /// Puts these settings over `config`.
    ///
    /// # Errors
    /// [`ConfigError::Value`], which names the key.
    pub fn apply(self, config: &mut Config) -> Result<(), ConfigError> {
        if let Some(listen) = self.listen {
            let allowed = "an address with a port, such as 127.0.0.1:7411";
            config.listen = listen.parse().map_err(|_| wrong("listen", &listen, allowed))?;
        }
        if let Some(durability) = self.durability {
            let allowed = "fsync, interval:<ms> or os";
            let parsed = durability.parse();
            config.durability = parsed.map_err(|_| wrong("durability", &durability, allowed))?;
        }
        config.data = self.data.unwrap_or_else(|| config.data.clone());
        config.auto_create = self.auto_create.unwrap_or(config.auto_create);
        config.insecure = self.insecure.unwrap_or(config.insecure);
        if self.logs.is_some() {
            set("logs", self.logs, config.logs.insert(1))?;
        }
        set("session_silence_ms", self.session_silence_ms, &mut config.session_silence_ms)?;
        set("session_run_ms_max", self.session_run_ms_max, &mut config.session_run_ms_max)?;
        set("job_bytes_max", self.job_bytes_max, &mut config.job_bytes_max)?;
        set("segment_bytes", self.segment_bytes, &mut config.segment_bytes)?;
        set("checkpoint_bytes", self.checkpoint_bytes, &mut config.checkpoint_bytes)?;
        set("connections_max", self.connections_max, &mut config.connections_max)?;
        set("io_threads", self.io_threads, &mut config.io_threads)
    }
}

/// The allowed range of each number.
const RANGES: &[(&str, u64, u64)] = &[
    ("session_silence_ms", limits::SILENCE_MS_MIN as u64, limits::SILENCE_MS_MAX as u64),
    ("session_run_ms_max", limits::LEASE_MS_MIN as u64, limits::LEASE_MS_MAX as u64),
    ("job_bytes_max", 1, limits::BATCH_BYTES_MAX as u64),
    ("segment_bytes", 16 * 1024 * 1024, 1024 * 1024 * 1024),
    ("logs", 1, 64),
    ("checkpoint_bytes", 1024 * 1024, 1024 * 1024 * 1024 * 1024),
    ("connections_max", 1, 1_000_000),
    ("io_threads", 1, 256),
];

fn set<T: TryFrom<u64>>(
    key: &'static str,
    value: Option<u64>,
    place: &mut T,
) -> Result<(), ConfigError> {
    let Some(value) = value else { return Ok(()) };
    let range = RANGES.iter().find(|(name, ..)| *name == key);
    let (_, min, max) = *range.expect("the table has every number");
    match T::try_from(value) {
        Ok(converted) if (min..=max).contains(&value) => *place = converted,
        _ => return Err(wrong(key, &value.to_string(), &format!("{min} to {max}"))),
    }
    Ok(())
}

fn wrong(key: &'static str, value: &str, allowed: &str) -> ConfigError {
    ConfigError::Value { key, value: value.to_owned(), allowed: allowed.to_owned() }
}

impl Config {
    /// Checks what depends on more than one setting.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn check(&self) -> Result<(), ConfigError> {
        if !self.listen.ip().is_loopback() && !self.insecure {
            let allowed = "a loopback address: there is no authentication yet, so anyone who can \
                           reach another one could read and delete every job; --insecure allows it";
            return Err(wrong("listen", &self.listen.to_string(), allowed));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(toml_text: &str) -> Result<Config, ConfigError> {
        let mut config = Config::defaults();
        let overrides: Overrides = toml::from_str(toml_text).unwrap();
        overrides.apply(&mut config)?;
        config.check()?;
        Ok(config)
    }

    #[test]
    fn a_wrong_value_names_its_key_and_what_is_allowed() {
        for (text, key, allowed) in [
            ("listen = \"nowhere\"", "listen", "127.0.0.1:7411"),
            ("listen = \"0.0.0.0:7411\"", "listen", "--insecure"),
            ("durability = \"maybe\"", "durability", "interval:<ms>"),
            ("session_silence_ms = 1", "session_silence_ms", "500 to 3600000"),
            ("io_threads = 0", "io_threads", "1 to 256"),
        ] {
            let error = apply(text).unwrap_err().to_string();
            assert!(error.starts_with(key) && error.contains(allowed), "{error}");
        }
        assert!(apply("listen = \"0.0.0.0:7411\"\ninsecure = true").is_ok());
    }

    #[test]
    fn an_unknown_key_is_named() {
        let error = toml::from_str::<Overrides>("lisen = 1").unwrap_err().to_string();
        assert!(error.contains("lisen"), "{error}");
    }
}

//! File, environment and flags, each stronger than the one before.

use std::path::PathBuf;

use figment::{
    Figment,
    providers::{Env, Format as _, Serialized, Toml},
};

use super::{Config, DEFAULT_PATH};

/// Where settings come from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file named by the operator; it must be there. Without one, [`DEFAULT_PATH`] is read if it is there.
    pub file: Option<PathBuf>,
    /// `key=value` pairs from the command line, as in TOML: `policy.budget=1.0`.
    pub set: Vec<String>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The named file is not there or cannot be read.
    #[error("the configuration file {path} cannot be read\nhint: name one that exists, or leave --config out")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not `key=value`.
    #[error("--set {0:?} is not KEY=VALUE\nhint: for example --set policy.budget=1.0")]
    Set(String),
    /// A key or value that is not understood; figment says where it came from.
    #[error("{0}\nhint: `prewarm config sample` prints every key with its meaning")]
    Value(String),
    /// Understood, but senseless.
    #[error("{}", .0.join("\n"))]
    Senseless(Vec<String>),
}

/// Reads all sources and checks what they say together.
///
/// # Errors
/// When a source cannot be read, says what is not understood, or the whole makes no sense.
pub fn load(sources: &Sources) -> Result<Config, ConfigError> {
    let mut figment = Figment::from(Serialized::defaults(Config::default()));
    let file = sources.file.clone().or_else(|| Some(PathBuf::from(DEFAULT_PATH)).filter(|path| path.exists()));
    if let Some(path) = file {
        // Read here, since a missing file is no error to figment, and a folder is none worth reading.
        let text = std::fs::read_to_string(&path).map_err(|source| ConfigError::File { path: path.clone(), source })?;
        let complaint = |error: toml::de::Error| ConfigError::Value(format!("{}: {error}", path.display()));
        let _: toml::Table = text.parse().map_err(complaint)?;
        figment = figment.merge(Toml::file_exact(path));
    }
    // PREWARM_POLICY__BUDGET=1.0; the names without a section are the tools' own.
    figment = figment.merge(Env::prefixed("PREWARM_").filter(|key| key.as_str().contains("__")).split("__"));
    for pair in &sources.set {
        figment = figment.merge(Toml::string(&assignment(pair)?));
    }
    let config: Config = figment.extract().map_err(|error| {
        let lines: Vec<String> = error.into_iter().map(|error| error.to_string()).collect();
        ConfigError::Value(lines.join("\n"))
    })?;
    config.check()?;
    Ok(config)
}

/// `key=value` as a line of TOML; what is no TOML value is taken for text.
fn assignment(pair: &str) -> Result<String, ConfigError> {
    let bad = || ConfigError::Set(pair.to_owned());
    let (key, value) = pair.split_once('=').ok_or_else(bad)?;
    let (key, value) = (key.trim(), value.trim());
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !key.split('.').all(plain) {
        return Err(bad());
    }
    let line = format!("{key} = {value}");
    if line.parse::<toml::Table>().is_ok() {
        return Ok(line);
    }
    Ok(format!("{key} = {}", toml::Value::from(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(set: &[&str]) -> Result<Config, ConfigError> {
        load(&Sources { file: None, set: set.iter().map(|&pair| pair.to_owned()).collect() })
    }

    #[test]
    fn flags_win_over_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, "[resolve]\ntimeout_ms = 7\nconcurrent = 3\n").unwrap();
        let sources = Sources { file: Some(path), set: vec!["resolve.timeout_ms=9".to_owned()] };
        let config = load(&sources).unwrap();
        assert_eq!((config.resolve.timeout_ms, config.resolve.concurrent), (9, 3));
    }

    #[test]
    fn text_needs_no_quotes_on_the_command_line() {
        assert_eq!(with(&["control.group=staff"]).unwrap().control.group, "staff");
        assert_eq!(with(&["capture.xdp=generic"]).unwrap().capture.xdp, super::super::XdpMode::Generic);
    }

    #[test]
    fn a_bad_pair_is_named() {
        for (pair, part) in
            [("budget", "KEY=VALUE"), ("resolve.nope=1", "nope"), ("resolve.timeout_ms=soon", "timeout_ms")]
        {
            let error = with(&[pair]).unwrap_err().to_string();
            assert!(error.contains(part), "{pair}: {error}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let sources = Sources { file: Some(PathBuf::from("/nowhere/prewarm.toml")), set: Vec::new() };
        assert!(load(&sources).unwrap_err().to_string().contains("/nowhere/prewarm.toml"));
    }
}

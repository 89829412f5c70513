//! The configuration: one YAML file, strict. A key that is not known is an error, because a misspelt one would
//! otherwise silently mean its default.

mod environment;
mod error;
mod exceptions;
mod limits;
mod named;
mod schema;
mod selector;
mod sinks;
mod values;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use error::ConfigError;
pub use exceptions::ExceptionConfig;
pub use limits::{Limits, Thresholds};
pub use schema::schema;
pub use sinks::{
    AlertmanagerSink, Body, Facility, FileSink, Format, HostPort, OtlpProtocol, OtlpSink, SinkConfig,
    SinkFilter, SyslogAddress, SyslogSink, Tls, WebhookSink,
};
pub use values::Switch;

/// Read if it exists and no other file is named.
pub const DEFAULT_PATH: &str = "/etc/observer/observer.yaml";

/// The defaults as a file, with a comment for each key.
pub const DEFAULT_YAML: &str = include_str!("default.yaml");

/// A file beyond this is a mistake.
const MAX_BYTES: u64 = 1 << 20;

/// Everything that can be configured; what is left out has its default.
// `default.yaml` explains each key to the user; a test holds the two together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// This node's name in alerts and events; the machine's host name if absent.
    #[serde(deserialize_with = "values::node")]
    #[schemars(schema_with = "schema::node")]
    pub node: Option<String>,
    pub http: Http,
    pub socket: Socket,
    pub rings: Rings,
    pub host: HostRoots,
    /// Whose namespaces are the host's.
    pub host_namespaces: HostNamespaces,
    /// How often the tasks of containers are looked at for what no hook has shown.
    #[serde(deserialize_with = "values::period_seconds")]
    #[schemars(range(min = values::PERIOD_SECONDS.min, max = values::PERIOD_SECONDS.max))]
    pub sweep_seconds: u64,
    pub stdout: Stdout,
    /// Where else alerts are delivered.
    #[serde(deserialize_with = "sinks::sinks")]
    #[schemars(length(max = sinks::MAX_SINKS))]
    pub sinks: Vec<SinkConfig>,
    pub store: Store,
    /// Alerts that are not wanted.
    #[serde(deserialize_with = "exceptions::exceptions")]
    #[schemars(with = "Vec<exceptions::Entry>", length(max = exceptions::MAX_EXCEPTIONS))]
    pub exceptions: Vec<ExceptionConfig>,
    pub audit: Audit,
    pub metrics: Metrics,
    pub limits: Limits,
    /// Give up what running does not need, once armed.
    pub self_protection: bool,
    pub kernel: KernelOptions,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            node: None,
            http: Http::default(),
            socket: Socket::default(),
            rings: Rings::default(),
            host: HostRoots::default(),
            host_namespaces: HostNamespaces::default(),
            sweep_seconds: 5,
            stdout: Stdout::default(),
            sinks: Vec::new(),
            store: Store::default(),
            exceptions: Vec::new(),
            audit: Audit::default(),
            metrics: Metrics::default(),
            limits: Limits::default(),
            self_protection: true,
            kernel: KernelOptions::default(),
        }
    }
}

/// `/metrics`, `/healthz` and `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Address and port; `None` (`off` in the file) disables the server.
    #[serde(deserialize_with = "values::listen")]
    #[schemars(schema_with = "schema::listen")]
    pub listen: Option<SocketAddr>,
}

impl Default for Http {
    fn default() -> Self {
        Http { listen: Some(SocketAddr::from(([127, 0, 0, 1], 9736))) }
    }
}

/// The local API, for root only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Socket {
    /// What `observer tail` and the other verbs connect to.
    #[serde(deserialize_with = "values::absolute_path")]
    #[schemars(schema_with = "schema::path")]
    pub path: PathBuf,
}

impl Default for Socket {
    fn default() -> Self {
        Socket { path: "/run/observer/observer.sock".into() }
    }
}

/// Sizes of the rings between the kernel and the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rings {
    /// For ordinary events.
    #[serde(deserialize_with = "values::ring_bytes")]
    #[schemars(schema_with = "schema::ring_bytes")]
    pub events_bytes: u32,
    /// For rare events that decide about security.
    #[serde(deserialize_with = "values::ring_bytes")]
    #[schemars(schema_with = "schema::ring_bytes")]
    pub priority_bytes: u32,
}

impl Default for Rings {
    fn default() -> Self {
        Rings { events_bytes: 4 << 20, priority_bytes: 1 << 20 }
    }
}

/// Where the host's directories are: elsewhere in a container that has them mounted, and in tests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HostRoots {
    /// The host's procfs, of its pid namespace.
    #[serde(deserialize_with = "values::absolute_path")]
    #[schemars(schema_with = "schema::path")]
    pub proc: PathBuf,
    /// The host's cgroup hierarchies.
    #[serde(deserialize_with = "values::absolute_path")]
    #[schemars(schema_with = "schema::path")]
    pub cgroup: PathBuf,
    /// Where runtimes keep the state of what runs.
    #[serde(deserialize_with = "values::absolute_path")]
    #[schemars(schema_with = "schema::path")]
    pub run: PathBuf,
    /// Where podman, CRI-O and LXC keep their containers.
    #[serde(deserialize_with = "values::absolute_path")]
    #[schemars(schema_with = "schema::path")]
    pub lib: PathBuf,
    /// docker's data root.
    #[serde(deserialize_with = "values::absolute_path")]
    #[schemars(schema_with = "schema::path")]
    pub docker: PathBuf,
    /// The CRI runtimes' sockets; `None` for those in their usual places.
    #[serde(deserialize_with = "values::sockets")]
    #[schemars(schema_with = "schema::sockets")]
    pub cri_sockets: Option<Vec<PathBuf>>,
}

impl Default for HostRoots {
    fn default() -> Self {
        HostRoots {
            proc: "/proc".into(),
            cgroup: "/sys/fs/cgroup".into(),
            run: "/run".into(),
            lib: "/var/lib".into(),
            docker: "/var/lib/docker".into(),
            cri_sockets: None,
        }
    }
}

/// Whose namespaces are the host's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HostNamespaces {
    /// Those of pid 1.
    #[default]
    Pid1,
    /// The agent's own: for an agent that runs where it cannot walk up to pid 1.
    Own,
}

/// The alerts on standard output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Stdout {
    /// How they look.
    pub format: StdoutFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StdoutFormat {
    /// Text for a terminal, JSON for anything else.
    #[default]
    Auto,
    Json,
    Text,
}

/// Where alerts wait for the sinks to take them. Not opened while there are none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// A directory.
    #[serde(deserialize_with = "values::absolute_path")]
    #[schemars(schema_with = "schema::path")]
    pub path: PathBuf,
    /// What it may take of the disk.
    #[serde(deserialize_with = "values::store_bytes")]
    #[schemars(range(min = values::STORE_BYTES.min, max = values::STORE_BYTES.max))]
    pub max_bytes: u64,
}

impl Default for Store {
    fn default() -> Self {
        Store { path: "/var/lib/observer".into(), max_bytes: 256 << 20 }
    }
}

/// What is counted only where it is asked for, because counting it costs others something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// Which capabilities each container uses and is denied.
    pub capabilities: bool,
    /// Which system calls each container makes.
    pub syscalls: bool,
    /// Which system calls seccomp refuses each container.
    pub seccomp: bool,
    /// What AppArmor denies each container.
    pub apparmor: bool,
    /// Alert on a system call that a container makes for the first time after so long. Keeps system calls as `syscalls` does.
    pub first_use_after_seconds: Switch<values::Seconds>,
}

/// What `/metrics` shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Containers that have series of their own.
    #[serde(deserialize_with = "values::max_containers")]
    #[schemars(range(min = values::MAX_CONTAINERS.min, max = values::MAX_CONTAINERS.max))]
    pub max_containers: usize,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics { max_containers: 1024 }
    }
}

/// What the agent makes of the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KernelOptions {
    /// Things to do without although this kernel has them, to see what would be missing elsewhere.
    #[serde(deserialize_with = "values::pretended")]
    #[schemars(schema_with = "schema::pretended")]
    pub pretend_without: Vec<String>,
}

impl Config {
    /// The named file; without one, [`DEFAULT_PATH`] if it exists, else the defaults. Files of secrets may be named by the
    /// environment instead (`environment.rs`).
    pub fn load(path: Option<&Path>) -> Result<Config, ConfigError> {
        let read = |path: &Path| Config::read(path);
        let mut config = match path {
            Some(path) => read(path),
            None => match read(Path::new(DEFAULT_PATH)) {
                Err(error) if error.is_not_found() => Ok(Config::default()),
                result => result,
            },
        }?;
        environment::apply(&mut config.sinks, std::env::vars_os())?;
        Ok(config)
    }

    fn read(path: &Path) -> Result<Config, ConfigError> {
        let unreadable = |source| ConfigError::Read { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(unreadable)?;
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::Read::take(file, MAX_BYTES + 1), &mut bytes)
            .map_err(unreadable)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(ConfigError::TooLarge { path: path.to_owned(), limit: MAX_BYTES });
        }
        match String::from_utf8(bytes) {
            Ok(text) => Config::parse(path, &text),
            Err(error) => {
                let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                let line = valid.iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
                Err(ConfigError::invalid(path, line, "the file is not UTF-8"))
            }
        }
    }

    /// What `text`, the content of `path`, says.
    pub fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
        let options = serde_saphyr::options! {
            with_snippet: false,
            strict_booleans: true,
        };
        serde_saphyr::from_str_with_options(text, options).map_err(|error| error::explain(path, text, &error))
    }

    /// The configured name, else the machine's.
    pub fn node_name(&self) -> String {
        let host = || {
            let name = std::fs::read("/proc/sys/kernel/hostname").ok()?;
            let name = String::from_utf8_lossy(&name).trim().to_owned();
            (!name.is_empty()).then_some(name)
        };
        self.node.clone().or_else(host).unwrap_or_else(|| "localhost".to_owned())
    }
}

#[cfg(test)]
mod tests;

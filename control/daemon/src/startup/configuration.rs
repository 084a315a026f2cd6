//! Reads all configuration files.
//!
//! Origin: `docs/spec/cluster-semantics.md` 12; `docs/spec/admin-interface.md` 3.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use ringmaster_control::config::{
    LogLevel, Paths, Settings, Severity, check as check_all,
    ctdb_conf::{self, ScriptState, Strictness, Surroundings},
    native_conf::{self, NativeConf},
    public_addresses::PublicAddresses,
    tunables_file,
};
use ringmaster_protocol::tunable::TunableList;

use rustix::fs::Access;

use super::Failure;
use crate::network;

/// Everything that is configured.
pub(super) struct Configuration {
    pub(super) paths: Paths,
    pub(super) settings: Settings,
    pub(super) native: NativeConf,
    pub(super) tunables: TunableList,
    pub(super) addresses: PublicAddresses,
}

/// The real file system.
struct Real {
    etc_dir: PathBuf,
}

impl Surroundings for Real {
    fn is_directory(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn script_state(&self, path: &Path) -> ScriptState {
        match std::fs::metadata(path) {
            Err(_) => ScriptState::Missing,
            Ok(found) if !found.is_file() => ScriptState::NotAFile,
            Ok(found) if found.permissions().mode() & 0o100 == 0 => ScriptState::NotExecutable,
            Ok(_) => ScriptState::Executable,
        }
    }

    fn etc_dir(&self) -> PathBuf {
        self.etc_dir.clone()
    }
}

/// A file that may be missing.
fn read(path: &Path) -> Result<Option<Vec<u8>>, Failure> {
    match std::fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::new(format!("cannot read {}: {error}", path.display()))),
    }
}

impl Configuration {
    pub(super) fn load(paths: Paths) -> Result<Self, Failure> {
        let around = Real { etc_dir: paths.etc_dir() };
        let conf = read(&paths.config_file())?.unwrap_or_default();
        let loaded = ctdb_conf::load(&conf, Strictness::Lenient, LogLevel::Notice, &around);
        // One line a failure: the first; `--check-config` names them all.
        if let Some(obstacle) = loaded.obstacle {
            return Err(Failure::new(format!("{}: {obstacle}", paths.config_file().display())));
        }
        let settings = Settings::new(&loaded.table, &paths);
        let native_file = paths.native_config_file();
        let native = match read(&native_file)? {
            None => NativeConf::default(),
            Some(text) => native_conf::parse(&text).map_err(|findings| {
                let first = findings.first().map_or_else(String::new, ToString::to_string);
                Failure::new(format!("{}: {first}", native_file.display()))
            })?,
        };
        for folder in [&settings.volatile_dir, &settings.persistent_dir, &settings.state_dir] {
            check_folder(folder, &paths.config_file())?;
        }
        // Used much later, when nobody hears of an error any more.
        let addresses = network::public_addresses(&paths);
        let addresses = addresses.map_err(|unusable| Failure::new(unusable.to_string()))?;
        let tunables = load_tunables(&paths)?;
        Ok(Self { paths, settings, native, tunables, addresses })
    }
}

/// A directory for databases. C starts without the right to write there and then attaches nothing.
fn check_folder(folder: &Path, conf: &Path) -> Result<(), Failure> {
    let (shown, conf) = (folder.display(), conf.display());
    if !folder.is_dir() {
        return Err(Failure::new(format!(
            "database directory {shown} does not exist; create it, or see [database] in {conf}"
        )));
    }
    rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| {
        Failure::new(format!(
            "cannot write to the database directory {shown}: {error}; make it writable for the user \
             of ctdbd, or see [database] in {conf}"
        ))
    })
}

/// `ctdb.tunables`, then the files of its directory in the order of their names. What is wrong in
/// one of them is said and passed over, as in C.
fn load_tunables(paths: &Paths) -> Result<TunableList, Failure> {
    let mut list = TunableList::default();
    for file in tunables_files(paths) {
        let Some(text) = read(&file)? else { continue };
        let parsed = tunables_file::parse(&text);
        for finding in &parsed.findings {
            tracing::warn!("{}: {finding}", file.display());
        }
        for (tunable, value) in parsed.assignments {
            list.set(tunable, value);
        }
    }
    Ok(list)
}

fn tunables_files(paths: &Paths) -> Vec<PathBuf> {
    let mut more: Vec<PathBuf> = std::fs::read_dir(paths.tunables_dir())
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "tunables"))
        .collect();
    more.sort();
    let mut files = vec![paths.tunables_file()];
    files.append(&mut more);
    files
}

/// `ctdbd --check-config`: every file, every line, and the remedy.
pub(super) fn check() -> ExitCode {
    match findings() {
        Err(failure) => {
            eprintln!("ctdbd: {}", failure.line);
            ExitCode::from(failure.status)
        }
        Ok(located) => {
            for one in &located {
                println!("{one}");
            }
            let wrong = located.iter().any(|one| one.finding.severity == Severity::Error);
            if wrong {
                return ExitCode::from(1);
            }
            println!("configuration is good");
            ExitCode::SUCCESS
        }
    }
}

fn findings() -> Result<Vec<check_all::Located>, Failure> {
    let paths = Paths::from_environment(|name| std::env::var_os(name))
        .map_err(|error| Failure::new(error.to_string()))?;
    let around = Real { etc_dir: paths.etc_dir() };
    let mut tunables = Vec::new();
    for file in tunables_files(&paths) {
        if let Some(text) = read(&file)? {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            tunables.push((name, text));
        }
    }
    let tunables: Vec<(&str, &[u8])> =
        tunables.iter().map(|(name, text)| (name.as_str(), text.as_slice())).collect();
    let files = [
        read(&paths.config_file())?,
        read(&paths.native_config_file())?,
        read(&paths.nodes_file())?,
        read(&paths.public_addresses_file())?,
        read(&paths.home_nodes_file())?,
    ];
    let [ctdb_conf, ringmaster_conf, nodes, public_addresses, home_nodes] =
        files.each_ref().map(Option::as_deref);
    let contents = check_all::Contents {
        ctdb_conf,
        ringmaster_conf,
        nodes,
        public_addresses,
        home_nodes,
        tunables: &tunables,
    };
    let interface_exists = |name: &str| Path::new("/sys/class/net").join(name).exists();
    Ok(check_all::check(&contents, &around, interface_exists))
}

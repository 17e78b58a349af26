//! Landlock: what stays of the file system, and no way to make TCP connections or to signal other processes.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, PathFdError, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

/// Ends with the process; what it holds is not to be closed before.
pub struct Restriction {
    /// The kernel may forget a directory of /proc that nobody has open, and make it anew, to which no rule would apply.
    _settings: Option<PathFd>,
}

/// For this thread and those that it starts from now on. What is open stays open.
pub fn forbid(socket: &Path) -> Result<Restriction, String> {
    let rules = create().map_err(|e| e.to_string())?;
    // Hidden in some containers, where the settings cannot be made in any case.
    let settings = PathFd::new(NETWORK_SETTINGS).ok();
    let status = allow(rules, settings.as_ref(), &directory(socket)).map_err(|e| e.to_string())?;
    match status {
        RulesetStatus::NotEnforced => Err("the kernel has no Landlock, or it is switched off".to_string()),
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(Restriction { _settings: settings }),
    }
}

/// Everything that the kernel knows to forbid is forbidden.
fn create() -> Result<RulesetCreated, RulesetError> {
    Ruleset::default()
        .handle_access(AccessFs::from_all(KNOWN))?
        .handle_access(AccessNet::from_all(KNOWN))?
        .scope(Scope::from_all(KNOWN))?
        .create()
}

fn allow(
    mut rules: RulesetCreated,
    settings: Option<&PathFd>,
    socket_directory: &Path,
) -> Result<RulesetStatus, RulesetError> {
    if let Some(settings) = settings {
        rules = rules.add_rule(PathBeneath::new(settings, SETTINGS_ACCESS))?;
    }
    let directory: Result<PathFd, PathFdError> = PathFd::new(socket_directory);
    if let Ok(directory) = directory {
        rules = rules.add_rule(PathBeneath::new(directory, AccessFs::RemoveFile))?;
    }
    Ok(rules.restrict_self()?.ruleset)
}

fn directory(socket: &Path) -> PathBuf {
    match socket.parent() {
        Some(parent) if parent != Path::new("") => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

const NETWORK_SETTINGS: &str = "/proc/sys/net";
const SETTINGS_ACCESS: BitFlags<AccessFs> = landlock::make_bitflags!(AccessFs::{
    ReadFile | ReadDir | WriteFile | Truncate
});
/// The newest that this was tried with.
const KNOWN: ABI = ABI::V7;

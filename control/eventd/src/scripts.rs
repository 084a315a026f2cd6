//! Script files of a component: which there are, and switching them on and off.
//!
//! Origin: `docs/spec/cluster-semantics.md` 10.2; `ctdb/common/event_script.c`.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::component::{Script, errno};

/// `NN.NAME.script`: two digits, a dot, something, the suffix. Returns the name without suffix.
#[must_use]
pub fn name_of(file_name: &str) -> Option<&str> {
    let name = file_name.strip_suffix(".script")?;
    let bytes = name.as_bytes();
    let good = bytes.len() > 3
        && bytes[0].is_ascii_digit()
        && bytes[1].is_ascii_digit()
        && bytes[2] == b'.';
    good.then_some(name)
}

/// All scripts of a component, by name. Enabled: executable by its owner, links followed; a link
/// that leads nowhere is disabled.
///
/// # Errors
/// The errno of reading the directory.
pub fn list(folder: &Path) -> Result<Vec<Script>, i32> {
    let failed = |error: io::Error| error.raw_os_error().unwrap_or(errno::EIO);
    let mut scripts = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()).and_then(name_of) else {
            continue;
        };
        let mode = fs::metadata(&path).map_or(0, |found| found.permissions().mode());
        scripts.push(Script { name: name.to_owned(), enabled: mode & 0o100 != 0, path });
    }
    scripts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(scripts)
}

/// Gives or takes the execute permission. The name may have its suffix.
///
/// # Errors
/// EINVAL for a bad name or a link, ENOENT for a script that is not there, else chmod's errno.
pub fn switch(folder: &Path, name: &str, enable: bool) -> Result<(), i32> {
    let name = name.strip_suffix(".script").unwrap_or(name);
    let file_name = format!("{name}.script");
    if name_of(&file_name).is_none() || name.contains('/') {
        return Err(errno::EINVAL);
    }
    let path: PathBuf = folder.join(file_name);
    let failed = |error: io::Error| error.raw_os_error().unwrap_or(errno::EIO);
    let found = fs::symlink_metadata(&path).map_err(failed)?;
    if !found.is_file() {
        return Err(errno::EINVAL);
    }
    let mode = found.permissions().mode();
    let mode = if enable { mode | 0o111 } else { mode & !0o111 };
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(folder: &Path, name: &str, mode: u32) {
        let path = folder.join(name);
        fs::write(&path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn only_scripts_count_sorted_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        put(folder, "50.b.script", 0o755);
        put(folder, "05.a.script", 0o644);
        put(folder, "50.b.script~", 0o755);
        put(folder, "5.c.script", 0o755);
        put(folder, "README", 0o644);
        std::os::unix::fs::symlink(folder.join("50.b.script"), folder.join("60.l.script")).unwrap();
        std::os::unix::fs::symlink("/nowhere", folder.join("70.d.script")).unwrap();
        let listed = list(folder).unwrap();
        let shown: Vec<_> =
            listed.iter().map(|script| (script.name.as_str(), script.enabled)).collect();
        assert_eq!(shown, [("05.a", false), ("50.b", true), ("60.l", true), ("70.d", false)]);
        assert_eq!(list(Path::new("/nowhere")), Err(errno::ENOENT));
    }

    #[test]
    fn switching_changes_the_mode_of_files_only() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        put(folder, "50.b.script", 0o644);
        assert_eq!(switch(folder, "50.b", true), Ok(()));
        assert!(list(folder).unwrap()[0].enabled);
        assert_eq!(switch(folder, "50.b.script", false), Ok(()));
        assert!(!list(folder).unwrap()[0].enabled);
        assert_eq!(switch(folder, "51.x", true), Err(errno::ENOENT));
        assert_eq!(switch(folder, "x", true), Err(errno::EINVAL));
        assert_eq!(switch(folder, "50.b/../../x", true), Err(errno::EINVAL));
        std::os::unix::fs::symlink(folder.join("50.b.script"), folder.join("60.l.script")).unwrap();
        assert_eq!(switch(folder, "60.l", true), Err(errno::EINVAL));
    }
}

//! `ctdb-gen DIRECTORY`: everything that is generated from the tool's tables.
//!
//! Writes `man/ctdb.1`, `bash/ctdb`, `zsh/_ctdb`, `fish/ctdb.fish` and `json.md`.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::{env, fs};

use anyhow::{Context, Result, bail};
use clap_complete::{Shell, generate_to};
use ringmaster_ctdb::{command_tree, document};

fn main() -> Result<()> {
    let mut arguments = env::args_os().skip(1);
    let (Some(directory), None) = (arguments.next(), arguments.next()) else {
        bail!("usage: ctdb-gen DIRECTORY");
    };
    let directory = PathBuf::from(directory);
    let subdirectory = |name: &str| -> Result<PathBuf> {
        let path = directory.join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(path)
    };
    for (name, shell) in [("bash", Shell::Bash), ("zsh", Shell::Zsh), ("fish", Shell::Fish)] {
        let path = subdirectory(name)?;
        let written = generate_to(shell, &mut command_tree(), "ctdb", &path)
            .with_context(|| format!("cannot write completions to {}", path.display()))?;
        // bash-completion finds a file by the command's name.
        if shell == Shell::Bash {
            fs::rename(&written, path.join("ctdb"))
                .with_context(|| format!("cannot rename {}", written.display()))?;
        }
    }
    let write = |path: PathBuf, text: String| {
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    write(subdirectory("man")?.join("ctdb.1"), document::manual_page())?;
    write(directory.join("json.md"), document::json_reference())
}

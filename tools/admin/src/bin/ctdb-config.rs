//! `ctdb-config`, see `ringmaster_admin::config_tool`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use ringmaster_admin::environment::{self, RealSurroundings};
use ringmaster_admin::{config_tool, files};

fn main() -> ExitCode {
    config_tool::run(
        &environment::args(),
        environment::posixly_correct(),
        environment::paths,
        |paths| files::read_like_stdio(&paths.config_file()),
        |paths| Box::new(RealSurroundings { etc_dir: paths.etc_dir() }),
    )
    .deliver()
}

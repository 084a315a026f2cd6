//! Which interfaces the host has.

use std::io;

use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice::name_to_index, socket_with};

/// Those of `names` that the host has.
///
/// # Errors
/// The kernel gives no socket to ask with.
pub fn existing<'a>(names: impl IntoIterator<Item = &'a str>) -> io::Result<Vec<String>> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let exists = |name: &&str| name_to_index(&socket, name).is_ok();
    Ok(names.into_iter().filter(exists).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_loopback_interface_is_there_and_nonsense_is_not() {
        let found = super::existing(["nosuch", "lo", "much-too-long-for-a-name", ""]).unwrap();
        assert_eq!(found, ["lo"]);
    }
}

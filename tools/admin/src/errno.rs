//! Texts of errors as the C library has them.

use std::io;

/// `strerror()` of the error, without the number that Rust appends.
#[must_use]
pub fn text(error: &io::Error) -> String {
    let full = error.to_string();
    match full.rfind(" (os error ") {
        Some(end) => full[..end].to_owned(),
        None => full,
    }
}

/// `strerror()` of a number.
#[must_use]
pub fn name(errno: i32) -> String {
    text(&io::Error::from_raw_os_error(errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_cut_off() {
        assert_eq!(name(libc::ENOENT), "No such file or directory");
    }
}

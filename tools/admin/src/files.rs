//! Reading files as C's tools do.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Opens and reads a file. A failure to open is an error; a failure to read (a directory) ends
/// the content early, because C's `fgetc` loop sees no difference.
///
/// # Errors
/// That of opening.
pub fn read_like_stdio(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let mut file = File::open(path)?;
    let _ = file.read_to_end(&mut content);
    Ok(content)
}

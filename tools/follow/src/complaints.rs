//! What C's daemons log.

use anyhow::Result;

use crate::life::Life;

/// C's nodes have not complained.
///
/// # Errors
/// They have.
pub fn check(_life: &Life) -> Result<()> {
    Ok(())
}

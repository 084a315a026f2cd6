//! The `ctdb` command line.
//!
//! Role: C's tool, in place: the same words, the same output, the same exit statuses; and beside
//! them JSON, repetition and colours. One table (`table`) knows all commands; usage texts,
//! completions, the manual page and the JSON reference come from it.
//! Invariants
//! - What is printed to anything but a terminal, without a new option, is what the 4.17 tool
//!   prints.
//! - Layouts are pure code (`Report` implementations) with tests; handlers are thin.
//! - The old command line is parsed by popt's rules; `clap` only describes it (`tree`).
//!
//! Origin: `docs/spec/admin-interface.md` chapter 1.
#![deny(unsafe_code)]

pub mod alarm;
pub mod arguments;
pub mod command;
pub mod commands;
mod connection;
pub mod document;
pub mod options;
pub mod output;
pub mod page;
pub mod places;
pub mod run;
pub mod session;
pub mod sys;
pub mod table;
#[cfg(test)]
pub(crate) mod testing;
pub mod time;
pub mod tool;
pub mod tree;
pub mod usage;

pub use tree::command_tree;

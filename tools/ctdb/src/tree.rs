//! The command line as a `clap` tree.
//!
//! Role: describes the tables to generators of completions and manual pages. It parses nothing:
//! the old command line follows popt's rules, which `clap` does not know.
//! Invariant: every option and command of the tables is in it, and nothing else.

use clap::{Arg, ArgAction, Command as Tree, ValueHint};

use crate::command::Command;
use crate::options::{Id, OPTIONS, OptionSpec, Value};
use crate::table::COMMANDS;

/// The tree of `ctdb`.
#[must_use]
pub fn command_tree() -> Tree {
    let mut tree = Tree::new("ctdb")
        .about("Manage a cluster of CTDB nodes")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_flag(true)
        .disable_version_flag(true)
        .disable_help_subcommand(true)
        .subcommand_required(true)
        .subcommand_value_name("COMMAND");
    for spec in &OPTIONS {
        tree = tree.arg(option(spec));
    }
    for command in COMMANDS {
        tree = tree.subcommand(subcommand(command));
    }
    tree
}

fn option(spec: &OptionSpec) -> Arg {
    // Every option has a name; the ids are those of the code.
    let id = spec.long.map_or_else(|| format!("{:?}", spec.id), str::to_owned);
    let mut arg = Arg::new(id).help(spec.help).long_help(spec.about).global(is_common(spec.id));
    if let Some(short) = spec.short {
        arg = arg.short(short);
    }
    if let Some(long) = spec.long {
        arg = arg.long(long);
    }
    if spec.value == Value::Flag {
        return arg.action(ArgAction::SetTrue);
    }
    arg = arg.action(ArgAction::Set).value_name(spec.placeholder);
    match spec.id {
        Id::Debug => arg.value_parser(["ERROR", "WARNING", "NOTICE", "INFO", "DEBUG"]),
        Id::Color => arg.value_parser(["auto", "always", "never"]),
        _ => arg,
    }
}

/// Every option may stand behind the command. Completions offer those there that are much used:
/// each costs a line for each command and shell.
const fn is_common(id: Id) -> bool {
    matches!(id, Id::Node | Id::MachineX | Id::Verbose | Id::Json | Id::Watch)
}

fn subcommand(command: &Command) -> Tree {
    let mut tree = Tree::new(command.name)
        .about(command.help)
        .long_about(command.about)
        .disable_help_flag(true);
    for (index, word) in argument_words(command.arguments).into_iter().enumerate() {
        let mut arg =
            Arg::new(format!("argument{index}")).value_name(word.name).required(!word.optional);
        if !word.choices.is_empty() {
            arg = arg.value_parser(word.choices);
        } else if word.is_file {
            arg = arg.value_hint(ValueHint::FilePath);
        }
        if word.repeated {
            arg = arg.num_args(1..);
        }
        tree = tree.arg(arg);
    }
    tree
}

/// One word of an arguments text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Word {
    name: String,
    optional: bool,
    repeated: bool,
    is_file: bool,
    /// All it can be; empty: anything.
    choices: Vec<&'static str>,
}

/// Reads the arguments text of a command: `<name>`, `a|b`, `[optional]`, `...` for more.
fn argument_words(text: &'static str) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut depth = 0_usize;
    for part in text.split_whitespace() {
        if part == "..." {
            if let Some(last) = words.last_mut() {
                last.repeated = true;
            }
            continue;
        }
        depth += part.matches('[').count();
        let optional = depth > 0;
        depth = depth.saturating_sub(part.matches(']').count());
        let bare = part.trim_matches(['[', ']']);
        let choices: Vec<&'static str> = bare.split('|').collect();
        let literal = choices.len() > 1 && !bare.contains('<');
        let name = bare.replace(['<', '>'], "");
        words.push(Word {
            is_file: name.contains("file"),
            choices: if literal || bare == "all" || bare == "readonly" {
                choices
            } else {
                Vec::new()
            },
            name,
            optional,
            repeated: false,
        });
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_sound_and_holds_every_command() {
        let tree = command_tree();
        tree.clone().debug_assert();
        assert_eq!(tree.get_subcommands().count(), COMMANDS.len());
    }

    #[test]
    fn arguments_are_read_from_the_usage_text() {
        let words = argument_words("<tdb-file> <key> <data> [<rsn> <dmaster> <flags>]");
        let optional: Vec<_> = words.iter().map(|word| word.optional).collect();
        assert_eq!(optional, [false, false, false, true, true, true]);
        assert!(words[0].is_file);
        assert_eq!(argument_words("leader|list|status")[0].choices, ["leader", "list", "status"]);
        assert!(argument_words("<dbname|dbid> ...")[0].repeated);
        assert!(argument_words("<dbname|dbid>")[0].choices.is_empty());
    }
}

//! Prints all controls as a Markdown table.

use ringmaster_protocol::control::{ControlInfo, ControlOpcode, ControlStatus};

fn main() {
    println!("| number | name | status | request | reply |");
    println!("|---:|---|---|---|---|");
    for info in ControlOpcode::table() {
        println!("{}", row(info));
    }
}

fn row(info: &ControlInfo) -> String {
    let status = match info.status {
        ControlStatus::Live => "live",
        ControlStatus::MasterOnly => "live, unknown to 4.17",
        ControlStatus::Obsolete => "obsolete",
        ControlStatus::Unassigned => "unassigned",
    };
    let (request, reply) = if info.status.is_implemented() {
        (format!("{} {}", info.request_size, type_name(info.request)), type_name(info.reply))
    } else {
        (String::new(), String::new())
    };
    let (number, name) = (info.opcode.0, info.name);
    format!("| {number} | {name} | {status} | {} | {reply} |", request.trim_end())
}

fn type_name(name: &str) -> String {
    let plain = name.replace(' ', "").replace("<'a>", "");
    match plain.strip_prefix("InStatus<").and_then(|rest| rest.strip_suffix('>')) {
        Some(value) => format!("`{value}` in the status"),
        None if plain.is_empty() => plain,
        None => format!("`{plain}`"),
    }
}

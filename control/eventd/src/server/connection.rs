//! One client of the event daemon.
//!
//! Origin: `docs/spec/wire-protocol.md` 8.

use std::{num::NonZeroI32, rc::Rc};

use ringmaster_protocol::{
    eventd::{
        EventReply, EventRequest, EventStatus, RunFlags, ScriptAction, ScriptStatus, frame_len,
    },
    text::Text,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::mpsc,
};

use super::Server;
use crate::{
    component::{Asker, Event, errno},
    scripts,
};

/// Longest request: names and arguments of an event.
const REQUEST_MAX: u32 = 1024 * 1024;

/// Serves a connection to its end.
pub(super) async fn serve(server: Rc<Server>, mut stream: UnixStream, number: u64) {
    let (answers, mut answered) = mpsc::unbounded_channel();
    server.connections.borrow_mut().insert(number, answers);
    let mut buffer = Vec::new();
    let mut out = Vec::new();
    let why = loop {
        if let Err(error) = take_requests(&server, number, &mut buffer, &mut out) {
            break Some(error);
        }
        if !out.is_empty() {
            if stream.write_all(&out).await.is_err() {
                break None;
            }
            out.clear();
        }
        tokio::select! {
            read = stream.read_buf(&mut buffer) => match read {
                Ok(len) if len > 0 => {}
                _ => break None,
            },
            answer = answered.recv() => {
                if let Some((reqid, result)) = answer {
                    EventReply::Run { result }.append_packet(reqid, &mut out);
                }
            }
        }
    };
    if let Some(why) = why {
        tracing::warn!(why, "client connection closed");
    }
    server.connections.borrow_mut().remove(&number);
}

/// Handles every request that is complete; replies that are known at once go to `out`.
fn take_requests(
    server: &Rc<Server>,
    number: u64,
    buffer: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    loop {
        let len = frame_len(buffer, REQUEST_MAX).map_err(|error| error.to_string())?;
        let Some(len) = len.filter(|len| *len <= buffer.len()) else { return Ok(()) };
        let packet: Vec<u8> = buffer.drain(..len).collect();
        let (reqid, request) =
            EventRequest::from_packet(&packet).map_err(|error| error.to_string())?;
        handle(server, number, reqid, &request, out);
    }
}

fn text(field: Option<Text<'_>>) -> String {
    field.map(|text| String::from_utf8_lossy(text.as_bytes()).into_owned()).unwrap_or_default()
}

fn handle(
    server: &Rc<Server>,
    connection: u64,
    reqid: u32,
    request: &EventRequest<'_>,
    out: &mut Vec<u8>,
) {
    match *request {
        EventRequest::Run { component, event, args, timeout_s, flags } => {
            let args =
                text(args).split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
            let all = std::env::var_os("CTDB_EVENT_RUN_ALL").is_some();
            let run_all = all || flags.contains(RunFlags::RUN_ALL);
            let asker = Asker { connection, reqid };
            let run = Event::Run { asker, event: text(event), args, timeout_s, run_all };
            server.handle(&text(component), run);
        }
        EventRequest::Status { component, event } => {
            status(server, &text(component), &text(event), reqid, out);
        }
        EventRequest::Script { component, script, action } => {
            let folder = server.folder(&text(component));
            let enable = action == ScriptAction::Enable;
            let result = scripts::switch(&folder, &text(script), enable).err().unwrap_or(0);
            EventReply::Script { result }.append_packet(reqid, out);
        }
    }
}

fn status(server: &Server, component: &str, event: &str, reqid: u32, out: &mut Vec<u8>) {
    let refused = |errno: i32, out: &mut Vec<u8>| {
        let errno = NonZeroI32::new(errno).unwrap_or(NonZeroI32::MIN);
        EventReply::Status { status: Err(errno) }.append_packet(reqid, out);
    };
    if !server.folder(component).is_dir() {
        return refused(errno::ENOENT, out);
    }
    let components = server.components.borrow();
    let history = components.get(component).and_then(|slot| slot.component.history(event));
    let Some(history) = history else { return refused(errno::EINVAL, out) };
    let scripts = history
        .scripts
        .iter()
        .map(|record| ScriptStatus {
            name: Some(Text::new(record.name.as_bytes())),
            begin: record.begin,
            end: record.end,
            result: record.result,
            output: (!record.output.is_empty()).then(|| Text::new(&record.output)),
        })
        .collect();
    let status = Ok(EventStatus { summary: history.summary, scripts });
    EventReply::Status { status }.append_packet(reqid, out);
}

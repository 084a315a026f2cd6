//! Questions to the kernel: addresses and links here, sockets in `sockets`.
//!
//! Role: the one module that names the netlink crates, whose interfaces move.
//! Invariants
//! - An answer is whole: a dump that the kernel says changed under way is asked for again.
//! - A message that cannot be read fails the question, so that no address is missed in silence.
//!
//! Origin: rtnetlink(7).

pub(crate) mod sockets;

use std::{collections::BTreeSet, io, net::IpAddr};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// `NLM_F_DUMP_INTR`: what is being listed has changed under way.
const DUMP_INTERRUPTED: u16 = 0x10;

/// How often a list that changes under way is asked for again.
const DUMPS_MAX: u32 = 20;

/// Multicast groups: `RTNLGRP_IPV4_IFADDR`, `RTNLGRP_IPV6_IFADDR`.
const ADDRESS_GROUPS: [u32; 2] = [5, 9];

/// An interface, as far as announcements need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    /// `ARPHRD_*`.
    pub(crate) link_type: u16,
    pub(crate) hardware: Vec<u8>,
    pub(crate) broadcast: Vec<u8>,
}

/// What a conversation is held in.
trait Message: NetlinkSerializable + NetlinkDeserializable + Clone {}
impl<M: NetlinkSerializable + NetlinkDeserializable + Clone> Message for M {}

/// Asks and gets the answer, one at a time.
#[derive(Debug)]
pub(crate) struct Conversation {
    socket: Socket,
    sequence: u32,
}

impl Conversation {
    pub(crate) fn open() -> io::Result<Self> {
        Self::about(NETLINK_ROUTE)
    }

    fn about(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// All addresses of the host.
    pub(crate) fn addresses(&mut self) -> io::Result<Vec<IpAddr>> {
        Ok(self.address_messages()?.iter().filter_map(address_of).collect())
    }

    fn address_messages(&mut self) -> io::Result<Vec<AddressMessage>> {
        let question = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self.dump(question)?.into_iter();
        Ok(answers
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewAddress(message) => Some(message),
                _ => None,
            })
            .collect())
    }

    /// Removes those of `unwanted` that the host has; returns them.
    pub(crate) fn remove_addresses(
        &mut self,
        unwanted: &BTreeSet<IpAddr>,
    ) -> io::Result<BTreeSet<IpAddr>> {
        let mut removed = BTreeSet::new();
        for message in self.address_messages()? {
            let Some(address) = address_of(&message).filter(|ip| unwanted.contains(ip)) else {
                continue;
            };
            // Named as the kernel named it: interface, length and all.
            let order = RouteNetlinkMessage::DelAddress(message);
            match self.ask(order, NLM_F_REQUEST | NLM_F_ACK) {
                Ok(_) => removed.insert(address),
                // Somebody else has been quicker.
                Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => false,
                Err(error) => return Err(error),
            };
        }
        Ok(removed)
    }

    /// One interface; `None` if there is none of that name.
    pub(crate) fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match self.ask(RouteNetlinkMessage::GetLink(message), NLM_F_REQUEST) {
            Ok(answers) => Ok(answers.into_iter().find_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(message) => Some(link_of(&message)),
                _ => None,
            })),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn dump<M: Message>(&mut self, question: M) -> io::Result<Vec<M>> {
        for _ in 0..DUMPS_MAX {
            match self.ask(question.clone(), NLM_F_REQUEST | NLM_F_DUMP) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
        Err(io::Error::other("what is asked for changes too fast to be listed"))
    }

    fn ask<M: Message>(&mut self, question: M, flags: u16) -> io::Result<Vec<M>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(question));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        self.answer(flags & NLM_F_DUMP == NLM_F_DUMP)
    }

    /// Everything up to the end of the answer.
    fn answer<M: Message>(&self, many: bool) -> io::Result<Vec<M>> {
        let mut answers = Vec::new();
        let mut interrupted = false;
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let message = NetlinkMessage::<M>::deserialize(rest).map_err(|error| {
                    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
                })?;
                let len = usize::try_from(message.header.length).unwrap_or(usize::MAX);
                rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
                // What is left of an earlier question that failed half-way.
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                interrupted |= message.header.flags & DUMP_INTERRUPTED != 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => answers.push(inner),
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(error.to_io());
                    }
                    NetlinkPayload::Done(_) if interrupted => {
                        return Err(io::ErrorKind::Interrupted.into());
                    }
                    NetlinkPayload::Done(_) => return Ok(answers),
                    _ => {}
                }
                if !many {
                    return Ok(answers);
                }
            }
        }
    }
}

fn address_of(message: &AddressMessage) -> Option<IpAddr> {
    // IPv4 on a point-to-point link: ADDRESS is the other end, LOCAL this one.
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

fn link_of(message: &LinkMessage) -> Link {
    let (mut hardware, mut broadcast) = (Vec::new(), Vec::new());
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Address(address) => hardware.clone_from(address),
            LinkAttribute::Broadcast(address) => broadcast.clone_from(address),
            _ => {}
        }
    }
    let link_type = message.header.link_layer_type.into();
    Link { index: message.header.index, link_type, hardware, broadcast }
}

/// Hears that addresses change; not which.
#[derive(Debug)]
pub(crate) struct AddressNews(Socket);

impl AddressNews {
    pub(crate) fn subscribe() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        for group in ADDRESS_GROUPS {
            socket.add_membership(group)?;
        }
        Ok(Self(socket))
    }

    /// Whether there was any since the last time. The kernel sends them before it answers whoever
    /// made the change, so a change that somebody has finished is seen.
    pub(crate) fn any(&self) -> bool {
        // One message is read into at most so much; more of it is cut off and does not matter.
        let mut buffer = vec![0_u8; 4_096];
        let mut any = false;
        loop {
            match self.0.recv(&mut buffer.as_mut_slice(), 0) {
                Ok(_) => any = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return any,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Some were lost, or worse: then nothing is known.
                Err(_) => return true,
            }
        }
    }
}

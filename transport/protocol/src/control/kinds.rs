//! One type per control, for callers who know which one they send: request and reply types follow
//! from it (`client.control::<kinds::GetNodeMap>(node, &())`).

use super::opcode::ControlOpcode;
use super::reply::ReplyBody;
use super::table::for_each_control;
use crate::wire::Encode;

/// A control and its payloads.
pub trait Control {
    /// Its number.
    const OPCODE: ControlOpcode;
    /// Payload of the request; `()` without one.
    type Request<'a>: Encode;
    /// Reply; `()` without one.
    type Reply<'a>: ReplyBody<'a>;
}

macro_rules! define_kinds {
    ($(
        $number:literal $status:ident $($name:ident $($variant:ident $size:expr =>
            [$($request:ty)?] -> [$($reply:ty)?])?)?;
    )*) => {
        $($($(
            #[doc = concat!("Control ", stringify!($number), " `", stringify!($name), "`.")]
            #[derive(Clone, Copy, Debug)]
            pub struct $variant;
        )?)?)*

        /// Apart from the types above, because some have the name of their payload.
        mod implementations {
            use super::super::payloads::*;
            use super::{Control, ControlOpcode};

            $($($(
                impl Control for super::$variant {
                    const OPCODE: ControlOpcode = ControlOpcode($number);
                    type Request<'a> = define_kinds!(@payload $($request)?);
                    type Reply<'a> = define_kinds!(@payload $($reply)?);
                }
            )?)?)*
        }
    };
    (@payload $ty:ty) => { $ty };
    (@payload) => { () };
}

for_each_control!(define_kinds);

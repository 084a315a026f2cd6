//! Fixed-size structures: one declaration gives the type, its size check and both codecs.
//!
//! Role: `wire_struct!` lists fields in wire order with the padding between them; the sum of the
//! sizes is compared with the size of the C structure at compile time.
//! Invariants
//! - Padding is written as zeros and never looked at.
//! - A [`Fixed`] value always occupies exactly [`Fixed::SIZE`] bytes.
//!
//! Origin: `docs/spec/wire-protocol.md` 1.8.

use crate::id::{DbId, Generation, Pnn, Reqid, Rsn, Srvid};
use crate::wire::{DecodeError, Put, Reader};

/// A value whose encoding has one size. Implemented by integers, ids and the structures declared
/// in this crate; arrays and lists are built from it.
pub trait Fixed: Sized {
    /// Bytes on the wire, padding included.
    const SIZE: usize;

    /// Reads the value; `what` names the field in errors.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are too few or mean nothing.
    fn read(reader: &mut Reader<'_>, what: &'static str) -> Result<Self, DecodeError>;

    /// Appends exactly [`Fixed::SIZE`] bytes.
    fn write(&self, out: &mut Vec<u8>);
}

macro_rules! fixed_primitive {
    ($($ty:ident $get:ident $put:ident),* $(,)?) => {$(
        impl Fixed for $ty {
            const SIZE: usize = size_of::<$ty>();
            fn read(reader: &mut Reader<'_>, what: &'static str) -> Result<Self, DecodeError> {
                reader.$get(what)
            }
            fn write(&self, out: &mut Vec<u8>) {
                out.$put(*self);
            }
        }
    )*};
}

fixed_primitive!(u8 u8 put_u8, u16 u16 put_u16, u32 u32 put_u32, u64 u64 put_u64,
    i32 i32 put_i32, i64 i64 put_i64, f64 f64 put_f64);

impl Fixed for bool {
    const SIZE: usize = 1;
    fn read(reader: &mut Reader<'_>, what: &'static str) -> Result<Self, DecodeError> {
        reader.bool(what)
    }
    fn write(&self, out: &mut Vec<u8>) {
        out.put_u8(u8::from(*self));
    }
}

impl<T: Fixed + Copy + Default, const N: usize> Fixed for [T; N] {
    const SIZE: usize = T::SIZE * N;
    fn read(reader: &mut Reader<'_>, what: &'static str) -> Result<Self, DecodeError> {
        let mut values = [T::default(); N];
        for value in &mut values {
            *value = T::read(reader, what)?;
        }
        Ok(values)
    }
    fn write(&self, out: &mut Vec<u8>) {
        for value in self {
            value.write(out);
        }
    }
}

/// A node number; reserved addresses are not valid where one node is meant.
impl Fixed for Pnn {
    const SIZE: usize = 4;
    fn read(reader: &mut Reader<'_>, what: &'static str) -> Result<Self, DecodeError> {
        let raw = reader.u32(what)?;
        Self::new(raw).ok_or(DecodeError::Invalid { what, value: u64::from(raw) })
    }
    fn write(&self, out: &mut Vec<u8>) {
        out.put_u32(self.get());
    }
}

/// A node number or 0xFFFFFFFF for "none" (`CTDB_UNKNOWN_PNN`).
impl Fixed for Option<Pnn> {
    const SIZE: usize = 4;
    fn read(reader: &mut Reader<'_>, what: &'static str) -> Result<Self, DecodeError> {
        match reader.u32(what)? {
            u32::MAX => Ok(None),
            raw => match Pnn::new(raw) {
                Some(pnn) => Ok(Some(pnn)),
                None => Err(DecodeError::Invalid { what, value: u64::from(raw) }),
            },
        }
    }
    fn write(&self, out: &mut Vec<u8>) {
        out.put_u32(self.map_or(u32::MAX, Pnn::get));
    }
}

/// Reads `u32 count` and that many elements (C's array rule, with the check of current C).
///
/// # Errors
/// [`DecodeError::Short`] when the elements cannot all be there: nothing is allocated then.
pub(crate) fn read_list<T: Fixed>(
    reader: &mut Reader<'_>,
    what: &'static str,
) -> Result<Vec<T>, DecodeError> {
    let count = reader.count(what, T::SIZE)?;
    read_elements(reader, what, count)
}

/// Reads `count` elements; the caller has checked `count` against the bytes that are left.
pub(crate) fn read_elements<T: Fixed>(
    reader: &mut Reader<'_>,
    what: &'static str,
    count: usize,
) -> Result<Vec<T>, DecodeError> {
    let mut list = Vec::with_capacity(count);
    for _ in 0..count {
        list.push(T::read(reader, what)?);
    }
    Ok(list)
}

/// Counterpart of [`read_list`].
pub(crate) fn write_list<T: Fixed>(list: &[T], out: &mut Vec<u8>) {
    out.put_len(list.len());
    for element in list {
        element.write(out);
    }
}

/// Declares a structure of fixed size: fields in wire order, `pad N` where C leaves a hole, and
/// the C structure's size, which the sum must equal.
macro_rules! wire_struct {
    (
        $(#[$meta:meta])*
        pub struct $name:ident = $size:literal bytes {
            $($(#[$field_meta:meta])* pub $field:ident: $ty:ty $(, pad $pad:literal)?;)+
        }
    ) => {
        $(#[$meta])*
        pub struct $name {
            $($(#[$field_meta])* pub $field: $ty,)+
        }

        const _: () = assert!(
            $size == 0 $(+ <$ty as $crate::layout::Fixed>::SIZE $(+ $pad)?)+,
            concat!(stringify!($name), ": fields and padding do not add up to the C size")
        );

        impl $crate::layout::Fixed for $name {
            const SIZE: usize = $size;
            fn read(
                reader: &mut $crate::wire::Reader<'_>,
                _what: &'static str,
            ) -> Result<Self, $crate::wire::DecodeError> {
                $(
                    let $field = <$ty as $crate::layout::Fixed>::read(
                        reader,
                        concat!(stringify!($name), ".", stringify!($field)),
                    )?;
                    $(reader.padding($pad)?;)?
                )+
                Ok(Self { $($field),+ })
            }
            fn write(&self, out: &mut Vec<u8>) {
                $(
                    $crate::layout::Fixed::write(&self.$field, out);
                    $($crate::wire::Put::put_zeros(out, $pad);)?
                )+
            }
        }

        $crate::layout::fixed_codec!($name);

        #[cfg(test)]
        $crate::arbitrary::arbitrary_struct!($name { $($field: $ty),+ });
    };
}

/// [`Encode`](crate::wire::Encode) and [`Decode`](crate::wire::Decode) of a [`Fixed`] type.
macro_rules! fixed_codec {
    ($($name:ident),+ $(,)?) => {$(
        impl $crate::wire::Encode for $name {
            fn encoded_len(&self) -> usize {
                <Self as $crate::layout::Fixed>::SIZE
            }
            fn encode(&self, out: &mut Vec<u8>) {
                $crate::layout::Fixed::write(self, out);
            }
        }
        impl<'a> $crate::wire::Decode<'a> for $name {
            fn decode(
                reader: &mut $crate::wire::Reader<'a>,
            ) -> Result<Self, $crate::wire::DecodeError> {
                <Self as $crate::layout::Fixed>::read(reader, stringify!($name))
            }
        }
    )+};
}

/// A tuple struct around one [`Fixed`] value has that value's encoding.
macro_rules! fixed_newtype {
    ($($name:ident($inner:ty)),+ $(,)?) => {$(
        impl $crate::layout::Fixed for $name {
            const SIZE: usize = <$inner as $crate::layout::Fixed>::SIZE;
            fn read(
                reader: &mut $crate::wire::Reader<'_>,
                what: &'static str,
            ) -> Result<Self, $crate::wire::DecodeError> {
                <$inner as $crate::layout::Fixed>::read(reader, what).map(Self)
            }
            fn write(&self, out: &mut Vec<u8>) {
                $crate::layout::Fixed::write(&self.0, out);
            }
        }
        $crate::layout::fixed_codec!($name);

        #[cfg(test)]
        $crate::arbitrary::arbitrary_struct!($name($inner));
    )+};
}

/// An enum with the numbers of C: unknown numbers are refused.
macro_rules! wire_enum {
    (
        $(#[$meta:meta])*
        pub enum $name:ident: $repr:ident {
            $($(#[$variant_meta:meta])* $variant:ident = $value:literal,)+
        }
    ) => {
        $(#[$meta])*
        pub enum $name {
            $($(#[$variant_meta])* $variant = $value,)+
        }
        impl $name {
            /// `None` for a number C does not know.
            #[must_use]
            pub const fn from_raw(raw: $repr) -> Option<Self> {
                match raw {
                    $($value => Some(Self::$variant),)+
                    _ => None,
                }
            }
            /// The number on the wire.
            #[must_use]
            pub const fn to_raw(self) -> $repr {
                match self {
                    $(Self::$variant => $value,)+
                }
            }
        }
        impl $crate::layout::Fixed for $name {
            const SIZE: usize = size_of::<$repr>();
            fn read(
                reader: &mut $crate::wire::Reader<'_>,
                what: &'static str,
            ) -> Result<Self, $crate::wire::DecodeError> {
                let raw = <$repr as $crate::layout::Fixed>::read(reader, what)?;
                Self::from_raw(raw).ok_or($crate::wire::DecodeError::Invalid {
                    what,
                    value: u64::from(raw),
                })
            }
            fn write(&self, out: &mut Vec<u8>) {
                $crate::layout::Fixed::write(&self.to_raw(), out);
            }
        }
        $crate::layout::fixed_codec!($name);

        #[cfg(test)]
        impl proptest::arbitrary::Arbitrary for $name {
            type Parameters = ();
            type Strategy = proptest::sample::Select<Self>;
            fn arbitrary_with((): ()) -> Self::Strategy {
                proptest::sample::select(vec![$(Self::$variant),+])
            }
        }
    };
}

pub(crate) use {fixed_codec, fixed_newtype, wire_enum, wire_struct};

fixed_newtype!(Generation(u32), Rsn(u64), Reqid(u32), Srvid(u64), DbId(u32));
fixed_codec!(Pnn);

//! Bit sets of the wire as types of their own.
//!
//! Role: one macro, so that every flag word has the same small set of operations.
//! Invariants: unknown bits survive decode and encode (a newer node's flags are carried through,
//! never masked); there is no implicit conversion between two kinds of flags.

/// Declares a flag set, `u32` unless another width follows the name: constants, set operations,
/// and `Debug` that names the bits.
macro_rules! flag_set {
    (
        $(#[$meta:meta])*
        pub struct $name:ident { $($body:tt)* }
    ) => {
        $crate::flags::flag_set! {
            $(#[$meta])*
            pub struct $name(u32) { $($body)* }
        }
    };
    (
        $(#[$meta:meta])*
        pub struct $name:ident($repr:ident) {
            $( $(#[$flag_meta:meta])* const $flag:ident = $bits:expr; )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
        pub struct $name(pub $repr);

        impl $name {
            /// No bit set.
            pub const NONE: Self = Self(0);
            $( $(#[$flag_meta])* pub const $flag: Self = Self($bits); )*

            /// Whether all bits of `other` are set.
            #[must_use]
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// Whether any bit of `other` is set.
            #[must_use]
            pub const fn intersects(self, other: Self) -> bool {
                self.0 & other.0 != 0
            }

            /// This set and the bits of `other`.
            #[must_use]
            pub const fn with(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// This set without the bits of `other`.
            #[must_use]
            pub const fn without(self, other: Self) -> Self {
                Self(self.0 & !other.0)
            }

            /// Whether no bit is set.
            #[must_use]
            pub const fn is_empty(self) -> bool {
                self.0 == 0
            }
        }

        impl std::ops::BitOr for $name {
            type Output = Self;
            fn bitor(self, other: Self) -> Self {
                self.with(other)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x}"), self.0)?;
                $(
                    if Self::$flag.0.is_power_of_two() && self.contains(Self::$flag) {
                        write!(f, concat!(" ", stringify!($flag)))?;
                    }
                )*
                write!(f, ")")
            }
        }
    };
}

pub(crate) use flag_set;

#[cfg(test)]
#[expect(unreachable_pub, reason = "the macro makes public items; these stay in the test")]
mod tests {
    flag_set! {
        /// Sample.
        pub struct Sample {
            /// Lowest bit.
            const LOW = 1;
            /// Another.
            const HIGH = 0x8000_0000;
        }
    }

    #[test]
    fn the_empty_set_is_empty() {
        assert!(Sample::NONE.is_empty());
        assert!(!Sample::LOW.is_empty());
    }

    #[test]
    fn unknown_bits_survive_set_operations() {
        let flags = Sample(0x40).with(Sample::LOW);
        assert_eq!(flags.without(Sample::LOW), Sample(0x40));
        assert!(!flags.contains(Sample::LOW | Sample::HIGH));
        assert!(flags.intersects(Sample::LOW | Sample::HIGH));
    }

    #[test]
    fn debug_names_the_known_bits() {
        assert_eq!(format!("{:?}", Sample(0x8000_0041)), "Sample(0x80000041 LOW HIGH)");
    }
}

//! Reserved ranges that lie outside of a structure, whole or in part, are no reason to panic.

use core::fmt;

use super::generic::Structure;
use super::generic::StructureLayout;

const SIZE: usize = 24;

macro_rules! ranges {
    ($($name:ident $at:expr;)*) => {
        $(struct $name;

        impl StructureLayout<SIZE> for $name {
            const LAYOUT: (&'static str, &'static [(usize, usize, u8)]) =
                (stringify!($name), &[($at, 8, 0xff)]);

            fn fields(_: &Structure<Self, SIZE>, _: &mut fmt::DebugStruct<'_, '_>) {}
        })*

        #[test]
        fn reserved_bytes_are_set_and_checked_as_far_as_they_are_there() {
            $(let structure = Structure::<$name, SIZE>::new();
            let mut expected = [0; SIZE];
            for byte in expected.iter_mut().skip($at).take(8) {
                *byte = 0xff;
            }
            assert_eq!(structure.as_bytes(), &expected, stringify!($name));
            assert!(structure.is_reserved_valid());
            for place in 0..SIZE {
                let mut wrong = structure.clone();
                wrong.as_bytes_mut()[place] ^= 1;
                let reserved = expected[place] == 0xff;
                assert_eq!(wrong.is_reserved_valid(), !reserved, "{} {place}", stringify!($name));
            })*
        }
    };
}

ranges! {
    First 0;
    Odd 5;
    Last 16;
    Across 20;
    End 24;
    Behind 32;
    Far usize::MAX - 8;
    Farthest usize::MAX;
}

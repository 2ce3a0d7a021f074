macro_rules! for_each_structure {
    ($callback:ident) => {
        $callback ! { Parameters[(flags set_flags OFFSET_FLAGS one) (owner set_owner
        OFFSET_OWNER bytes) (entries set_entries OFFSET_ENTRIES array COUNT_ENTRIES)] }
    };
}
macro_rules! for_each_enum {
    ($callback:ident) => {
        $callback ! { Kind }
    };
}
macro_rules! for_each_format {
    ($callback:ident) => {
        $callback ! { Entry u16[kind with_kind, count with_count] [] Flags u16[count
        with_count, write with_write, read with_read] [] Split u64[valid with_valid, kind
        with_kind, number with_number, hpa with_hpa, level with_level] [state] }
    };
}

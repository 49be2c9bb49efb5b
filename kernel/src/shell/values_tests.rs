//! Which words are values, and that absurd ones are refused by name.

use super::*;
use alloc::format;
use alloc::string::ToString;
use mm::Errno;
use proptest::prelude::*;

const LIMIT: u64 = 1 << 19;

fn blocks(word: &str) -> Result<String, Failure> {
    BlockList::parse(word, LIMIT).map(|list| list.to_string())
}

#[test]
fn sizes_take_units_and_fractions() {
    for (word, bytes) in [
        ("0", 0),
        ("4096", 4096),
        ("4K", 4096),
        ("4k", 4096),
        ("128M", 128 << 20),
        ("1G", 1 << 30),
        ("1.5G", 3 << 29),
        ("0.25M", 256 << 10),
        ("2GiB", 2 << 30),
        ("64KB", 64 << 10),
        ("16T", 16 << 40),
        ("18446744073709551615", u64::MAX),
    ] {
        assert_eq!(size(word), Ok(bytes), "{word}");
    }
}

#[test]
fn what_is_no_size_is_refused_by_name() {
    for word in [
        "",
        "K",
        "-1",
        "+1",
        "1.5",
        "1.G",
        ".5G",
        "1..5G",
        "1G1",
        "G1",
        "1 G",
        "0x10",
        "B",
        "1B",
        "1Q",
        "16384P",
        "99999999999999999999",
        "99999999999999999999G",
        "18446744073709551616",
        "١",
        "1\u{0}",
    ] {
        let failure = size(word).expect_err(word);
        assert_eq!(failure.errno, Errno::Invalid);
        assert!(failure.to_string().contains(&Quoted(word).to_string()), "{failure}");
    }
}

#[test]
fn addresses_take_hexadecimal_units_and_frame_numbers() {
    for (word, address_bytes) in [
        ("0x1_0000_0000", 1 << 32),
        ("4G", 1 << 32),
        ("4294967296", 1 << 32),
        ("pfn:1048576", 1 << 32),
        ("pfn:0x100000", 1 << 32),
        ("0XfF", 255),
    ] {
        assert_eq!(address(word), Ok(address_bytes), "{word}");
    }
    for word in
        ["0x", "0xg", "pfn:", "pfn:x", "pfn:0x10000000000000", "_1", "1_", "", "abc", "0x1_0000_0000_0000_0000_0"]
    {
        assert_eq!(address(word).expect_err(word).errno, Errno::Invalid);
    }
}

#[test]
fn block_lists_are_sorted_and_merged() {
    assert_eq!(blocks("34"), Ok("34".into()));
    assert_eq!(blocks("32-39"), Ok("32-39".into()));
    assert_eq!(blocks("36,34-35,32,33"), Ok("32-36".into()));
    assert_eq!(blocks("32,34-36"), Ok("32,34-36".into()));
    assert_eq!(blocks("dimm0"), Ok("dimm0".into()));
    assert_eq!(blocks("dimm0,3,dimm0,dimm1"), Ok("3,dimm0,dimm1".into()));
}

#[test]
fn what_names_no_block_is_refused_by_name() {
    for word in
        ["", ",", "32,", "-1", "32-", "39-32", "32-33-34", "1.5", "524288", "0-999999999999999999999", "3x", "��"]
    {
        let failure = blocks(word).expect_err(word);
        assert_eq!(failure.errno, Errno::Invalid, "{word}");
    }
    assert!(blocks("99999999").expect_err("absurd").to_string().contains("`99999999`"));
    assert!(blocks(&["1"; 5000].join(",")).is_err());
}

#[test]
fn sizes_for_people_are_short() {
    for (bytes, text) in [
        (0, "0B"),
        (100, "100B"),
        (4096, "4K"),
        (128 << 20, "128M"),
        (3 << 29, "1.5G"),
        (1023, "1023B"),
        (1024, "1K"),
        (1024 + 51, "1K"),
        (1024 + 52, "1.1K"),
        ((2 << 30) - (10 << 20), "2G"),
        ((2 << 30) - (60 << 20), "1.9G"),
        ((1 << 20) - 52, "1023.9K"),
        ((1 << 20) - 51, "1M"),
        ((1 << 30) - (1 << 20) / 20 - 1, "1023.9M"),
        ((1 << 30) - (1 << 20) / 20, "1G"),
        ((1 << 30) - 1, "1G"),
        ((1 << 30) + 1, "1G"),
        (u64::MAX, "16384P"),
    ] {
        assert_eq!(Human(bytes).to_string(), text);
    }
    assert_eq!(format!("{:>6}|", Human(4096)), "    4K|");
}

proptest! {
    #[test]
    fn no_word_makes_a_parser_panic(word: String) {
        let _ = (size(&word), address(&word), blocks(&word), number(&word, "a number"));
    }

    #[test]
    fn words_of_the_right_letters_do_not_either(word in "[-0-9a-zA-Z_.,:]{0,30}") {
        let _ = (size(&word), address(&word), blocks(&word), number(&word, "a number"));
    }

    #[test]
    fn a_size_shown_is_read_back_to_half_a_tenth(bytes in 1024..u64::MAX / 2) {
        let read = size(&Human(bytes).to_string()).expect("a shown size is a size");
        // What is read is rounded down to whole bytes.
        let off = u128::from(read.abs_diff(bytes).saturating_sub(1));
        prop_assert!(off * 20 <= u128::from(bytes));
    }

    #[test]
    fn a_block_list_shown_is_read_back(mut pairs in prop::collection::vec((0..LIMIT, 0..40u64), 1..20)) {
        pairs.retain(|(first, len)| first + len < LIMIT);
        prop_assume!(!pairs.is_empty());
        let word: Vec<String> = pairs.iter().map(|(first, len)| Span(*first, first + len).to_string()).collect();
        let list = BlockList::parse(&word.join(","), LIMIT).expect("good numbers");
        prop_assert_eq!(BlockList::parse(&list.to_string(), LIMIT), Ok(list.clone()));
        for (first, len) in pairs {
            let holds = |piece: &Piece| matches!(piece, Piece::Blocks { first: a, last: b } if *a <= first && first + len <= *b);
            prop_assert!(list.pieces().iter().any(holds));
        }
    }
}

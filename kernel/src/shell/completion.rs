//! What Tab offers: commands, their options, and what may stand where the cursor is.

use super::arguments::{Count, Kind, Syntax};
use super::line_editor::Completion;
use super::values::{BlockList, Piece};
use alloc::vec::Vec;

/// Completes the text before the cursor. `syntax` finds a command, `candidates` offers what there is of a kind.
pub(crate) fn complete(
    before: &str,
    syntax: impl Fn(&str) -> Option<Syntax>,
    candidates: impl Fn(Kind, &mut dyn FnMut(&str)),
) -> Completion {
    let statement = before.rfind([';', '&']).map_or(before, |end| &before[end + 1..]);
    let piece = statement.rsplit([' ', '\t']).next().unwrap_or_default();
    let mut words = statement[..statement.len() - piece.len()].split_whitespace();
    let of_kind = |kind| {
        let candidates = |each: &mut dyn FnMut(&str)| candidates(kind, each);
        match kind {
            Kind::BlocksOrGroup(_) => offer_blocks(before, piece, candidates),
            _ => offer(before, piece, candidates),
        }
    };
    let Some(command) = words.next() else {
        return of_kind(Kind::Command);
    };
    let Some(syntax) = syntax(command) else {
        return Completion::default();
    };
    let earlier: Vec<&str> = words.collect();
    if let Some(kind) = value_expected(&syntax, &earlier) {
        return of_kind(kind);
    }
    if piece.starts_with('-') {
        let unused = syntax.options.iter().filter(|option| !earlier.contains(&option.name));
        return offer(before, piece, |each| unused.for_each(|option| each(option.name)));
    }
    operand_kind(&syntax, &earlier).map_or_else(Completion::default, of_kind)
}

/// The kind of value that the option before the cursor waits for.
fn value_expected(syntax: &Syntax, earlier: &[&str]) -> Option<Kind> {
    let last = earlier.last()?;
    let option = syntax.options.iter().find(|option| option.name == *last)?;
    option.value.map(|(_, kind)| kind)
}

/// The kind of the operand at the cursor: options and their values are not counted.
fn operand_kind(syntax: &Syntax, earlier: &[&str]) -> Option<Kind> {
    let mut place = 0;
    let mut words = earlier.iter();
    while let Some(word) = words.next() {
        match syntax.options.iter().find(|option| option.name == *word) {
            Some(option) if option.value.is_some() => _ = words.next(),
            Some(_) => {}
            None => place += 1,
        }
    }
    let endless = syntax.operands.last().filter(|operand| operand.count == Count::Some);
    syntax.operands.get(place).or(endless).map(|operand| operand.kind)
}

/// Of a list of blocks the last piece is completed, by what the list does not name yet; the end of a range only by a number
/// that is higher than its start.
fn offer_blocks(before: &str, list: &str, candidates: impl FnOnce(&mut dyn FnMut(&str))) -> Completion {
    let (named, piece) = match list.rsplit_once(',') {
        None => (None, list),
        Some((earlier, piece)) => match BlockList::parse(earlier, u64::MAX) {
            Ok(named) => (Some(named), piece),
            Err(_) => return Completion::default(),
        },
    };
    let named = named.as_ref().map_or(&[][..], BlockList::pieces);
    let is_named = |word: &str, number: Option<u64>| {
        named.iter().any(|piece| match piece {
            Piece::Blocks { first, last } => number.is_some_and(|number| (*first..=*last).contains(&number)),
            Piece::Group(name) => name == word,
        })
    };
    let range = piece.split_once('-').and_then(|(start, end)| Some((start.parse::<u64>().ok()?, end)));
    offer(before, range.map_or(piece, |(_, end)| end), |each| {
        candidates(&mut |word| {
            let number = word.parse().ok();
            let is_behind = range.is_none_or(|(start, _)| number.is_some_and(|number| number > start));
            if is_behind && !is_named(word, number) {
                each(word);
            }
        });
    })
}

/// What of `candidates` begins with the piece, which ends the text before the cursor.
fn offer(before: &str, piece: &str, candidates: impl FnOnce(&mut dyn FnMut(&str))) -> Completion {
    let mut found = Completion::at(before.len() - piece.len());
    candidates(&mut |word| {
        if word.starts_with(piece) {
            found.add(word);
        }
    });
    found
}

#[cfg(test)]
mod tests {
    use super::super::arguments::{Among, JSON, Operand, OptionSpec};
    use super::*;
    use alloc::string::String;
    use proptest::prelude::*;

    const OFFLINE: Syntax = Syntax {
        options: &[OptionSpec { name: "--node", value: Some(("N", Kind::Node)), help: "" }, JSON],
        operands: &[
            Operand { name: "BLOCKS", kind: Kind::BlocksOrGroup(Among::Online), count: Count::One },
            Operand { name: "on|off", kind: Kind::OneOf(&["on", "off"]), count: Count::Optional },
        ],
    };

    fn offered(before: &str) -> (usize, Vec<String>) {
        let syntax = |name: &str| (name == "offline").then_some(OFFLINE);
        let candidates = |kind, each: &mut dyn FnMut(&str)| {
            let words: &[&str] = match kind {
                Kind::Command => &["offline", "online"],
                Kind::BlocksOrGroup(_) => &["32", "33", "40", "dimm0", "dimm1"],
                Kind::Node => &["0", "1"],
                Kind::OneOf(words) => words,
                _ => &[],
            };
            words.iter().for_each(|word| each(word));
        };
        complete(before, syntax, candidates).into_parts()
    }

    fn check(before: &str, start: usize, words: &[&str]) {
        let (found, candidates) = offered(before);
        assert_eq!(candidates, words, "{before}");
        if !words.is_empty() {
            assert_eq!(found, start, "{before}");
        }
    }

    #[test]
    fn the_first_word_of_each_command_is_a_command() {
        check("", 0, &["offline", "online"]);
        check("of", 0, &["offline"]);
        check("lsmem; on", 7, &["online"]);
        check("fill 1G& of", 9, &["offline"]);
    }

    #[test]
    fn options_and_their_values_are_offered_where_they_fit() {
        check("offline -", 8, &["--node", "-J"]);
        check("offline -J --", 11, &["--node"]);
        check("offline --node ", 15, &["0", "1"]);
        check("offline --node 1 ", 17, &["32", "33", "40", "dimm0", "dimm1"]);
    }

    #[test]
    fn operands_are_offered_by_their_place() {
        check("offline 3", 8, &["32", "33"]);
        check("offline 32 -J o", 14, &["on", "off"]);
        check("offline 32 on ", 0, &[]);
        check("nonsense ", 0, &[]);
    }

    #[test]
    fn the_last_piece_of_a_block_list_is_completed() {
        check("offline 32,d", 11, &["dimm0", "dimm1"]);
        check("offline dimm0,4", 14, &["40"]);
    }

    #[test]
    fn a_range_ends_behind_its_start() {
        check("offline 32-", 11, &["33", "40"]);
        check("offline dimm0,32-3", 17, &["33"]);
        check("offline 34-", 11, &["40"]);
        check("offline 40-", 0, &[]);
        check("offline 32-33-", 0, &[]);
    }

    #[test]
    fn a_group_has_no_end() {
        check("offline dimm0", 8, &["dimm0"]);
        check("offline dimm0-", 0, &[]);
        check("offline dimm0-3", 0, &[]);
    }

    #[test]
    fn what_a_list_names_is_not_offered_again() {
        check("offline 33,", 11, &["32", "40", "dimm0", "dimm1"]);
        check("offline dimm1,32-39,", 20, &["40", "dimm0"]);
        check("offline 40,32-", 14, &["33"]);
        check("offline dimm0,dimm", 14, &["dimm1"]);
        check("offline 32,,", 0, &[]);
        check("offline 33-32,", 0, &[]);
    }

    proptest! {
        #[test]
        fn any_text_is_completed_at_a_character_boundary(before: String) {
            let (start, _) = offered(&before);
            prop_assert!(before.is_char_boundary(start));
        }

        #[test]
        fn what_completes_a_list_makes_a_list(list in "([0-9]{1,2}|dimm[01]|[-,0-9dim]){0,6}") {
            // Those are options.
            prop_assume!(!list.starts_with('-'));
            let before = alloc::format!("offline {list}");
            let (start, words) = offered(&before);
            for word in words {
                let completed = [&before["offline ".len()..start], word.as_str()].concat();
                prop_assert!(BlockList::parse(&completed, u64::MAX).is_ok(), "{}", completed);
            }
        }
    }
}

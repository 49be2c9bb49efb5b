//! What Tab offers: commands, their options, and what may stand where the cursor is.

use super::arguments::{Count, Kind, Syntax};
use super::line_editor::Completion;
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
        let piece = match kind {
            // Of a list only the last piece is completed.
            Kind::BlocksOrGroup(_) => piece.rsplit([',', '-']).next().unwrap_or_default(),
            _ => piece,
        };
        offer(before, piece, |each| candidates(kind, each))
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
                Kind::BlocksOrGroup(_) => &["32", "33", "dimm0"],
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
        check("offline --node 1 ", 17, &["32", "33", "dimm0"]);
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
        check("offline 32,d", 11, &["dimm0"]);
        check("offline 32-3", 11, &["32", "33"]);
    }

    proptest! {
        #[test]
        fn any_text_is_completed_at_a_character_boundary(before: String) {
            let (start, _) = offered(&before);
            prop_assert!(before.is_char_boundary(start));
        }
    }
}

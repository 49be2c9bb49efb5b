//! What a person, a script and garbage see of the line editor.

use super::*;
use alloc::vec;
use proptest::prelude::*;

const WORDS: [&str; 4] = ["offline", "online", "online_kernel", "online_movable"];

/// Completes the first word.
fn words(before: &str) -> Completion {
    if before.contains(' ') {
        return Completion::default();
    }
    let mut found = Completion::at(0);
    WORDS.iter().filter(|word| word.starts_with(before)).for_each(|word| found.add(word));
    found
}

fn type_into(editor: &mut LineEditor, bytes: &[u8]) -> (Vec<Event>, String) {
    let mut screen = String::new();
    let events = bytes.iter().filter_map(|&byte| editor.feed(byte, words, &mut screen)).collect();
    (events, screen)
}

fn lines(bytes: &[u8]) -> Vec<String> {
    let mut editor = LineEditor::new("> ");
    let (events, _) = type_into(&mut editor, bytes);
    events
        .into_iter()
        .map(|event| match event {
            Event::Line(line) => line,
            other => panic!("not a line: {other:?}"),
        })
        .collect()
}

/// Plays what was drawn on a terminal of one row: what it shows, and where the cursor is.
fn row(screen: &str) -> (String, usize) {
    let mut shown: Vec<char> = Vec::new();
    let mut column = 0;
    let mut rest = screen.chars();
    while let Some(c) = rest.next() {
        match c {
            '\r' => column = 0,
            '\n' => {
                shown.clear();
                column = 0;
            }
            '\x1b' => match control_sequence(&mut rest) {
                ('K', _) => shown.truncate(column),
                ('D', count) => column -= count,
                (other, _) => panic!("an unexpected sequence: {other}"),
            },
            c => {
                if column == shown.len() {
                    shown.push(c);
                } else {
                    shown[column] = c;
                }
                column += 1;
            }
        }
    }
    (shown.into_iter().collect(), column)
}

fn control_sequence(rest: &mut impl Iterator<Item = char>) -> (char, usize) {
    assert_eq!(rest.next(), Some('['));
    let mut number = 0;
    loop {
        let c = rest.next().expect("a sequence ends");
        match c.to_digit(10) {
            Some(digit) => number = number * 10 + digit as usize,
            None => return (c, number),
        }
    }
}

#[test]
fn edits_change_the_line_that_is_returned() {
    assert_eq!(lines(b"lsmen\x7fm\r"), ["lsmem"]);
    assert_eq!(lines(b"smem\x01l\n"), ["lsmem"]);
    assert_eq!(lines(b"lsmemx\x1b[D\x1b[3~\r\n"), ["lsmem"]);
    assert_eq!(lines(b"one two\x17three\n"), ["one three"]);
    assert_eq!(lines(b"one two\x15three\n"), ["three"]);
    assert_eq!(lines(b"one two\x1b[1;5D\x0b\n"), ["one "]);
    assert_eq!(lines(b"two\x01one \x05 three\n"), ["one two three"]);
    assert_eq!(lines(b"ab\x02\x04c\n"), ["ac"]);
}

#[test]
fn every_kind_of_line_end_gives_one_line() {
    assert_eq!(lines(b"a\rb\nc\r\nd\r\n\n"), ["a", "b", "c", "d", ""]);
}

#[test]
fn typing_at_the_end_echoes_plain_text() {
    let mut editor = LineEditor::new("> ");
    let (_, screen) = type_into(&mut editor, "fill 128M ż\r".as_bytes());
    assert_eq!(screen, "fill 128M ż\n");
}

#[test]
fn what_is_drawn_is_what_is_edited() {
    let mut editor = LineEditor::new("> ");
    let mut all = String::from("> ");
    for bytes in [&b"onlin 32"[..], b"\x1b[D\x1b[D\x1b[D", b"e", b"\x01x\x7f", b"\x05 \x08", b"\x1b[D3", b"\x15"] {
        all.push_str(&type_into(&mut editor, bytes).1);
        let view = editor.view();
        assert_eq!(row(&all), (view.text, view.cursor));
    }
    assert_eq!(editor.text, "2");
}

#[test]
fn up_and_down_walk_the_history() {
    assert_eq!(lines(b"one\ntwo\n\x1b[A\x1b[A\x1b[A\n"), ["one", "two", "one"]);
    assert_eq!(lines(b"one\nhalf\x1b[A\x1b[B\n"), ["one", "half"]);
    assert_eq!(lines(b"one\ntwo\n\x1b[A!\n\x10\n"), ["one", "two", "two!", "two!"]);
}

#[test]
fn tab_completes_as_far_as_it_is_certain() {
    assert_eq!(lines(b"of\t32\n"), ["offline 32"]);
    assert_eq!(lines(b"on\t\n"), ["online"]);
    assert_eq!(lines(b"online_k\t32\n"), ["online_kernel 32"]);
    assert_eq!(lines(b"nothing\t\n"), ["nothing"]);
}

#[test]
fn tab_lists_the_choices_when_it_cannot_go_on() {
    let mut editor = LineEditor::new("> ");
    let (_, screen) = type_into(&mut editor, b"online\t");
    assert!(screen.contains("\nonline          online_kernel   online_movable\n"), "{screen:?}");
    assert_eq!(row(&screen), ("> online".into(), 8));
}

#[test]
fn of_very_many_choices_the_first_are_listed() {
    let many = |before: &str| {
        let mut found = Completion::at(0);
        (4000..8000).map(|number| number.to_string()).filter(|n| n.starts_with(before)).for_each(|n| found.add(&n));
        found
    };
    let mut editor = LineEditor::new("> ");
    let mut screen = String::new();
    for byte in *b"\t" {
        editor.feed(byte, many, &mut screen);
    }
    assert!(screen.contains("\n4000  4001 ") && screen.contains("\n... and 3900 more\n"), "{screen:?}");
    // What all of them share is found although few are kept.
    for byte in *b"799\t" {
        editor.feed(byte, many, &mut screen);
    }
    assert!(screen.ends_with("> 799\x1b[K"), "{screen:?}");
}

#[test]
fn an_interrupt_gives_the_line_up() {
    let mut editor = LineEditor::new("> ");
    let (events, _) = type_into(&mut editor, b"offline 3\x03lsmem\n");
    assert_eq!(events, [Event::Interrupted, Event::Line("lsmem".into())]);
}

#[test]
fn a_line_that_is_too_long_is_one_event_and_the_next_line_is_whole() {
    let mut editor = LineEditor::new("> ");
    let mut bytes = vec![b'x'; 64 * 1024];
    bytes.extend(b"\nlsmem\n");
    let (events, _) = type_into(&mut editor, &bytes);
    assert_eq!(events, [Event::TooLong, Event::Line("lsmem".into())]);
}

#[test]
fn the_longest_line_is_taken() {
    let mut bytes = vec![b'x'; MAX_LINE];
    bytes.push(b'\n');
    assert_eq!(lines(&bytes)[0].len(), MAX_LINE);
}

#[test]
fn a_long_line_is_redrawn_in_a_window_around_the_cursor() {
    let mut editor = LineEditor::new("> ");
    type_into(&mut editor, &[b'x'; 200]);
    assert_eq!(editor.view().cursor, COLUMNS - 1);
    type_into(&mut editor, b"\x01");
    assert_eq!(editor.view().cursor, 2);
    assert_eq!(editor.view().text.len(), COLUMNS - 1);
}

proptest! {
    #[test]
    fn any_bytes_leave_an_editor_that_works(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let mut editor = LineEditor::new("> ");
        type_into(&mut editor, &bytes);
        let view = editor.view();
        prop_assert!(view.cursor <= view.text.chars().count());
        let (events, _) = type_into(&mut editor, b"\x03lsmem\n");
        prop_assert_eq!(events.last(), Some(&Event::Line("lsmem".into())));
    }

    #[test]
    fn editing_keys_draw_what_the_line_holds(keys in prop::collection::vec(
        prop::sample::select(vec![
            &b"a"[..], b"bc ", b"\x7f", b"\x1b[D", b"\x1b[C", b"\x01", b"\x05", b"\x0b", b"\x15", b"\x17",
            b"\x04", b"\x1b[1;5D", b"\x1bf", b"\x1bd", "ż".as_bytes(),
        ]),
        0..60,
    )) {
        let mut editor = LineEditor::new("> ");
        let mut all = String::from("> ");
        for key in keys {
            all.push_str(&type_into(&mut editor, key).1);
            let view = editor.view();
            if view.text.chars().count() < COLUMNS - 1 {
                prop_assert_eq!(row(&all), (view.text, view.cursor));
            }
        }
    }
}

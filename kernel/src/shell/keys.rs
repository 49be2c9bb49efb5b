//! Turns the bytes of a terminal, or of a script that pretends to be one, into keys.
//!
//! The decoder never waits: a sequence that stays unfinished is dropped by the next control character,
//! so that no line end is ever swallowed by the garbage before it.

/// What a byte sequence asks the line editor to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Char(char),
    Enter,
    Tab,
    Backspace,
    Delete,
    /// Ctrl-D: delete, or nothing on an empty line.
    EndOfInput,
    Left,
    Right,
    WordLeft,
    WordRight,
    Home,
    End,
    Previous,
    Next,
    KillToEnd,
    KillToStart,
    KillWordLeft,
    KillWordRight,
    ClearScreen,
    Interrupt,
}

/// The keys that one byte completes: a broken UTF-8 sequence and the key that broke it are two.
pub(crate) type Keys = heapless::Vec<Key, 2>;

const ESCAPE: u8 = 0x1b;
const DELETE: u8 = 0x7f;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ground,
    Escape,
    /// `ESC [`, with the last number seen and whether anything has followed the bracket.
    Control {
        number: u16,
        empty: bool,
    },
    /// `ESC O`, or the Linux console's `ESC [ [`: one more byte belongs to it.
    Single {
        arrows: bool,
    },
    /// The first bytes of a UTF-8 character.
    Partial {
        bytes: [u8; 4],
        seen: usize,
        wanted: usize,
    },
}

/// The state between two bytes.
#[derive(Debug)]
pub(crate) struct Decoder {
    state: State,
    after_carriage_return: bool,
}

impl Decoder {
    pub(crate) const fn new() -> Self {
        Self { state: State::Ground, after_carriage_return: false }
    }

    /// Takes the next byte.
    pub(crate) fn feed(&mut self, byte: u8) -> Keys {
        let second_half_of_line_end = byte == b'\n' && self.after_carriage_return;
        self.after_carriage_return = byte == b'\r';
        let mut keys = Keys::new();
        if second_half_of_line_end {
            return keys;
        }
        if let State::Partial { bytes, seen, wanted } = self.state {
            if byte & 0xc0 == 0x80 {
                self.continue_character(bytes, seen, wanted, byte, &mut keys);
                return keys;
            }
            self.state = State::Ground;
            push(&mut keys, Key::Char(char::REPLACEMENT_CHARACTER));
        }
        if let Some(key) = self.feed_start(byte) {
            push(&mut keys, key);
        }
        keys
    }

    fn feed_start(&mut self, byte: u8) -> Option<Key> {
        if byte < 0x20 && byte != ESCAPE {
            self.state = State::Ground;
            return Some(control(byte));
        }
        match self.state {
            State::Ground | State::Partial { .. } => self.ground(byte),
            State::Escape => self.escape(byte),
            State::Control { number, empty } => self.control_sequence(number, empty, byte),
            State::Single { arrows } => {
                self.state = if byte == ESCAPE { State::Escape } else { State::Ground };
                if arrows { cursor_key(byte, 0) } else { None }
            }
        }
    }

    fn ground(&mut self, byte: u8) -> Option<Key> {
        match byte {
            ESCAPE => {
                self.state = State::Escape;
                None
            }
            DELETE => Some(Key::Backspace),
            0x20..0x7f => Some(Key::Char(char::from(byte))),
            0xc2..=0xdf => self.begin_character(byte, 2),
            0xe0..=0xef => self.begin_character(byte, 3),
            0xf0..=0xf4 => self.begin_character(byte, 4),
            _ => Some(Key::Char(char::REPLACEMENT_CHARACTER)),
        }
    }

    fn begin_character(&mut self, byte: u8, wanted: usize) -> Option<Key> {
        self.state = State::Partial { bytes: [byte, 0, 0, 0], seen: 1, wanted };
        None
    }

    fn continue_character(&mut self, mut bytes: [u8; 4], seen: usize, wanted: usize, byte: u8, keys: &mut Keys) {
        bytes[seen] = byte;
        let seen = seen + 1;
        if seen < wanted {
            self.state = State::Partial { bytes, seen, wanted };
            return;
        }
        self.state = State::Ground;
        let decoded = core::str::from_utf8(&bytes[..wanted]).ok().and_then(|text| text.chars().next());
        let printable = decoded.filter(|c| !c.is_control());
        push(keys, Key::Char(printable.unwrap_or(char::REPLACEMENT_CHARACTER)));
    }

    fn escape(&mut self, byte: u8) -> Option<Key> {
        self.state = match byte {
            ESCAPE => State::Escape,
            b'[' => State::Control { number: 0, empty: true },
            b'O' => State::Single { arrows: true },
            _ => State::Ground,
        };
        match byte {
            b'b' => Some(Key::WordLeft),
            b'f' => Some(Key::WordRight),
            b'd' => Some(Key::KillWordRight),
            DELETE => Some(Key::KillWordLeft),
            _ => None,
        }
    }

    fn control_sequence(&mut self, number: u16, empty: bool, byte: u8) -> Option<Key> {
        self.state = match byte {
            ESCAPE => State::Escape,
            b'[' if empty => State::Single { arrows: false },
            b'0'..=b'9' => {
                let number = number.saturating_mul(10).saturating_add(u16::from(byte - b'0'));
                State::Control { number, empty: false }
            }
            0x20..0x40 => State::Control { number: 0, empty: false },
            _ => State::Ground,
        };
        if self.state != State::Ground {
            return None;
        }
        match (byte, number) {
            (b'~', 1 | 7) => Some(Key::Home),
            (b'~', 4 | 8) => Some(Key::End),
            (b'~', 3) => Some(Key::Delete),
            (b'~', _) => None,
            _ => cursor_key(byte, number),
        }
    }
}

/// The keys that `ESC [` and `ESC O` share; a number is the modifier (3 is Alt, 5 is Ctrl).
fn cursor_key(byte: u8, modifier: u16) -> Option<Key> {
    let by_word = matches!(modifier, 3 | 5);
    match byte {
        b'A' => Some(Key::Previous),
        b'B' => Some(Key::Next),
        b'C' if by_word => Some(Key::WordRight),
        b'D' if by_word => Some(Key::WordLeft),
        b'C' => Some(Key::Right),
        b'D' => Some(Key::Left),
        b'H' => Some(Key::Home),
        b'F' => Some(Key::End),
        _ => None,
    }
}

fn control(byte: u8) -> Key {
    match byte {
        0x01 => Key::Home,
        0x02 => Key::Left,
        0x03 => Key::Interrupt,
        0x04 => Key::EndOfInput,
        0x05 => Key::End,
        0x06 => Key::Right,
        0x08 => Key::Backspace,
        b'\t' => Key::Tab,
        b'\n' | b'\r' => Key::Enter,
        0x0b => Key::KillToEnd,
        0x0c => Key::ClearScreen,
        0x0e => Key::Next,
        0x10 => Key::Previous,
        0x15 => Key::KillToStart,
        0x17 => Key::KillWordLeft,
        // Not ours: shown in the line, so that the command fails and says why.
        _ => Key::Char(char::REPLACEMENT_CHARACTER),
    }
}

fn push(keys: &mut Keys, key: Key) {
    keys.push(key).expect("a byte completes at most two keys");
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn decode(bytes: &[u8]) -> Vec<Key> {
        let mut decoder = Decoder::new();
        bytes.iter().flat_map(|&byte| decoder.feed(byte)).collect()
    }

    #[test]
    fn each_kind_of_line_end_is_one_enter() {
        assert_eq!(decode(b"\r"), vec![Key::Enter]);
        assert_eq!(decode(b"\n"), vec![Key::Enter]);
        assert_eq!(decode(b"\r\n"), vec![Key::Enter]);
        assert_eq!(decode(b"\r\n\r\n"), vec![Key::Enter; 2]);
        assert_eq!(decode(b"\n\n\r\r"), vec![Key::Enter; 4]);
    }

    #[test]
    fn every_common_spelling_of_a_key_is_known() {
        for home in [&b"\x01"[..], b"\x1b[H", b"\x1bOH", b"\x1b[1~", b"\x1b[7~", b"\x1b[1;2H"] {
            assert_eq!(decode(home), vec![Key::Home], "{home:?}");
        }
        for end in [&b"\x05"[..], b"\x1b[F", b"\x1bOF", b"\x1b[4~", b"\x1b[8~"] {
            assert_eq!(decode(end), vec![Key::End], "{end:?}");
        }
        assert_eq!(decode(b"\x1b[3~\x7f\x08"), vec![Key::Delete, Key::Backspace, Key::Backspace]);
        assert_eq!(decode(b"\x1b[A\x1bOB"), vec![Key::Previous, Key::Next]);
        assert_eq!(decode(b"\x1b[1;5D\x1bf"), vec![Key::WordLeft, Key::WordRight]);
    }

    #[test]
    fn unknown_sequences_vanish_without_leaving_characters() {
        assert_eq!(decode(b"\x1b[200~a\x1b[[Ab\x1b[38;5;1mc"), "abc".chars().map(Key::Char).collect::<Vec<_>>());
    }

    #[test]
    fn an_unfinished_sequence_never_swallows_the_line_end() {
        for start in [&b"\x1b"[..], b"\x1b[", b"\x1b[1;", b"\x1bO", b"\x1b[["] {
            let mut bytes = start.to_vec();
            bytes.push(b'\n');
            assert_eq!(decode(&bytes), vec![Key::Enter], "{start:?}");
        }
    }

    #[test]
    fn characters_beyond_ascii_arrive_whole() {
        let keys: Vec<Key> = "zażółć→🦀".chars().map(Key::Char).collect();
        assert_eq!(decode("zażółć→🦀".as_bytes()), keys);
    }

    #[test]
    fn bytes_that_are_no_text_become_visible() {
        let bad = Key::Char(char::REPLACEMENT_CHARACTER);
        assert_eq!(decode(b"\0a"), vec![bad, Key::Char('a')]);
        assert_eq!(decode(b"\xc3\n"), vec![bad, Key::Enter]);
        assert_eq!(decode(b"\xed\xa0\x80"), vec![bad]);
        assert_eq!(decode(b"\xff\x80"), vec![bad, bad]);
    }

    proptest! {
        #[test]
        fn any_bytes_decode_to_printable_characters_or_keys(bytes: Vec<u8>) {
            for key in decode(&bytes) {
                if let Key::Char(c) = key {
                    prop_assert!(!c.is_control());
                }
            }
        }
    }
}
